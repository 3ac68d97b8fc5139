"""The life of one execution environment.

    acquire runtime ─► start ─► init ─► ready ─────────────► ended ─► nothing left
          │              │        │      (link open)            ▲
          └──────────────┴────────┴── failed ───────────────────┘

`Environment.run` walks this line once and returns the last word for the server: EnvironmentFailed if init did not complete,
EnvironmentExited otherwise. When it returns, no process, socket or folder of the environment is left. Whatever ends the environment (its main
process, a time-out on demand, an order, the loss of the link) is an `Ending`; the first one wins.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lambstead.core.limits import EnvironmentLimits
from lambstead.core.log_streams import environment_mark
from lambstead.core.runtime_api import Connections, exit_message
from lambstead.instance.cgroups import Cgroup, group_name
from lambstead.instance.endings import Ending, init_reported, machine_failed, spawn_failed
from lambstead.instance.environment_variables import Credentials, RuntimeSite, runtime_variables
from lambstead.instance.families import owns_connection
from lambstead.instance.folders import Folders
from lambstead.instance.host import Host
from lambstead.instance.invocation_log import InvocationLog
from lambstead.instance.isolation import (
    RUNTIME_API_PORT,
    SOCKETS_DIR,
    Isolation,
    Places,
    ProcessPlan,
    Wish,
)
from lambstead.instance.log_capture import LogCapture
from lambstead.instance.main_process import MainProcess
from lambstead.instance.nat import Nat, NatFails
from lambstead.instance.plans import plan_for
from lambstead.instance.platform_log import PlatformLog
from lambstead.instance.readings import Usage
from lambstead.instance.runtime_api import RuntimeApiServer
from lambstead.instance.runtimes import catalogue
from lambstead.instance.runtimes.runtime import (
    EntryPointInvalid,
    InheritedLink,
    InstalledRuntime,
    Launch,
    RuntimeNotAvailable,
    RuntimeProcess,
    WorkerLink,
)
from lambstead.instance.server_address import connect, introduce
from lambstead.instance.strays import MARKED_VARIABLE
from lambstead.instance.workers import Workers
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame
from lambstead.link.messages import (
    EnvironmentDegraded,
    EnvironmentExited,
    EnvironmentFailed,
    EnvironmentReady,
    FromAgent,
    StartEnvironment,
)

FRAMING_RUNTIMES = ("python3.",)
"""Runtimes whose client hands log records over in frames when it is given a descriptor for them; on demand only."""
LAST_BREATH_SECONDS = 0.5
"""How long we read on from a runtime that is gone; only a process that it left behind can make it that long."""
EXTRA_LOG_SOURCES = 16

_log = logging.getLogger("lambstead.instance")


class Environment:
    """One execution environment. `run` once; `stop` at any time. `report` gets EnvironmentReady and EnvironmentDegraded."""

    def __init__(self, start: StartEnvironment, host: Host, report: Callable[[FromAgent], None]) -> None:
        self._start = start
        self._host = host
        self._report = report
        self._managed = start.mode == "managed-instances"
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._progress = asyncio.Event()
        self._ready = False
        self.main: MainProcess | None = None
        """Its main process, once it is started."""
        self._mark = environment_mark(host.instance_id, start.environment_id)
        self._isolation = Isolation(host.level, start.egress)
        self.limits = EnvironmentLimits.of(
            memory_mb=start.memory_mb,
            vcpus=start.vcpus,
            ephemeral_storage_mb=start.ephemeral_storage_mb,
            managed=self._managed,
            cores_per_vcpu=host.cores_per_vcpu,
        )
        self.cgroup: Cgroup | None = None
        """Where the kernel enforces them; None without, and before the start."""
        self._link: LinkConnection | None = None
        self._api: RuntimeApiServer | None = None
        self._output: LogCapture | None = None
        self._platform_log: PlatformLog | None = None
        self._folders = Folders(host.environments_dir, host.sockets_dir, start.environment_id)
        self._workers = Workers(start, self, self._progress.set, are_visible=self._isolation.passes_descriptors)
        self._nat: Nat | None = None
        self._marks = {MARKED_VARIABLE: start.log_stream}
        self._note = ""
        self._init_started = 0.0

    @property
    def is_ready(self) -> bool:
        """True from the end of init to the end."""
        return self._ready and not self._ending.done()

    @property
    def main_pid(self) -> int | None:
        """The runtime's main process, while it has one."""
        return self.main.pid if self.main is not None else None

    @property
    def runtime_pid(self) -> int | None:
        """The process that is the runtime; None before there is one."""
        return (self.main.runtime_pid or None) if self.main is not None else None

    def stop(self, because: str) -> None:
        """Order the end. Returns at once; `run` returns when nothing is left."""
        self._end(Ending("", because))

    async def run(self) -> EnvironmentFailed | EnvironmentExited:
        """Live. Never raises for what a function or its machine can do wrong."""
        try:
            init_ms = await self._initialize()
            if init_ms is not None:
                await self._serve(init_ms)
        except Exception as exc:  # noqa: BLE001
            # Task boundary: an environment that breaks must be reported, or its slots would be promised for ever.
            _log.exception("environment_broke", extra={"environment": self._start.environment_id})
            self._end(machine_failed(f"The instance could not run the environment: {exc!r}"))
        ending = await self._ending
        await self._tear_down(ending)
        return ending.last_word(self._start.environment_id, was_ready=self._ready)

    # Init

    async def _initialize(self) -> float | None:
        """Bring the runtime up; milliseconds it took, or None if the environment is over before it was ready."""
        runtime = await self._acquire_runtime()
        if runtime is None:
            return None
        self._init_started = started = time.monotonic()
        if not self._open_log(runtime):
            return None
        places = self._places()
        link, link_fd = await self._link_for_workers(places)
        try:
            process = self._process(runtime, link, places)
            if process is None:
                return None
            api = self._runtime_api(process)
            if not self._isolation.own_network:
                await api.listen()
            if not self._spawn(process, places, api, link_fd):
                return None
        finally:
            if link_fd is not None:
                os.close(link_fd)
        if not await self._let_through(api):
            return None
        if not await self._init_complete(api, started):
            return None
        return (time.monotonic() - started) * 1000

    async def _acquire_runtime(self) -> InstalledRuntime | None:
        """The runtime, installed first if need be; a stop order does not wait for that."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, _install, self._host.runtimes_dir, self._start.runtime)
        work.add_done_callback(lambda _: self._progress.set())
        self._progress.clear()
        await self._progress.wait()
        if self._ending.done():
            return None
        installed = work.result()
        if isinstance(installed, RuntimeNotAvailable):
            self._end(machine_failed(str(installed), "InvalidRuntime"))
            return None
        return installed

    def _open_log(self, runtime: InstalledRuntime) -> bool:
        """Begin the log; false (and over) if it cannot be written."""
        try:
            self._output = LogCapture(Path(self._start.log_path), 4 * self._start.max_concurrency + EXTRA_LOG_SOURCES)
        except OSError as exc:
            self._end(machine_failed(f"The log file {self._start.log_path} cannot be written: {exc}."))
            return False
        self._platform_log = PlatformLog(self._start, runtime.version_text, self._output.write_line)
        self._note = runtime.note
        if runtime.note:
            self._platform_log.note(runtime.note)
        self._platform_log.init_started()
        return True

    def _places(self) -> Places:
        """The environment's folders."""
        layers = Path(self._start.layers_path) if self._start.layers_path else None
        temp = self._folders.make_temp()
        return Places(Path(self._start.code_path), layers, temp, own_root=self._isolation.own_root)

    def _process(
        self, runtime: InstalledRuntime, link: WorkerLink | InheritedLink | None, places: Places
    ) -> RuntimeProcess | None:
        """What to start; None (and over) if the code package has nothing to start."""
        launch = Launch(
            managed=self._managed,
            slots=self._start.max_concurrency,
            vcpus=self._start.vcpus,
            memory_mb=self._start.memory_mb,
            places=places,
            variables=self._start.variables,
            link=link,
            handler=self._start.handler,
        )
        try:
            process = runtime.process(launch)
        except EntryPointInvalid as exc:
            self._end(Ending("Runtime.InvalidEntrypoint", str(exc), "FunctionError.InvalidEntryPoint"))
            return None
        self._workers.expect(process)
        return process

    def _runtime_api(self, process: RuntimeProcess) -> RuntimeApiServer:
        platform_log, output = self._platform_log, self._output
        assert platform_log is not None
        assert output is not None
        slots = self._start.max_concurrency if self._managed else 1
        log = InvocationLog(platform_log, output, self.memory_high_water)
        self._api = RuntimeApiServer(slots, self, log, process.connections, tenant_id=self._start.tenant_id)
        self._workers.serve(self._api.invocations)
        return self._api

    def _spawn(self, process: RuntimeProcess, places: Places, api: RuntimeApiServer, link_fd: int | None) -> bool:
        """Start the main process, up to its gate; false (and over) if it cannot be started."""
        output = self._output
        assert output is not None
        log_socket = self._listen_for_logs(places, output) if self._managed else None
        address = f"127.0.0.1:{RUNTIME_API_PORT}" if self._isolation.own_network else api.address
        site = RuntimeSite(
            address,
            places.task_root,
            process.runtime_dir,
            places.temp_dir,
            process.program_dir,
            log_socket,
            places.layers_dir,
            process.variables,
        )
        variables = runtime_variables(self._start, site, Credentials.placeholder())
        read_fd, write_fd = os.pipe()
        output.add_source(read_fd)
        inherited = [] if link_fd is None else [link_fd]
        frames_fd = None
        if self._frames_logs:
            records_fd, frames_fd = os.pipe()
            output.add_frames(records_fd)
            variables["_LAMBDA_TELEMETRY_LOG_FD"] = str(frames_fd)
            inherited.append(frames_fd)

        def plan(gate_fd: int) -> ProcessPlan:
            port = int(address.rpartition(":")[2])
            wish = Wish(
                command=process.command,
                variables=variables,
                marks=self._marks,
                gate_fd=gate_fd,
                inherited=inherited,
                runtime_api_port=port,
                limits=self.limits,
                is_in_cgroup=self.cgroup is not None,
                agent_pid=os.getpid(),
                name=group_name(self._host.instance_id, self._start.environment_id),
                folder=self._folders.own,
            )
            return plan_for(wish, places, self._isolation)

        try:
            self.cgroup = self._make_cgroup()
            self.main = MainProcess(self._mark, self.cgroup, self._main_exited)
            self.main.start(plan, write_fd)
        except OSError as exc:
            self._end(spawn_failed(exc, places.code))
            return False
        finally:
            os.close(write_fd)
            if frames_fd is not None:
                os.close(frames_fd)
        return True

    @property
    def _frames_logs(self) -> bool:
        frames = not self._managed and self._start.runtime.startswith(FRAMING_RUNTIMES)
        return frames and self._isolation.passes_descriptors

    def _make_cgroup(self) -> Cgroup | None:
        if self._host.cgroups is None:
            return None
        cgroup = self._host.cgroups.group(group_name(self._host.instance_id, self._start.environment_id))
        cgroup.limit(self.limits)
        return cgroup

    async def _let_through(self, api: RuntimeApiServer) -> bool:
        """Wait for the main process at its gates and let it go on under its limits; false if the environment is over."""
        passing = asyncio.ensure_future(self._pass_gates(api))
        await asyncio.wait((passing, self._ending), return_when=asyncio.FIRST_COMPLETED)
        if not passing.done():
            passing.cancel()
            await asyncio.wait((passing,))  # before the gate is closed
            return False
        try:
            passing.result()
        except ConnectionError:
            await self._ending  # its exit says more
            return False
        except NatFails as exc:
            self._end(machine_failed(f"The environment's network cannot be joined to the world: {exc}."))
            return False
        except OSError as exc:
            self._end(machine_failed(f"The environment cannot be limited: {exc}."))
            return False
        return not self._ending.done()

    async def _pass_gates(self, api: RuntimeApiServer) -> None:
        """Raises ConnectionError, NatFails or OSError."""
        main, isolation = self.main, self._isolation
        assert main is not None
        if isolation.gate_outside:
            await self._serve_listener(api, await main.at_gate())
            if not isolation.passes_descriptors:
                main.limit()
            if isolation.egress == "nat":
                await self._join_world(main)
            main.pass_gate()
        if isolation.passes_descriptors:
            listener = await main.at_gate()
            main.limit()
            await self._serve_listener(api, listener)
            main.pass_gate()

    async def _serve_listener(self, api: RuntimeApiServer, listener: socket.socket | None) -> None:
        if listener is not None:
            await api.listen(listener)

    async def _join_world(self, main: MainProcess) -> None:
        attaching = asyncio.get_running_loop().run_in_executor(
            None, Nat.attach, main.pid or 0, self._folders.own, self._marks
        )
        try:
            self._nat = await asyncio.shield(attaching)
        except asyncio.CancelledError:
            with contextlib.suppress(NatFails):
                self._nat = await attaching
            raise

    async def _link_for_workers(self, places: Places) -> tuple[WorkerLink | InheritedLink | None, int | None]:
        if not self._isolation.passes_descriptors:
            return None, None  # their status pipe is one
        return await self._workers.link(self._host, places, self._folders)

    def _listen_for_logs(self, places: Places, output: LogCapture) -> Path:
        path = self._folders.socket("log.sock")
        output.listen(path)
        if not self._isolation.passes_descriptors:
            path.chmod(0o666)  # there the function is another user, even to files; the folder is ours alone
        return places.show(path, SOCKETS_DIR / "log.sock")

    async def _init_complete(self, api: RuntimeApiServer, started: float) -> bool:
        """Wait until enough workers poll; false if the environment ended first, the init time limit included.

        AWS takes one poll for a complete init; that is enough for us when the time is up.
        """
        deadline = started + self._start.init_timeout_ms / 1000
        alive: int | None = None
        while not self._ending.done():
            is_late = time.monotonic() >= deadline
            if self._workers.are_initialized(api.invocations.parked, alive) or (is_late and api.invocations.parked):
                return True
            if is_late:
                message = f"Init phase timed out after {self._start.init_timeout_ms / 1000:.2f} seconds"
                self._end(Ending("Sandbox.Timedout", message, "FunctionError.InitTimeout"))
                break
            alive = await self._workers.come_further(self._progress, deadline, api.invocations.parked)
        return False

    # Ready

    async def _serve(self, init_ms: float) -> None:
        """Open the link, report ready, and stay until the environment is over."""
        api, platform_log, main = self._api, self._platform_log, self.main
        assert api is not None
        assert platform_log is not None
        assert main is not None
        if not self._workers.are_linked:
            try:
                self._link = await self._connect_link()
            except OSError as exc:
                self._end(machine_failed(f"The server's socket cannot be reached: {exc}."))
                return
        if self._ending.done():
            return
        self._hold_to_cores()
        self._ready = True
        platform_log.init_ended("success", init_ms)
        if self._link is not None:
            introduce(self._link, self._host.server, self._host.instance_id, self._start.environment_id, worker=False)
            api.open_link(self._link)
        self._report(EnvironmentReady(self._start.environment_id, init_ms, main.runtime_pid, self._note))
        await self._ending

    def _hold_to_cores(self) -> None:
        """Only from here on: what starts is not held back, or no scaling could keep up with the machine."""
        if self.cgroup is not None and self.limits.cores is not None:
            try:
                self.cgroup.hold_to(self.limits.cores)
            except OSError:
                _log.exception("no_ceiling", extra={"environment": self._start.environment_id})

    async def _connect_link(self) -> LinkConnection:
        return await connect(self._host.server, lambda: LinkConnection(self._link_frame, self._link_lost))

    def _link_frame(self, link: LinkConnection, frame: Frame) -> None:
        assert self._api is not None
        try:
            self._api.link_frame(frame)
        except msgspec.DecodeError:
            _log.exception("link_frame_invalid", extra={"environment": self._start.environment_id})
            link.abort()

    def _link_lost(self, link: LinkConnection, exc: Exception | None) -> None:
        self._end(machine_failed("The server closed the environment's link."))

    # Life of the Runtime API

    def poll_parked(self) -> None:
        self._progress.set()

    def init_failed(self, error_type: str, document: str) -> None:
        self._end(init_reported(error_type, document))

    def connection_dropped(self) -> None:
        self._workers.connection_dropped()

    def worker_lost(self, workers_left: int) -> None:
        self._workers.lost(workers_left)

    def workers_lost(self, left: int, of: int) -> None:
        """See `workers.WorkersOwner`."""
        if self.killed_for_memory():
            self._out_of_memory("the kernel killed a worker for want of memory")
            return
        if not left:
            self._end(Ending("Runtime.ExitError", exit_message(None)))
            return
        if self._workers.connections is Connections.POLLERS and self._platform_log is not None:
            # Nobody else says so: what ran in the thread only times out.
            self._platform_log.note(f"A worker thread ended; {left} of {of} are left.")
        self._report(EnvironmentDegraded(self._start.environment_id, self._start.max_concurrency * left // of))

    def invocation_timed_out(self, request_id: str) -> None:
        if not self._managed:
            self._end(Ending("Sandbox.Timedout", f"Invocation {request_id} timed out."))

    def killed_for_memory(self) -> bool:
        return self.main is not None and self.main.was_killed_for_memory

    def memory_high_water(self) -> int:
        return _high_water_bytes(self.main.runtime_pid) if self.main is not None else 0

    def is_ours(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        return self.main is not None and owns_connection(self.main.pid or 0, self._mark, peer, here)

    # Limits

    def check_limits(self, usage: Usage) -> None:
        """End the environment if it takes more than it may, as AWS does."""
        if self.main is None or self._ending.done():
            return
        if self.main.was_killed_for_memory:
            self._out_of_memory("the kernel killed a process for want of memory")
        elif because := self.limits.exceeds_memory(usage.memory_bytes):
            self._out_of_memory(because)
        elif self._counts_processes and (because := self.limits.exceeds_processes(usage.processes)):
            self._end_for(because, "Runtime.ExitError")

    @property
    def _counts_processes(self) -> bool:
        """Whether nobody but us does: no control group, and no user namespace in which the kernel counts."""
        return self.cgroup is None and not self._isolation.own_root

    def _out_of_memory(self, because: str) -> None:
        self._end_for(because, "Runtime.OutOfMemory")

    def _end_for(self, because: str, error_type: str) -> None:
        if self._platform_log is not None:
            self._platform_log.note(f"The environment is ended: {because}.")
        self._end(Ending(error_type, exit_message(-signal.SIGKILL)))

    # The end

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)
        self._progress.set()

    def _main_exited(self) -> None:
        """The kernel says that the main process is over; the environment is over with it."""
        assert self.main is not None
        if self.main.was_killed_for_memory:
            self._out_of_memory("the kernel killed a process for want of memory")
        self._end(Ending("Runtime.ExitError", exit_message(self.main.exit_code)))

    async def _tear_down(self, ending: Ending) -> None:
        """Settle what runs, kill everything, keep its last words, remove its files."""
        if self._api is not None:
            if ending.is_exit:
                await self._hear_out(self._api)
            self._api.end(
                ending.message if ending.is_exit else exit_message(-signal.SIGKILL),
                ending.error_type if ending.is_exit else "Runtime.ExitError",
            )
        if self._link is not None:
            self._link.close()
        if self.main is not None:
            await self.main.kill()
        if self._nat is not None:
            await asyncio.to_thread(self._nat.close)
        self._workers.close()
        if self._platform_log is not None and self._output is not None:
            self._output.drain()
            self._log_ending(self._platform_log, ending)
        if self._output is not None:
            self._output.close()
        await self._folders.remove()

    async def _hear_out(self, api: RuntimeApiServer) -> None:
        """What a runtime sent with its last breath may still be in the kernel, more of it than one read takes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_BREATH_SECONDS):
                await asyncio.gather(api.hear_out(), self._workers.hear_out())

    def _log_ending(self, platform_log: PlatformLog, ending: Ending) -> None:
        if not ending.error_type:
            return
        if ending.is_exit:
            platform_log.runtime_exited(f"Error: {ending.message}", ending.error_type)
        if not self._ready:
            init_ms = (time.monotonic() - self._init_started) * 1000
            platform_log.init_ended(
                "timeout" if ending.error_type == "Sandbox.Timedout" else "error", init_ms, ending.error_type
            )


def _install(runtimes_dir: Path, identifier: str) -> InstalledRuntime | RuntimeNotAvailable:
    """The error is returned and not raised: when a stop order came meanwhile, nobody is left to catch it."""
    try:
        return catalogue.install(runtimes_dir, identifier, lambda text: _log.info("%s", text))
    except RuntimeNotAvailable as exc:
        return exc


def _high_water_bytes(pid: int) -> int:
    """Largest resident size of a process so far; 0 where the kernel does not tell or the process is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
