"""How the processes of an environment are kept apart from the rest: isolation levels, from the strongest to the weakest.

- `sandbox`: a root directory, processes, users and (without egress) a network of its own, by bubblewrap; see `bubblewrap`.
- `landlock`: same names as outside, but only what the environment needs can be opened, and no foreign process be signalled.
- `process`: a session of its own, no new privileges, limits. The function can read and signal what the agent's user can.
- `oci` and `gvisor`, chosen by name only: what `sandbox` gives, made by an OCI runtime (runc, crun), or in gVisor with a kernel of its own; see `containers`.

A level turns the wish to run a runtime (`RuntimeCommand`) into the process to start (`ProcessPlan`). What runtimes want to see inside they tell
`Places`, which says what it is called there. What must be done from inside the new process goes to `runtimes/confinement.py` as a `Confinement`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from lambstead.core.egress import Egress
from lambstead.core.limits import EnvironmentLimits

IsolationLevel = Literal["sandbox", "landlock", "process", "oci", "gvisor"]
AUTOMATIC: tuple[IsolationLevel, ...] = ("sandbox", "landlock", "process")
"""What is used where no level is named: the first that works. The others cost more, and need what few machines have."""
OWN_ROOT: frozenset[IsolationLevel] = frozenset({"sandbox", "oci", "gvisor"})
"""Levels with a root directory, and without egress a network, of the environment's own."""
RUNTIME_API_PORT = 9001
"""Where the Runtime API is inside a network of the environment's own, as on AWS."""

TASK_ROOT = Path("/var/task")
RUNTIME_DIR = Path("/var/runtime")
LANG_DIR = Path("/var/lang")
"""Where the language of a managed runtime is."""
LAYERS_DIR = Path("/opt")
TEMP_DIR = Path("/tmp")
OWN_DIR = Path("/var/lambstead")
"""Where Lambstead's own scripts are inside a root of the environment's own."""
SOCKETS_DIR = Path("/run/lambstead")

SYSTEM_READABLE = ("/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr")
"""What every program may need, readable at level landlock."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class Landlock:
    """What remains open to a process that gave up the rest."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    connect_port: int
    """The only TCP port it may connect to; 0 for all."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a process applies to itself before any code of the function runs (`runtimes/confinement.py`)."""

    gate_fd: int
    """Socket on which the process says that it is there, and waits until it may go on; -1 where whatever started it has done that."""
    listen_port: int
    """Loopback port to open for the agent, which gets the listener through the gate; 0 where the agent has one already."""
    die_with_pid: int
    """The main process is killed when this parent dies; 0 if somebody else sees to that."""
    open_files: int
    """Limit per process; 0 to leave it."""
    keeps_gate: bool = False
    """What it becomes passes the gate again."""
    new_network: bool = False
    """First it makes a network of its own, with nothing but a loopback; as an ordinary user in a user namespace of its own."""
    is_init: bool = False
    """It is process 1 of its namespace: the rest goes on in a child, and it only reaps, as process 1 has no default signal actions."""
    packed_fds: tuple[int, ...] = ()
    """Descriptors that arrive as 3, 4, … and get these numbers."""
    fds_to_pack: tuple[int, ...] = ()
    """Descriptors that get the numbers 3, 4, … last: container runtimes pass on no others."""
    processes: int = 0
    """Limit where the kernel counts for this environment alone; 0 where it cannot, or a control group does it."""
    core_bytes: int = 0
    no_new_privileges: bool = True
    """Nor any of those it has: all capabilities are given up."""
    landlock: Landlock | None = None

    def as_argument(self) -> str:
        """As one command-line argument."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """What a runtime wants run, by the names inside: program and arguments, a placeholder where the confinement goes."""

    program: Path
    arguments_before: tuple[str, ...]
    arguments_after: tuple[str, ...]
    """Arguments around the confinement, which a bootstrap takes as one argument."""

    def argv(self, confinement: Confinement) -> tuple[str, ...]:
        return (str(self.program), *self.arguments_before, confinement.as_argument(), *self.arguments_after)


class Places:
    """What an environment sees of this machine's files, and what it calls them.

    Without a root of its own, everything keeps its name, and what is shown is only noted.
    """

    def __init__(self, code: Path, layers: Path | None, temp: Path, *, own_root: bool) -> None:
        self.own_root = own_root
        self.code = code
        self.layers = layers
        self.temp = temp
        self.shown: dict[Path, Path] = {}
        """Files and folders of this machine by their name inside; read-only, except for what is done to sockets."""

    @property
    def task_root(self) -> Path:
        """The code package's name inside."""
        return TASK_ROOT if self.own_root else self.code

    @property
    def layers_dir(self) -> Path | None:
        """The layers' name inside; None without layers."""
        return LAYERS_DIR if self.own_root and self.layers else self.layers

    @property
    def temp_dir(self) -> Path:
        """The temporary folder's name inside."""
        return TEMP_DIR if self.own_root else self.temp

    def show(self, path: Path, inside: Path) -> Path:
        """Make a file or folder visible, as `inside` where there is a root of its own; the name it has inside."""
        name = inside if self.own_root else path
        self.shown[name] = path
        return name

    def show_python(self, interpreter: Path) -> Path:
        """Make a Python visible under its own name: it finds its library by it. Returns the name."""
        prefix = interpreter.parent.parent
        for folder in ("bin", "lib", "lib64"):
            if (prefix / folder).is_dir() and not _is_system(prefix / folder):
                self.show(prefix / folder, prefix / folder)
        return interpreter

    def show_tree(self, folder: Path) -> None:
        """Make a folder visible under its own name, unless it is part of what every environment sees."""
        if not _is_system(folder):
            self.show(folder, folder)


