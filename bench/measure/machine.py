"""What processes and the machine spent: CPU-seconds and memory, of whole process trees, from /proc."""

import bisect
import collections
import os
import threading
import time

HZ = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.25


def _stat(pid):
    """The fields of /proc/PID/stat from the state on; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def children():
    """The processes that there are, by their parent."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        if fields := _stat(name):
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def tree(roots, by_parent=None):
    """The processes of these trees."""
    by_parent = children() if by_parent is None else by_parent
    found, left = [], list(roots)
    while left:
        found.append(left.pop())
        left += by_parent.get(found[-1], [])
    return found


def cpu_s(pids):
    """User and system CPU-seconds of these processes, with those of children that they have waited for."""
    stats = filter(None, map(_stat, pids))
    return sum(sum(map(int, fields[11:15])) for fields in stats) / HZ


def rss_mb(pids):
    """The resident memory of these processes together, in MB."""
    pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
                pages += int(statm.read().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return pages * PAGE / 1e6


def busy():
    """CPU-seconds that all of the machine has spent, without idling and waiting for disks."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / HZ


# At a moment in seconds since 1970: what the measured trees have spent and hold; what all of the machine, the services and the whole run have
# spent.
Sample = collections.namedtuple("Sample", "at engine_s rss_mb busy_s services_s run_s")


class Meter(threading.Thread):
    """Samples the process trees under measurement, the services, and the machine, until it is stopped. This process and what it starts belong
    to the run as well."""

    def __init__(self, services, roots=()):
        super().__init__(daemon=True)
        self.services, self.roots, self.samples, self.ended = list(services), list(roots), [], threading.Event()
        self._sample()
        self.start()

    def _sample(self):
        by_parent = children()
        engine, services, run = (tree(roots, by_parent) for roots in (self.roots, self.services, [os.getpid(), *self.roots]))
        self.samples.append(Sample(time.time(), cpu_s(engine), rss_mb(engine), busy(), cpu_s(services), cpu_s(run)))

    def run(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            self._sample()

    def stop(self):
        self.ended.set()
        self.join()
        self._sample()

    def _at(self, moment):
        """The first sample from that moment on."""
        samples = self.samples[:]
        return samples[min(bisect.bisect_left(samples, moment, key=lambda sample: sample.at), len(samples) - 1)]

    def cpu_s(self, moment):
        """CPU-seconds that the measured trees have spent up to a moment."""
        return self._at(moment).engine_s

    def cores(self, start, end):
        """Cores that they used between two moments."""
        start, end = self._at(start), self._at(end)
        return (end.engine_s - start.engine_s) / max(end.at - start.at, SAMPLE_SECONDS)

    def others(self, start, end):
        """Cores of the services, and of everything that is no part of the run."""
        start, end = self._at(start), self._at(end)
        seconds = max(end.at - start.at, SAMPLE_SECONDS)
        services = end.services_s - start.services_s
        others = (end.busy_s - start.busy_s) - services - (end.run_s - start.run_s)
        return {"services_cores": round(services / seconds, 2), "others_cores": round(max(0.0, others) / seconds, 2)}

    def peak_mb(self):
        return round(max(sample.rss_mb for sample in self.samples))
