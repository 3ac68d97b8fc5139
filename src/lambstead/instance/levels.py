"""Which isolation levels work on this machine, found out by trying each for real.

A sysctl or a version number proves nothing: distributions, containers and security modules forbid at run time what the kernel can do. So a small
process is started at the level exactly as a runtime would be, and must see what it should and not see what it should not.
"""

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from lambstead.core.egress import Egress
from lambstead.core.limits import EnvironmentLimits
from lambstead.instance import bubblewrap, containers
from lambstead.instance.isolation import (
    AUTOMATIC,
    OWN_ROOT,
    Isolation,
    IsolationLevel,
    Places,
    RuntimeCommand,
    Wish,
)
from lambstead.instance.nat import Nat, NatFails
from lambstead.instance.plans import plan_for
from lambstead.instance.runtimes import confinement
from lambstead.instance.runtimes.runtime import launched

TRY_SECONDS = 20.0
"""A level that takes so long to start a process does not work."""
TCP_SINCE = 4
"""Landlock's version that can keep a process from connecting."""

_CHECK = "ls {secret} >/dev/null 2>&1 && exit; test -r {code}/here && : > {temp}/there && echo works"
"""Something beside its own folders must not be there, or not be readable; what is its own must be."""
_CHECK_NAT = "for a in 10.0.2.2 10.0.2.3; do timeout 1 sh -c ': < /dev/tcp/'$a/{port} 2>/dev/null && exit; done; "
"""Our loopback must not be reached by an address that stands for this machine there. (Bash does that; another shell finds no such file.)"""
_LIMITS = EnvironmentLimits.of(memory_mb=128, vcpus=1, ephemeral_storage_mb=512, managed=False)


class LevelFails(Exception):
    """A level does not work here; the message says why, `advice` what would help."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


def strongest() -> IsolationLevel:
    """The strongest level that works, of those that need not be named."""
    for level in AUTOMATIC:
        try:
            try_level(level)
        except LevelFails:
            continue
        return level
    raise AssertionError("the level process always works")


def try_egress(level: IsolationLevel, policy: Egress) -> None:
    """See that the level can enforce the policy. Blocks for tens of milliseconds. Raises LevelFails."""
    if policy == "host":
        return
    if level in OWN_ROOT:
        _start(Isolation(level, policy))
    elif policy == "nat":
        raise LevelFails(
            f"isolation level {level} has no network of the environment's own.",
            f"Use one of the isolation levels {', '.join(sorted(OWN_ROOT))}.",
        )
    elif level == "process" or _landlock_version() < TCP_SINCE:
        raise LevelFails(f"isolation level {level} cannot keep functions from connecting here.")


def try_level(level: IsolationLevel) -> str:
    """What the level gives, in words, once it was seen to work. Blocks for tens of milliseconds. Raises LevelFails."""
    match level:
        case "sandbox":
            return _try_sandbox()
        case "landlock":
            return _try_landlock()
        case "oci" | "gvisor":
            return _try_container(level)
        case "process":
            return "functions are ordinary processes of this user and see its files, processes and network"


def _try_sandbox() -> str:
    if bubblewrap.find_program() is None:
        raise LevelFails(
            "bubblewrap (bwrap) is not installed.", "Install it, for example with `apt install bubblewrap`."
        )
    for isolation in (Isolation("sandbox", "none"), Isolation("sandbox", "host")):
        _start(isolation)
    return "functions have a root directory, processes, users and, without egress, a network of their own"


def _try_container(level: containers.ContainerLevel) -> str:
    program = containers.find_program(level)
    if program is None:
        names = containers.PROGRAMS[level]
        raise LevelFails(
            f"{' or '.join(names)} is not installed.", f"Install one, for example with `apt install {names[0]}`."
        )
    for egress in ("none", "host"):
        _start(Isolation(level, egress))
    kernel = "a kernel of their own, " if level == "gvisor" else ""
    return f"functions have {kernel}a root directory, processes, users and, without egress, a network of their own in containers of {program.name}"


def _try_landlock() -> str:
    version = _landlock_version()
    if not version:
        raise LevelFails("this kernel has no Landlock.", "It needs Linux 5.13 or newer, with landlock among its lsm=.")
    _start(Isolation("landlock"))
    kept = "connect nowhere by TCP without egress, " if version >= TCP_SINCE else ""
    return f"functions open only their own files, {kept}and share process list and network with this user (version {version})"


def _landlock_version() -> int:
    return confinement.landlock_version(ctypes.CDLL(None, use_errno=True)) if sys.platform == "linux" else 0


def _start(isolation: Isolation) -> None:
    """Start a shell as a runtime would be started, that looks at what it sees. Raises LevelFails."""
    with tempfile.TemporaryDirectory(prefix="lambstead-try-") as name, socket.create_server(("127.0.0.1", 0)) as ours:
        folder = Path(name)
        code, temp, secret = folder / "code", folder / "temp", folder / "secret"
        for each in (code, temp, secret):
            each.mkdir()
        (code / "here").touch()
        places = Places(code, None, temp, own_root=isolation.own_root)
        script = _CHECK.format(secret=secret, code=places.task_root, temp=places.temp_dir)
        if isolation.egress == "nat":
            script = _CHECK_NAT.format(port=ours.getsockname()[1]) + script
        command = launched(places, Path("/bin/sh"), "-c", script)
        try:
            output = _run(command, places, isolation, folder)
        except NatFails as exc:
            raise LevelFails(f"{exc}.", "Install one, for example with `apt install slirp4netns`.") from exc
        except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
            raise LevelFails(f"{exc}.") from exc
    if not output.endswith("works\n"):
        words = output.strip().splitlines()
        raise LevelFails(f"{words[-1] if words else 'the process saw what it should not'}.", _advice(output))


def _advice(output: str) -> str:
    if "namespace" in output or "uid map" in output or "Operation not permitted" in output:
        return (
            "User namespaces are forbidden here: see kernel.apparmor_restrict_unprivileged_userns and "
            "user.max_user_namespaces (sysctl), or what a container's seccomp profile allows."
        )
    return ""


def _run(command: RuntimeCommand, places: Places, isolation: Isolation, folder: Path) -> str:
    """What it wrote, once it ended."""
    ours, theirs = socket.socketpair()
    name = f"lambstead-try-{os.getpid()}-{folder.name.rpartition('-')[2]}"
    with ours, theirs, (folder / "output").open("w+b") as output:
        variables = {"PATH": "/usr/bin:/bin"}
        fd = theirs.fileno()
        wish = Wish(command, variables, {}, fd, (), 1, _LIMITS, True, os.getpid(), name, folder)
        plan = plan_for(wish, places, isolation)
        try:
            process = subprocess.Popen(
                plan.argv,
                cwd=plan.working_directory,
                env=dict(plan.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=plan.pass_fds,
            )
        finally:
            for each in plan.owned_fds:
                os.close(each)
        with process:
            try:
                _let_through(ours, process.pid, isolation, folder, process)
            finally:
                process.kill()
        output.seek(0)
        return output.read().decode(errors="replace")


def _let_through(
    gate: socket.socket, pid: int, isolation: Isolation, folder: Path, process: "subprocess.Popen[bytes]"
) -> None:
    """Past every gate, to its end."""
    nat = None
    if isolation.egress == "nat":
        gate.settimeout(TRY_SECONDS)
        _, listeners, _, _ = socket.recv_fds(gate, 1, 1)
        for each in listeners:
            os.close(each)
        nat = Nat.attach(pid, folder, {})
    try:
        gate.send(b"++")
        process.wait(TRY_SECONDS)
    finally:
        if nat is not None:
            nat.close()
