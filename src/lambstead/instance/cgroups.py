"""Control groups: the kernel's limits and accounts of an environment, where this user may make groups.

Version 2 is one tree (below our own group, or beside it where systemd delegated the parent); version 1 has a tree per controller. Whether groups can be
made is found out by making one. Groups are called after instance and environment, so that whoever comes later can clear them away.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lambstead.core.limits import EnvironmentLimits
from lambstead.instance.readings import Usage

PREFIX = "lambstead"
OF_CONTAINER = "-oci"
"""Ends the name of the groups that an OCI runtime makes for its own purposes, in every tree; ours are those without."""
CPU_SHARES = 1_024
"""Version 1's default weight of a group, here that of one vCPU."""
CPU_WEIGHT = 100
"""Version 2's."""
MAX_WEIGHT = 10_000
CPU_PERIOD_US = 100_000
"""Processor time is granted anew every so often; the kernel's default."""
_LEAST_QUOTA_US = 1_000
"""What the kernel accepts."""
_REMOVE_TRIES = 50
_NEEDED = ("memory", "cpu", "pids")
_UNIFIED = ""
"""Stands for the tree of version 2 that many machines have beside those of version 1."""


class Cgroup(Protocol):
    """The group of one environment."""

    def limit(self, limits: EnvironmentLimits) -> None:
        """Set the limits. Raises OSError."""

    def hold_to(self, cores: float) -> None:
        """Let its processes have no more processor time than so many cores give, from now on. Raises OSError."""

    def add(self, pid: int) -> None:
        """Move a process in; what it starts from then on is in too. Raises OSError."""

    def usage(self) -> Usage:
        """What its processes take. Raises OSError once it was removed."""

    @property
    def killed_for_memory(self) -> bool:
        """Whether the kernel killed a process for want of memory."""

    def remove(self) -> None:
        """Kill what is in it and remove it; blocks for milliseconds."""


class Cgroups(Protocol):
    """Where groups of environments are made."""

    @property
    def description(self) -> str:
        """For people."""

    def group(self, name: str) -> Cgroup:
        """Make a group. Raises OSError."""

    def sweep(self, prefix: str) -> None:
        """Remove the groups whose name begins with this."""


def group_name(instance_id: str, environment_id: str) -> str:
    """The name of an environment's group; with no environment, what the groups of an instance begin with."""
    return f"{PREFIX}-{instance_id}-{environment_id}"


def find_cgroups() -> Cgroups | None:
    """Where we can make groups with all the limits we need; None if nowhere."""
    candidates: list[Cgroups] = [*_unified(), *_separate()]
    for candidate in candidates:
        try:
            probe = candidate.group(f"{PREFIX}-probe-{os.getpid()}")
        except OSError:
            continue
        try:
            probe.limit(EnvironmentLimits.of(memory_mb=128, vcpus=1, ephemeral_storage_mb=512, managed=False))
            probe.usage()
        except OSError:
            continue
        finally:
            probe.remove()
        return candidate
    return None


# --- version 2 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Unified:
    folder: Path

    @property
    def description(self) -> str:
        return "control groups v2"

    def group(self, name: str) -> "_UnifiedGroup":
        enabled = (self.folder / "cgroup.subtree_control").read_text().split()
        missing = [f"+{each}" for each in _NEEDED if each not in enabled]
        if missing:
            (self.folder / "cgroup.subtree_control").write_text(" ".join(missing))
        path = self.folder / name
        path.mkdir()
        return _UnifiedGroup(path)

    def sweep(self, prefix: str) -> None:
        for folder in (self.folder, self.folder.parent):
            for path in folder.glob(f"{prefix}*"):
                _remove([path])


