"""CPU time of processes and of the machine, as exact as the system tells it.

On Linux the CPU clock of any process of ours can be read in nanoseconds, threads that ended included; elsewhere psutil reads it in steps of
10 ms. What other processes used meanwhile is what the machine was busy with beyond that: the noise of a measurement, in numbers.
"""

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

TREE_LEVELS = ("server", "agent", "workers")
"""What the levels of a watched tree are in Lambstead: the root, its children, and all below."""


def process_seconds(pid: int) -> float:
    """CPU time of a process so far. Raises psutil.NoSuchProcess."""
    if sys.platform == "linux":
        try:
            return time.clock_gettime_ns((~pid << 3) | 2) / 1e9  # what clock_getcpuclockid(3) answers
        except OSError as exc:
            raise psutil.NoSuchProcess(pid) from exc
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def tree_seconds(root: int | None) -> dict[str, float]:
    """CPU time so far of a process tree, by level; nothing without a root."""
    if root is None:
        return {}
    level = {root: 0}
    used: dict[str, float] = {}
    # children() lists parents before their children.
    for process in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]:
        try:
            depth = 0 if process.pid == root else level.get(process.ppid(), 1) + 1
            seconds = process_seconds(process.pid)
        except psutil.NoSuchProcess:
            continue
        level[process.pid] = depth
        name = TREE_LEVELS[min(depth, len(TREE_LEVELS) - 1)]
        used[name] = used.get(name, 0.0) + seconds
    return used


@dataclass(frozen=True, slots=True)
class Moment:
    """The machine at one time. The difference of two says who used it in between."""

    at: float
    busy: float
    ours: float

    @classmethod
    def now(cls, roots: Iterable[int]) -> "Moment":
        """`roots` are the trees that are measured; this process is ours too."""
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # Guest time is in user time already.
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        ours = time.process_time() + sum(sum(tree_seconds(root).values()) for root in roots)
        return cls(time.monotonic(), busy, ours)

    def others_share(self, since: "Moment") -> float:
        """Share of the machine's CPU time that others used since then, between 0 and 1."""
        whole = (self.at - since.at) * (os.cpu_count() or 1)
        others = (self.busy - since.busy) - (self.ours - since.ours)
        return min(1.0, max(0.0, others / whole)) if whole > 0 else 0.0
