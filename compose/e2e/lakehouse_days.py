"""Days that are over, as the cases have them: their epochs are recorded, so what each day's last epoch showed is known. The job is killed -9 at
random moments, the first time with a mail that it could not send: the mail server is away for some of its lives, or does not take what it
is sent. At the end every day's file is what the case expects, byte for byte, and so is the table with the rows of all days; each file was
announced by one mail, which may have come twice only where a kill or a lost answer left it open, and then says the same under the same id.
"""

import collections
import csv
import json
import random
import time

import product
from mail_server import FATES, NOT_SAID, MailServer
from product import Lakehouse, ProductFailed
from scene import Failure, say, until
from services import free_ports
from warehouse import Warehouse, Wrong, bag, check, same

CASES = ("case-1", "case-2", "case-3")
# Of each case.
KILLS = 8
CHECKPOINT_MS = 50
WORKERS = (1, 2, 3)
# Lives that are added where mails have not met all of it yet.
MORE_LIVES_MAX = 20
FATES_EACH = 2
# A case is read within a second.
LIFE_SECONDS = (0.1, 0.8)
# One life in so many is not killed before it has a checkpoint: on a busy machine none may come to one by itself.
EVERY_TO_CHECKPOINT = 3
END_SECONDS = 60
FROM, TO = "dataflow@shop.example", ("marketing@shop.example", "owner@shop.example")
TABLE = "gold.user_engagement_segments"
SEGMENTS = ("high_engagement", "medium_engagement", "low_engagement")


class MailedLakehouse(Lakehouse):
    """The lakehouse over a case with its recorded epochs; it tells of closed days by mail."""

    def __init__(self, case, output, port):
        super().__init__(case, output, CHECKPOINT_MS)
        to = ", ".join(f'"{address}"' for address in TO)
        # Its days are long over.
        self.settings += ["bindings=recorded", "runtime.allow_clock_jump=true",
                          f'sinks.segments.mail={{ smtp = "smtp://127.0.0.1:{port}", from = "{FROM}", to = [{to}] }}']
        self.files = output / "customer-segments" / "segment_users"

    def letters(self):
        """What waits to be sent."""
        return sorted(file.name for file in (self.data / "outbox" / "segments").glob("*.json"))


def play(folder, options):
    rng, seen = random.Random(options.seed), collections.Counter()
    try:
        for case in CASES:
            run(folder / case, product.ROOT / "jobs" / "cases" / case, rng, options.kills, seen)
        needed = ("kills", "lives without a mail server", "lives from a checkpoint", "mails that outlived their process", *FATES)
        missing = [what for what in needed if not seen[what]] if options.kills else []
        check(not missing, f"the run did not go through everything it has to prove: never seen: {', '.join(missing)}")
        say(f"gone through: {dict(seen)}")
    except (ProductFailed, Wrong) as error:
        raise Failure(str(error)) from error


def run(folder, case, rng, kills, seen):
    folder.mkdir()
    (port,) = free_ports(1)
    fates = [*FATES] * FATES_EACH
    rng.shuffle(fates)
    server, number = MailServer(port, fates), 0
    job = MailedLakehouse(case, folder / "output", port)
    try:
        while number < kills or number < kills + MORE_LIVES_MAX and kills and server.fates:
            is_away = number == 0 or rng.random() < 0.2
            if not is_away:
                server.start()
            live(job, rng, seen, number)
            seen["lives without a mail server"] += is_away
            server.stop()
            number += 1
        seen.update(server.met)
        waiting = job.letters()
        server.fates = []
        server.start()
        job.start("--until-end")
        until(END_SECONDS, "the job has read everything and ends", lambda: job.exit_code() is not None)
        check(job.exit_code() == 0, f"the job ended with {job.exit_code()}; {job.last_lines()}")
    finally:
        job.kill()
        server.stop()
    check(not job.letters(), f"letters are left: {job.letters()}")
    expected = case / "expected"
    days = check_files(job, expected / "customer-segments" / "segment_users")
    check_table(job, expected / f"{TABLE}.ndjson")
    repeats = check_mails(server.mails, days, job.files)
    # A kill may fall between the server's answer and the note of it.
    check(repeats <= number + server.met[NOT_SAID], f"{repeats} mails came again, after {number} lives and {server.met}")
    say(f"{case.name}: {len(days)} days, their files, table and mails are exact; {repeats} mails came again, {len(waiting)} waited for the last life")


