"""The level `sandbox`: an environment in namespaces of its own, made by bubblewrap.

Inside there is what AWS's image has, and nothing else of this machine but its system libraries: `/var/task`, `/var/runtime` and `/opt` read-only, a
`/tmp` of the configured size in memory, own processes, users, host name and IPC, all capabilities dropped, the system calls of `seccomp` refused. Without
egress the network is its own too. Options go through a file descriptor, so that no variable of the function can be read in the process list
or act on bubblewrap itself.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lambstead.instance.isolation import (
    LAYERS_DIR,
    RUNTIME_API_PORT,
    RUNTIME_DIR,
    TASK_ROOT,
    TEMP_DIR,
    Confinement,
    Isolation,
    Places,
    ProcessPlan,
    Wish,
)
from lambstead.instance.seccomp import filter_program

PROGRAM = "bwrap"
USER_ID, GROUP_ID = 993, 990
"""As functions see themselves on AWS (`sbx_user1051`)."""
USER_NAME = "sbx_user1051"

_TOP_LEVEL = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_CONFIGURATION = (
    # Host files that programs need; neither accounts nor private keys.
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
_NETWORK_CONFIGURATION = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")
_ACCOUNTS = {
    "/etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\n{USER_NAME}:x:{USER_ID}:{GROUP_ID}::/home/{USER_NAME}:/sbin/nologin\n",
    "/etc/group": f"root:x:0:\n{USER_NAME}:x:{GROUP_ID}:\n",
}
_LOOPBACK_ONLY = {"/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n", "/etc/nsswitch.conf": "hosts: files\n"}


def find_program() -> Path | None:
    """Where bubblewrap is; None if it is not installed."""
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def plan_sandbox(wish: Wish, places: Places, isolation: Isolation, program: Path) -> ProcessPlan:
    """The plan at level `sandbox`. The caller starts it and closes its `owned_fds`."""
    confinement = Confinement(
        gate_fd=wish.gate_fd,
        listen_port=RUNTIME_API_PORT if isolation.own_network else 0,
        die_with_pid=0,  # the kernel ends everything with the process id 1 inside, and that with bubblewrap
        open_files=wish.limits.open_files,
        # In a user namespace of its own the kernel counts what was started in there.
        processes=0 if wish.is_in_cgroup else wish.limits.processes,
    )
    fds = _Descriptors()
    options = list(_options(wish, places, isolation, fds))
    arguments_fd = fds.with_content(b"".join(os.fsencode(option) + b"\0" for option in options))
    passed = [wish.gate_fd, *fds.opened, *wish.inherited]
    return ProcessPlan(
        argv=(str(program), "--args", str(arguments_fd), "--", *wish.command.argv(confinement)),
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
    if isolation.own_network:
        yield "--unshare-net"
    yield from ("--uid", str(USER_ID), "--gid", str(GROUP_ID), "--hostname", "lambda")
    yield from ("--die-with-parent", "--cap-drop", "ALL", "--seccomp", str(fds.with_content(filter_program())))
    yield from _system()
    yield from _configuration(isolation, fds)
    # Read-only: started by root, the function's user is root to the kernel's own files there (sysctl, sysrq), whatever it is called inside.
    yield from ("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev")
    yield from ("--perms", "1777", "--size", str(wish.limits.temp_bytes), "--tmpfs", str(TEMP_DIR))
    yield from ("--ro-bind", str(places.code), str(TASK_ROOT))
    yield from _layers(places)
    for inside, path in places.shown.items():
        yield from ("--ro-bind", str(path), str(inside))
    if RUNTIME_DIR not in places.shown:
        yield from ("--dir", str(RUNTIME_DIR))
    yield from ("--remount-ro", "/", "--chdir", str(TASK_ROOT), "--clearenv")
    for name, value in wish.variables.items():
        yield from ("--setenv", name, value)


def _system() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _TOP_LEVEL:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    yield from _shell()


def _shell() -> Iterator[str]:
    """AWS's `/bin/sh` is Bash, and the bootstrap of its own tutorial asks for `pipefail`. Where ours is dash, Bash takes its place."""
    shell, bash = Path("/bin/sh").resolve(), shutil.which("bash")
    if shell.name == "dash" and bash is not None:
        yield from ("--ro-bind", bash, str(shell))


def _configuration(isolation: Isolation, fds: _Descriptors) -> Iterator[str]:
    shared = _CONFIGURATION if isolation.own_network else (*_CONFIGURATION, *_NETWORK_CONFIGURATION)
    for name in shared:
        yield from ("--ro-bind-try", name, name)
    for name, content in (_ACCOUNTS | _LOOPBACK_ONLY if isolation.own_network else _ACCOUNTS).items():
        yield from ("--ro-bind-data", str(fds.with_content(content.encode())), name)


def _layers(places: Places) -> Iterator[str]:
    """Layers at `/opt`: each entry on its own, since something else that is shown may have its name below `/opt` too."""
    yield from ("--dir", str(LAYERS_DIR))
    if places.layers is not None:
        for entry in sorted(places.layers.iterdir()):
            yield from ("--ro-bind", str(entry), str(LAYERS_DIR / entry.name))
