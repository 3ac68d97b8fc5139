"""Which process is at the other end of a connection."""

import os
import socket

import pytest

from lambstead.instance.families import owns_connection


@pytest.mark.parametrize(
    ("kind", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")], ids=["ipv4", "mapped"]
)
def test_a_connection_is_its_process_s_whatever_kind_of_socket_it_uses(
    kind: socket.AddressFamily, address: str
) -> None:
    """A JVM connects to 127.0.0.1 through a socket of IPv6."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(kind, socket.SOCK_STREAM) as client:
        client.connect((address, server.getsockname()[1]))
        accepted, peer = server.accept()
        with accepted:
            here = accepted.getsockname()
            assert owns_connection(os.getpid(), "nobody", peer, here)
            assert not owns_connection(1 << 22, "nobody", peer, here)
