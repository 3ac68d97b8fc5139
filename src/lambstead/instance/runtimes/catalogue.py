"""Every runtime identifier and what this machine can do about it; the face of `runtimes` for the agent and the command line."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lambstead.core.runtimes import missing_piece
from lambstead.instance.runtimes import java, node, provided, python
from lambstead.instance.runtimes.discovery import Interpreter, find_interpreters, find_javas, find_nodes
from lambstead.instance.runtimes.installation import Report
from lambstead.instance.runtimes.runtime import InstalledRuntime, RuntimeNotAvailable

PYTHON_RUNTIMES = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14", "python3.15")
NODE_RUNTIMES = ("nodejs20.x", "nodejs22.x", "nodejs24.x")
CUSTOM_RUNTIMES = provided.IDENTIFIERS
JAVA_RUNTIMES = ("java17", "java21", "java25")
UNBUILT_RUNTIMES = ("dotnet8", "dotnet10", "ruby3.4")
"""Identifiers that are listed; others of the same families are accepted, and substituted if need be."""

RuntimeState = Literal["ready", "not installed", "substituted", "missing", "not built"]
NO_SDK = "The AWS SDK (@aws-sdk) is not part of it here: put it into the code package."


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """What would happen if a function with this runtime were started now."""

    identifier: str
    state: RuntimeState
    interpreter_path: Path | None
    engine: str
    """What would run it, for example `CPython 3.13.1`; empty if nothing would, or it is not there yet."""
    client: str
    """The interface client; empty while none is installed, and where the function brings it."""
    advice: str
    """What would make it better, or what to know; empty if there is nothing."""


def list_runtimes(runtimes_dir: Path) -> list[RuntimeStatus]:
    """The state of every listed runtime. Runs interpreters that were not seen before; installs nothing."""
    interpreters, nodes, jvms = find_interpreters(runtimes_dir), find_nodes(runtimes_dir), find_javas(runtimes_dir)
    return [
        *(_python_status(runtimes_dir, identifier, interpreters) for identifier in PYTHON_RUNTIMES),
        *(_node_status(runtimes_dir, identifier, nodes) for identifier in NODE_RUNTIMES),
        *(_java_status(runtimes_dir, identifier, jvms) for identifier in JAVA_RUNTIMES),
        *(_custom_status(identifier) for identifier in CUSTOM_RUNTIMES),
        *(
            RuntimeStatus(identifier, "not built", None, "", "", _not_built(identifier))
            for identifier in UNBUILT_RUNTIMES
        ),
    ]


def install(runtimes_dir: Path, identifier: str, report: Report) -> InstalledRuntime:
    """Make the runtime ready to start and return it; returns at once if it is. Blocks, `report` gets progress.

    Raises RuntimeNotAvailable with a sentence that names the missing piece.
    """
    if python.named_minor(identifier) is not None:
        return python.ensure(runtimes_dir, identifier, report)
    if node.named_major(identifier) is not None:
        return node.ensure(runtimes_dir, identifier, report)
    if java.named_major(identifier) is not None:
        return java.ensure(runtimes_dir, identifier)
    if identifier in CUSTOM_RUNTIMES:
        return provided.ensure(identifier)
    if missing_piece(identifier):
        raise RuntimeNotAvailable(_not_built(identifier))
    known = (*PYTHON_RUNTIMES, *NODE_RUNTIMES, *JAVA_RUNTIMES, *CUSTOM_RUNTIMES)
    raise RuntimeNotAvailable(f"There is no runtime called {identifier!r}; there are {', '.join(known)}.")


def obstacle(runtimes_dir: Path, identifier: str) -> str:
    """What a runtime needs that is not here and is not installed by itself, and where it is had; empty if nothing. May run JVMs."""
    if java.named_major(identifier) is None:
        return ""
    try:
        java.ensure(runtimes_dir, identifier)
    except RuntimeNotAvailable as exc:
        return str(exc)
    return ""


def _not_built(identifier: str) -> str:
    return f"The runtime {identifier} is not built yet; this release of Lambstead lacks {missing_piece(identifier)}."


def _python_status(runtimes_dir: Path, identifier: str, interpreters: list[Interpreter]) -> RuntimeStatus:
    minor = python.named_minor(identifier)
    assert minor is not None
    try:
        choice = python.choose(minor, interpreters)
    except RuntimeNotAvailable as exc:
        return RuntimeStatus(identifier, "missing", None, "", "", str(exc))
    installed = python.client_installation(runtimes_dir, choice.interpreter.minor).found() is not None
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
            "not installed",
            "The interface client is installed when a function of this runtime first starts.",
        )
    return RuntimeStatus(
        identifier,
        state,
        choice.interpreter.path,
        f"CPython {choice.interpreter.version_text}",
        f"awslambdaric {python.CLIENT_VERSION}" if installed else "",
        advice,
    )


def _node_status(runtimes_dir: Path, identifier: str, nodes: list[Interpreter]) -> RuntimeStatus:
    major = node.named_major(identifier)
    assert major is not None
    installed = all(each.found() for each in node.client_installations(runtimes_dir, major))
    client = node.client_text(major) if installed else ""
    choice = node.exact(major, nodes)
    has_npm = shutil.which("npm") is not None
    if choice is not None and installed:
        return RuntimeStatus(
            identifier, "ready", choice.node.path, f"Node.js {choice.node.version_text}", client, NO_SDK
        )
    if has_npm:
        pieces = "The interface client is" if choice is not None else f"Node.js {major} and the interface client are"
        engine = f"Node.js {choice.node.version_text}" if choice is not None else ""
        advice = f"{pieces} installed from npm when a function of this runtime first starts. {NO_SDK}"
        return RuntimeStatus(identifier, "not installed", choice.node.path if choice else None, engine, client, advice)
    try:
        choice = choice or node.nearest(major, nodes, f"There is no Node.js {major} and no npm to fetch it with.")
    except RuntimeNotAvailable as exc:
        return RuntimeStatus(identifier, "missing", None, "", client, str(exc))
    if not installed:
        advice = "Install npm: the interface client is fetched with it."
        return RuntimeStatus(identifier, "missing", choice.node.path, f"Node.js {choice.node.version_text}", "", advice)
    return RuntimeStatus(
        identifier,
        "substituted",
        choice.node.path,
        f"Node.js {choice.node.version_text}",
        client,
        f"{choice.note} {NO_SDK}",
    )


def _java_status(runtimes_dir: Path, identifier: str, jvms: list[Interpreter]) -> RuntimeStatus:
    major = java.named_major(identifier)
    assert major is not None
    try:
        jvm, note = java.choose(major, jvms)
    except RuntimeNotAvailable as exc:
        return RuntimeStatus(identifier, "missing", None, "", "", str(exc))
    try:
        client = java.client_text(runtimes_dir)
    except RuntimeNotAvailable as exc:
        return RuntimeStatus(identifier, "missing", jvm.path, java.engine_text(jvm), "", str(exc))
    state: RuntimeState = "substituted" if note else "ready"
    return RuntimeStatus(identifier, state, jvm.path, java.engine_text(jvm), client, note)


def _custom_status(identifier: str) -> RuntimeStatus:
    return RuntimeStatus(identifier, "ready", None, provided.ensure(identifier).engine, "", "")