@dataclass(frozen=True, slots=True)
class Isolation:
    """How an environment is to be isolated."""

    level: IsolationLevel
    egress: Egress = "host"

    @property
    def own_root(self) -> bool:
        return self.level in OWN_ROOT

    @property
    def own_network(self) -> bool:
        """Whether the Runtime API's listener comes from inside."""
        return self.own_root and self.egress != "host"

    @property
    def new_network_outside(self) -> bool:
        """Whether that network is made before what isolates is started, which then finds itself in it. Without egress bubblewrap makes it."""
        return self.own_network and (self.level, self.egress) != ("sandbox", "none")

    @property
    def passes_descriptors(self) -> bool:
        """Whether a process inside can be given open files and sockets of ours. gVisor's kernel knows none of this machine's, nor are
        its processes this machine's."""
        return self.level != "gvisor"

    @property
    def gate_outside(self) -> bool:
        """Whether there is a gate before what isolates is started."""
        return self.new_network_outside or not self.passes_descriptors


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """The process to start. It begins a session of its own."""

    argv: tuple[str, ...]
    working_directory: Path
    variables: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    owned_fds: tuple[int, ...] = field(default=())
    """To be closed once the process was started; part of `pass_fds`."""
    signals_as_status: bool = False
    """The process reports a signal that ended the runtime as exit status 128 + signal, as shells do."""
    is_keeper: bool = False
    """The process itself belongs to whoever isolates: limits are for what it starts."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to run in an environment, whatever the level."""

    command: RuntimeCommand
    variables: Mapping[str, str]
    """Of the runtime's process."""
    marks: Mapping[str, str]
    """Variables by which the environment's processes are found."""
    gate_fd: int
    inherited: Sequence[int]
    """Further descriptors that the process gets."""
    runtime_api_port: int
    limits: EnvironmentLimits
    is_in_cgroup: bool
    """A control group limits its processes."""
    agent_pid: int
    name: str
    """Of the environment, among all of this machine."""
    folder: Path
    """Its own on this machine; what is made there is removed with it."""


def plan_process(wish: Wish, places: Places, isolation: Isolation) -> ProcessPlan:
    """The plan at the levels `process` and `landlock`: same names inside as outside."""
    confinement = Confinement(
        gate_fd=wish.gate_fd,
        listen_port=0,
        die_with_pid=wish.agent_pid,
        open_files=wish.limits.open_files,
        landlock=_landlock(wish, places, isolation) if isolation.level == "landlock" else None,
    )
    fds = (wish.gate_fd, *wish.inherited)
    return ProcessPlan(wish.command.argv(confinement), places.code, wish.variables, fds)


def _landlock(wish: Wish, places: Places, isolation: Isolation) -> Landlock:
    readable = [*SYSTEM_READABLE, "/proc", str(places.code), *map(str, places.shown.values())]
    if places.layers is not None:
        # Stacked layers may be links to where each was unpacked.
        readable += [str(places.layers), *sorted({str(p.resolve()) for p in places.layers.iterdir() if p.is_symlink()})]
    port = wish.runtime_api_port if isolation.egress == "none" else 0
    return Landlock(tuple(readable), (str(places.temp), *DEVICES), port)


def _is_system(path: Path) -> bool:
    return any(path.is_relative_to(system) for system in SYSTEM_READABLE)
