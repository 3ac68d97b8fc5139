"""Watches over the limits and readings of all environments of an agent.

Limits that the kernel enforces need no watching; what is left is memory without `/tmp` (see `core.limits`), and everything where there are no
control groups: there an environment that takes too much is found and ended a moment later.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from lambstead.instance.environment import Environment
from lambstead.instance.readings import Meter, ProcessTree, Usage
from lambstead.link.messages import EnvironmentReading, InstanceReading

WATCH_SECONDS = 0.25
"""How often the limits of environments with a control group are looked at."""
LOOKS_PER_TREE = 2
"""Without control groups, every second look: the whole process table is read."""
LOOKS_PER_READING = 4
"""How often the server hears what environments take: every second."""


class Watch:
    """The watcher of one agent. `run` it for as long as the agent lives."""

    def __init__(self, environments: Mapping[str, Environment], send: Callable[[InstanceReading], None]) -> None:
        self._environments = environments
        self._send = send
        self._tree = ProcessTree()
        self._usages: dict[str, Usage] = {}
        self._meters: dict[str, Meter] = {}

    async def run(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            looks += 1
            self._look(with_tree=looks % LOOKS_PER_TREE == 0)
            if looks % LOOKS_PER_READING == 0:
                self._report()

    def _look(self, *, with_tree: bool) -> None:
        living = {key: each for key, each in self._environments.items() if each.main_pid is not None}
        usages = {key: usage for key, usage in self._usages.items() if key in living}
        without: dict[str, int] = {}
        for key, environment in living.items():
            if environment.cgroup is None:
                without[key] = environment.main_pid or 0
            else:
                with contextlib.suppress(OSError):  # removed: its end is under way
                    usages[key] = environment.cgroup.usage()
        if with_tree and without:
            usages |= self._tree.look(without)
        self._usages = usages
        for key, usage in usages.items():
            living[key].check_limits(usage)

    def _report(self) -> None:
        """Tell the server of those that are ready."""
        ready = {key: each for key, each in self._environments.items() if each.is_ready and key in self._usages}
        self._meters = {key: self._meters.get(key) or Meter(each.limits.granted_cores) for key, each in ready.items()}
        now = time.monotonic()
        readings = []
        for key, meter in self._meters.items():
            metered = meter.read(self._usages[key], now)
            readings.append(
                EnvironmentReading(key, metered.cpu_seconds_total, metered.cpu_utilization, metered.usage.memory_bytes)
            )
        if readings:
            self._send(InstanceReading(readings))
