"""Ending processes that no parent answers for any more.

A function may put children into sessions of their own, out of reach of a group kill. Everything that descends from an environment was started with its
log stream's name in `AWS_LAMBDA_LOG_STREAM_NAME`, as on AWS, and the digits of that name are marks of the instance and of the environment
(`core.log_streams`): so it can be found, and functions see no variable that AWS's do not have. A process that cleared its own environment
before `exec` is not found; sandboxes with a PID namespace catch that, other levels do not.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

MARKED_VARIABLE = "AWS_LAMBDA_LOG_STREAM_NAME"
MAX_SWEEPS = 50
"""Sweeps before giving up on processes that fork faster than they are killed."""


def find_strays(mark: str) -> list[int]:
    """Ids of living processes, this one excepted, that were started with this mark; an instance's mark finds those of all its environments.

    Zombies have no environment and are not found.
    """
    me = os.getpid()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == me:
            continue
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if _is_marked(Path(entry.path, "environ").read_bytes(), mark.encode()):
                found.append(int(entry.name))
    return found


def _is_marked(environ: bytes, mark: bytes) -> bool:
    if mark not in environ:  # which is so for nearly every process, and quickly seen
        return False
    name = MARKED_VARIABLE.encode()
    # The last digits of the value: what stands before them is the day and the version.
    return any(
        key == name and value.rpartition(b"]")[2].startswith(mark)
        for key, _, value in (entry.partition(b"=") for entry in environ.split(b"\0"))
    )


def kill_strays(mark: str) -> int:
    """SIGKILL every process started with this mark and return how many were killed, once none is left.

    Repeats until a sweep finds nothing, because what is being killed may still fork. Blocks for milliseconds; call it from a thread where
    that matters. Linux only: elsewhere there is no /proc and nothing is found.
    """
    killed: set[int] = set()
    for _ in range(MAX_SWEEPS):
        strays = find_strays(mark) if os.path.isdir("/proc/self") else []
        if not strays:
            break
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.002)  # a killed process keeps its environment readable until the kernel has taken it down
    return len(killed)
