"""The job is killed -9 at random moments, the broker too, while input flows; half the restarts find the input deleted below the newest
manifest. At the end the four outputs hold every row exactly once, in order."""

import time

import product
import topics
from scene import Failure, say, until

# Where a life ends. They take turns, so that a short run has each of them.
SOON, AFTER_CHECKPOINT, IN_TRANSACTION = "soon after its start", "after a checkpoint", "inside a transaction"
ENDS = (AFTER_CHECKPOINT, IN_TRANSACTION, SOON)
# A manifest is due within a few of the profile's checkpoint intervals.
CHECKPOINT_SECONDS = 120
OUTPUT_SECONDS = 90
# What chance left out is hunted for with this many more kills.
MORE_KILLS_MAX = 20
# A broker that is killed may make the job doubt and stop; a supervisor starts it again. In doubt is no bug, for ever is.
DOUBT_RESTARTS_MAX = 10


def play(scene, options):
    job = scene.product()
    scene.feeder.start()
    job.start()
    scene.progress(job)
    plan = [("job", ENDS[n % len(ENDS)]) for n in range(options.kills)] + [("broker", None)] * options.broker_kills
    scene.rng.shuffle(plan)
    deletions = 0
    for number, (victim, end) in enumerate(plan):
        if victim == "broker":
            kill_broker(scene, job)
        else:
            kill_job(scene, job, end)
            if number % 2 == 1:
                deletions += delete_read_input(scene, job)
            job.start()
    deletions += hunt(scene, job, deletions)
    while scene.feeder.count < options.events:
        scene.running(job)
        time.sleep(0.2)
    inputs, bindings = scene.settle(job)
    counts = scene.verdict(inputs, bindings)
    aborted = scene.aborted_rows()
    say(f"counters: {scene.counters}; rows of aborted transactions {aborted}, records deleted from the input {deletions}")
    if counts["withdrawn"] == 0:
        raise Failure("nothing was withdrawn: the run proves nothing about eager emission")
    if missing := lacking(scene, deletions, options):
        raise Failure(f"the run did not go through everything it has to prove: never seen: {', '.join(missing)}")


def kill_job(scene, job, end):
    """Ends the life as planned."""
    if end == AFTER_CHECKPOINT:
        before = job.manifests()
        until(CHECKPOINT_SECONDS, "a new manifest is written", lambda: scene.running(job) and job.manifests() != before)
        time.sleep(scene.rng.uniform(0, 2))
    elif end == IN_TRANSACTION:
        time.sleep(scene.rng.uniform(0, 2))
        if not topics.await_uncommitted(scene.services.brokers, product.OUTPUTS, OUTPUT_SECONDS):
            scene.running(job)
            raise Failure(f"no output for {OUTPUT_SECONDS} s while input flows; {job.last_lines()}")
    else:
        time.sleep(scene.rng.uniform(0.05, 3))
    code = job.exit_code()
    if code is not None:
        raise Failure(f"the product ended by itself with {code}; {job.last_lines()}")
    say(f"kill -9 of the job, {end}; {scene.feeder.count} records in")
    scene.end_life(job)


def kill_broker(scene, job):
    """Kills the broker and starts it again after a while; a job that doubts and ends is started again, as a supervisor would."""
    time.sleep(scene.rng.uniform(0, 2))
    say(f"kill -9 of the broker; {scene.feeder.count} records in")
    scene.services.kill_broker()
    time.sleep(scene.rng.uniform(0.2, 3))
    scene.services.start_broker()
    for _ in range(DOUBT_RESTARTS_MAX):
        try:
            scene.progress(job)
            return
        except Failure:
            code = job.exit_code()
            if code in (None, 0, product.EXIT_FENCED) or code < 0:
                raise
            say(f"the job ended with {code} after the broker's death; starting it again")
            scene.end_life(job)
            job.start()
    raise Failure(f"the job came to nothing in {DOUBT_RESTARTS_MAX} starts after the broker's death; {job.last_lines()}")


def delete_read_input(scene, job):
    """Deletes the input below the newest manifest: a restart has to do without it. Returns how many records went."""
    offsets = job.manifest_offsets()
    if offsets is None:
        return 0
    gone = topics.delete_read(scene.services.brokers, product.INPUT, offsets)
    say(f"deleted {gone} records of the input, below the newest manifest")
    return gone


def lacking(scene, deletions, options):
    """What the run has not gone through yet. Without kills nothing is restored; without a broker's death nothing may be aborted by
    the job itself, so there rows of aborted transactions in the topics count as well."""
    missing = scene.counters.missing() if options.kills else []
    if "aborted_transactions" in missing and scene.aborted_rows() > 0:
        missing.remove("aborted_transactions")
    if options.kills > 1 and deletions == 0:
        missing.append("deleted input")
    return missing


def hunt(scene, job, deletions):
    """Goes on killing until everything was seen that a run has to prove; bounded. Returns the records deleted on the way."""
    more = 0
    for number in range(MORE_KILLS_MAX):
        scene.progress(job)
        scene.counters.add(job.status())
        if not (missing := lacking(scene, deletions + more, scene.options)):
            break
        say(f"not seen yet: {', '.join(missing)}")
        kill_job(scene, job, AFTER_CHECKPOINT if number % 4 == 3 else IN_TRANSACTION)
        more += delete_read_input(scene, job) if number % 2 else 0
        job.start()
    return more
