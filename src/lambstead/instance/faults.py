"""Kills what an environment runs, as a crash would: faults on demand. What follows is the business of those who watch the processes."""

import contextlib
import logging
import os
import random
import signal

import psutil

_log = logging.getLogger(__name__)


def kill_runtime(pid: int) -> None:
    """Kill the process that is the runtime."""
    _log.warning("fault: runtime %s is killed", pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_worker(runtime_pid: int) -> None:
    """Kill one worker process of the runtime; its only process where it has no others."""
    try:
        children = psutil.Process(runtime_pid).children()
    except psutil.Error:
        return
    workers = [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]
    kill_runtime(random.choice(workers) if workers else runtime_pid)
