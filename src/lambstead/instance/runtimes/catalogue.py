"""Every runtime identifier and what this machine can do about it; the face of `runtimes` for the agent and the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lambstead.instance.runtimes import python
from lambstead.instance.runtimes.discovery import Interpreter, find_interpreters
from lambstead.instance.runtimes.python import InstalledRuntime, RuntimeNotAvailable

PYTHON_RUNTIMES = ("python3.11", "python3.12", "python3.13", "python3.14")
"""The Python identifiers that are listed; any other `python3.N` is accepted and substituted."""

RuntimeState = Literal["ready", "client not installed", "substituted", "missing"]

_MISSING_PIECES = {
    "nodejs": "the Node.js interface client and its bootstrap",
    "java": "the Java interface client",
    "dotnet": "the .NET interface client",
    "ruby": "the Ruby interface client",
    "provided": "the launcher for custom runtimes (`bootstrap` in the code package)",
}


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """What would happen if a function with this runtime were started now."""

    identifier: str
    state: RuntimeState
    interpreter_path: Path | None
    interpreter_version: str
    client_version: str
    """Empty while no client is installed."""
    advice: str
    """One sentence: what would make it better; empty if nothing would."""


def list_runtimes(runtimes_dir: Path) -> list[RuntimeStatus]:
    """The state of every listed Python runtime. Runs interpreters that were not seen before; installs nothing."""
    interpreters = find_interpreters(runtimes_dir)
    return [_status(runtimes_dir, identifier, interpreters) for identifier in PYTHON_RUNTIMES]


def install(runtimes_dir: Path, identifier: str, report: Callable[[str], None]) -> InstalledRuntime:
    """Make the runtime ready to start and return it; returns at once if it is. Blocks, `report` gets progress.

    Raises RuntimeNotAvailable with a sentence that names the missing piece.
    """
    if python.named_minor(identifier) is not None:
        return python.ensure(runtimes_dir, identifier, report)
    for family, piece in _MISSING_PIECES.items():
        if identifier.startswith(family):
            raise RuntimeNotAvailable(
                f"The runtime {identifier} is not built yet; this release of Lambstead lacks {piece}."
            )
    raise RuntimeNotAvailable(
        f"There is no runtime called {identifier!r}; Python runtimes are {', '.join(PYTHON_RUNTIMES)}."
    )


def _status(runtimes_dir: Path, identifier: str, interpreters: list[Interpreter]) -> RuntimeStatus:
    minor = python.named_minor(identifier)
    assert minor is not None
    try:
        choice = python.choose(minor, interpreters)
    except RuntimeNotAvailable as exc:
        return RuntimeStatus(identifier, "missing", None, "", "", str(exc))
    installed = python.installed_client(runtimes_dir, choice.interpreter.minor) is not None
    state: RuntimeState
    if choice.note:
        state, advice = (
            "substituted",
            f"{choice.note} Install CPython {identifier.removeprefix('python')} to run it as named.",
        )
    elif installed:
        state, advice = "ready", ""
    else:
        state, advice = (
            "client not installed",
            "The interface client is installed when a function of this runtime first starts.",
        )
    return RuntimeStatus(
        identifier,
        state,
        choice.interpreter.path,
        choice.interpreter.version_text,
        python.CLIENT_VERSION if installed else "",
        advice,
    )
