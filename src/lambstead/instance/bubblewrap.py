"""The level `sandbox`: an environment in namespaces of its own, made by bubblewrap.

Inside there is what AWS's image has, and nothing else of this machine but its system libraries: `/var/task`, `/var/runtime` and `/opt` read-only, a
`/tmp` of the configured size in memory, own processes, users, host name and IPC, all capabilities dropped, the system calls of `seccomp` refused. Without
egress the network is its own too. Options go through a file descriptor, so that no variable of the function can be read in the process list
or act on bubblewrap itself.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from lambstead.instance import root_directory
from lambstead.instance.isolation import (
    RUNTIME_API_PORT,
    TASK_ROOT,
    TEMP_DIR,
    Confinement,
    Isolation,
    Places,
    ProcessPlan,
    Wish,
)
from lambstead.instance.outside import launched_outside
from lambstead.instance.root_directory import GROUP_ID, USER_ID, Bind, Entry, Folder, Link, Text
from lambstead.instance.seccomp import filter_program

PROGRAM = "bwrap"


def find_program() -> Path | None:
    """Where bubblewrap is; None if it is not installed."""
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def plan_sandbox(wish: Wish, places: Places, isolation: Isolation, program: Path) -> ProcessPlan:
    """The plan at level `sandbox`. The caller starts it and closes its `owned_fds`."""
    confinement = Confinement(
        gate_fd=wish.gate_fd,
        listen_port=RUNTIME_API_PORT if isolation.own_network and not isolation.new_network_outside else 0,
        die_with_pid=0,  # the kernel ends everything with the process id 1 inside, and that with bubblewrap
        open_files=wish.limits.open_files,
        # In a user namespace of its own the kernel counts what was started in there.
        processes=0 if wish.is_in_cgroup else wish.limits.processes,
    )
    fds = _Descriptors()
    options = list(_options(wish, places, isolation, fds))
    arguments_fd = fds.with_content(b"".join(os.fsencode(option) + b"\0" for option in options))
    passed = [wish.gate_fd, *fds.opened, *wish.inherited]
    argv = (str(program), "--args", str(arguments_fd), "--", *wish.command.argv(confinement))
    return ProcessPlan(
        argv=launched_outside(wish, isolation, argv) if isolation.gate_outside else argv,
        working_directory=places.code,
        variables={"PATH": os.defpath, **wish.marks},
        pass_fds=tuple(passed),
        owned_fds=tuple(fds.opened),
        signals_as_status=True,
    )


class _Descriptors:
    """Descriptors that the new process reads from."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    def with_content(self, content: bytes) -> int:
        """One that holds `content`."""
        fd = os.memfd_create("lambstead")
        self.opened.append(fd)
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def _options(wish: Wish, places: Places, isolation: Isolation, fds: _Descriptors) -> Iterator[str]:
    yield from ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    if isolation.own_network and not isolation.new_network_outside:
        yield "--unshare-net"
    yield from ("--uid", str(USER_ID), "--gid", str(GROUP_ID), "--hostname", "lambda")
    yield from ("--die-with-parent", "--cap-drop", "ALL", "--seccomp", str(fds.with_content(filter_program())))
    yield from _entries(root_directory.system(isolation), fds)
    # Read-only: started by root, the function's user is root to the kernel's own files there (sysctl, sysrq), whatever it is called inside.
    yield from ("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev")
    yield from ("--perms", "1777", "--size", str(wish.limits.temp_bytes), "--tmpfs", str(TEMP_DIR))
    yield from _entries(root_directory.own(places), fds)
    yield from ("--remount-ro", "/", "--chdir", str(TASK_ROOT), "--clearenv")
    for name, value in wish.variables.items():
        yield from ("--setenv", name, value)


def _entries(entries: Iterable[Entry], fds: _Descriptors) -> Iterator[str]:
    for entry in entries:
        match entry:
            case Bind(source, name):
                yield from ("--ro-bind", str(source), str(name))
            case Link(name, to):
                yield from ("--symlink", to, str(name))
            case Text(name, content):
                yield from ("--ro-bind-data", str(fds.with_content(content.encode())), str(name))
            case Folder(name):
                yield from ("--dir", str(name))
