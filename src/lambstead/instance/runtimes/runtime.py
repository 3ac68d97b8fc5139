"""What every runtime must say so that an environment can start it, and what an environment says to get that.

Launch ──► InstalledRuntime.process ──► RuntimeProcess ──► the main process of an environment
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lambstead.core.runtime_api import Connections
from lambstead.instance.isolation import LAYERS_DIR, OWN_DIR, TASK_ROOT, Places, RuntimeCommand

WRAPPER_VARIABLE = "AWS_LAMBDA_EXEC_WRAPPER"
SCRIPTS = Path(__file__).parent
"""What runs inside environments beside AWS's clients."""


class RuntimeNotAvailable(Exception):
    """The runtime cannot be had on this machine now; the message names what is missing and what would help."""


class EntryPointInvalid(Exception):
    """The code package has nothing that this runtime could start; the message is the platform's for the function's log and its caller."""


@dataclass(frozen=True, slots=True)
class WorkerLink:
    """Where the workers of an environment speak the link themselves, and where their main process reports them (see `python_link`)."""

    path: str
    environment_id: str
    status_fd: int


@dataclass(frozen=True, slots=True)
class InheritedLink:
    """The socket on which the one worker of an environment on demand speaks the link with its agent (see `python_link`)."""

    fd: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One environment, as far as it matters for which process to start."""

    managed: bool
    """Many invocations at once; else one after the other."""
    slots: int
    vcpus: float
    memory_mb: int
    places: Places
    """What the environment sees of the machine. The code package and the layers are there already."""
    variables: Mapping[str, str]
    """The customer's environment variables."""
    link: WorkerLink | InheritedLink | None = None
    """Given only to runtimes whose workers can speak the link."""
    handler: str = ""
    """As configured, for clients that do not read it from `_HANDLER`."""

    @property
    def wrapper(self) -> Path | None:
        """The customer's wrapper script (Developer Guide, "Modifying the runtime environment"): it is started instead of the runtime, with the runtime's command as
        its arguments. Names below `/var/task` and `/opt` mean what the function sees there.
        """
        given = self.variables.get(WRAPPER_VARIABLE)
        if not given:
            return None
        for seen, place in ((TASK_ROOT, self.places.task_root), (LAYERS_DIR, self.places.layers_dir)):
            if place is not None and Path(given).is_relative_to(seen):
                return place / Path(given).relative_to(seen)
        return Path(given)


@dataclass(frozen=True, slots=True)
class RuntimeProcess:
    """The main process of an environment, and how it will behave towards the Runtime API."""

    command: RuntimeCommand
    runtime_dir: Path
    """By the name inside: what the function sees as LAMBDA_RUNTIME_DIR."""
    program_dir: Path | None = None
    """First on the function's PATH; None if the runtime brings no program."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The runtime's own; a customer's of the same name wins."""
    polls: int = 1
    """Init is complete once so many polls are parked."""
    connections: Connections = Connections.ANONYMOUS


class InstalledRuntime(Protocol):
    """A runtime that can be started now."""

    @property
    def identifier(self) -> str:
        """AWS's name, for example `nodejs24.x`."""

    @property
    def engine(self) -> str:
        """What runs the function, for people: `CPython 3.13.1`."""

    @property
    def client(self) -> str:
        """The interface client, for people; empty if the function brings it."""

    @property
    def version_text(self) -> str:
        """As `runtimeVersion` of the platform's log records names it."""

    @property
    def note(self) -> str:
        """One sentence, if it is not what the identifier names; else empty."""

    def process(self, launch: Launch) -> RuntimeProcess:
        """What to start. Raises EntryPointInvalid."""


def launched(places: Places, program: Path, *arguments: str, wrapper: Path | None = None) -> RuntimeCommand:
    """A program that cannot confine itself, started by a launcher that confines its own process and becomes it, or the wrapper that is to start it.

    Names are those inside.
    """
    if wrapper is not None:
        program, arguments = wrapper, (str(program), *arguments)
    python = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    launcher = places.show(SCRIPTS, OWN_DIR) / "launcher.py"
    return RuntimeCommand(places.show_python(python), ("-I", "-S", str(launcher)), (str(program), *arguments))
