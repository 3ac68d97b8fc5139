"""Python runtimes: which interpreter stands in for `python3.N`, and AWS's interface client beside it.

The client (`awslambdaric`) and boto3, which AWS's managed Python runtimes ship, are installed once per interpreter minor version into
`<runtimes>/python3.N/` by the server's own pip, for that version and not for the server's. A folder appears complete or not at all;
a file lock lets one process install at a time; other pins than the folder's mean a new installation.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lambstead.instance.runtimes.discovery import Interpreter, find_interpreters
from lambstead.instance.sandbox import RuntimeCommand

CLIENT_VERSION = "4.2.2"
REQUIREMENTS = (f"awslambdaric=={CLIENT_VERSION}", "boto3==1.44.5")
"""boto3 is the release of the service models that the server is built from."""
CLIENT_MINORS = range(11, 15)
"""CPython 3.N for which binary wheels of the client exist."""
STAMP_NAME = "lambstead-client.json"
INSTALL_TIMEOUT_SECONDS = 600.0
KEPT_OUTPUT_LINES = 3

Report = Callable[[str], None]

_IDENTIFIER = re.compile(r"python3\.(\d{1,2})")
_BOOTSTRAP = Path(__file__).with_name("python_bootstrap.py")


class RuntimeNotAvailable(Exception):
    """The runtime cannot be had on this machine now; the message names what is missing and what would help."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The interpreter that runs a runtime. `note` says in one sentence if it is not the named version; else empty."""

    interpreter: Interpreter
    note: str = ""


@dataclass(frozen=True, slots=True)
class WorkerLink:
    """Where the workers of an environment speak the link themselves, and where their main process reports them (see `python_link`)."""

    path: str
    environment_id: str
    status_fd: int


@dataclass(frozen=True, slots=True)
class InstalledRuntime:
    """A runtime that can be started now."""

    identifier: str
    interpreter: Interpreter
    client_dir: Path
    note: str = ""

    @property
    def version_text(self) -> str:
        """As `runtimeVersion` of the platform's log records names it."""
        return f"python:{self.interpreter.version_text}"

    def command(self, link: WorkerLink | None = None, layers: Path | None = None) -> RuntimeCommand:
        """The main process: our bootstrap, which becomes AWS's client; with `link`, its workers get their events there.

        `layers` is the folder that stands in for `/opt`, None for a function without layers.
        """
        return RuntimeCommand(
            program=self.interpreter.path,
            arguments_before=("-P", "-S", str(_BOOTSTRAP)),
            arguments_after=(
                str(self.client_dir),
                json.dumps(asdict(link)) if link else "",
                json.dumps(self._layer_paths(layers)),
            ),
        )

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


def installed_client(runtimes_dir: Path, minor: int) -> Path | None:
    """The client's folder for CPython 3.`minor`, if it holds exactly what `REQUIREMENTS` pins."""
    client_dir = _client_dir(runtimes_dir, minor)
    try:
        stamp = json.loads((client_dir / STAMP_NAME).read_text())
    except (OSError, ValueError):
        return None
    return client_dir if stamp.get("requirements") == list(REQUIREMENTS) else None


def ensure(runtimes_dir: Path, identifier: str, report: Report) -> InstalledRuntime:
    """The runtime ready to start, its client installed if need be. Blocks for seconds when it installs; `report` gets progress.

    Raises RuntimeNotAvailable.
    """
    minor = named_minor(identifier)
    if minor is None:
        raise RuntimeNotAvailable(f"{identifier} is not a Python 3 runtime.")
    choice = choose(minor, find_interpreters(runtimes_dir))
    client_dir = installed_client(runtimes_dir, choice.interpreter.minor) or _install(
        runtimes_dir, choice.interpreter, report
    )
    return InstalledRuntime(identifier, choice.interpreter, client_dir, choice.note)


def _client_dir(runtimes_dir: Path, minor: int) -> Path:
    return runtimes_dir / f"python3.{minor}"


def _install(runtimes_dir: Path, interpreter: Interpreter, report: Report) -> Path:
    runtimes_dir.mkdir(parents=True, exist_ok=True)
    with _install_lock(runtimes_dir):
        # Another process may have installed it while we waited for the lock.
        existing = installed_client(runtimes_dir, interpreter.minor)
        if existing is not None:
            return existing
        report(f"Installing {', '.join(REQUIREMENTS)} for CPython 3.{interpreter.minor}.")
        fresh = Path(tempfile.mkdtemp(dir=runtimes_dir, prefix=f".python3.{interpreter.minor}-"))
        try:
            _fill(fresh, interpreter)
            _swap_in(fresh, _client_dir(runtimes_dir, interpreter.minor))
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        report(f"Installed the interface client {CLIENT_VERSION} for CPython 3.{interpreter.minor}.")
    return _client_dir(runtimes_dir, interpreter.minor)


@contextmanager
def _install_lock(runtimes_dir: Path) -> Iterator[None]:
    with open(runtimes_dir / ".install.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(folder: Path, interpreter: Interpreter) -> None:
    result = _run([*_installer(), *_target_options(folder, interpreter.minor), *REQUIREMENTS])
    if result.returncode != 0:
        last = " ".join(result.stderr.strip().splitlines()[-KEPT_OUTPUT_LINES:])
        raise RuntimeNotAvailable(
            f"The interface client for CPython 3.{interpreter.minor} could not be installed: {last} "
            "A package index must be reachable the first time a runtime is used."
        )
    # Compiled by the interpreter that will import it: functions must not write here, and each worker would compile it again.
    _run([str(interpreter.path), "-I", "-S", "-m", "compileall", "-q", str(folder)])
    (folder / STAMP_NAME).write_text(
        json.dumps({"requirements": list(REQUIREMENTS), "python": interpreter.version_text})
    )
    folder.chmod(0o755)


def _installer() -> list[str]:
    if _run([sys.executable, "-m", "pip", "--version"]).returncode == 0:
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


def _run(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=INSTALL_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", f"no result within {INSTALL_TIMEOUT_SECONDS:.0f} seconds.")


def _swap_in(fresh: Path, place: Path) -> None:
    """Put `fresh` at `place`. What stood there is moved aside first: environments that run from it keep their open files."""
    if place.exists():
        old = Path(tempfile.mkdtemp(dir=place.parent, prefix=".old-"))
        os.replace(place, old / "client")
        os.replace(fresh, place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(fresh, place)
