"""Confine this process, then become the program that was asked for: for runtimes that cannot do it to themselves.

Run as `<python> -I -S launcher.py CONFINEMENT PROGRAM ARGUMENT…`. Only the standard library is imported. What is set here outlives `exec`: the
signal at the parent's death, no new privileges, the limits.
"""

import ctypes
import json
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CANNOT_EXECUTE = 126
"""As shells exit when a program cannot be executed."""


def main(confinement_json: str, argv: list[str]) -> None:
    confine(json.loads(confinement_json))
    try:
        os.execv(argv[0], argv)
    except OSError as exc:
        os.write(2, f"{argv[0]} could not be executed: {exc.strerror}\n".encode())
        os._exit(CANNOT_EXECUTE)


def confine(confinement: dict[str, int]) -> None:
    """Apply `lambstead.instance.sandbox.Confinement` to this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if confinement["die_with_pid"]:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != confinement["die_with_pid"]:  # it died before the kernel knew our wish
            os.kill(os.getpid(), signal.SIGKILL)
    if confinement["no_new_privileges"]:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    lower_limit(resource.RLIMIT_CORE, confinement["core_bytes"])
    lower_limit(resource.RLIMIT_NOFILE, confinement["open_files"])
    # Python ignores these for itself; what it becomes would inherit that.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)


def lower_limit(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (bound, bound))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
