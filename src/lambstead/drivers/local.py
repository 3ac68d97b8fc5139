"""Instances as processes of this machine: each agent is a child of the server.

An agent ends by itself when its server is gone (its connection ends), so no instance outlives a `kill -9` of the server. When an agent is gone, whatever
its environments left behind is found by the mark that every process of the instance carries, and killed.
"""

import asyncio
import contextlib
import logging
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from lambstead.core.fleet import Instance

log = logging.getLogger(__name__)

STOP_GRACE = timedelta(seconds=5)
"""How long an agent has to stop its environments and exit before it is killed."""


class LocalDriver:
    """See `drivers.port.Driver`."""

    def __init__(
        self,
        socket: Path,
        state_dir: Path,
        sockets_dir: Path,
        runtimes_dir: Path,
        kill_strays: Callable[[str], object],
        isolation: str,
        cores_per_vcpu: float,
        tcp: Callable[[str], tuple[str, str]] | None = None,
    ) -> None:
        """`sockets_dir` is where Unix sockets of environments are, and short; `kill_strays` ends what an instance left behind; `isolation` is
        the level of its environments, `cores_per_vcpu` what a vCPU of theirs stands for.

        `tcp` gives HOST:PORT and the secret with which an instance's agent reaches the server; without it they go by the socket.
        """
        self._socket = socket
        self._tcp = tcp
        self._state_dir = state_dir
        self._sockets_dir = sockets_dir
        self._runtimes_dir = runtimes_dir
        self._kill_strays = kill_strays
        self._isolation = isolation
        self._cores_per_vcpu = cores_per_vcpu
        self._agents: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._listeners: list[Callable[[str, str], None]] = []

    def sweep(self) -> None:
        """Kill what instances of an earlier server left running; blocks. Each launched instance has a folder below `state_dir`."""
        for leftover in self._state_dir.iterdir():
            log.info("instance-swept", extra={"instance": leftover.name})
            self._kill_strays(leftover.name)
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.rmtree(self._sockets_dir, ignore_errors=True)

    async def launch(self, instance: Instance) -> None:
        folder = self._state_dir / instance.id
        folder.mkdir(exist_ok=True)
        address, token = self._tcp(instance.id) if self._tcp else ("", "")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lambstead.instance.agent",
            *(("--server", address) if address else ("--socket", str(self._socket))),
            *("--instance-id", instance.id),
            *("--state-dir", str(folder)),
            *("--sockets-dir", str(self._sockets_dir / instance.id)),
            *("--runtimes-dir", str(self._runtimes_dir)),
            *("--isolation", self._isolation),
            *("--cores-per-vcpu", str(self._cores_per_vcpu)),
            stdin=asyncio.subprocess.PIPE if token else asyncio.subprocess.DEVNULL,
            # A session of its own: Ctrl-C in the terminal is for the server, which then stops its agents in order.
            start_new_session=True,
        )
        if process.stdin is not None:
            process.stdin.write(f"{token}\n".encode())
            process.stdin.close()
        self._agents[instance.id] = process
        self._watchers[instance.id] = asyncio.create_task(
            self._watch(instance.id, process), name=f"watch {instance.id}"
        )

    async def terminate(self, instance_id: str) -> None:
        process, watcher = self._agents.get(instance_id), self._watchers.get(instance_id)
        if process is None or watcher is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        done, _ = await asyncio.wait([watcher], timeout=STOP_GRACE.total_seconds())
        if not done:
            log.warning("agent-killed", extra={"instance": instance_id, "because": f"still alive after {STOP_GRACE}"})
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait([watcher])

    async def kill(self, instance_id: str) -> None:
        process = self._agents.get(instance_id)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def on_ended(self, listener: Callable[[str, str], None]) -> None:
        self._listeners.append(listener)

    async def close(self) -> None:
        await asyncio.gather(*(self.terminate(instance_id) for instance_id in list(self._agents)))

    def pid(self, instance_id: str) -> int | None:
        """Process id of the instance's agent, while it runs."""
        process = self._agents.get(instance_id)
        return process.pid if process else None

    async def _watch(self, instance_id: str, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        await asyncio.to_thread(self._clear_away, instance_id)
        del self._agents[instance_id], self._watchers[instance_id]
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        for listener in self._listeners:
            listener(instance_id, how)

    def _clear_away(self, instance_id: str) -> None:
        self._kill_strays(instance_id)
        for folder in (self._state_dir, self._sockets_dir):
            shutil.rmtree(folder / instance_id, ignore_errors=True)