def live(job, rng, seen, number):
    # That of the life before says nothing of this one.
    (job.data / "status.json").unlink(missing_ok=True)
    job.start("--until-end", "--workers", str(rng.choice(WORKERS)))
    if number == 0:
        until(END_SECONDS, "a mail waits", job.letters, pause=0.002)
    elif number % EVERY_TO_CHECKPOINT == 0:
        until(END_SECONDS, "a checkpoint, or the end", lambda: job.exit_code() is not None or job.status().get("checkpoints"), pause=0.002)
    else:
        time.sleep(rng.uniform(*LIFE_SECONDS))
    code = job.exit_code()
    check(code in (None, 0), f"the job ended by itself with {code}; {job.last_lines()}")
    seen["kills"] += code is None
    seen["lives that came to the end"] += code == 0
    seen["lives from a checkpoint"] += (job.status().get("restored_epoch") or 0) > 0
    job.kill()
    seen["mails that outlived their process"] += len(job.letters())


def check_files(job, expected):
    """{file name: {segment: rows}} of the days."""
    wanted = {file.name: file.read_bytes() for file in expected.iterdir()}
    found = {file.name: file.read_bytes() for file in job.files.iterdir()}
    check(found.keys() == wanted.keys(), f"there are the files {sorted(found)}, expected {sorted(wanted)}")
    for name, content in wanted.items():
        check(found[name] == content, f"{name} is not what the case expects")
    return {name: collections.Counter(row["engagement_segment"] for row in csv.DictReader(content.decode().splitlines()))
            for name, content in wanted.items()}


def check_table(job, expected):
    rows = [json.loads(line) for line in expected.read_text().splitlines()]
    warehouse, columns = Warehouse(job.warehouse), list(rows[0])
    table = warehouse.tables()[TABLE]
    for reader, read in warehouse.readers().items():
        said = collections.Counter()
        for row, times in read(table, columns).items():
            said[tuple(None if value is None else str(value) for value in row)] += times
        wanted = bag(columns, ({name: None if value is None else str(value) for name, value in row.items()} for row in rows))
        same(f"{TABLE}: {reader}, beside the case", said, wanted)


def check_mails(mails, days, folder):
    """Each day has its mail; how many came again."""
    by_id = collections.defaultdict(list)
    for sender, receivers, mail in mails:
        check(sender == FROM and sorted(receivers) == sorted(TO), f"a mail went from {sender} to {receivers}")
        by_id[mail["message-id"]].append((mail["subject"], mail.get_content()))
    said = {}
    for id, copies in by_id.items():
        check(len(set(copies)) == 1, f"mail {id} says different things")
        subject, text = copies[0]
        (name,) = (name for name in days if name in subject)
        check(name not in said, f"{name} has two mails: {id} is another one")
        check(name.removesuffix(".csv") in id, f"the mail of {name} has the id {id}")
        check(str(folder / name) in text, f"the mail of {name} does not say where it is: {text}")
        said[name] = text
    check(said.keys() == days.keys(), f"mails came of {sorted(said)}, expected of {sorted(days)}")
    for name, counts in days.items():
        lines = [line.split() for line in said[name].splitlines()]
        for segment in SEGMENTS:
            check([segment, str(counts[segment])] in lines, f"the mail of {name} does not say {segment} {counts[segment]}: {said[name]}")
    return len(mails) - len(by_id)
