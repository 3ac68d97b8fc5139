"""Which process is at the other end of a connection."""

import os
import socket

import pytest

from lambstead.instance import families
from lambstead.instance.families import _asked_inode, _listed_inode, owns_connection


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


@pytest.mark.parametrize("kind", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "mapped"])
def test_the_kernel_s_answer_is_what_its_table_says(kind: socket.AddressFamily) -> None:
    """One is asked for each connection to the Runtime API; reading the table takes the longer the more connections a machine has."""
    address = "127.0.0.1" if kind is socket.AF_INET else "::ffff:127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(kind, socket.SOCK_STREAM) as client:
        client.connect((address, server.getsockname()[1]))
        accepted, peer = server.accept()
        with accepted:
            here = accepted.getsockname()
            inode = str(os.fstat(client.fileno()).st_ino)
            assert _listed_inode(peer, here) == inode
            assert str(_asked_inode(peer, here)) == inode
            assert _asked_inode(here, peer) == os.fstat(accepted.fileno()).st_ino
        listening = server.getsockname()
        assert _asked_inode(listening, ("127.0.0.1", 1)) == 0, "who listens is not who is connected"
    assert _asked_inode(("127.0.0.1", 1), ("127.0.0.1", 2)) == 0


def test_where_the_kernel_cannot_be_asked_its_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_NETLINK_SOCK_DIAG", 31)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, peer = server.accept()
        with accepted:
            with pytest.raises(OSError, match="rotocol"):
                _asked_inode(peer, accepted.getsockname())
            assert owns_connection(os.getpid(), "nobody", client.getsockname(), accepted.getsockname())
