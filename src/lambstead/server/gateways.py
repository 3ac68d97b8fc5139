"""The gateway processes of one server: started, watched, started again, ended.

Each has a listening socket of its own on the same port (SO_REUSEPORT), among which the kernel spreads connections. The server holds the sockets: when a process
dies, connections that were waiting to be accepted wait for its successor and are not lost.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lambstead.server.gateway import Given
from lambstead.server.gateway_calls import GatewayCalls

log = logging.getLogger(__name__)

START_PATIENCE_S = 60.0
"""How long the first start of a gateway process may take."""
STOP_MARGIN_S = 5.0
"""What a process may take to end beyond the time that it gives to running calls."""
RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Before the first restart, the second one, …; the last one is for all that follow."""
STEADY_S = 30.0
"""A process that lived so long has its next restart counted as its first."""


class GatewayNotStarted(Exception):
    """A gateway process ended before it accepted requests, or did not come to that; the message says which."""


@dataclass(slots=True)
class _Process:
    """One of the processes, over all its restarts."""

    given: Given
    listener: socket.socket
    is_ready: asyncio.Event
    process: asyncio.subprocess.Process | None = None
    started: int = 0


class Gateways:
    """See the module. `given` is for every process but for number and listener."""

    def __init__(self, listeners: Sequence[socket.socket], given: Given, calls: GatewayCalls) -> None:
        self._calls = calls
        calls.on_hello = self._hello
        calls.on_lost = self._lost
        self._all = [
            _Process(replace(given, number=number, listener=listener.fileno()), listener, asyncio.Event())
            for number, listener in enumerate(listeners)
        ]
        self.http = given.http
        """Where the processes expect the server's HTTP side."""
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Return once all of them accept requests. Raises GatewayNotStarted."""
        await self._calls.listen(self._all[0].given.calls)
        self._keepers = [
            asyncio.create_task(self._keep(each), name=f"gateway {each.given.number}") for each in self._all
        ]
        try:
            async with asyncio.timeout(START_PATIENCE_S):
                for each in self._all:
                    await each.is_ready.wait()
        except TimeoutError:
            raise GatewayNotStarted(
                f"A gateway process did not accept requests within {START_PATIENCE_S:g} s; its log says why."
            ) from None

    async def stop(self) -> None:
        """Let every process finish what it runs, then end it."""
        self._stopping = True
        for each in self._all:
            _signal(each, signal.SIGTERM)
        if self._keepers:
            patience = self._all[0].given.stop_wait.total_seconds() + STOP_MARGIN_S
            _, left = await asyncio.wait(self._keepers, timeout=patience)
            for each in self._all if left else ():
                _signal(each, signal.SIGKILL)
            for keeper in left:
                keeper.cancel()
            await asyncio.gather(*self._keepers, return_exceptions=True)
        self._calls.close()
        for each in self._all:
            each.listener.close()

    def described(self) -> list[dict[str, object]]:
        """The processes as status shows them."""
        return [
            {
                "number": each.given.number,
                "pid": each.process.pid if each.process else None,
                "state": "Ready" if each.is_ready.is_set() else "Starting",
                "restarts": max(0, each.started - 1),
                "invocations": self._calls.counts[each.given.number],
            }
            for each in self._all
        ]

    async def _keep(self, each: _Process) -> None:
        """Have the process running until the server stops."""
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            each.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lambstead.server.gateway", *each.given.words()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(each.given.listener,),
                start_new_session=True,  # Ctrl-C in the terminal is for the server, which ends its processes in order
            )
            each.started += 1
            status = await each.process.wait()
            if self._stopping:
                return
            failures = 0 if time.monotonic() - began > STEADY_S else failures + 1
            delay = RESTART_DELAYS_S[min(max(failures - 1, 0), len(RESTART_DELAYS_S) - 1)]
            log.error("gateway-ended", extra={"gateway": each.given.number, "status": status, "restart_in_s": delay})
            await asyncio.sleep(delay)

    def _hello(self, number: int) -> None:
        if number < len(self._all):
            self._all[number].is_ready.set()

    def _lost(self, number: int) -> None:
        if number < len(self._all):
            self._all[number].is_ready.clear()


def _signal(each: _Process, number: signal.Signals) -> None:
    if each.process is not None and each.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            each.process.send_signal(number)
