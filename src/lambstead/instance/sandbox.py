"""How the processes of an environment are kept apart from the rest: isolation levels.

A level turns the wish to run a runtime (`RuntimeCommand`) into the process to start (`ProcessPlan`). There is one level now:

- `process`: a session and process group of its own, no new privileges, no core files, at most 4,096 open files, a private temp
  directory. Same user, same file system, same network: the function can read what the agent's user can read.

A level with its own file system decides what `code_path` and `temp_path` are called inside; that is why they are part of the plan.
What must be done from inside the new process (prctl, limits) is passed to the bootstrap as `Confinement`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

IsolationLevel = Literal["process"]

MAX_OPEN_FILES = 4_096
"""AWS's quota of file descriptors per execution environment."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the bootstrap applies to itself before any code of the function runs."""

    die_with_pid: int
    """The main process is killed when this parent dies; 0 if somebody else sees to that."""
    open_files: int = MAX_OPEN_FILES
    core_bytes: int = 0
    no_new_privileges: bool = True

    def as_argument(self) -> str:
        """As one command-line argument of the bootstrap."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """What a runtime wants run, before any isolation: program and arguments, a placeholder where the confinement goes."""

    program: Path
    arguments_before: tuple[str, ...]
    arguments_after: tuple[str, ...]
    """Arguments around the confinement, which a bootstrap takes as one argument."""


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """The process to start. It begins a session of its own; `code_path` and `temp_path` are the names inside."""

    argv: tuple[str, ...]
    working_directory: Path
    code_path: Path
    temp_path: Path


def plan_process(command: RuntimeCommand, code_path: Path, temp_path: Path, agent_pid: int) -> ProcessPlan:
    """The plan at level `process`: same names inside as outside, those of layers included, which the command carries."""
    confinement = Confinement(die_with_pid=agent_pid)
    argv = (str(command.program), *command.arguments_before, confinement.as_argument(), *command.arguments_after)
    return ProcessPlan(argv, working_directory=code_path, code_path=code_path, temp_path=temp_path)
