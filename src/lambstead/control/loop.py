"""The loop under every control task: a ticker that makes it certain and a poke that makes it fast; and the end of what its rounds started."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

log = logging.getLogger(__name__)


class Loop:
    """Runs `reconcile` now, whenever poked, and at least once per tick; `reconcile` may ask to be called sooner.

    A reconcile that raises is logged and tried again at the next tick or poke: what it did not finish, the next one orders again.
    """

    def __init__(self, name: str, reconcile: Callable[[], Awaitable[timedelta | None]], tick: timedelta) -> None:
        self._name = name
        self._reconcile = reconcile
        self._tick = tick
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Reconcile soon; many pokes before it starts are one."""
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._poked.clear()
            wait = self._tick
            try:
                asked = await self._reconcile()
                wait = self._tick if asked is None else min(asked, self._tick)
            except Exception:
                log.exception("reconcile-failed", extra={"loop": self._name})
            # Not `asyncio.wait_for`: when the poke and the cancellation come together, it loses the cancellation (CPython 3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait.total_seconds()):
                    await self._poked.wait()


async def end(tasks: Iterable["asyncio.Task[None]"], grace: timedelta) -> None:
    """Let tasks end for `grace`, cancel those that have not, and return when all have. What they raise is theirs."""
    running = list(tasks)
    if running:
        await asyncio.wait(running, timeout=grace.total_seconds())
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
