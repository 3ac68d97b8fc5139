"""The workers of one environment: what takes its invocations, how many of them are left, and what became of the others.

AWS's clients replace none that dies. Workers that speak the link themselves are reported by their main process (`linked_workers`); the one of an
environment on demand speaks it with the agent (`linked_runtime`); of others a dropped connection tells, and counting.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lambstead.core.runtime_api import Connections, InitProgress, is_initialized
from lambstead.instance.folders import Folders
from lambstead.instance.host import Host
from lambstead.instance.invocations import Invocations, Life
from lambstead.instance.isolation import SOCKETS_DIR, Places
from lambstead.instance.linked_runtime import LinkedRuntime
from lambstead.instance.linked_workers import LinkedWorkers
from lambstead.instance.main_process import MainProcess
from lambstead.instance.runtimes.runtime import WRAPPER_VARIABLE, InheritedLink, RuntimeProcess, WorkerLink
from lambstead.instance.worker_relay import WorkerRelay
from lambstead.link.messages import StartEnvironment

RECOUNT_AFTER_SECONDS = 0.5
"""How long after a connection dropped we look whether its worker is still there: a kill shows at once, a reconnection is nothing."""
WORKER_COUNT_TICK_SECONDS = 0.25
"""While init waits for the last polls, living workers are counted this often."""


class WorkersOwner(Life, Protocol):
    """What the workers ask of their environment, and tell it."""

    @property
    def is_ready(self) -> bool:
        """True from the end of init to the end."""

    @property
    def main(self) -> MainProcess | None:
        """Its main process, while it has one."""

    def workers_lost(self, left: int, of: int) -> None:
        """Some ended after init; so many are left."""


class Workers:
    """`link` before the runtime is described, `expect` what it says, then count; `close` at the end."""

    def __init__(
        self, start: StartEnvironment, owner: WorkersOwner, progress: Callable[[], None], *, are_visible: bool
    ) -> None:
        """`progress` is called when init may have come further; `are_visible`: they are processes of this machine's kernel."""
        self._are_visible = are_visible
        self._start = start
        self._owner = owner
        self._progress = progress
        self._all = self._fewest = self._polls = start.max_concurrency
        """`_fewest`: as far as we know."""
        self.connections = Connections.ANONYMOUS
        self._linked: LinkedWorkers | None = None
        self._relay: WorkerRelay | None = None
        """Set when their link is passed on here."""
        self._on_demand: LinkedRuntime | None = None
        """Set when the one worker of an environment on demand speaks the link with us."""

    @property
    def are_linked(self) -> bool:
        """Whether they speak the link themselves."""
        return self._linked is not None

    async def link(
        self, host: Host, places: Places, folders: Folders
    ) -> tuple[WorkerLink | InheritedLink | None, int | None]:
        """What lets them speak the link, and the descriptor that goes to them; neither where they don't."""
        start = self._start
        if start.mode != "managed-instances":
            return await self._link_on_demand()
        path = Path(start.link_path) if start.link_path else None
        if start.relays_workers:
            path = folders.socket("link.sock")
            self._relay = WorkerRelay(host.server, host.instance_id, start.environment_id)
            await self._relay.listen(path)
        if path is None:
            return None, None
        read_fd, write_fd = os.pipe()
        self._linked = LinkedWorkers(read_fd, start.max_concurrency, self._progress, self.lost)
        shown = places.show(path, SOCKETS_DIR / "link.sock")
        return WorkerLink(str(shown), start.environment_id, write_fd), write_fd

    async def _link_on_demand(self) -> tuple[InheritedLink | None, int | None]:
        if not self._start.relays_workers or self._start.variables.get(WRAPPER_VARIABLE):
            return None, None
        self._on_demand = LinkedRuntime(self._owner)
        worker_fd = await self._on_demand.open()
        return InheritedLink(worker_fd), worker_fd

    def serve(self, invocations: Invocations) -> None:
        """What those that speak the link with us poll and answer."""
        if self._on_demand is not None:
            self._on_demand.serve(invocations)

    async def hear_out(self) -> None:
        """The runtime is gone: take what those that speak the link with us sent before."""
        if self._on_demand is not None:
            await self._on_demand.hear_out()

    def expect(self, process: RuntimeProcess) -> None:
        """What the runtime says of them."""
        self.connections = process.connections
        self._all = self._fewest = self._polls = process.polls

    def are_initialized(self, parked: int, alive: int | None) -> bool:
        """Whether enough of them wait for an event; `parked` polls do, and so many are `alive`, where that was looked at."""
        if self._linked is not None:
            return self._linked.is_initialized
        return is_initialized(InitProgress(parked, self._polls, alive))

    async def come_further(self, progress: asyncio.Event, deadline: float, parked: int) -> int | None:
        """Wait for progress of init, but not long; how many are alive, if that is worth looking at."""
        progress.clear()
        try:
            await asyncio.wait_for(progress.wait(), min(deadline - time.monotonic(), WORKER_COUNT_TICK_SECONDS))
        except TimeoutError:
            return self._count() if parked and self.connections is Connections.WORKERS else None
        return None

    def connection_dropped(self) -> None:
        """See soon whether its worker died."""
        if self.connections is Connections.WORKERS and self._owner.is_ready:
            asyncio.get_running_loop().call_later(RECOUNT_AFTER_SECONDS, self._recount)

    def lost(self, left: int) -> None:
        """So many are left."""
        self._fewest = min(self._fewest, left)
        if self._owner.is_ready:
            self._owner.workers_lost(left, self._all)
        else:
            self._progress()

    def close(self) -> None:
        """Listen to them no more."""
        if self._relay is not None:
            self._relay.close()
        if self._on_demand is not None:
            self._on_demand.close()
        if self._linked is not None:
            self._linked.close()

    def _recount(self) -> None:
        """See whether a worker died where its connection could not tell."""
        alive = self._count() if self._owner.is_ready else None
        if alive is not None and alive < self._fewest:
            self.lost(alive)

    def _count(self) -> int | None:
        if not self._are_visible:
            return None
        import psutil  # only needed when workers are missing; its import would slow every start of an agent

        main = self._owner.main
        assert main is not None
        try:
            children = psutil.Process(main.runtime_pid).children()
            return sum(child.status() != psutil.STATUS_ZOMBIE for child in children)
        except psutil.Error:
            return None
