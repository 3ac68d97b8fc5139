"""Workers whose server is not on this host: the agent listens in the server's place and passes frames on, one TCP connection per worker.

    worker ◄── Unix socket ──► WorkerRelay ◄── TCP ──► server

A Unix socket tells more about a death than TCP does, so what the server would have concluded is said in frames: a worker that died idle, or before it read its event,
takes its slot back (SLOTS -1), and the event is answered with REJECT. A worker that died over its event is told by the end of its connection.
"""

import asyncio
import logging
from pathlib import Path

import msgspec

from lambstead.instance.server_address import ServerAddress, connect, introduce
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Reject, Slots

_log = logging.getLogger("lambstead.instance")
_ONE_SLOT_LESS = msgspec.json.encode(Slots(-1))
_NOT_STARTED = msgspec.json.encode(Reject("its worker died before it read the event"))
_ANSWERS = frozenset({Kind.RESULT, Kind.ERROR, Kind.END})


class WorkerRelay:
    """The socket of one environment's workers, and the way from there to the server."""

    def __init__(self, server: ServerAddress, instance_id: str, environment_id: str) -> None:
        self.server = server
        self.instance_id = instance_id
        self.environment_id = environment_id
        self._listener: asyncio.Server | None = None
        self._relayed: set[_Relayed] = set()

    async def listen(self, path: Path) -> None:
        """Accept the environment's workers."""
        self._listener = await asyncio.get_running_loop().create_unix_server(self._arrival, str(path))
        path.chmod(0o600)

    def close(self) -> None:
        """The environment is over."""
        if self._listener is not None:
            self._listener.close()
        for relayed in list(self._relayed):
            relayed.close()

    def forget(self, relayed: "_Relayed") -> None:
        self._relayed.discard(relayed)

    def _arrival(self) -> LinkConnection:
        relayed = _Relayed(self)
        self._relayed.add(relayed)
        return relayed.worker


class _Relayed:
    """One worker. It runs one event at a time, so what is on its way through here is bounded by one event and one answer."""

    def __init__(self, relay: WorkerRelay) -> None:
        self._relay = relay
        self.worker = LinkConnection(self._from_worker, self._worker_lost)
        self._server = LinkConnection(self._from_server, self._server_lost)
        self._connecting: asyncio.Task[None] | None = None
        self._early: list[Frame] = []
        self._running = 0
        """The event that the worker has and has not answered; 0 for none."""
        self._is_idle = False
        """Its slot is promised to the server and no event has come for it."""

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        self.worker.close()
        self._server.close()

    # --- the worker's side -----------------------------------------------------------------------------------------------

    def _from_worker(self, link: LinkConnection, frame: Frame) -> None:
        if frame.kind is Kind.HELLO:
            self._connecting = asyncio.create_task(self._connect(), name="relay of a worker")
        elif self._server.is_open:
            self._pass_on(frame)
        else:
            self._early.append(frame)  # nothing but its first slot: it gets no event before

    async def _connect(self) -> None:
        relay = self._relay
        try:
            await connect(relay.server, lambda: self._server)
        except OSError as exc:
            _log.warning("relay_unconnected: %s: %s", relay.server, exc)
            self.worker.close()
            return
        introduce(self._server, relay.server, relay.instance_id, relay.environment_id, worker=True)
        if not self.worker.is_open:
            self._server.close()
        for frame in self._early:
            self._pass_on(frame)
        self._early.clear()

    def _pass_on(self, frame: Frame) -> None:
        if frame.kind in _ANSWERS:
            self._running = 0
        elif frame.kind is Kind.SLOTS:
            self._is_idle = True
        self._server.send(frame.kind, frame.stream, frame.head, frame.payload)

    def _worker_lost(self, link: LinkConnection, exc: Exception | None) -> None:
        if not self._server.is_open:
            self._relay.forget(self)
        elif self._running and isinstance(exc, ConnectionResetError | BrokenPipeError):
            self._server.send(Kind.SLOTS, 0, _ONE_SLOT_LESS)
            self._server.send(Kind.REJECT, self._running, _NOT_STARTED)
        elif self._is_idle:
            self._server.send(Kind.SLOTS, 0, _ONE_SLOT_LESS)  # the server closes, and what crosses this is rejected
        else:
            self._server.close()

    # --- the server's side -------------------------------------------------------------------------------------------------

    def _from_server(self, link: LinkConnection, frame: Frame) -> None:
        if frame.kind is Kind.INVOKE and not self.worker.is_open:
            self._server.send(Kind.REJECT, frame.stream, _NOT_STARTED)
            return
        if frame.kind is Kind.INVOKE:
            self._running, self._is_idle = frame.stream, False
        self.worker.send(frame.kind, frame.stream, frame.head, frame.payload)

    def _server_lost(self, link: LinkConnection, exc: Exception | None) -> None:
        self._relay.forget(self)
        self.worker.close()
