"""Ending processes that no parent answers for any more.

A function may put children into sessions of their own, out of reach of a group kill. Everything that descends from an environment
carries `LAMBSTEAD_ENVIRONMENT_ID` and `LAMBSTEAD_INSTANCE_ID` in the environment it was started with, so it can be found by that.
A process that cleared its own environment before `exec` is not found; sandboxes with a PID namespace catch that, this level does not.
Only the standard library is imported: the server uses this after an agent died.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

ENVIRONMENT_VARIABLE = "LAMBSTEAD_ENVIRONMENT_ID"
INSTANCE_VARIABLE = "LAMBSTEAD_INSTANCE_ID"
MAX_SWEEPS = 50
"""Sweeps before giving up on processes that fork faster than they are killed."""


def find_strays(variable: str, value: str) -> list[int]:
    """Ids of living processes, this one excepted, that were started with `variable=value`. Zombies have no environment and are not found."""
    wanted = f"{variable}={value}".encode()
    me = os.getpid()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == me:
            continue
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def kill_strays(variable: str, value: str) -> int:
    """SIGKILL every process started with `variable=value` and return how many were killed, once none is left.

    Repeats until a sweep finds nothing, because what is being killed may still fork. Blocks for milliseconds; call it from a thread where
    that matters. Linux only: elsewhere there is no /proc and nothing is found.
    """
    killed: set[int] = set()
    for _ in range(MAX_SWEEPS):
        strays = find_strays(variable, value) if os.path.isdir("/proc/self") else []
        if not strays:
            break
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.002)  # a killed process keeps its environment readable until the kernel has taken it down
    return len(killed)
