"""Node.js runtimes: which binary stands in for `nodejsN.x`, and AWS's interface client on it.

The binary is the machine's own if its major version is the named one; else it is installed from the npm package of Node.js itself; without npm, or without
a registry, the nearest one on the machine runs the function, with a note. AWS's client (`aws-lambda-ric`) is unpacked from npm and not installed:
its install scripts compile for minutes what `node_client.cjs` answers in JavaScript.

There are two clients, as on AWS: 4.x has many invocations at once and no callback-style handlers; 3.x, for standard functions before Node.js 24, has
those and one invocation at a time. `@aws-sdk`, which AWS's image has, is not installed: it is hundreds of megabytes.
"""

import json
import os
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lambstead.core.runtime_api import Connections
from lambstead.instance.isolation import LANG_DIR, LAYERS_DIR, OWN_DIR, RUNTIME_DIR
from lambstead.instance.runtimes.discovery import Interpreter, find_nodes, probe_node
from lambstead.instance.runtimes.installation import Installation, Report, last_words, run_installer
from lambstead.instance.runtimes.runtime import SCRIPTS, Launch, RuntimeNotAvailable, RuntimeProcess, launched

CLIENT_VERSION = "4.0.2"
CALLBACK_CLIENT_VERSION = "3.3.0"
"""The last client that knows callback-style handlers."""
FIRST_MAJOR_WITHOUT_CALLBACKS = 24
LEAST_MAJOR = 20
"""The oldest Node.js that both clients run on."""
WORKERS_PER_VCPU = 8
"""Worker threads of AWS's client, by its own rule."""
MAX_HEADER_BYTES = 81_920
CALLBACK_CLIENT_DIR = Path("/var/lambstead-callbacks")
"""Its name inside a root of the environment's own."""
OLD_SPACE_SHARE = 0.9
"""Part of the function's memory that the heap may take before Node.js gives up."""

