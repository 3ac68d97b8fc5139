"""What a new process does to itself before any code of the function runs. Runs inside the environment: standard library only.

Shared by `launcher.py` and `python_bootstrap.py`, which load it by its file. The order matters: the gate first, while the process may still do
everything, so that the agent can put it under its limits before anything of the function exists; then what cannot be taken back.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_CAPABILITIES = 64
_CAPABILITY_VERSION = 0x20080522

_NEW_MOUNTS, _NEW_USER, _NEW_NETWORK = 0x00020000, 0x10000000, 0x40000000
_SET_INTERFACE_FLAGS, _INTERFACE_UP = 0x8914, 1

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH, _RULE_PORT = 1, 2
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | 1 << 1 | _READ_FILE | 1 << 14 | 1 << 15
"""What may be granted on a file that is no folder: execute, write, read, truncate, device control."""
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_CONNECT_TCP = 1 << 1
_CONNECT_SINCE, _SCOPES_SINCE = 4, 6
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1


def confine(confinement: dict[str, Any]) -> None:  # Any: the members of `lambstead.instance.isolation.Confinement`
    """Apply it to this process; returns once the agent lets it go on. Exits where that cannot be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if confinement["is_init"]:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _continue_in_child()
    _unpack(confinement["packed_fds"])
    if confinement["new_network"]:
        _make_network(libc)
    if confinement["die_with_pid"]:
        die_with_parent(libc, confinement["die_with_pid"])
    _wake_politely()
    if confinement["gate_fd"] >= 0:
        _pass_gate(confinement["gate_fd"], confinement["listen_port"], keeps_it=confinement["keeps_gate"])
    if confinement["no_new_privileges"]:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _drop_capabilities(libc)
    _lower_limit(resource.RLIMIT_CORE, confinement["core_bytes"])
    if confinement["open_files"]:
        _lower_limit(resource.RLIMIT_NOFILE, confinement["open_files"])
    if confinement["processes"]:
        _lower_limit(resource.RLIMIT_NPROC, confinement["processes"])
    if confinement["landlock"]:
        restrict_self(libc, **confinement["landlock"])
    _pack(confinement["fds_to_pack"])


def _continue_in_child() -> None:
    """Return in a child; this process reaps whatever ends, and exits as the child does, with 128 + signal if one ended it.

    With process 1 the kernel ends everything in its namespace.
    """
    child = os.fork()
    if not child:
        return
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the gate among them, whose end the agent waits for
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _unpack(numbers: list[int]) -> None:
    """Give 3, 4, … these numbers. The highest first, as each is at least as high as what it was packed to."""
    packed = range(3, 3 + len(numbers))
    for arrived, number in reversed(list(zip(packed, sorted(numbers), strict=True))):
        os.dup2(arrived, number)
    for arrived in set(packed) - set(numbers):
        os.close(arrived)


def _pack(numbers: list[int]) -> None:
    """Give these the numbers 3, 4, …: container runtimes count what they pass on from there."""
    for arrival, number in enumerate(sorted(numbers), 3):
        os.dup2(number, arrival)
    for number in set(numbers) - set(range(3, 3 + len(numbers))):
        os.close(number)


def _make_network(libc: ctypes.CDLL) -> None:
    """A network namespace with its loopback up; an ordinary user needs a user namespace for it, in which it is root. Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    # With mounts of its own, because runc enters the ones that it was started with, which takes rights over them.
    _checked(libc.unshare(_NEW_NETWORK | (_NEW_USER | _NEW_MOUNTS if uid else 0)))
    if uid:
        for name, content in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_INTERFACE_FLAGS, struct.pack("=16sh22x", b"lo", _INTERFACE_UP))


def _wake_politely() -> None:
    """Do not interrupt whoever runs when an event comes in: the server hands out what it has first. Inherited by all that comes of this process.

    A process that the scheduler wakes may take the core from its waker at once. With that, every event the server passes on costs it a switch away
    and back. Shares of the processor are what they were.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # gVisor has no policies of its own, and is under this one itself
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def die_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew our wish
        os.kill(os.getpid(), signal.SIGKILL)


def _pass_gate(gate_fd: int, listen_port: int, *, keeps_it: bool) -> None:
    """Say that we are there, hand over the Runtime API's listener if it is ours to open, and wait."""
    with socket.socket(fileno=os.dup(gate_fd) if keeps_it else gate_fd) as gate:
        if listen_port:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
                listener.bind(("127.0.0.1", listen_port))
                listener.listen(1024)
                socket.send_fds(gate, [b"+"], [listener.fileno()])
        else:
            gate.sendall(b"+")
        if not gate.recv(1):
            sys.exit(0)  # the agent is gone, or the environment is over


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Matters where root runs functions. First the set that `exec` would give back to root, while we may."""
    for capability in range(_CAPABILITIES):
        libc.prctl(
            _PR_CAPBSET_DROP, capability, 0, 0, 0
        )  # fails without privileges, and where there is nothing to give up
    _checked(libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)))


def _lower_limit(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (bound, bound))


def landlock_version(libc: ctypes.CDLL) -> int:
    """The kernel's version of Landlock; 0 if it has none, or it is switched off."""
    return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))))


def restrict_self(libc: ctypes.CDLL, read: list[str], write: list[str], connect_port: int) -> None:
    """Give up every file but those below these, every foreign process, and TCP but to one port (0: keep TCP). Raises OSError."""
    version = landlock_version(libc)
    handled = _ALL_BY_ABI[max(abi for abi in _ALL_BY_ABI if abi <= max(version, 1))]
    network = _CONNECT_TCP if connect_port and version >= _CONNECT_SINCE else 0
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if version >= _SCOPES_SINCE else 0
    attribute = struct.pack("=QQQ", handled, network, scoped)
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _CONNECT_SINCE else 8
    ruleset = _checked(libc.syscall(_CREATE_RULESET, attribute, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    for paths, rights in ((read, _READ), (write, handled & ~_EXECUTE | _READ)):
        for path in paths:
            _allow(libc, ruleset, path, rights & handled)
    if network:
        rule = struct.pack("=QQ", _CONNECT_TCP, connect_port)
        _checked(libc.syscall(_ADD_RULE, ruleset, _RULE_PORT, rule, ctypes.c_uint32(0)))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _checked(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # not every system has every folder
    try:
        granted = rights if os.path.isdir(path) else rights & _FILE_RIGHTS
        rule = struct.pack("=Qi", granted, fd)
        _checked(libc.syscall(_ADD_RULE, ruleset, _RULE_PATH, rule, ctypes.c_uint32(0)))
    finally:
        os.close(fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"confinement failed: {os.strerror(number)}")
    return result
