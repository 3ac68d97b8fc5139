"""How much processor time and memory environments take, read from the process tree.

One look goes over `/proc` once, for all environments of the agent. Processor time is that of living processes and of the children they have waited
for. Memory is the proportional set size: pages that forked workers share count once. It is read again only of processes whose resident size
changed, because the kernel takes a millisecond over it.
"""

import contextlib
import os
from dataclasses import dataclass

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one environment takes at one moment."""

    cpu_seconds: float
    """Since it was started."""
    memory_bytes: int
    processes: int


@dataclass(frozen=True, slots=True)
class Metered:
    """A usage and what it says together with the one before."""

    usage: Usage
    cpu_seconds_total: float
    cpu_utilization: float
    """Share of the cores that the environment was granted, from 0 to 1."""


class Meter:
    """Makes rates out of the usages of one environment.

    The share is one of the grant, or of the machine where that is smaller: an environment that has all cores busy is at 1.
    """

    def __init__(self, cores: float) -> None:
        self._cores = min(cores, float(os.cpu_count() or 1))
        self._total = 0.0
        self._at: float | None = None

    def read(self, usage: Usage, now: float) -> Metered:
        """`now` in seconds of a clock that never goes back. The first reading has nothing to compare with: utilization 0."""
        # A process that nobody waited for takes its share of the sum along when it ends.
        total = max(self._total, usage.cpu_seconds)
        elapsed = now - self._at if self._at is not None else 0.0
        utilization = min(1.0, (total - self._total) / elapsed / self._cores) if elapsed > 0 else 0.0
        self._total, self._at = total, now
        return Metered(usage, total, utilization)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    cpu_ticks: int
    resident_pages: int
    start_ticks: int
    """Of the system's clock; with the pid, it tells processes apart."""


class ProcessTree:
    """Reads the usage of environments by the main process of each."""

    def __init__(self) -> None:
        self._proportional: dict[tuple[int, int], tuple[int, int]] = {}
        """Resident pages and proportional bytes by pid and start, as last read."""

    def look(self, mains: dict[str, int]) -> dict[str, Usage]:
        """Usage by environment id; environments whose main process is gone are left out."""
        processes = _processes()
        children: dict[int, list[_Process]] = {}
        for process in processes.values():
            children.setdefault(process.parent, []).append(process)
        families = {
            environment_id: _family(processes[main], children)
            for environment_id, main in mains.items()
            if main in processes
        }
        seen = {(p.pid, p.start_ticks) for family in families.values() for p in family}
        self._proportional = {key: value for key, value in self._proportional.items() if key in seen}
        return {environment_id: self._usage(family) for environment_id, family in families.items()}

    def _usage(self, family: list[_Process]) -> Usage:
        ticks = sum(process.cpu_ticks for process in family)
        return Usage(ticks / _TICKS_PER_SECOND, sum(self._memory_bytes(process) for process in family), len(family))

    def _memory_bytes(self, process: _Process) -> int:
        key = (process.pid, process.start_ticks)
        pages, size_bytes = self._proportional.get(key, (-1, 0))
        if pages != process.resident_pages:
            size_bytes = _proportional_bytes(process)
            self._proportional[key] = (process.resident_pages, size_bytes)
        return size_bytes


def _family(main: _Process, children: dict[int, list[_Process]]) -> list[_Process]:
    """A process and all its descendants."""
    family = [main]
    for process in family:  # grows while it is walked
        family += children.get(process.pid, [])
    return family


def _processes() -> dict[int, _Process]:
    """Every process that can be read, by pid; zombies take nothing but what they waited for."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                found[int(entry.name)] = _process(int(entry.name))
    return found


def _process(pid: int) -> _Process:
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name may contain anything, so fields are counted from the last bracket: proc_pid_stat(5), from the third field on.
        fields = file.read().rpartition(b")")[2].split()
    return _Process(
        pid=pid,
        parent=int(fields[1]),
        cpu_ticks=sum(map(int, fields[11:15])),
        resident_pages=int(fields[21]),
        start_ticks=int(fields[19]),
    )


def _proportional_bytes(process: _Process) -> int:
    """Proportional set size; the resident size where the kernel does not tell."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return process.resident_pages * _PAGE_BYTES
