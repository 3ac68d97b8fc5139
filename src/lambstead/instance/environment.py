"""The life of one execution environment.

    acquire runtime ─► start ─► init ─► ready ─────────────► ended ─► nothing left
          │              │        │      (link open)            ▲
          └──────────────┴────────┴── failed ───────────────────┘

`Environment.run` walks this line once and returns the last word for the server: EnvironmentFailed if init did not complete,
EnvironmentExited otherwise. When it returns, no process, socket or folder of the environment is left. Whatever ends the environment (its main
process, a time-out on demand, an order, the loss of the link) is an `_Ending`; the first one wins.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lambstead.core.limits import EnvironmentLimits
from lambstead.core.log_streams import environment_mark
from lambstead.core.runtime_api import Connections, InitProgress, error_document, exit_message, is_initialized
from lambstead.instance.bubblewrap import find_program, plan_sandbox
from lambstead.instance.cgroups import Cgroup, Cgroups, group_name
from lambstead.instance.environment_variables import Credentials, RuntimeSite, runtime_variables
from lambstead.instance.families import owns_connection
from lambstead.instance.isolation import (
    RUNTIME_API_PORT,
    SOCKETS_DIR,
    Isolation,
    IsolationLevel,
    Places,
    ProcessPlan,
    Wish,
    plan_process,
)
from lambstead.instance.linked_workers import LinkedWorkers
from lambstead.instance.log_capture import LogCapture
from lambstead.instance.main_process import MainProcess
from lambstead.instance.platform_log import PlatformLog
from lambstead.instance.readings import Usage
from lambstead.instance.runtime_api import RuntimeApiServer
from lambstead.instance.runtimes import catalogue
from lambstead.instance.runtimes.runtime import (
    EntryPointInvalid,
    InstalledRuntime,
    Launch,
    RuntimeNotAvailable,
    RuntimeProcess,
    WorkerLink,
)
from lambstead.instance.server_address import ServerAddress, connect, introduce
from lambstead.instance.strays import MARKED_VARIABLE
from lambstead.instance.worker_relay import WorkerRelay
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

RECOUNT_AFTER_SECONDS = 0.5
"""How long after a connection dropped we look whether its worker is still there: a kill shows at once, a reconnection is nothing."""
WORKER_COUNT_TICK_SECONDS = 0.25
"""While init waits for the last polls, living workers are counted this often."""
MAX_SOCKET_PATH_BYTES = 100
"""Unix socket paths above 107 bytes do not exist; longer state folders get a short folder for the socket."""
FRAMING_RUNTIMES = ("python3.",)
"""Runtimes whose client hands log records over in frames when it is given a descriptor for them; on demand only."""
EXTRA_LOG_SOURCES = 16
EXITS = ("Runtime.ExitError", "Runtime.OutOfMemory")
"""Ends of the runtime itself, whose words its invocations get."""

_log = logging.getLogger("lambstead.instance")


@dataclass(frozen=True, slots=True)
class Host:
    """What an environment knows of the agent and the machine it runs on. Paths are absolute."""

    instance_id: str
    server: ServerAddress
    environments_dir: Path
    runtimes_dir: Path
    level: IsolationLevel = "process"
    cgroups: Cgroups | None = None
    """Where limits are enforced by the kernel; None where the agent watches over them."""
    cores_per_vcpu: float = 1.0
    """Cores of this machine that a vCPU of the instance stands for."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """Why an environment is over."""

    error_type: str
    """Empty when ordered."""
    message: str
    reason_code: str = "FunctionError.RuntimeInitError"
    """Counts only before init is complete."""
    document: str = ""
    """The runtime's own error document; empty to make one of type and message."""


