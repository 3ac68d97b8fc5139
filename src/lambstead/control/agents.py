"""Connections that arrive on the agents' socket: one per agent for orders and reports, one per environment for invocations.

The first frame says which it is. Orders for an instance whose agent has not reported yet wait for it. A connection that does not introduce itself
properly is dropped: only our own executors have business on this socket, which lies in a folder of the server's user.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from lambstead.link.connection import LinkConnection
from lambstead.link.frames import PROTOCOL_VERSION, Frame, Kind
from lambstead.link.messages import AgentHello, FromAgent, Hello, ToAgent, decode_control, encode_control

log = logging.getLogger(__name__)

L = TypeVar("L")
"""A link as its taker knows it."""

_hello = msgspec.json.Decoder(Hello)


class Links(Protocol[L]):
    """Who takes the environments' connections: the invoke path."""

    def link_arrived(self, environment_id: str, connection: LinkConnection, *, is_worker: bool) -> L | None: ...
    def link_frame(self, link: L, frame: Frame) -> None: ...
    def link_lost(self, link: L, exc: Exception | None) -> None: ...


class Reports(Protocol):
    """Who hears what agents report: provisioning."""

    def agent_reported(self, instance_id: str, message: FromAgent) -> None: ...
    def agent_disconnected(self, instance_id: str) -> None: ...


class Agents(Generic[L]):
    """The server's side of all agent connections. Give it its `reports` before `listen`."""

    def __init__(self, links: Links[L]) -> None:
        self._links = links
        self.reports: Reports | None = None
        self._server: asyncio.Server | None = None
        self._doors: dict[str, asyncio.Server] = {}
        self._folder = Path()
        self._connected: dict[str, LinkConnection] = {}
        self._held: dict[str, list[ToAgent]] = {}

    async def listen(self, socket: Path) -> None:
        """Accept connections on the Unix socket at `socket`, and later those of environments in the same folder."""
        self._folder = socket.parent
        socket.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Arrival(self).connection, str(socket)
        )
        socket.chmod(0o600)

    async def open_door(self, environment_id: str) -> Path:
        """A socket on which only this environment's workers connect: being able to is what makes them its workers."""
        path = self._folder / f"{environment_id}.sock"
        self._doors[environment_id] = await asyncio.get_running_loop().create_unix_server(
            lambda: _Arrival(self, environment_id).connection, str(path)
        )
        path.chmod(0o600)
        return path

    def close_door(self, environment_id: str) -> None:
        """The environment is over; nobody may connect for it any more."""
        door = self._doors.pop(environment_id, None)
        if door is not None:
            door.close()
            (self._folder / f"{environment_id}.sock").unlink(missing_ok=True)

    def send(self, instance_id: str, message: ToAgent) -> None:
        """Give an order to an agent, now or as soon as it reports."""
        connection = self._connected.get(instance_id)
        if connection is None:
            self._held.setdefault(instance_id, []).append(message)
        else:
            connection.send(Kind.CONTROL, 0, b"", encode_control(message))

    def forget(self, instance_id: str) -> None:
        """The instance is gone; nothing is held for it any more."""
        self._held.pop(instance_id, None)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for environment_id in list(self._doors):
            self.close_door(environment_id)
        for connection in list(self._connected.values()):
            connection.close()

    # --- arrivals ------------------------------------------------------------------------------------------------------

    def introduce(self, connection: LinkConnection, frame: Frame, door: str | None) -> "_Peer | None":
        """Who the first frame says the peer is; None if it makes no sense, or came through a door that is not its own."""
        try:
            if frame.kind is Kind.HELLO:
                hello = _hello.decode(frame.head)
                if hello.version != PROTOCOL_VERSION or door not in (None, hello.environment_id):
                    return None
                link = self._links.link_arrived(hello.environment_id, connection, is_worker=door is not None)
                return None if link is None else _EnvironmentPeer(self._links, link)
            if frame.kind is Kind.CONTROL and door is None:
                message = decode_control(frame.payload)
                if isinstance(message, AgentHello) and message.version == PROTOCOL_VERSION:
                    return self._agent(connection, message)
        except msgspec.DecodeError as exc:
            log.warning("agent-introduction-unreadable", extra={"because": str(exc)})
        return None

    def _agent(self, connection: LinkConnection, hello: AgentHello) -> "_Peer":
        self._connected[hello.instance_id] = connection
        peer = _AgentPeer(self, hello.instance_id)
        self.reported(hello.instance_id, hello)
        for message in self._held.pop(hello.instance_id, []):
            self.send(hello.instance_id, message)
        return peer

    def reported(self, instance_id: str, message: FromAgent) -> None:
        assert self.reports is not None
        self.reports.agent_reported(instance_id, message)

    def disconnected(self, instance_id: str) -> None:
        self._connected.pop(instance_id, None)
        assert self.reports is not None
        self.reports.agent_disconnected(instance_id)


class _Peer(Protocol):
    """Whoever introduced itself on a connection."""

    def frame(self, frame: Frame) -> None: ...
    def lost(self, exc: Exception | None) -> None: ...


class _EnvironmentPeer(Generic[L]):
    def __init__(self, links: Links[L], link: L) -> None:
        self._links = links
        self._link = link

    def frame(self, frame: Frame) -> None:
        self._links.link_frame(self._link, frame)

    def lost(self, exc: Exception | None) -> None:
        self._links.link_lost(self._link, exc)


class _AgentPeer(Generic[L]):
    def __init__(self, agents: "Agents[L]", instance_id: str) -> None:
        self._agents = agents
        self._instance_id = instance_id

    def frame(self, frame: Frame) -> None:
        message = decode_control(frame.payload)
        if isinstance(message, FromAgent):
            self._agents.reported(self._instance_id, message)

    def lost(self, exc: Exception | None) -> None:
        self._agents.disconnected(self._instance_id)


class _Arrival(Generic[L]):
    """A connection from accept to end: unknown until its first frame."""

    def __init__(self, agents: "Agents[L]", door: str | None = None) -> None:
        self._agents = agents
        self._door = door
        self._peer: _Peer | None = None
        self._deliver: Callable[[Frame], None] = self._first
        self.connection = LinkConnection(lambda _, frame: self._deliver(frame), lambda _, exc: self._lost(exc))

    def _first(self, frame: Frame) -> None:
        self._peer = self._agents.introduce(self.connection, frame, self._door)
        if self._peer is None:
            log.warning("agent-introduction-refused", extra={"kind": frame.kind.name})
            self.connection.abort()
        else:
            self._deliver = self._peer.frame

    def _lost(self, exc: Exception | None) -> None:
        if self._peer is not None:
            self._peer.lost(exc)
