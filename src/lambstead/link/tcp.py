"""How TCP connections of the invocation link are set up, on both ends."""

import asyncio
import socket

KEEP_ALIVE_IDLE_S = 2
KEEP_ALIVE_EVERY_S = 1
KEEP_ALIVE_PROBES = 3
DEATH_S = KEEP_ALIVE_IDLE_S + KEEP_ALIVE_EVERY_S * KEEP_ALIVE_PROBES
"""How long a peer that says nothing, or acknowledges nothing, is taken for alive."""


def tune(transport: asyncio.BaseTransport) -> None:
    """Send small frames at once, and notice a peer that vanished within `DEATH_S`."""
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere the system's own times hold
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_PROBES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEATH_S * 1000)
