"""Which processes belong together, and which of them is at the other end of a local connection."""

import contextlib
import os
import socket
import struct
from pathlib import Path

from lambstead.instance.strays import find_strays

_MAPPED = "".join(f"{part:08X}" for part in struct.unpack("=III", bytes(10) + b"\xff\xff"))
"""How the table of IPv6 begins an IPv4 address."""


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