@dataclass(frozen=True, slots=True)
class _UnifiedGroup:
    path: Path

    def limit(self, limits: EnvironmentLimits) -> None:
        (self.path / "memory.max").write_text(str(limits.ceiling_bytes))
        with contextlib.suppress(OSError):  # a kernel without swap accounting
            (self.path / "memory.swap.max").write_text("0")
        (self.path / "pids.max").write_text(str(limits.processes))
        (self.path / "cpu.weight").write_text(str(min(MAX_WEIGHT, round(limits.cpu_weight * CPU_WEIGHT))))

    def hold_to(self, cores: float) -> None:
        (self.path / "cpu.max").write_text(f"{_quota_us(cores)} {CPU_PERIOD_US}")

    def add(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    def usage(self) -> Usage:
        cpu, memory = _table(self.path / "cpu.stat"), _table(self.path / "memory.stat")
        return Usage(cpu["usage_usec"] / 1e6, memory["anon"], int((self.path / "pids.current").read_text()))

    @property
    def killed_for_memory(self) -> bool:
        return _table(self.path / "memory.events").get("oom_kill", 0) > 0

    def remove(self) -> None:
        """An OCI runtime makes its groups beside the agent's own group (runc's handling of a relative cgroupsPath)."""
        name = f"{self.path.name}{OF_CONTAINER}"
        _remove([self.path, self.path.with_name(name), self.path.parent.parent / name])


def _unified() -> list[_Unified]:
    mounted = [mount for kind, mount, _ in _mounts() if kind == "cgroup2"]
    own = [path for controllers, path in _own_groups() if not controllers]
    if not mounted or not own:
        return []
    folder = Path(mounted[0] + own[0])
    return [_Unified(each) for each in ([folder] if own[0] == "/" else [folder, folder.parent])]


# --- version 1 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Separate:
    memory: Path
    cpu: Path
    cpuacct: Path
    pids: Path
    every: tuple[Path, ...]
    """These and those of the other trees, in which only an OCI runtime makes groups."""

    @property
    def description(self) -> str:
        return "control groups v1"

    @property
    def _folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((self.memory, self.cpu, self.cpuacct, self.pids)))

    def group(self, name: str) -> "_SeparateGroup":
        for folder in self._folders:
            (folder / name).mkdir(exist_ok=folder is not self.memory)
        of_container = tuple(folder / f"{name}{OF_CONTAINER}" for folder in self.every)
        return _SeparateGroup(self.memory / name, self.cpu / name, self.cpuacct / name, self.pids / name, of_container)

    def sweep(self, prefix: str) -> None:
        for folder in self.every:
            for path in folder.glob(f"{prefix}*"):
                _remove([path])


@dataclass(frozen=True, slots=True)
class _SeparateGroup:
    memory: Path
    cpu: Path
    cpuacct: Path
    pids: Path
    of_container: tuple[Path, ...]

    def limit(self, limits: EnvironmentLimits) -> None:
        (self.memory / "memory.limit_in_bytes").write_text(str(limits.ceiling_bytes))
        with contextlib.suppress(OSError):  # a kernel without swap accounting
            (self.memory / "memory.memsw.limit_in_bytes").write_text(str(limits.ceiling_bytes))
        (self.pids / "pids.max").write_text(str(limits.processes))
        (self.cpu / "cpu.shares").write_text(str(round(limits.cpu_weight * CPU_SHARES)))

    def hold_to(self, cores: float) -> None:
        (self.cpu / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
        (self.cpu / "cpu.cfs_quota_us").write_text(str(_quota_us(cores)))

    def add(self, pid: int) -> None:
        for folder in dict.fromkeys((self.memory, self.cpu, self.cpuacct, self.pids)):
            (folder / "cgroup.procs").write_text(str(pid))

    def usage(self) -> Usage:
        nanoseconds = int((self.cpuacct / "cpuacct.usage").read_text())
        memory = _table(self.memory / "memory.stat")
        return Usage(nanoseconds / 1e9, memory["total_rss"], int((self.pids / "pids.current").read_text()))

    @property
    def killed_for_memory(self) -> bool:
        return _table(self.memory / "memory.oom_control").get("oom_kill", 0) > 0

    def remove(self) -> None:
        _remove([self.memory, self.cpu, self.cpuacct, self.pids, *self.of_container])


def _separate() -> list[_Separate]:
    own = {controller: path for controllers, path in _own_groups() for controller in controllers or [_UNIFIED]}
    folders = {}
    for kind, mount, options in _mounts():
        for controller in own:
            if controller in (options if kind == "cgroup" else [_UNIFIED]):
                folders[controller] = Path(mount + own[controller])
    if not {"memory", "cpu", "cpuacct", "pids"} <= folders.keys():
        return []
    every = tuple(dict.fromkeys(folders.values()))
    return [_Separate(folders["memory"], folders["cpu"], folders["cpuacct"], folders["pids"], every)]


# --- both, and what they share ----------------------------------------------------------------------------------------------------------------


def _quota_us(cores: float) -> int:
    return max(_LEAST_QUOTA_US, round(cores * CPU_PERIOD_US))


def _own_groups() -> list[tuple[list[str], str]]:
    """The groups this process is in: controllers (none: version 2) and path."""
    rows = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    return [(list(filter(None, controllers.split(","))), path) for _, controllers, path in rows]


def _mounts() -> list[tuple[str, str, list[str]]]:
    """Mounted trees of groups: kind, mount point, options. A tree whose root is not the whole tree (a container's) shows our group as its root."""
    rows = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [(row[2], row[1], row[3].split(",")) for row in rows if row[2] in ("cgroup", "cgroup2")]


def _table(path: Path) -> dict[str, int]:
    """A file of names and numbers."""
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


def _remove(folders: list[Path]) -> None:
    """Kill what is left in a group and remove its folders, which takes as long as the kernel needs to bury the dead."""
    for folder in dict.fromkeys(folders):
        for _ in range(_REMOVE_TRIES):
            with contextlib.suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(int(pid), signal.SIGKILL)
            try:
                folder.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.01)
            else:
                break
