"""Python runtimes: which interpreter stands in for `python3.N`, and AWS's interface client beside it.

The client (`awslambdaric`) and boto3, which AWS's managed Python runtimes ship, are installed once per interpreter minor version into
`<runtimes>/python3.N/` by the server's own pip, for that version and not for the server's (see `installation`).
"""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lambstead.core.runtime_api import Connections
from lambstead.instance.isolation import LANG_DIR, OWN_DIR, RUNTIME_DIR, Places, RuntimeCommand
from lambstead.instance.runtimes.discovery import Interpreter, find_interpreters
from lambstead.instance.runtimes.installation import Installation, Report, last_words, run_installer
from lambstead.instance.runtimes.runtime import SCRIPTS, Launch, RuntimeNotAvailable, RuntimeProcess, launched

CLIENT_VERSION = "4.2.2"
REQUIREMENTS = (f"awslambdaric=={CLIENT_VERSION}", "boto3==1.44.5")
"""boto3 is the release of the service models that the server is built from."""
CLIENT_MINORS = range(10, 16)
"""CPython 3.N for which binary wheels of the client exist."""

_IDENTIFIER = re.compile(r"python3\.(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Choice:
    """The interpreter that runs a runtime. `note` says in one sentence if it is not the named version; else empty."""

    interpreter: Interpreter
    note: str = ""


@dataclass(frozen=True, slots=True)
class PythonRuntime:
    """A Python runtime that can be started now."""

    identifier: str
    interpreter: Interpreter
    client_dir: Path
    note: str = ""

    @property
    def engine(self) -> str:
        return f"CPython {self.interpreter.version_text}"

    @property
    def client(self) -> str:
        return f"awslambdaric {CLIENT_VERSION}"

    @property
    def version_text(self) -> str:
        return f"python:{self.interpreter.version_text}"

    def process(self, launch: Launch) -> RuntimeProcess:
        """Our bootstrap, which becomes AWS's client; with a link, its workers get their events there."""
        client_dir = launch.places.show(self.client_dir, RUNTIME_DIR)
        interpreter = self._shown(launch.places)
        return RuntimeProcess(
            command=self._command(launch, interpreter, client_dir),
            runtime_dir=client_dir,
            program_dir=interpreter.parent,
            # AWS's 3.12 and newer have LC_CTYPE. Older ones find the locale of LANG instead, which few machines have.
            variables={"PYTHONPATH": str(client_dir), "LC_CTYPE": "C.UTF-8"},
            polls=launch.slots if launch.managed else 1,
            connections=Connections.WORKERS if launch.managed else Connections.ANONYMOUS,
        )

    def _shown(self, places: Places) -> Path:
        """The interpreter by its name inside: in `/var/lang` as on AWS, if it will find its library there; it does by where it is itself."""
        own_name = places.show_python(self.interpreter.path)  # what it links to may be named by that
        prefix, name = own_name.parent.parent, f"python3.{self.interpreter.minor}"
        libraries = [path for lib in ("lib", "lib64") if (path := prefix / lib / name).joinpath("os.py").is_file()]
        if not places.own_root or not libraries:
            return own_name
        for path in (*libraries, *(prefix / "lib").glob(f"lib{name}*.so*")):
            places.show(path, LANG_DIR / path.relative_to(prefix))
        for program in (name, "python3", "python"):
            places.show(own_name, LANG_DIR / "bin" / program)
        return LANG_DIR / "bin" / name

    def _command(self, launch: Launch, interpreter: Path, client_dir: Path) -> RuntimeCommand:
        # 3.10 has no -P; there the bootstrap takes its own folder off the path.
        flags = ("-P", "-S") if self.interpreter.minor >= 11 else ("-S",)
        bootstrap = launch.places.show(SCRIPTS, OWN_DIR) / "python_bootstrap.py"
        before = (*flags, str(bootstrap))
        after = (
            str(client_dir),
            json.dumps(asdict(launch.link)) if launch.link else "",
            json.dumps(self._layer_paths(launch.places.layers_dir)),
        )
        if launch.wrapper is not None:
            # The wrapper is the customer's code already: the launcher confines it, and the bootstrap has nothing left to do there.
            return launched(launch.places, interpreter, *before, "", *after, wrapper=launch.wrapper)
        return RuntimeCommand(interpreter, before, after)

    def _layer_paths(self, layers: Path | None) -> list[str]:
        """Where modules of layers lie. The version in the path is the runtime's own name, also where another CPython stands in for it."""
        if layers is None:
            return []
        return [str(layers / "python" / "lib" / self.identifier / "site-packages"), str(layers / "python")]


def named_minor(identifier: str) -> int | None:
    """N of `python3.N`; None if the identifier is not a Python 3 runtime."""
    match = _IDENTIFIER.fullmatch(identifier)
    return int(match[1]) if match else None


def choose(minor: int, interpreters: Sequence[Interpreter]) -> Choice:
    """The newest release of exactly 3.`minor`, else of the nearest version the client has wheels for; of two as near, the newer.

    Raises RuntimeNotAvailable if no interpreter can run the client.
    """
    usable = [i for i in interpreters if i.minor in CLIENT_MINORS]
    if not usable:
        raise RuntimeNotAvailable(
            f"python3.{minor} needs a CPython from 3.{CLIENT_MINORS.start} to 3.{CLIENT_MINORS[-1]} on this machine and none was found; "
            "install one, for example with `uv python install` or pyenv."
        )
    chosen = max(usable, key=lambda i: (-abs(i.minor - minor), i.minor, i.version))
    if chosen.minor == minor:
        return Choice(chosen)
    why = "is not installed here" if minor in CLIENT_MINORS else "has no interface client"
    return Choice(chosen, f"python3.{minor} {why}: running on CPython {chosen.version_text} instead.")


def client_installation(runtimes_dir: Path, minor: int) -> Installation:
    """Where the client for CPython 3.`minor` is, or will be."""
    return Installation(runtimes_dir, f"python3.{minor}", REQUIREMENTS)


def ensure(runtimes_dir: Path, identifier: str, report: Report) -> PythonRuntime:
    """The runtime ready to start, its client installed if need be. Blocks for seconds when it installs; `report` gets progress.

    Raises RuntimeNotAvailable.
    """
    minor = named_minor(identifier)
    if minor is None:
        raise RuntimeNotAvailable(f"{identifier} is not a Python 3 runtime.")
    choice = choose(minor, find_interpreters(runtimes_dir))
    interpreter = choice.interpreter
    what = f"the interface client for CPython 3.{interpreter.minor}"
    client_dir = client_installation(runtimes_dir, interpreter.minor).ensure(
        what, lambda folder: _fill(folder, interpreter), report
    )
    return PythonRuntime(identifier, interpreter, client_dir, choice.note)


def _fill(folder: Path, interpreter: Interpreter) -> None:
    result = run_installer([*_installer(), *_target_options(folder, interpreter.minor), *REQUIREMENTS])
    if result.returncode != 0:
        raise RuntimeNotAvailable(
            f"The interface client for CPython 3.{interpreter.minor} could not be installed: {last_words(result)} "
            "A package index must be reachable the first time a runtime is used."
        )
    # Compiled by the interpreter that will import it: functions must not write here, and each worker would compile it again.
    run_installer([str(interpreter.path), "-I", "-S", "-m", "compileall", "-q", str(folder)])


def _installer() -> list[str]:
    if run_installer([sys.executable, "-m", "pip", "--version"]).returncode == 0:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    uv = shutil.which("uv")
    if uv is None:
        raise RuntimeNotAvailable(
            f"The interface client cannot be installed: {sys.executable} has no pip and there is no uv on PATH; "
            f"`{sys.executable} -m ensurepip` would add pip."
        )
    return [uv, "pip", "install", "--quiet"]


def _target_options(folder: Path, minor: int) -> list[str]:
    return ["--target", str(folder), "--python-version", f"3.{minor}", "--only-binary", ":all:"]
