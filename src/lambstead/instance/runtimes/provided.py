"""Custom runtimes (`provided.al2023`, `provided.al2`): the program `bootstrap` of the code package speaks the Runtime API itself.

Nothing is installed. The program may be a script or a binary for this machine's processor; it polls once or many times at once, on whatever
connections it likes. What the kernel would refuse to execute is found out before the start, so that the reason can be told in AWS's words.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from lambstead.instance.isolation import LAYERS_DIR, RUNTIME_DIR, TASK_ROOT, Places
from lambstead.instance.runtimes.runtime import EntryPointInvalid, Launch, RuntimeNotAvailable, RuntimeProcess, launched

IDENTIFIERS = ("provided.al2023", "provided.al2")
BOOTSTRAP = "bootstrap"

_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""`e_machine` of the processors we know; on another one the kernel has the only word."""


@dataclass(frozen=True, slots=True)
class CustomRuntime:
    """A runtime that the function brings."""

    identifier: str
    note: str = ""

    @property
    def engine(self) -> str:
        return "the code package's bootstrap"

    @property
    def client(self) -> str:
        return ""

    @property
    def version_text(self) -> str:
        return self.identifier.replace(".", ":", 1)

    def process(self, launch: Launch) -> RuntimeProcess:
        """The bootstrap. Raises EntryPointInvalid."""
        return RuntimeProcess(command=launched(launch.places, _bootstrap(launch.places)), runtime_dir=RUNTIME_DIR)


def ensure(identifier: str) -> CustomRuntime:
    """The runtime, which is always there. Raises RuntimeNotAvailable for a name that is none of `IDENTIFIERS`."""
    if identifier not in IDENTIFIERS:
        raise RuntimeNotAvailable(f"{identifier} is not a custom runtime; those are {', '.join(IDENTIFIERS)}.")
    return CustomRuntime(identifier)


def _bootstrap(places: Places) -> Path:
    """The first executable `bootstrap` in AWS's order, by its name inside."""
    for folder, inside, name in (
        (places.code, places.task_root, TASK_ROOT),
        (places.layers, places.layers_dir, LAYERS_DIR),
    ):
        if folder is None or inside is None:
            continue
        path = folder / BOOTSTRAP
        if path.is_file() and os.access(path, os.X_OK):
            _check_executable(path, str(name / BOOTSTRAP))
            return inside / BOOTSTRAP
    raise EntryPointInvalid("Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]")


def _check_executable(path: Path, name: str) -> None:
    """Raise EntryPointInvalid if the kernel would refuse the file, with what AWS's platform says then."""
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"#!"):
        interpreter = head[2:].split(b"\n", 1)[0].strip(b" \t").split(b" ")[0]
        # A line that ends in CR names a program that does not exist: the classic of scripts saved on Windows.
        if not os.access(interpreter, os.X_OK):
            raise EntryPointInvalid(f"fork/exec {name}: no such file or directory")
    elif not _is_binary_of_this_machine(head):
        raise EntryPointInvalid(f"fork/exec {name}: exec format error")


def _is_binary_of_this_machine(head: bytes) -> bool:
    if not head.startswith(b"\x7fELF") or len(head) < 20:
        return False
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return _ELF_MACHINES.get(platform.machine(), machine) == machine
