"""What the running lakehouse job shows of its tables: the live page in a headless Chromium (by keyboard, light and dark, wide and narrow) and
/metrics. The rows on the page are those that PyIceberg reads, and so does the line that the job prints for it."""

import json
import re
import shlex
import subprocess
import sys

import product
from paged import SECONDS, WIDTHS, Job, Page, ask, browser, check, measured
from scene import say, until
from warehouse import Warehouse

JOB = "jobs/lakehouse.rs"
TABLE = "gold.top_selling_items"
SETTINGS = {"shop.rate": "400.0", "shop.users": "300", "shop.items": "60", "runtime.checkpoint_interval_ms": "700"}


def play(folder):
    with Job(folder, JOB, SETTINGS) as job:
        address = job.address()
        with browser() as chromium:
            look(Page(chromium, address, folder), Warehouse(job.data / "warehouse"))
        metrics(address)
        job.stop()
        reading_line(job.said())
    with Job(folder, JOB, SETTINGS) as job:
        restored(job.address())
        job.stop()


def cells(table):
    """The rows that a table of the page shows, as texts."""
    return [tuple(row.split("\t")) for row in table.locator("tbody").inner_text().splitlines()]


def look(shows, warehouse):
    shows.open()
    page = shows.page
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
            page.screenshot(path=shows.folder / f"tables-{theme}-{width}.png", full_page=True)
    check(len(colours) == 2, "there is no dark mode")
    shows.is_sound()


def metrics(address):
    documented = set(re.findall(r"^\| `(dataflow_table_\w+)` \|", (product.ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    values, text = measured(address)
    served = set(re.findall(r"^# TYPE (dataflow_table_\S+) ", text, re.MULTILINE))
    check(documented <= served, f"documented only: {sorted(documented - served)}")
    for name, value in ((f'dataflow_table_rows{{table="{TABLE}"}}', 10), ('dataflow_table_retrying{sink="lakehouse"}', 0)):
        check(values.get(name, -1) == value, f"{name} is {values.get(name)}")
    check(values[f'dataflow_table_commits_total{{table="{TABLE}"}}'] > 1, "it was not committed twice")
    status = json.loads(ask(f"{address}/status.json")[1])["status"]
    check(status["retrying"] == {}, f"something is tried again: {status['retrying']}")


def restored(address):
    """A start again says what it has rebuilt before it is ready, and the memory that it takes."""
    until(SECONDS, "the job is ready", lambda: ask(f"{address}/readyz")[0] == 200)
    values = measured(address)[0]
    for of in ("collections", "views"):
        rows, total = (values[f'dataflow_restore_rows{what}{{of="{of}"}}'] for what in ("", "_total"))
        check(rows == total > 200, f"{rows} of {total} rows of {of} are restored")
    check(values["dataflow_restore_seconds"] > 0, "it took no time")
    check(0 < values["dataflow_memory_bytes"] < values["dataflow_memory_limit_bytes"], "the memory is not within its limit")


def reading_line(said):
    """The line that the job prints does what it says, with this Python."""
    found = re.search(r"^to read a table: python3 (.*)$", said, re.MULTILINE)
    check(found, f"no line to read a table: {said[-1000:]}")
    done = subprocess.run([sys.executable, *shlex.split(found[1])], capture_output=True, text=True, check=False)
    read = done.stdout.splitlines()
    check(done.returncode == 0 and read and read[0].startswith("{'"), f"{found[1]}: {done.stdout}{done.stderr[-1000:]}")
    say(f"the printed line reads {len(read)} rows, the first {read[0]}")
