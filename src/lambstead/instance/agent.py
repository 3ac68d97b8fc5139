"""The agent: one process per managed instance, which starts and ends execution environments as the server orders.

    python -m lambstead.instance.agent (--socket PATH | --server HOST:PORT) --instance-id i-... --state-dir DIR --sockets-dir DIR
        [--runtimes-dir DIR] [--isolation LEVEL]

It connects to the server's socket, says AgentHello and obeys the orders of `link.messages.ToAgent`. It keeps nothing that must
survive: when the server's end closes, or on SIGTERM or SIGINT, every environment is ended at once and the agent exits. If the agent itself is
killed, the kernel kills its environments (see `runtimes.confinement`).
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import get_args

import msgspec
import uvloop

from lambstead.instance.cgroups import find_cgroups
from lambstead.instance.environment import Environment
from lambstead.instance.host import Host
from lambstead.instance.isolation import IsolationLevel
from lambstead.instance.server_address import ServerAddress, TcpAddress, UnixAddress, connect, token_for
from lambstead.instance.watch import Watch
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import PROTOCOL_VERSION, Frame, Kind
from lambstead.link.messages import (
    AgentHello,
    FromAgent,
    KillEnvironment,
    KillWorker,
    StartEnvironment,
    StopAgent,
    StopEnvironment,
    decode_control,
    encode_control,
)

REAP_TICK_SECONDS = 1.0
"""How often orphans of environments, which become children of the agent, are reaped."""
STOP_TIMEOUT_SECONDS = 10.0
"""Environments that are not gone by then are left to the kernel: the agent exits, and they die with it."""

_PR_SET_CHILD_SUBREAPER = 36
_log = logging.getLogger("lambstead.instance")


class Agent:
    """The instance's side of the control connection, and its environments by id."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._control = LinkConnection(self._control_frame, self._control_lost)
        self._environments: dict[str, Environment] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> str:
        """Obey until told or forced to end; the reason. Nothing of any environment is left then. Raises OSError if there is no server."""
        loop = asyncio.get_running_loop()
        server = self._host.server
        await connect(server, lambda: self._control)
        self._send(AgentHello(PROTOCOL_VERSION, self._host.instance_id, os.getpid(), token_for(server)))
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._end, signal.Signals(signum).name)
        reaper = asyncio.create_task(self._reap_orphans())
        watcher = asyncio.create_task(Watch(self._environments, self._send).run())
        try:
            return await self._over
        finally:
            await self._stop_everything()
            reaper.cancel()
            watcher.cancel()
            self._control.close()
            _kill_children()

    def _control_frame(self, link: LinkConnection, frame: Frame) -> None:
        if frame.kind is not Kind.CONTROL:
            return
        try:
            message = decode_control(frame.payload)
        except msgspec.DecodeError as exc:
            self._end(f"the server sent a message that is none: {exc}")
            return
        match message:
            case StartEnvironment():
                self._start(message)
            case StopEnvironment(environment_id=environment_id, because=because):
                # One that is gone already has been reported; the order crossed that report.
                if environment_id in self._environments:
                    self._environments[environment_id].stop(because)
            case KillEnvironment(environment_id) | KillWorker(environment_id):
                self._kill(message)
            case StopAgent(because=because):
                self._end(because)
            case _:
                self._end(f"the server sent {type(message).__name__}, which only agents send")

    def _control_lost(self, link: LinkConnection, exc: Exception | None) -> None:
        self._end("the server is gone")

    def _start(self, start: StartEnvironment) -> None:
        if start.environment_id in self._environments or self._over.done():
            return
        environment = Environment(start, self._host, self._send)
        self._environments[start.environment_id] = environment
        self._tasks[start.environment_id] = asyncio.create_task(self._live(start.environment_id, environment))

    def _kill(self, order: KillEnvironment | KillWorker) -> None:
        from lambstead.instance import faults  # psutil's import would slow every start of an agent

        environment = self._environments.get(order.environment_id)
        pid = environment.runtime_pid if environment is not None else None
        if pid is None:
            return  # gone already
        if isinstance(order, KillEnvironment):
            faults.kill_runtime(pid)
        else:
            faults.kill_worker(pid)

    async def _live(self, environment_id: str, environment: Environment) -> None:
        try:
            self._send(await environment.run())
        finally:
            del self._environments[environment_id]
            del self._tasks[environment_id]

    def _send(self, message: FromAgent) -> None:
        self._control.send(Kind.CONTROL, 0, payload=encode_control(message))

    def _end(self, because: str) -> None:
        if not self._over.done():
            self._over.set_result(because)

    async def _stop_everything(self) -> None:
        for environment in self._environments.values():
            environment.stop("the instance stops")
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=STOP_TIMEOUT_SECONDS)

    async def _reap_orphans(self) -> None:
        while True:
            await asyncio.sleep(REAP_TICK_SECONDS)
            _reap_orphans({environment.main_pid for environment in self._environments.values()})


