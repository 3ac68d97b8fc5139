"""Where an agent's server is, and how its connections introduce themselves there.

On one host the server listens on a Unix socket in a folder of its user, and being able to connect is proof enough. Across hosts it is a TCP port, and every connection
names its instance and shows the secret that this one agent was given. The end of a TCP connection whose host vanished is found by keep-alive, in `DEATH_S` at most.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lambstead.link.connection import LinkConnection
from lambstead.link.frames import PROTOCOL_VERSION, Kind
from lambstead.link.messages import Hello
from lambstead.link.tcp import tune


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The server is on this host."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """The server is elsewhere, or is to be treated so."""

    host: str
    port: int
    token: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, token: str) -> "TcpAddress":
        """`HOST:PORT`, an IPv6 host in brackets. Raises ValueError."""
        host, colon, port = text.rpartition(":")
        if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{text!r} is not HOST:PORT")
        return cls(host.strip("[]"), int(port), token)


ServerAddress = UnixAddress | TcpAddress


def token_for(server: ServerAddress) -> str:
    """The agent's secret; empty where none is asked for."""
    return server.token if isinstance(server, TcpAddress) else ""


async def connect(server: ServerAddress, protocol: Callable[[], LinkConnection]) -> LinkConnection:
    """A connection to the server. Raises OSError if there is none."""
    loop = asyncio.get_running_loop()
    match server:
        case UnixAddress(path):
            _, link = await loop.create_unix_connection(protocol, str(path))
        case TcpAddress(host, port):
            transport, link = await loop.create_connection(protocol, host, port)
            tune(transport)
    return link


def introduce(
    link: LinkConnection, server: ServerAddress, instance_id: str, environment_id: str, *, worker: bool
) -> None:
    """The first frame of an environment's connection."""
    hello = Hello(PROTOCOL_VERSION, environment_id)
    if isinstance(server, TcpAddress):
        hello = Hello(PROTOCOL_VERSION, environment_id, instance_id, server.token, worker)
    link.send(Kind.HELLO, 0, msgspec.json.encode(hello))
