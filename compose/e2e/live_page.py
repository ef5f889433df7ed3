"""What a running job shows: the live page in a headless Chromium (clicked, read, by keyboard, light and dark, wide and narrow), /metrics,
/healthz, /readyz and the log. What the page says is compared with the program's own outputs, read through its command line."""

import json
import os
import re
import subprocess

import product
from paged import SECONDS, WIDTHS, Job, Page, ask, browser, check, measured
from scene import Failure, say, until

VIEWS = ("Overview", "Findings", "Operators", "Epochs", "Sources", "State", "Checkpoints", "Left out")
DETECTORS = ("brute_force", "new_country")
# Traffic with everything in it within seconds: attacks, late records, duplicates, poison, disorder that takes findings back.
TRAFFIC = {"rate": "1000.0", "attacks": "240.0", "disorder": "0.2", "late": "0.01", "duplicates": "0.02", "poison": "0.02", "users": "300"}


def play(folder):
    settings = {f"sources.login-events.{name}": value for name, value in TRAFFIC.items()}
    flags = ["--log-format", "json", "--set", "runtime.checkpoint_interval_ms=1000"]
    with Job(folder, product.JOB, settings, *flags, env={"DATAFLOW_LOG": "info"}) as job:
        address = job.address()
        health(address)
        with browser() as chromium:
            seen = Browser(chromium, address, folder).play(job)
        outputs(job, seen)
        log(job)