class Environment:
    """One execution environment. `run` once; `stop` at any time. `report` gets EnvironmentReady and EnvironmentDegraded."""

    def __init__(self, start: StartEnvironment, host: Host, report: Callable[[FromAgent], None]) -> None:
        self._start = start
        self._host = host
        self._report = report
        self._managed = start.mode == "managed-instances"
        self._ending: asyncio.Future[_Ending] = asyncio.get_running_loop().create_future()
        self._progress = asyncio.Event()
        self._ready = False
        self._main: MainProcess | None = None
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
        self._folders: list[Path] = []
        self._connections = Connections.ANONYMOUS
        self._all_workers = self._fewest_workers = start.max_concurrency
        """Workers that are left as far as we know; AWS's clients do not replace any."""
        self._workers: LinkedWorkers | None = None
        """Set when the workers speak the link themselves."""
        self._relay: WorkerRelay | None = None
        """Set when their link is passed on here."""
        self._note = ""
        self._init_started = 0.0

    @property
    def is_ready(self) -> bool:
        """True from the end of init to the end."""
        return self._ready and not self._ending.done()

    @property
    def main_pid(self) -> int | None:
        """The runtime's main process, while it has one."""
        return self._main.pid if self._main is not None else None

    @property
    def runtime_pid(self) -> int | None:
        """The process that is the runtime; None before there is one."""
        return (self._main.runtime_pid or None) if self._main is not None else None

    def stop(self, because: str) -> None:
        """Order the end. Returns at once; `run` returns when nothing is left."""
        self._end(_Ending("", because))

    async def run(self) -> EnvironmentFailed | EnvironmentExited:
        """Live. Never raises for what a function or its machine can do wrong."""
        try:
            init_ms = await self._initialize()
            if init_ms is not None:
                await self._serve(init_ms)
        except Exception as exc:  # noqa: BLE001
            # Task boundary: an environment that breaks must be reported, or its slots would be promised for ever.
            _log.exception("environment_broke", extra={"environment": self._start.environment_id})
            self._end(
                _Ending("Runtime.Unknown", f"The instance could not run the environment: {exc!r}", "InternalError")
            )
        ending = await self._ending
        await self._tear_down(ending)
        return self._last_word(ending)

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
        link, status_fd = await self._link_for_workers(places)
        try:
            process = self._process(runtime, link, places)
            if process is None:
                return None
            api = self._runtime_api(process)
            if not self._isolation.own_network:
                await api.listen()
            if not self._spawn(process, places, api, status_fd):
                return None
        finally:
            if status_fd is not None:
                os.close(status_fd)
        if not await self._let_through(api):
            return None
        if not await self._init_complete(process, api, started):
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
            self._end(_Ending("Runtime.Unknown", str(installed), "InvalidRuntime"))
            return None
        return installed

    def _open_log(self, runtime: InstalledRuntime) -> bool:
        """Begin the log; false (and over) if it cannot be written."""
        try:
            self._output = LogCapture(Path(self._start.log_path), 4 * self._start.max_concurrency + EXTRA_LOG_SOURCES)
        except OSError as exc:
            self._end(
                _Ending(
                    "Runtime.Unknown", f"The log file {self._start.log_path} cannot be written: {exc}.", "InternalError"
                )
            )
            return False
        self._platform_log = PlatformLog(self._start, runtime.version_text, self._output.write_line)
        self._note = runtime.note
        if runtime.note:
            self._platform_log.note(runtime.note)
        self._platform_log.init_started()
        return True

    def _places(self) -> Places:
        """The environment's folders."""
        folder = self._host.environments_dir / self._start.environment_id
        temp = folder / "tmp"
        temp.mkdir(parents=True, mode=0o700)
        self._folders.append(folder)
        layers = Path(self._start.layers_path) if self._start.layers_path else None
        return Places(Path(self._start.code_path), layers, temp, own_root=self._isolation.own_root)

    def _process(self, runtime: InstalledRuntime, link: WorkerLink | None, places: Places) -> RuntimeProcess | None:
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
            self._end(_Ending("Runtime.InvalidEntrypoint", str(exc), "FunctionError.InvalidEntryPoint"))
            return None
        self._connections = process.connections
        self._all_workers = self._fewest_workers = process.polls
        return process

    def _runtime_api(self, process: RuntimeProcess) -> RuntimeApiServer:
        platform_log, output = self._platform_log, self._output
        assert platform_log is not None
        assert output is not None
        slots = self._start.max_concurrency if self._managed else 1
        self._api = RuntimeApiServer(
            slots, self, platform_log, output.drain, process.connections, tenant_id=self._start.tenant_id
        )
        return self._api

    def _spawn(self, process: RuntimeProcess, places: Places, api: RuntimeApiServer, status_fd: int | None) -> bool:
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
        inherited = [] if status_fd is None else [status_fd]
        frames_fd = None
        if not self._managed and self._start.runtime.startswith(FRAMING_RUNTIMES):
            records_fd, frames_fd = os.pipe()
            output.add_frames(records_fd)
            variables["_LAMBDA_TELEMETRY_LOG_FD"] = str(frames_fd)
            inherited.append(frames_fd)

        def plan(gate_fd: int) -> ProcessPlan:
            marks = {MARKED_VARIABLE: variables[MARKED_VARIABLE]}
            port = int(address.rpartition(":")[2])
            in_cgroup = self.cgroup is not None
            wish = Wish(
                process.command, variables, marks, gate_fd, inherited, port, self.limits, in_cgroup, os.getpid()
            )
            if self._isolation.level != "sandbox":
                return plan_process(wish, places, self._isolation)
            bubblewrap = find_program()
            if bubblewrap is None:
                raise FileNotFoundError("bubblewrap (bwrap) is not on PATH any more")
            return plan_sandbox(wish, places, self._isolation, bubblewrap)

        try:
            self.cgroup = self._make_cgroup()
            self._main = MainProcess(self._mark, self.cgroup, self._main_exited)
            self._main.start(plan, write_fd)
        except OSError as exc:
            self._end(_spawn_failure(exc, places.code))
            return False
        finally:
            os.close(write_fd)
            if frames_fd is not None:
                os.close(frames_fd)
        return True

    def _make_cgroup(self) -> Cgroup | None:
        if self._host.cgroups is None:
            return None
        cgroup = self._host.cgroups.group(group_name(self._host.instance_id, self._start.environment_id))
        cgroup.limit(self.limits)
        return cgroup

    async def _let_through(self, api: RuntimeApiServer) -> bool:
        """Wait for the main process at its gate and let it go on under its limits; false if the environment is over."""
        assert self._main is not None
        arrival = asyncio.ensure_future(self._main.at_gate())
        await asyncio.wait((arrival, self._ending), return_when=asyncio.FIRST_COMPLETED)
        if not arrival.done():
            arrival.cancel()
            await asyncio.wait((arrival,))  # before the gate is closed
            return False
        try:
            listener = arrival.result()
        except ConnectionError:
            await self._ending  # its exit says more
            return False
        except OSError as exc:
            self._end(_Ending("Runtime.Unknown", f"The environment cannot be limited: {exc}.", "InternalError"))
            return False
        if listener is not None:
            await api.listen(listener)
        self._main.pass_gate()
        return not self._ending.done()

    async def _link_for_workers(self, places: Places) -> tuple[WorkerLink | None, int | None]:
        """What lets workers speak the link themselves, and the end of the status pipe that goes to them; neither where they don't."""
        path = Path(self._start.link_path) if self._start.link_path else None
        if self._managed and self._start.relays_workers:
            path = await self._relay_workers()
        if not self._managed or path is None:
            return None, None
        read_fd, write_fd = os.pipe()
        self._workers = LinkedWorkers(read_fd, self._start.max_concurrency, self._progress.set, self.worker_lost)
        shown = places.show(path, SOCKETS_DIR / "link.sock")
        return WorkerLink(str(shown), self._start.environment_id, write_fd), write_fd

    async def _relay_workers(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="lambstead-"))
        self._folders.append(folder)
        self._relay = WorkerRelay(self._host.server, self._host.instance_id, self._start.environment_id)
        await self._relay.listen(folder / "link.sock")
        return folder / "link.sock"

    def _listen_for_logs(self, places: Places, output: LogCapture) -> Path:
        path = places.temp.parent / "log.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            short = Path(tempfile.mkdtemp(prefix="lambstead-"))
            self._folders.append(short)
            path = short / "log.sock"
        output.listen(path)
        return places.show(path, SOCKETS_DIR / "log.sock")

    async def _init_complete(self, process: RuntimeProcess, api: RuntimeApiServer, started: float) -> bool:
        """Wait until enough workers poll; false if the environment ended first, the init time limit included.

        AWS takes one poll for a complete init; that is enough for us when the time is up.
        """
        deadline = started + self._start.init_timeout_ms / 1000
        alive: int | None = None
        while not self._ending.done():
            if self._workers is not None and self._workers.is_initialized:
                return True
            if self._workers is None and is_initialized(InitProgress(api.parked, process.polls, alive)):
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0 and api.parked:
                return True
            if remaining <= 0:
                message = f"Init phase timed out after {self._start.init_timeout_ms / 1000:.2f} seconds"
                self._end(_Ending("Sandbox.Timedout", message, "FunctionError.InitTimeout"))
                break
            alive = None
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), min(remaining, WORKER_COUNT_TICK_SECONDS))
            except TimeoutError:
                alive = self._count_workers() if api.parked and self._connections is Connections.WORKERS else None
        return False

    def _count_workers(self) -> int | None:
        import psutil  # only needed when workers are missing; its import would slow every start of an agent

        assert self._main is not None
        try:
            children = psutil.Process(self._main.runtime_pid).children()
            return sum(child.status() != psutil.STATUS_ZOMBIE for child in children)
        except psutil.Error:
            return None

    # Ready

    async def _serve(self, init_ms: float) -> None:
        """Open the link, report ready, and stay until the environment is over."""
        api, platform_log, main = self._api, self._platform_log, self._main
        assert api is not None
        assert platform_log is not None
        assert main is not None
        if self._workers is None:
            try:
                self._link = await self._connect_link()
            except OSError as exc:
                self._end(_Ending("Runtime.Unknown", f"The server's socket cannot be reached: {exc}.", "InternalError"))
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
        self._end(_Ending("Runtime.Unknown", "The server closed the environment's link."))

    # Life of the Runtime API

    def poll_parked(self) -> None:
        self._progress.set()

    def init_failed(self, error_type: str, document: str) -> None:
        self._end(_Ending(error_type, "", "FunctionError.RuntimeInitError", _as_document(error_type, document)))

    def connection_dropped(self) -> None:
        if self._connections is Connections.WORKERS and self._ready:
            asyncio.get_running_loop().call_later(RECOUNT_AFTER_SECONDS, self._recount)

    def _recount(self) -> None:
        """See whether a worker died where its connection could not tell."""
        alive = None if self._ending.done() else self._count_workers()
        if alive is not None and alive < self._fewest_workers:
            self.worker_lost(alive)

    def worker_lost(self, workers_left: int) -> None:
        self._fewest_workers = min(self._fewest_workers, workers_left)
        if not self._ready:
            self._progress.set()
        elif workers_left:
            self._worker_died(workers_left)
        else:
            self._end(_Ending("Runtime.ExitError", exit_message(None)))

    def _worker_died(self, workers_left: int) -> None:
        if self._connections is Connections.POLLERS and self._platform_log is not None:
            # Nobody else says so: what ran in the thread only times out.
            self._platform_log.note(f"A worker thread ended; {workers_left} of {self._all_workers} are left.")
        slots_left = self._start.max_concurrency * workers_left // self._all_workers
        self._report(EnvironmentDegraded(self._start.environment_id, slots_left))

    def invocation_timed_out(self, request_id: str) -> None:
        if not self._managed:
            self._end(_Ending("Sandbox.Timedout", f"Invocation {request_id} timed out."))

    def memory_high_water(self) -> int:
        return _high_water_bytes(self._main.runtime_pid) if self._main is not None else 0

    def is_ours(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        return self._main is not None and owns_connection(self._main.pid or 0, self._mark, peer, here)

    # Limits

    def check_limits(self, usage: Usage) -> None:
        """End the environment if it takes more than it may, as AWS does."""
        if self._main is None or self._ending.done():
            return
        if self._main.was_killed_for_memory:
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
        self._end(_Ending(error_type, exit_message(-signal.SIGKILL)))

    # The end

    def _end(self, ending: _Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)
        self._progress.set()

    def _main_exited(self) -> None:
        """The kernel says that the main process is over; the environment is over with it."""
        assert self._main is not None
        if self._main.was_killed_for_memory:
            self._out_of_memory("the kernel killed a process for want of memory")
        self._end(_Ending("Runtime.ExitError", exit_message(self._main.exit_code)))

    async def _tear_down(self, ending: _Ending) -> None:
        """Settle what runs, kill everything, keep its last words, remove its files."""
        if self._api is not None:
            is_exit = ending.error_type in EXITS
            self._api.end(
                ending.message if is_exit else exit_message(-signal.SIGKILL),
                ending.error_type if is_exit else "Runtime.ExitError",
            )
        if self._link is not None:
            self._link.close()
        if self._main is not None:
            await self._main.kill()
        if self._relay is not None:
            self._relay.close()
        if self._workers is not None:
            self._workers.close()
        if self._platform_log is not None and self._output is not None:
            self._output.drain()
            self._log_ending(self._platform_log, ending)
        if self._output is not None:
            self._output.close()
        for folder in self._folders:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    def _log_ending(self, platform_log: PlatformLog, ending: _Ending) -> None:
        if not ending.error_type:
            return
        if ending.error_type in EXITS:
            platform_log.runtime_exited(f"Error: {ending.message}", ending.error_type)
        if not self._ready:
            init_ms = (time.monotonic() - self._init_started) * 1000
            platform_log.init_ended(
                "timeout" if ending.error_type == "Sandbox.Timedout" else "error", init_ms, ending.error_type
            )

    def _last_word(self, ending: _Ending) -> EnvironmentFailed | EnvironmentExited:
        environment_id = self._start.environment_id
        if self._ready or not ending.error_type:
            return EnvironmentExited(environment_id, ending.error_type, ending.message)
        document = ending.document or error_document(ending.error_type, ending.message)
        return EnvironmentFailed(environment_id, ending.error_type, document, ending.reason_code)


def _install(runtimes_dir: Path, identifier: str) -> InstalledRuntime | RuntimeNotAvailable:
    """The error is returned and not raised: when a stop order came meanwhile, nobody is left to catch it."""
    try:
        return catalogue.install(runtimes_dir, identifier, lambda text: _log.info("%s", text))
    except RuntimeNotAvailable as exc:
        return exc


def _spawn_failure(exc: OSError, working_directory: Path) -> _Ending:
    """AWS's words for a main process that cannot be started."""
    if not working_directory.is_dir():
        return _Ending(
            "Runtime.InvalidWorkingDir",
            f"The code package's folder {working_directory} is not there.",
            "FunctionError.InvalidWorkingDirectory",
        )
    if isinstance(exc, PermissionError):
        return _Ending("PermissionDenied", f"The runtime may not be started: {exc}.", "FunctionError.PermissionDenied")
    return _Ending(
        "Runtime.InvalidEntrypoint", f"The runtime could not be started: {exc}.", "FunctionError.InvalidEntryPoint"
    )


def _as_document(error_type: str, text: str) -> str:
    """The runtime's document as it is, if it is a JSON object; wrapped as a message if it is anything else."""
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    return text if isinstance(parsed, dict) else error_document(error_type, text)


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
