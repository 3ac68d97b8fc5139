"""The listening side of the port: uvicorn's HTTP protocol on our own event loop.

`uvicorn.Server` wakes ten times a second to look at itself; we use its protocol class directly, so an idle server sleeps but for the clock of the
`Date` header, and stop by telling each connection to finish.
"""

import asyncio
import contextlib
import socket
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from lambstead.server.invoke_protocol import InvokeProtocol, ShortWay

KEEP_ALIVE_S = 75
MAX_HEADER_BYTES = 64 * 1024
BACKLOG = 4096


class PortTaken(Exception):
    """Another process listens where we should; the message says what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise PortTaken(
            f"Port {port} of {host} cannot be used: {exc.strerror}. "
            "Stop what listens there, or choose another port with --port (0 takes a free one)."
        ) from exc
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only the server's user can reach."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def bind_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """So many listening sockets on one port, among which the kernel spreads connections. Raises PortTaken."""
    # A socket that does not share finds out whether the port is free: sharing ones would join those of another server.
    with contextlib.closing(bind(host, port)) as probe:
        port = probe.getsockname()[1]
    listeners = [socket.socket(probe.family, socket.SOCK_STREAM) for _ in range(count)]
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    for listener in listeners:
        listener.listen(BACKLOG)
        listener.setblocking(False)
    return listeners


class HttpServer:
    """Serves one ASGI application on one listening socket, with the short way for Invoke in front of it."""

    def __init__(self, app: Any, short_way: ShortWay) -> None:  # Any: an ASGI application, as uvicorn types it
        self._short_way = short_way
        self._config = Config(
            app,
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._clock: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        self._clock = asyncio.create_task(self._tick(), name="date header")
        if listener.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._protocol, sock=listener, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(self._protocol, sock=listener, backlog=BACKLOG)

    def _protocol(self) -> asyncio.Protocol:
        return InvokeProtocol(self._short_way, config=self._config, server_state=self._state, app_state={})

    async def _tick(self) -> None:
        """Keep the Date header; it needs no better than a second."""
        while True:
            self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1)

    async def stop(self, grace: timedelta) -> None:
        """Accept nothing more, let running requests finish for `grace`, then end what is left."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                await self._drained()
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=1)
        if self._clock is not None:
            self._clock.cancel()

    async def _drained(self) -> None:
        await self._short_way.drained()
        while self._state.tasks:
            await asyncio.wait(list(self._state.tasks))
