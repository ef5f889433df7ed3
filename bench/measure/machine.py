"""What a process and the machine spent: CPU-seconds and memory, from /proc and wait4."""

import os
import time

HZ = os.sysconf("SC_CLK_TCK")


def of_process(pid):
    """User and system CPU-seconds of a living process; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / HZ


def rss_peak_mb(pid):
    """The greatest resident memory of a living process so far, in MB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def busy():
    """CPU-seconds that all of the machine has spent, without idling and waiting for disks."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / HZ


class Load:
    """What the services, and everything that is no part of the run, take from the machine between two moments. `ours` are the pids of
    processes that live at both moments."""

    def __init__(self, services, ours=()):
        self.services, self.ours = list(services), list(ours)
        self.start = self._now()

    def _now(self):
        return time.monotonic(), busy(), sum(map(of_process, self.services)), sum(map(of_process, self.ours))

    def cores(self, ended_cpu_s=0.0):
        """(services, others) in cores. `ended_cpu_s`: what processes of the run that came and went have spent."""
        seconds, all_of_it, services, ours = (now - start for now, start in zip(self._now(), self.start, strict=True))
        others = all_of_it - services - ours - ended_cpu_s
        return round(services / seconds, 2), round(max(0.0, others) / seconds, 2)
