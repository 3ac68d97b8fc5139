"""Connections that arrive on the agents' socket: one per agent for orders and reports, one per environment for invocations.

The first frame says which it is. Orders for an instance whose agent has not reported yet wait for it. A connection that does not introduce itself
properly is dropped: only our own executors have business on this socket, which lies in a folder of the server's user.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from lambstead.link.connection import LinkConnection
from lambstead.link.frames import MAX_BODY_BYTES, PROTOCOL_VERSION, Frame, Kind
from lambstead.link.messages import (
    AgentHello,
    FromAgent,
    Hello,
    StartEnvironment,
    ToAgent,
    decode_control,
    encode_control,
)

log = logging.getLogger(__name__)

INTRODUCTION_S = 10.0
"""How long a TCP connection may take to say who it is."""
MAX_INTRODUCTION_BYTES = 4096
"""What it may say until then."""

L = TypeVar("L")
"""A link as its taker knows it."""

_hello = msgspec.json.Decoder(Hello)


class Links(Protocol[L]):
    """Who takes the environments' connections: the invoke path."""

    def link_arrived(
        self, environment_id: str, connection: LinkConnection, *, is_worker: bool, is_remote: bool
    ) -> L | None: ...
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
        self._tcp: asyncio.Server | None = None
        self._tokens: dict[str, str] = {}
        self._homes: dict[str, str] = {}
        """The instance that each environment was ordered from."""

    async def listen(self, socket: Path) -> None:
        """Accept connections on the Unix socket at `socket`, and later those of environments in the same folder."""
        self._folder = socket.parent
        socket.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Arrival(self).connection, str(socket)
        )
        socket.chmod(0o600)

    async def listen_tcp(self, host: str, port: int = 0) -> str:
        """Accept agents over TCP, and from now on none of their workers otherwise; HOST:PORT where they find us."""
        self._tcp = await asyncio.get_running_loop().create_server(
            lambda: _Arrival(self, is_remote=True).connection, host, port
        )
        address = self._tcp.sockets[0].getsockname()
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"

    def new_token(self, instance_id: str) -> str:
        """The secret by which connections of this instance will be known."""
        self._tokens[instance_id] = secrets.token_urlsafe(32)
        return self._tokens[instance_id]

    async def open_door(self, environment_id: str) -> Path | None:
        """A socket on which only this environment's workers connect: being able to is what makes them its workers.

        None where agents come over TCP: they open one for their workers and pass on what they say.
        """
        if self._tcp is not None:
            return None
        path = self._folder / f"{environment_id}.sock"
        self._doors[environment_id] = await asyncio.get_running_loop().create_unix_server(
            lambda: _Arrival(self, environment_id).connection, str(path)
        )
        path.chmod(0o600)
        return path

    def close_door(self, environment_id: str) -> None:
        """The environment is over; nobody may connect for it any more."""
        self._homes.pop(environment_id, None)
        door = self._doors.pop(environment_id, None)
        if door is not None:
            door.close()
            (self._folder / f"{environment_id}.sock").unlink(missing_ok=True)

    def send(self, instance_id: str, message: ToAgent) -> None:
        """Give an order to an agent, now or as soon as it reports."""
        if isinstance(message, StartEnvironment):
            self._homes[message.environment_id] = instance_id
        connection = self._connected.get(instance_id)
        if connection is None:
            self._held.setdefault(instance_id, []).append(message)
        else:
            connection.send(Kind.CONTROL, 0, b"", encode_control(message))

    def forget(self, instance_id: str) -> None:
        """The instance is gone; nothing is held for it any more."""
        self._held.pop(instance_id, None)
        self._tokens.pop(instance_id, None)

    async def close(self) -> None:
        for server in (self._server, self._tcp):
            if server is not None:
                server.close()
        for environment_id in list(self._doors):
            self.close_door(environment_id)
        for connection in list(self._connected.values()):
            connection.close()

    # --- arrivals ------------------------------------------------------------------------------------------------------

    def introduce(
        self, connection: LinkConnection, frame: Frame, door: str | None, *, is_remote: bool
    ) -> "_Peer | None":
        """Who the first frame says the peer is.

        None if it makes no sense, came through a door that is not its own, or over TCP without the secret of its instance.
        """
        try:
            if frame.kind is Kind.HELLO:
                hello = _hello.decode(frame.head)
                if hello.version != PROTOCOL_VERSION or door not in (None, hello.environment_id):
                    return None
                if is_remote and not (
                    self._homes.get(hello.environment_id) == hello.instance_id
                    and self._knows(hello.instance_id, hello.token)
                ):
                    return None
                is_worker = hello.is_worker if is_remote else door is not None
                link = self._links.link_arrived(
                    hello.environment_id, connection, is_worker=is_worker, is_remote=is_remote
                )
                return None if link is None else _EnvironmentPeer(self._links, link)
            if frame.kind is Kind.CONTROL and door is None:
                message = decode_control(frame.payload)
                if isinstance(message, AgentHello) and message.version == PROTOCOL_VERSION:
                    if is_remote and not self._knows(message.instance_id, message.token):
                        return None
                    return self._agent(connection, message)
        except msgspec.DecodeError as exc:
            log.warning("agent-introduction-unreadable", extra={"because": str(exc)})
        return None

    def _knows(self, instance_id: str, token: str) -> bool:
        expected = self._tokens.get(instance_id, "")
        return bool(expected) and hmac.compare_digest(expected.encode(), token.encode())

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

    def __init__(self, agents: "Agents[L]", door: str | None = None, *, is_remote: bool = False) -> None:
        self._agents = agents
        self._door = door
        self._is_remote = is_remote
        self._peer: _Peer | None = None
        self._deliver: Callable[[Frame], None] = self._first
        self._patience: asyncio.TimerHandle | None = None
        self.connection = LinkConnection(
            lambda _, frame: self._deliver(frame),
            lambda _, exc: self._lost(exc),
            self._made_over_tcp if is_remote else None,
        )

    def _made_over_tcp(self, connection: LinkConnection) -> None:
        """Anybody may have connected: no time and no memory for whoever does not say who it is."""
        connection.tune_tcp()
        connection.limit_bodies(MAX_INTRODUCTION_BYTES)
        self._patience = asyncio.get_running_loop().call_later(INTRODUCTION_S, connection.abort)

    def _first(self, frame: Frame) -> None:
        self._peer = self._agents.introduce(self.connection, frame, self._door, is_remote=self._is_remote)
        if self._peer is None:
            log.warning("agent-introduction-refused", extra={"kind": frame.kind.name})
            self.connection.abort()
        else:
            self._deliver = self._peer.frame
            self.connection.limit_bodies(MAX_BODY_BYTES)
            self._introduced()

    def _introduced(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def _lost(self, exc: Exception | None) -> None:
        self._introduced()
        if self._peer is not None:
            self._peer.lost(exc)
