"""The main process of an environment: started behind a gate, put under its limits, let through, killed with all that came of it.

    start ─► at the gate (twice where another program isolates it) ─► through ─► over
               │  it hands over the Runtime API's listener where that is its own to open;
               │  the agent puts it into its control group

At the gate nothing of the function exists yet, so nothing of it can escape a limit.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable

from lambstead.instance import strays
from lambstead.instance.cgroups import Cgroup
from lambstead.instance.families import family
from lambstead.instance.isolation import ProcessPlan


class MainProcess:
    """One main process. `start` once, then `pass_gate`; `kill` at the end, also if `start` failed."""

    def __init__(self, mark: str, cgroup: Cgroup | None, exited: Callable[[], None]) -> None:
        """`mark` is what its processes are found by (`strays`); `exited` is called when the kernel says that it is over."""
        self._mark = mark
        self._cgroup = cgroup
        self._exited = exited
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._gate: socket.socket | None = None
        self._signals_as_status = False
        self._is_keeper = False
        self.runtime_pid = 0
        """The process that is, or becomes, the runtime; below a sandbox's own processes. 0 before the gate."""

    @property
    def pid(self) -> int | None:
        """The process that the agent waits for; None before it was started."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """As a subprocess reports it, negative for a signal; None while it runs."""
        code = self._process.poll() if self._process is not None else None
        if code is not None and code > 128 and self._signals_as_status:
            return 128 - code
        return code

    @property
    def was_killed_for_memory(self) -> bool:
        """Whether the kernel killed any process of the environment for want of memory."""
        with contextlib.suppress(OSError):
            return self._cgroup is not None and self._cgroup.killed_for_memory
        return False

    def start(self, plan_for: Callable[[int], ProcessPlan], output_fd: int) -> None:
        """Start what `plan_for` plans, given the gate's descriptor; its output goes to `output_fd`. Raises OSError."""
        self._gate, theirs = socket.socketpair()
        self._gate.setblocking(False)
        with theirs:
            plan = plan_for(theirs.fileno())
            try:
                self._process = subprocess.Popen(
                    plan.argv,
                    cwd=plan.working_directory,
                    env=plan.variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output_fd,
                    stderr=output_fd,
                    pass_fds=plan.pass_fds,
                    start_new_session=True,
                )
            finally:
                for fd in plan.owned_fds:
                    os.close(fd)
        self._signals_as_status = plan.signals_as_status
        self._is_keeper = plan.is_keeper
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._over)

    async def at_gate(self) -> socket.socket | None:
        """Wait until it is at the gate; the listener it hands over, if it opened one. Raises ConnectionError if it ended before.

        `limit` it there, then `pass_gate`. What is isolated by another program may be at the gate twice: once outside, once inside.
        """
        assert self._gate is not None
        await _readable(self._gate)
        word, fds, _, _ = socket.recv_fds(self._gate, 1, 1)
        listener = socket.socket(fileno=fds[0]) if fds else None
        if not word:
            raise ConnectionError("it ended before it was confined")
        return listener

    def limit(self) -> None:
        """Put what waits at the gate under its limits. Raises OSError if that cannot be."""
        assert self._process is not None
        members = family(self._process.pid)
        self.runtime_pid = members[-1] if members else self._process.pid
        if self._cgroup is not None:
            for pid in members[1:] if self._is_keeper else members:
                self._cgroup.add(pid)

    def pass_gate(self) -> None:
        """Let it go on."""
        assert self._gate is not None
        with contextlib.suppress(OSError):  # it is gone, which is noticed elsewhere
            self._gate.send(b"+")

    async def kill(self) -> None:
        """SIGKILL the process group, then whatever left it; returns when nothing is left of it, its control group included."""
        self._close_gate()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # The leader may be gone; its group lives on under its number while any member does.
                os.killpg(self._process.pid, signal.SIGKILL)
        self._forget_pidfd()
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        if self._process is not None:
            self._process.wait()
            strays.kill_strays(self._mark)
        if self._cgroup is not None:
            self._cgroup.remove()

    def _over(self) -> None:
        self._forget_pidfd()
        self._exited()

    def _forget_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _close_gate(self) -> None:
        if self._gate is not None:
            asyncio.get_running_loop().remove_reader(self._gate)
            self._gate.close()
            self._gate = None


async def _readable(gate: socket.socket) -> None:
    """Wait until there is something to read, or the end. Cancelled, it listens no more."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(gate, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(gate)
