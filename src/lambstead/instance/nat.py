"""Egress `nat`: a network of an environment's own, joined to the world by address translation in user space.

slirp4netns, or pasta where only that is installed, opens an interface in the environment's network and carries its connections out as its own. Neither
lets through to this machine's loopback, where Lambstead itself listens. Both need `/dev/net/tun`. Sources: slirp4netns(1), passt(1).
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from lambstead.instance.root_directory import NAMESERVER

PROGRAMS = ("slirp4netns", "pasta")
"""The first that is installed."""
READY_SECONDS = 10.0
"""Both are ready within tens of milliseconds, or never."""
_TUN = Path("/dev/net/tun")
_NETWORK, _ADDRESS, _GATEWAY = "10.0.2.0/24", "10.0.2.100", "10.0.2.2"


class NatFails(OSError):
    """Address translation does not work here; the message says why."""


class Nat:
    """The address translation of one network. It ends with the network's environment: `close` it."""

    def __init__(self, process: subprocess.Popen[bytes], lifeline: int) -> None:
        self._process = process
        self._lifeline = lifeline

    @classmethod
    def attach(cls, pid: int, folder: Path, marks: Mapping[str, str]) -> "Nat":
        """Join the network that process `pid` is in; returns when it works. Blocks for tens of milliseconds. Raises NatFails.

        `folder` is for its files, `marks` are variables by which strays are found.
        """
        program = find_program()
        if program is None:
            raise NatFails(f"neither {' nor '.join(PROGRAMS)} is installed")
        if not os.access(_TUN, os.R_OK | os.W_OK):
            raise NatFails(f"{_TUN} cannot be opened by this user, which {program.name} needs")
        ready = folder / "nat.ready"
        os.mkfifo(ready)
        ready_fd = os.open(ready, os.O_RDWR | os.O_NONBLOCK)
        theirs, lifeline = os.pipe()
        try:
            nat = cls(_start(program, pid, folder, marks, ready_fd, theirs), lifeline)
        except OSError as exc:
            os.close(lifeline)
            raise NatFails(f"{program} cannot be started: {exc}") from exc
        finally:
            os.close(theirs)
        try:
            nat._wait(ready_fd, folder, program.name)
        except NatFails:
            nat.close()
            raise
        finally:
            os.close(ready_fd)
        return nat

    def close(self) -> None:
        """End it; returns when it is gone."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait(self, ready_fd: int, folder: Path, program: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not select.select([ready_fd], [], [], 0.01)[0]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (folder / "nat.log").read_text(errors="replace").strip().splitlines()
                raise NatFails(f"{program}: {said[-1] if said else f'not ready within {READY_SECONDS:g} seconds'}")


def find_program() -> Path | None:
    """Where the program is that translates; None if none is installed."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    return Path(found) if found else None


def _start(
    program: Path, pid: int, folder: Path, marks: Mapping[str, str], ready_fd: int, lifeline: int
) -> subprocess.Popen[bytes]:
    if program.name == "slirp4netns":
        command = _slirp4netns(program, pid, ready_fd, lifeline)
    else:
        command = _pasta(program, pid, folder / "nat.ready")
    with (folder / "nat.log").open("wb") as log:
        return subprocess.Popen(
            command,
            env={"PATH": os.defpath, **marks},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(ready_fd, lifeline),
            start_new_session=True,
        )


def _slirp4netns(program: Path, pid: int, ready_fd: int, lifeline: int) -> list[str]:
    # To confine itself it takes down every mount in a mount namespace of its own. As root, and without one more that shares nothing, mounts of this machine
    # that are shared (those of `ip netns`) go with them.
    apart = [] if os.geteuid() else ["unshare", "--mount"]
    return [
        *apart,
        str(program),
        "--configure",
        "--mtu=65520",
        f"--cidr={_NETWORK}",
        "--disable-host-loopback",
        "--enable-sandbox",
        "--enable-seccomp",
        f"--ready-fd={ready_fd}",
        f"--exit-fd={lifeline}",
        str(pid),
        "tap0",
    ]


def _pasta(program: Path, pid: int, ready: Path) -> list[str]:
    """Addresses as slirp4netns's. By default it would forward the gateway's address and our loopback's ports to this machine's loopback."""
    closed = [option for way in ("-t", "-u", "-T", "-U") for option in (way, "none")]
    addresses = ["--address", _ADDRESS, "--netmask", "24", "--gateway", _GATEWAY, "--dns-forward", NAMESERVER]
    as_root = [] if os.geteuid() else ["--runas", "0:0"]  # else nobody, who may not enter the network
    return [
        str(program),
        "--foreground",
        "--config-net",
        "--ipv4-only",
        "--no-map-gw",
        *closed,
        *addresses,
        *as_root,
        "--pid",
        str(ready),
        str(pid),
    ]