def tail(job, topic):
    command = [os.environ["DATAFLOW_BIN"], "tail", product.JOB, topic, *job.arguments[1:]]
    done = subprocess.run(command, cwd=product.ROOT, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def health(address):
    """The endpoints for machines: states, and exactly the metrics that ARCHITECTURE.md names, but for those of tables and their changes, which this job has none of."""
    until(SECONDS, "the job is ready", lambda: ask(f"{address}/readyz")[0] == 200)
    check(ask(f"{address}/healthz") == (200, '{"state":"running"}'), "it is not healthy")
    documented = set(re.findall(r"^\| `(dataflow_\w+)` \|", (product.ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    of_tables = ("dataflow_table_", "dataflow_changes_total", "dataflow_rows", "dataflow_source_transactions_total")
    documented = {name for name in documented if not name.startswith(of_tables)}
    served = set()

    def all_served():
        text = ask(f"{address}/metrics")[1]
        served.update(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
        return served == documented

    try:
        until(SECONDS, "every documented metric is served", all_served)
    except Failure as failure:
        raise Failure(f"{failure}; documented only: {sorted(documented - served)}, served only: {sorted(served - documented)}") from None
    values = measured(address)[0]
    positive = ["dataflow_accepted_total", "dataflow_late_total", "dataflow_checkpoint_bytes", 'dataflow_epoch{stage="committed"}',
                'dataflow_epoch_latency_seconds_count{stage="committed",sink="alerts"}', 'dataflow_sink_rows_total{sink="alerts"}',
                'dataflow_operator_busy_microseconds_total{operator="KeyedHistory logins-by-user",worker="0"}']
    for name in positive:
        check(values.get(name, 0) > 0, f"{name} is {values.get(name)}")


class Browser(Page):
    """The page of the login job."""

    def play(self, job):
        self.open()
        self.numbers()
        self.operator()
        finding = self.finding()
        refused = self.left_out()
        self.themes()
        self.views()
        self.is_sound()
        job.stop()
        self.page.locator("#state", has_text="not answering").wait_for()
        return finding, refused

    def text(self, name):
        return self.page.get_by_role("group", name=name, exact=True).inner_text()

    def numbers(self):
        """Tiles that say what flows."""
        def flows():
            tile = self.text("Records read")
            found = re.search(r"([\d,.]+)/s", tile)
            return found and 500 < float(found[1].replace(",", "")) < 2000
        until(SECONDS, "the page says about 1,000 records a second", flows)
        until(SECONDS, "the page tells the latency to commit", lambda: re.search(r"\d (µs|ms|s)\n", self.text("Latency to commit")))
        until(SECONDS, "the page tells the state's size", lambda: re.search(r"[1-9][\d.]* (KiB|MiB)", self.text("State")))
        until(SECONDS, "findings are counted", lambda: re.search(r"[1-9]", self.text("Findings")))

    def operator(self):
        """An operator of the graph is opened by mouse, read, and closed by keyboard."""
        node = self.page.get_by_role("button", name=re.compile(r"^logins-by-user: .* busy · [\d,.]+"))
        node.click()
        detail = self.page.get_by_role("complementary", name="Details")
        detail.get_by_role("heading", name="logins-by-user").wait_for()
        check(detail.get_by_role("table", name="By worker").locator("tbody tr").count() == 2, "an operator's details are not by worker")
        self.page.keyboard.press("Escape")
        detail.wait_for(state="hidden")
        check(self.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''").startswith("logins-by-user"), "the focus did not go back")

    def finding(self):
        """By keyboard alone: to the findings, to one of them, to its evidence. Returns it."""
        self.page.keyboard.press("2")
        check(self.page.get_by_role("tab", selected=True).inner_text().startswith("Findings"), "key 2 did not open the findings")
        self.page.locator("#view-findings button.row").first.wait_for()
        until(SECONDS, "the timeline has marks", lambda: self.page.locator("#view-findings .mark").count() > 0)
        # A lane comes with its first finding, and the first attack of a kind may be some seconds away.
        for name in DETECTORS:
            lane = self.page.locator("#view-findings .timeline").get_by_text(name.replace("_", " "), exact=True)
            until(SECONDS, f"there is a lane for {name}", lambda lane=lane: lane.count() == 1)
        self.page.get_by_role("button", name=re.compile("^brute force [0-9]")).click()
        self.page.keyboard.press("p")  # still, so that the list does not move under the keys
        self.page.keyboard.press("j")
        self.page.keyboard.press("Enter")
        detail = self.page.get_by_role("complementary", name="Details")
        detail.get_by_role("heading", name=re.compile("Evidence")).wait_for()
        finding = json.loads(detail.locator("pre").inner_text())
        shown = [tuple(row.split("\t")) for row in detail.get_by_role("table", name="Evidence").locator("tbody").inner_text().splitlines()]
        check([(e["topic"], str(e["partition"]), str(e["offset"])) for e in finding["evidence"]] == shown, f"evidence {shown} is not that of {finding}")
        check(finding["detector"] == "brute_force" and shown, f"not the detector that was asked for: {finding}")
        self.page.screenshot(path=self.folder / "evidence.png")
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("p")
        return finding

    def left_out(self):
        """A late record and a dead letter are looked at. Returns them."""
        self.page.keyboard.press("8")
        refused = []
        for table in ("Late records", "Dead letters"):
            self.page.get_by_role("table", name=table).locator("button.row").first.click()
            detail = self.page.get_by_role("complementary", name="Details")
            refused.append(json.loads(detail.locator("pre").last.inner_text()))
            self.page.keyboard.press("Escape")
        counts = self.page.get_by_role("table", name="Counts").inner_text()
        for what in ("late", "duplicate", "dead letter", "undecodable"):
            check(what in counts, f"'{what}' is not counted: {counts}")
        return refused

    def themes(self):
        """As the system, then light, then dark by key, and kept over a reload."""
        colour = lambda: self.page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = colour()
        self.page.emulate_media(color_scheme="dark")
        dark = colour()
        check(light != dark, "the page does not follow the system's theme")
        self.page.keyboard.press("t")
        check(colour() == light, "key t did not make it light")
        self.page.keyboard.press("t")
        self.page.emulate_media(color_scheme="light")
        self.page.reload()
        self.page.locator("#state", has_text="running").wait_for()
        check(colour() == dark, "the theme was not kept")

    def views(self):
        """Each view in both widths and themes: it has content, fits, and everything that can be pressed has a name."""
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 900})
            for number, name in enumerate(VIEWS, 1):
                self.page.keyboard.press(str(number))
                panel = self.page.get_by_role("tabpanel", name=re.compile(f"^{name}"))
                until(SECONDS, f"'{name}' shows numbers", lambda: re.search(r"\d", panel.inner_text()))
                wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                check(wide <= 0, f"'{name}' is {wide} px wider than {width} px")
                nameless = self.page.evaluate("""[...document.querySelectorAll('button, [role=button], [role=tab], [role=img]')]
                    .filter(e => e.checkVisibility() && !(e.getAttribute('aria-label') ?? e.textContent).trim()).map(e => e.outerHTML.slice(0, 90))""")
                check(not nameless, f"'{name}' has controls without a name: {nameless}")
                self.page.screenshot(path=self.folder / f"{number}-{name.lower().replace(' ', '-')}-{width}.png", full_page=True)
            self.page.keyboard.press("t")


def outputs(job, seen):
    """What the page showed is what the job's outputs hold."""
    finding, (late, dead) = seen
    for topic, row in ((product.ANOMALIES, finding), (product.LATE, late), (product.DLQ, dead)):
        check(row in tail(job, topic), f"the page showed a row that is not in {topic}: {row}")


def log(job):
    """Every line of the log is an object that names job, generation and epoch; the program's other lines are no log."""
    lines = [line for line in job.log.read_text().splitlines() if line.startswith("{")]
    rows = [json.loads(line) for line in lines]
    of_job = [row for row in rows if row["target"].startswith("dataflow")]
    messages = [row["message"] for row in of_job]
    for message in ("the job starts", "a checkpoint is complete", "the job has ended"):
        check(message in messages, f"'{message}' is not in the log: {messages[:20]}")
    for row in of_job:
        check(row["job"] == "login_anomalies" and row["generation"] == 1 and isinstance(row["epoch"], int), f"a line does not name its job: {row}")
    epochs = [row["epoch"] for row in of_job]
    check(epochs == sorted(epochs) and epochs[-1] > 0, f"the epochs of the log do not rise: {epochs}")
    say(f"{len(of_job)} lines of log, the last of epoch {epochs[-1]}")