_IDENTIFIER = re.compile(r"nodejs(\d{1,2})\.x")
_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
_UNTRUSTED_FEATURES = {
    # What AWS switches off unless NODE_OPTIONS switches it on (Developer Guide, Node.js), by runtime; and since when Node.js has it on.
    "experimental-require-module": ((20, 22), {20: (20, 19, 0), 22: (22, 12, 0)}),
    "experimental-detect-module": ((22,), {20: (20, 19, 0), 22: (22, 7, 0)}),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The binary that runs a runtime. `note` says in one sentence if it is not the named version; else empty."""

    node: Interpreter
    note: str = ""


@dataclass(frozen=True, slots=True)
class NodeRuntime:
    """A Node.js runtime that can be started now."""

    identifier: str
    major: int
    """As named, whatever runs it."""
    node: Interpreter
    client_dir: Path
    callback_client_dir: Path | None
    """The client for one invocation at a time, where that is another one."""
    note: str = ""

    @property
    def engine(self) -> str:
        return f"Node.js {self.node.version_text}"

    @property
    def client(self) -> str:
        return client_text(self.major)

    @property
    def version_text(self) -> str:
        return f"nodejs:{self.node.version_text}"

    def process(self, launch: Launch) -> RuntimeProcess:
        """AWS's client in Node.js, on our stand-in for its compiled half."""
        places = launch.places
        scripts, node = places.show(SCRIPTS, OWN_DIR), places.show(self.node.path, LANG_DIR / "bin" / "node")
        client_dir = places.show(self.client_dir, RUNTIME_DIR)
        flags = [*self._flags(launch), "--require", str(scripts / "node_client.cjs")]
        variables = {"NODE_PATH": self._module_path(launch, client_dir)}
        if not launch.managed:
            program = self._standard_program(launch, scripts, client_dir)
            command = launched(places, node, *flags, *program, wrapper=launch.wrapper)
            return RuntimeProcess(command, client_dir, node.parent, variables)
        workers = worker_count(launch, os.cpu_count() or 1)
        return RuntimeProcess(
            command=launched(places, node, *flags, str(client_dir / "index.mjs"), wrapper=launch.wrapper),
            runtime_dir=client_dir,
            program_dir=node.parent,
            variables={**variables, "AWS_LAMBDA_NODEJS_WORKER_COUNT": str(workers)},
            polls=workers,
            connections=Connections.POLLERS,
        )

    def _standard_program(self, launch: Launch, scripts: Path, client_dir: Path) -> tuple[str, ...]:
        if self.callback_client_dir is None:
            return (str(client_dir / "index.mjs"),)
        callback_client = launch.places.show(self.callback_client_dir, CALLBACK_CLIENT_DIR)
        return (str(scripts / "node_standard.mjs"), str(callback_client))

    def _flags(self, launch: Launch) -> list[str]:
        flags = [
            "--expose-gc",
            f"--max-http-header-size={MAX_HEADER_BYTES}",
            f"--max-old-space-size={int(launch.memory_mb * OLD_SPACE_SHARE)}",
        ]
        wanted = launch.variables.get("NODE_OPTIONS", "")
        for feature, (majors, since) in _UNTRUSTED_FEATURES.items():
            has_it = self.node.version >= since.get(self.node.major, (self.node.major, 0, 0))
            if self.major in majors and has_it and f"--{feature}" not in wanted:
                flags.append(f"--no-{feature}")
        return flags

    def _module_path(self, launch: Launch, client_dir: Path) -> str:
        opt = launch.places.layers_dir or LAYERS_DIR
        layers = (f"{opt}/nodejs/node{self.major}/node_modules", f"{opt}/nodejs/node_modules")
        return os.pathsep.join((*layers, f"{client_dir}/node_modules", str(client_dir), str(launch.places.task_root)))


def named_major(identifier: str) -> int | None:
    """N of `nodejsN.x`; None if the identifier is not a Node.js runtime."""
    match = _IDENTIFIER.fullmatch(identifier)
    return int(match[1]) if match else None


def worker_count(launch: Launch, cores: int) -> int:
    """Worker threads: what the customer's variable says, read as AWS's client reads it, else eight per vCPU.

    vCPUs beyond the machine's `cores` would only be threads without a processor, and threads beyond the slots would have nothing to do.
    """
    asked = re.match(r"\s*\+?(\d+)", launch.variables.get("AWS_LAMBDA_NODEJS_WORKER_COUNT", ""))
    if asked:
        return max(1, int(asked[1]))
    return max(1, min(launch.slots, WORKERS_PER_VCPU * min(cores, -int(-launch.vcpus // 1))))


def nearest(major: int, nodes: Sequence[Interpreter], why: str) -> Choice:
    """The newest release of the major version that is nearest to the named one; of two as near, the newer. `why` it is not the named one.

    Raises RuntimeNotAvailable if no binary can run the clients.
    """
    usable = [node for node in nodes if node.major >= LEAST_MAJOR]
    if not usable:
        raise RuntimeNotAvailable(
            f"nodejs{major}.x needs Node.js {LEAST_MAJOR} or newer on this machine and none was found. {why} "
            "Install Node.js and npm, for example from nodejs.org."
        )
    chosen = max(usable, key=lambda node: (-abs(node.major - major), node.major, node.version))
    return Choice(chosen, f"{why} nodejs{major}.x is running on Node.js {chosen.version_text} instead.")


def exact(major: int, nodes: Sequence[Interpreter]) -> Choice | None:
    """The newest release of exactly this major version."""
    return next((Choice(node) for node in sorted(nodes, reverse=True) if node.major == major >= LEAST_MAJOR), None)


def client_installations(runtimes_dir: Path, major: int) -> list[Installation]:
    """Where the clients for a Node.js runtime are, or will be: the one for many at once first."""
    versions = [CLIENT_VERSION, *([CALLBACK_CLIENT_VERSION] if major < FIRST_MAJOR_WITHOUT_CALLBACKS else [])]
    return [Installation(runtimes_dir, f"nodejs-client-{v}", (f"aws-lambda-ric@{v}",)) for v in versions]


def client_text(major: int) -> str:
    """The interface clients of a Node.js runtime, for people."""
    older = f" and {CALLBACK_CLIENT_VERSION}" if major < FIRST_MAJOR_WITHOUT_CALLBACKS else ""
    return f"aws-lambda-ric {CLIENT_VERSION}{older}"


def ensure(runtimes_dir: Path, identifier: str, report: Report) -> NodeRuntime:
    """The runtime ready to start, binary and clients installed if need be. Blocks for seconds when it installs; `report` gets progress.

    Raises RuntimeNotAvailable.
    """
    major = named_major(identifier)
    if major is None:
        raise RuntimeNotAvailable(f"{identifier} is not a Node.js runtime.")
    nodes = find_nodes(runtimes_dir)
    choice = exact(major, nodes) or _installed(runtimes_dir, major, nodes, report)
    folders = [_ensure_client(each, report) for each in client_installations(runtimes_dir, major)]
    return NodeRuntime(identifier, major, choice.node, folders[0], folders[1] if folders[1:] else None, choice.note)


def _ensure_client(installation: Installation, report: Report) -> Path:
    [package] = installation.pins
    what = f"the interface client for Node.js ({package})"
    return installation.ensure(what, lambda folder: _unpack(package, folder, lambda name: True), report)


def _installed(runtimes_dir: Path, major: int, nodes: Sequence[Interpreter], report: Report) -> Choice:
    """The binary of this major version from npm, or the nearest that the machine has."""
    if major < LEAST_MAJOR:
        return nearest(major, nodes, f"AWS's interface client needs Node.js {LEAST_MAJOR} or newer.")
    try:
        package = f"node-linux-{_architecture()}@{major}"
        folder = Installation(runtimes_dir, f"nodejs{major}", (package,)).ensure(
            f"Node.js {major}", lambda fresh: _fill_node(package, fresh), report
        )
    except RuntimeNotAvailable as exc:
        return nearest(major, nodes, str(exc))
    node = probe_node(folder / "bin" / "node")
    if node is None:
        return nearest(major, nodes, f"The Node.js {major} in {folder} does not run any more.")
    return Choice(node)


def _fill_node(package: str, fresh: Path) -> None:
    _unpack(package, fresh, lambda name: name in ("bin/node", "LICENSE"))
    if probe_node(fresh / "bin" / "node") is None:
        raise RuntimeNotAvailable(f"The Node.js of the npm package {package} does not run on this machine.")


def _architecture() -> str:
    architecture = _ARCHITECTURES.get(platform.machine())
    if platform.system() != "Linux" or architecture is None:
        raise RuntimeNotAvailable(f"npm has no Node.js for {platform.system()} on {platform.machine()}.")
    return architecture


def _unpack(package: str, folder: Path, is_wanted: Callable[[str], bool]) -> None:
    """The wanted files of an npm package, without its dependencies and without running anything of it. Raises RuntimeNotAvailable."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeNotAvailable(f"There is no npm on PATH to fetch {package} with.")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".npm-") as downloads:
        result = run_installer(
            [npm, "pack", package, "--json", "--ignore-scripts", "--loglevel=error", "--pack-destination", downloads],
            npm_config_update_notifier="false",
        )
        archives = list(Path(downloads).glob("*.tgz"))
        if result.returncode != 0 or not archives:
            raise RuntimeNotAvailable(
                f"npm could not fetch {package}: {_npm_error(result.stdout) or last_words(result)} "
                "A registry must be reachable the first time a runtime is used."
            )
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                name = member.name.partition("/")[2]  # everything is below "package/"
                if name and is_wanted(name):
                    archive.extract(member.replace(name=name), folder, filter="data")


def _npm_error(output: str) -> str:
    """The sentence of npm's JSON error; empty if it printed none."""
    try:
        error: Mapping[str, str] = json.loads(output)["error"]
        return str(error["summary"])
    except (ValueError, KeyError, TypeError):
        return ""
