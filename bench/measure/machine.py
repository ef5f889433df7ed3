"""What processes and the machine spent: CPU-seconds and memory, of whole process trees, from /proc."""

import bisect
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


def tree(roots):
    """The processes of these trees."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        if fields := _stat(name):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, left = [], list(roots)
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
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


class Load:
    """What the services, and everything that is no part of the run, take from the machine from now on. `engine`: the roots of the trees
    under measurement; this process and what it starts belong to the run as well."""

    def __init__(self, services, engine=()):
        self.services, self.run = list(services), [os.getpid(), *engine]
        self.start = self._now()

    def _now(self):
        return time.monotonic(), busy(), cpu_s(tree(self.services)), cpu_s(tree(self.run))

    def cores(self):
        seconds, everything, services, run = (now - start for now, start in zip(self._now(), self.start, strict=True))
        return {"services_cores": round(services / seconds, 2), "others_cores": round(max(0.0, everything - services - run) / seconds, 2)}


class Meter(threading.Thread):
    """Samples CPU-seconds and memory of process trees until it is stopped."""

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.times, self.spent_s, self.rss_mb, self.ended = list(roots), [], [], [], threading.Event()
        self._sample()
        self.start()

    def _sample(self):
        pids = tree(self.roots)
        self.spent_s.append(cpu_s(pids))
        self.rss_mb.append(rss_mb(pids))
        self.times.append(time.time())

    def run(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            self._sample()

    def stop(self):
        self.ended.set()
        self.join()
        self._sample()

    def cpu_s(self, at):
        """CPU-seconds spent up to a moment: of the first sample after it."""
        return self.spent_s[min(bisect.bisect_left(self.times, at), len(self.times) - 1)]

    def peak_mb(self):
        return round(max(self.rss_mb))
