"""A job with its live page, and that page in a headless Chromium."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import sync_playwright

import product
from scene import Failure, until

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
WIDTHS = (1280, 800)
SECONDS = 30


def check(condition, what):
    if not condition:
        raise Failure(what)


def ask(url):
    """(code, text)."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def measured(address):
    """The values of /metrics by name and labels, and its text."""
    text = ask(f"{address}/metrics")[1]
    return {name: float(value) for name, value in re.findall(r"^(dataflow_\w+(?:\{[^}]*\})?) ([-+.\deE]+)$", text, re.MULTILINE)}, text


class Job:
    """The shipped program on made-up input (profile `embedded`), with its page."""

    def __init__(self, folder, job, settings, *flags, env=()):
        self.data, self.log = folder / "data", folder / "job.log"
        self.arguments = [job, "--profile", "embedded", "--data", str(self.data)]
        self.arguments += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [os.environ["DATAFLOW_BIN"], "run", *self.arguments, "--page", "0", *flags], cwd=product.ROOT, env=os.environ | dict(env),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self):
        return self.log.read_text(errors="replace")

    def address(self):
        """Where the page is, once that is printed."""

        def printed():
            found = re.search(r"live page: (http://127\.0\.0\.1:\d+)", self.said())
            check(self.process.poll() is None, f"the job ended with {self.process.returncode}: {self.said()[-2000:]}")
            return found and found[1]

        return until(SECONDS, "the page's address is printed", printed)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(product.STOP_SECONDS)
        check(code == 0, f"it ended with {code} after SIGINT: {self.said()[-2000:]}")


@contextlib.contextmanager
def browser():
    """A headless Chromium of this machine."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    check(found, f"no browser: none of {', '.join(BROWSERS)} is installed; 'scripts/setup browser' installs one")
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            yield chromium
            chromium.close()
    except BrowserError as error:
        raise Failure(f"in the browser: {error}") from error


class Page:
    """One page, and what went wrong in it."""

    def __init__(self, chromium, address, folder):
        self.address, self.folder, self.wrong = address, folder, []
        self.context = chromium.new_context(viewport={"width": WIDTHS[0], "height": 900}, color_scheme="light")
        self.context.set_default_timeout(SECONDS * 1000)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.wrong.append(f"console: {message.text}"))
        self.page.on("request", lambda request: request.url.startswith((address, "data:")) or self.wrong.append(f"asked {request.url}"))

    def open(self):
        self.page.goto(self.address)
        self.page.locator("#state", has_text="running").wait_for()

    def is_sound(self):
        check(not self.wrong, f"in the page: {self.wrong}")
