"""What the running lakehouse job shows of its tables: the live page in a headless Chromium (by keyboard, light and dark, wide and narrow) and
/metrics. The rows on the page are those that PyIceberg reads, and so does the line that the job prints for it."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import sync_playwright

import product
from live_page import BROWSERS, SECONDS, WIDTHS, ask, check
from scene import Failure, say, until
from warehouse import Warehouse

JOB = "jobs/lakehouse.rs"
TABLE = "gold.top_selling_items"
SETTINGS = {"shop.rate": "400.0", "shop.users": "300", "shop.items": "60", "runtime.checkpoint_interval_ms": "700"}


class Job:
    """The shipped program on a made-up shop, with its page."""

    def __init__(self, folder):
        self.data, self.log = folder / "data", folder / "job.log"
        settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        command = [os.environ["DATAFLOW_BIN"], "run", JOB, "--profile", "embedded", "--data", str(self.data), "--page", "0", *settings]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=product.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self):
        return self.log.read_text(errors="replace")

    def address(self):
        check(self.process.poll() is None, f"the job ended: {self.said()[-2000:]}")
        found = re.search(r"live page: (http://127\.0\.0\.1:\d+)", self.said())
        return found and found[1]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        check(self.process.wait(product.STOP_SECONDS) == 0, f"it did not end well: {self.said()[-2000:]}")


def play(folder):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    check(browser, f"no browser: none of {', '.join(BROWSERS)} is installed; 'scripts/setup browser' installs one")
    with Job(folder) as job:
        address = until(SECONDS, "the page's address is printed", job.address)
        try:
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
                look(chromium, address, folder, Warehouse(job.data / "warehouse"))
                chromium.close()
        except BrowserError as error:
            raise Failure(f"in the browser: {error}") from error
        metrics(address)
        job.stop()
        reading_line(job.said())


def cells(table):
    """The rows that a table of the page shows, as texts."""
    return [tuple(row.split("\t")) for row in table.locator("tbody").inner_text().splitlines()]


def look(chromium, address, folder, warehouse):
    wrong = []
    context = chromium.new_context(viewport={"width": WIDTHS[0], "height": 900}, color_scheme="light")
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(f"console: {message.text}"))
    page.goto(address)
    page.locator("#state", has_text="running").wait_for()
    page.keyboard.press("9")
    check(page.get_by_role("tab", selected=True).inner_text().startswith("Tables"), "key 9 did not open the tables")
    overview = page.get_by_role("table", name="Tables", exact=True)
    until(SECONDS, f"{TABLE} has ten rows", lambda: any(row[:2] == (TABLE, "10") for row in cells(overview)))
    check("lakehouse" in page.get_by_role("table", name="Sinks of tables").inner_text(), "the sink is not named")
    shown = page.get_by_role("table", name=TABLE)

    def same():
        table = warehouse.tables()[TABLE]
        found = table.scan().to_arrow().to_pylist()
        read = sorted(((str(row["item_id"]), row["item_name"], str(row["total_revenue"]), str(row["rank"])) for row in found), key=lambda row: int(row[-1]))
        return read and [(row[0], row[1], row[3], row[4]) for row in cells(shown)] == read

    until(SECONDS, "the page shows the rows that PyIceberg reads", same)
    before = cells(shown)
    until(SECONDS, "the rows change as the shop sells", lambda: cells(shown) != before)
    colours = set()
    for theme in ("light", "dark"):
        page.keyboard.press("t")
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            check(wide <= 0, f"the tables are {wide} px wider than {width} px")
            page.screenshot(path=folder / f"tables-{theme}-{width}.png", full_page=True)
    check(len(colours) == 2, "there is no dark mode")
    check(not wrong, f"in the page: {wrong}")


def metrics(address):
    documented = set(re.findall(r"^\| `(dataflow_table_\w+)` \|", (product.ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    text = ask(f"{address}/metrics")[1]
    served = set(re.findall(r"^# TYPE (dataflow_table_\S+) ", text, re.MULTILINE))
    check(documented <= served, f"documented only: {sorted(documented - served)}")
    values = dict(re.findall(r"^(dataflow_table_\w+\{[^}]*\}) ([-+.\deE]+)$", text, re.MULTILINE))
    for name, value in ((f'dataflow_table_rows{{table="{TABLE}"}}', 10), ('dataflow_table_retrying{sink="lakehouse"}', 0)):
        check(float(values.get(name, -1)) == value, f"{name} is {values.get(name)}")
    check(float(values[f'dataflow_table_commits_total{{table="{TABLE}"}}']) > 1, "it was not committed twice")
    status = json.loads(ask(f"{address}/status.json")[1])["status"]
    check(status["retrying"] == {}, f"something is tried again: {status['retrying']}")


def reading_line(said):
    """The line that the job prints does what it says, with this Python."""
    found = re.search(r"^to read a table: python3 (.*)$", said, re.MULTILINE)
    check(found, f"no line to read a table: {said[-1000:]}")
    done = subprocess.run([sys.executable, *shlex.split(found[1])], capture_output=True, text=True, check=False)
    read = done.stdout.splitlines()
    check(done.returncode == 0 and read and read[0].startswith("{'"), f"{found[1]}: {done.stdout}{done.stderr[-1000:]}")
    say(f"the printed line reads {len(read)} rows, the first {read[0]}")
