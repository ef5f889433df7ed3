"""A job under steady input: how long a login takes to be seen, and how long the output stays away after kill -9."""

import pathlib
import random
import time

import machine
from scene import BIN, INPUT, START_SECONDS, BenchFailed, Running, status, until

# Before records count: the first checkpoints, and the broker's compiler, which on two cores takes a core for half a minute: until then
# the latency is that of the broker.
WARM_UP_SECONDS = 45
# After the input's end: whatever is on its way has come.
SETTLE_SECONDS = 3
# From a kill; a job that is not back by then has failed.
BACK_SECONDS = 60
# After the kill: until the output has caught up and flows as before.
CALM_SECONDS = 8
HOT, EVEN = "hot key", "even load"
HOT_SHARE = 0.3
# Between kills, at random: a checkpoint is taken every 10 s, and a kill meets every distance from it.
KILL_AFTER_SECONDS = (12.0, 22.0)


def settings(scene):
    # From the end: what earlier runs left in the input is not this run's.
    return ["--set", f"geo={scene.geo}", "--set", "sinks.alerts.start_over=true", "--set", f'sources.{INPUT}.start="latest"']


class Flow:
    """The job, its input, and a reader of its output. `arrivals` is complete after the end."""

    def __init__(self, scene, rate, skew=0.0):
        self.scene, self.rate, self.skew, self.data = scene, rate, skew, scene.data()
        self.arrivals_file = scene.folder / "arrivals.csv"
        self.running = []

    def __enter__(self):
        try:
            self.command = self.scene.job_command("local", self.data, *settings(self.scene))
            self.job = self._start(self.command)
            # Its first binding says from which offsets it reads.
            until(START_SECONDS, "the job binds", lambda: self.job.is_alive("the job") and status(self.data).get("epoch_durable"))
            self.before = self.scene.probe("ends", INPUT)
            self.probe = self.scene.follow(self.arrivals_file)
            self.running.append(self.probe)
            self.feeder, self.feed_command = self.scene.feed(self.rate, self.skew)
            self.running.append(self.feeder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for one in self.running:
            one.kill()
        self.scene.drop(self.data)

    def _start(self, command):
        job = Running(command, self.scene.folder / "job.log", self.scene.env)
        self.running.append(job)
        return job

    def restart(self, command):
        """kill -9 and at once a start; when the kill was sent, in microseconds since 1970."""
        self.job.is_alive("the job")
        killed_us = time.time_ns() // 1000
        self.job.kill()
        self.job = self._start(command)
        return killed_us

    def finish(self):
        """Ends the input, then the reader. The job's own end is not awaited here."""
        for one in (self.feeder, self.job, self.probe):
            one.is_alive("a part of the run")
        self.feeder.kill()
        time.sleep(SETTLE_SECONDS)
        self.probe.end()

    def arrivals(self):
        """When records became visible, in order."""
        with pathlib.Path(self.arrivals_file).open(encoding="utf-8") as lines:
            return [int(line.partition(",")[0]) for line in lines]


def hot_key(scene, options, kind):
    """The same load, even or with a share of it on one user."""
    return latency(scene, options, HOT_SHARE if kind == HOT else 0.0)


def latency(scene, options, skew=0.0):
    with Flow(scene, options.rate, skew) as flow:
        time.sleep(WARM_UP_SECONDS)
        load = machine.Load(scene.service_pids(), [flow.job.pid, flow.feeder.pid, flow.probe.pid])
        cpu, started = machine.of_process(flow.job.pid), time.monotonic()
        time.sleep(options.seconds)
        cpu = (machine.of_process(flow.job.pid) - cpu) / (time.monotonic() - started)
        services, others = load.cores()
        rss = machine.rss_peak_mb(flow.job.pid)
        flow.finish()
        found = scene.probe("latency", INPUT, "--from", flow.before, "--arrivals", flow.arrivals_file,
                            "--warm-up-ms", WARM_UP_SECONDS * 1000)
        if found["missing"] or found["double"] or found["foreign"]:
            raise BenchFailed(f"not what was produced became visible: {found}")
        return found | {"rate": options.rate, "job_cores": round(cpu, 3), "rss_peak_mb": round(rss), "services_cores": services,
                        "others_cores": others, "command": f"{flow.feed_command} & {scene.text_of(flow.command)}"}


def recovery(scene, options):
    """As many kills as repeats, in one run, of each kind in turn: the program itself, and `dataflow run`, which asks cargo first."""
    rng = random.Random(options.seed)
    with Flow(scene, options.rate) as flow:
        direct = flow.command
        launched = scene.job_command("local", flow.data, *settings(scene), program=BIN / "dataflow")
        kinds = {"direct": direct, "launched by cargo": launched}
        kills = []
        for _ in range(options.repeat):
            for kind, command in kinds.items():
                time.sleep(rng.uniform(*KILL_AFTER_SECONDS))
                load = machine.Load(scene.service_pids(), [flow.feeder.pid, flow.probe.pid])
                kills.append((kind, flow.restart(command), load))
                time.sleep(CALM_SECONDS)
                kills[-1] = (*kills[-1][:2], load.cores(machine.of_process(flow.job.pid)))
        flow.finish()
        times = flow.arrivals()
        made = scene.probe("latency", INPUT, "--from", flow.before, "--arrivals", flow.arrivals_file)
        if made["missing"] or made["double"] or made["foreign"]:
            raise BenchFailed(f"not what was produced became visible: {made}")
    runs = {kind: [] for kind in kinds}
    for kind, killed_us, (services, others) in kills:
        gap_start, back = longest_gap(times, killed_us)
        runs[kind].append({"back_s": round((back - killed_us) / 1e6, 3), "silent_before_kill_ms": round((killed_us - gap_start) / 1e3, 1),
                           "services_cores": services, "others_cores": others, "command": scene.text_of(kinds[kind])})
    return runs


def longest_gap(times, killed_us):
    """The longest silence that begins up to a second before a kill or after it: (its beginning, its end). What the dead process had
    committed may still reach the reader after the kill, so the first record after it says nothing."""
    near = [at for at in times if killed_us - 1_000_000 <= at <= killed_us + BACK_SECONDS * 1_000_000]
    calm = killed_us + CALM_SECONDS * 1_000_000
    gaps = [(after - before, before, after) for before, after in zip(near, near[1:], strict=False) if before <= calm]
    if not gaps:
        raise BenchFailed("no output around a kill")
    _, before, after = max(gaps)
    return before, after