def _reap_orphans(mains: set[int | None]) -> None:
    """Reap children that nobody waits for: what environments left behind.

    Stops at a child with a parent's care, to try again at the next tick: one of `mains`, or an installer, which unlike everything of an
    environment belongs to the agent's own session.
    """
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in mains or os.getsid(ended.si_pid) == os.getsid(0):
                return
            os.waitpid(ended.si_pid, 0)


def _kill_children() -> None:
    """Kill what is still there when the agent ends: an installer at work, whose thread would keep the agent waiting."""
    import psutil  # its import would slow every start of an agent

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()


def _prepare_process() -> None:
    """Adopt orphans of environments, so that they can be reaped, and allow as many descriptors as the system lets us have."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parse(argv: list[str]) -> Host:
    parser = argparse.ArgumentParser(
        prog="python -m lambstead.instance.agent", description="The agent of one managed instance."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="the server's Unix socket")
    where.add_argument(
        "--server", metavar="HOST:PORT", help="the server's TCP port for agents; the secret is read from standard input"
    )
    parser.add_argument("--instance-id", required=True)
    parser.add_argument("--state-dir", type=Path, required=True, help="folder for what lives as long as an environment")
    parser.add_argument(
        "--sockets-dir", type=Path, required=True, help="folder for Unix sockets, of at most 80 bytes; made if need be"
    )
    parser.add_argument("--runtimes-dir", type=Path, default=Path.home() / ".lambstead" / "runtimes")
    parser.add_argument(
        "--isolation", choices=get_args(IsolationLevel), default="process", help="how environments are kept apart"
    )
    parser.add_argument("--cores-per-vcpu", type=float, default=1.0, help="what a vCPU of the instance stands for")
    arguments = parser.parse_args(argv)
    server: ServerAddress
    if arguments.socket is not None:
        server = UnixAddress(arguments.socket.absolute())
    else:
        try:
            # Not an argument or a variable: functions run as our user and could read those.
            server = TcpAddress.parse(arguments.server, sys.stdin.readline().strip())
        except ValueError as exc:
            parser.error(str(exc))
    return Host(
        instance_id=arguments.instance_id,
        server=server,
        environments_dir=arguments.state_dir.absolute() / arguments.instance_id,
        sockets_dir=arguments.sockets_dir.absolute(),
        runtimes_dir=arguments.runtimes_dir.absolute(),
        level=arguments.isolation,
        cgroups=find_cgroups(),
        cores_per_vcpu=arguments.cores_per_vcpu,
    )


async def _run(host: Host) -> str:
    agent = Agent(host)
    # What is there now stays: collections need not look at it, time and again, in each of many agents.
    gc.collect()
    gc.freeze()
    return await agent.run()


def main(argv: list[str]) -> int:
    """Run the agent; the exit code: 0 after an orderly end, 1 if the server could not be reached."""
    host = _parse(argv)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {host.instance_id} %(levelname)s %(message)s", stream=sys.stderr
    )
    _prepare_process()
    shutil.rmtree(host.environments_dir, ignore_errors=True)  # left by a predecessor of this id that was killed
    try:
        because = uvloop.run(_run(host))
    except OSError as exc:
        _log.error("server_unreachable: %s: %s", host.server, exc)
        return 1
    _log.info("agent_ended: %s", because)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
