"""Which processes belong together, and which of them is at the other end of a local connection."""

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path

from lambstead.instance.strays import find_strays

_MAPPED = "".join(f"{part:08X}" for part in struct.unpack("=III", bytes(10) + b"\xff\xff"))
"""How the table of IPv6 begins an IPv4 address."""
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_LISTENING = 10
_ANY_STATE = 0xFFFFFFFF
_ANY_SOCKET = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
"""Interface and cookie of a socket that nobody has looked at before."""
_HEADER_BYTES = 16
_INODE_OFFSET = 68
"""Of `idiag_inode` in the kernel's `inet_diag_msg` (linux/inet_diag.h)."""
_ANSWER_SECONDS = 1.0
"""The kernel answers at once; a sandbox that pretends to have netlink might not."""


def family(main: int) -> list[int]:
    """A process and all its descendants, parents before their children; empty if it is gone."""
    found = [main] if os.path.exists(f"/proc/{main}") else []
    for pid in found:  # grows while it is walked
        found += _children(pid)
    return found


def _children(pid: int) -> list[int]:
    """Of every thread, since each may fork."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # ended meanwhile
        for thread in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"{thread.path}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def owns_connection(main: int, mark: str, peer: tuple[str, int], here: tuple[str, int]) -> bool:
    """Whether a process of the environment holds the far end of the IPv4 connection from `peer` to `here` on this machine.

    What left the family (its parent ended) is found by the environment's `mark`.
    """
    inode = _inode(peer, here)
    if inode is None:
        return False
    wanted = f"socket:[{inode}]"
    if any(_holds(pid, wanted) for pid in family(main)):
        return True
    return any(_holds(pid, wanted) for pid in find_strays(mark))


def _inode(peer: tuple[str, int], here: tuple[str, int]) -> str | None:
    """The socket of the far end, as the kernel's table of connections names it."""
    try:
        number = _asked_inode(peer, here)
    except OSError:  # a kernel, or a sandbox around us, without this way to ask
        return _listed_inode(peer, here)
    return str(number) if number else None


def _asked_inode(peer: tuple[str, int], here: tuple[str, int]) -> int:
    """The same asked for by sock_diag(7), which finds one connection among any number; 0 if it is over. Raises OSError."""
    far, near = (socket.inet_aton(host).ljust(16, b"\0") for host, _ in (peer, here))
    ends = struct.pack(">HH16s16s", peer[1], here[1], far, near)
    request = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, _ANY_STATE) + ends + _ANY_SOCKET
    header = struct.pack("=IHHII", _HEADER_BYTES + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_SECONDS)
        kernel.sendto(header + request, (0, 0))
        answer = kernel.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind == _NLMSG_ERROR:
        (error,) = struct.unpack_from("=i", answer, _HEADER_BYTES)
        if -error == errno.ENOENT:
            return 0
        raise OSError(-error, os.strerror(-error))
    state, inode = answer[_HEADER_BYTES + 1], struct.unpack_from("=I", answer, _HEADER_BYTES + _INODE_OFFSET)[0]
    # With no such connection the kernel names who listens on that port.
    return 0 if state == _LISTENING else int(inode)


def _listed_inode(peer: tuple[str, int], here: tuple[str, int]) -> str | None:
    """The same found in the whole table, closed connections included."""
    for table, prefix in (("tcp", ""), ("tcp6", _MAPPED)):  # JVMs speak IPv4 through sockets of IPv6
        ends = f" {prefix}{_hexadecimal(peer)} {prefix}{_hexadecimal(here)} "
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path(f"/proc/net/{table}").read_text().splitlines():
                if ends in line:
                    return line.split()[9]
    return None


def _hexadecimal(address: tuple[str, int]) -> str:
    """As in /proc/net/tcp: the address as a number of this machine's byte order."""
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"


def _holds(pid: int, wanted: str) -> bool:
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:  # ended meanwhile
        for entry in entries:
            with contextlib.suppress(OSError):
                if os.readlink(entry.path) == wanted:
                    return True
    return False
