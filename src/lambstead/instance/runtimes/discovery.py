"""Which CPython interpreters, Node.js binaries and JVMs this machine has.

A name on PATH proves nothing: version managers put shims there that fail when run. Every candidate is run once and asked what it is;
the answer is kept in a file of the runtimes folder, keyed by path and modification time, so the next start asks nobody.
Python interpreters of virtual environments are replaced by the ones they are made of: a function must not see a venv's packages.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CACHE_NAME = "interpreters.json"
NODES_CACHE_NAME = "nodes.json"
JAVAS_CACHE_NAME = "javas.json"
PROBE_TIMEOUT_SECONDS = 10.0
"""An interpreter that does not say what it is within this time is not one for us."""
MAX_PROBES_AT_ONCE = 4

_PROBE = (
    "import json,sys;"
    "print(json.dumps([sys.implementation.name,list(sys.version_info[:3]),sys.version_info[3],"
    "getattr(sys,'_base_executable',None) or sys.executable]))"
)
_NODE_PROBE = (
    "console.log(JSON.stringify([process.release.name,process.versions.node,process.execPath,"
    "process.versions.bun||process.versions.deno||'']))"
)
_NODE_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_JAVA_PROPERTY = re.compile(r"^\s+(java\.(?:version|home)) = (.+)$", re.MULTILINE)
_JAVA_VERSION = re.compile(r"([1-9]\d*)(?:\.(\d+))?(?:\.(\d+))?(?:\.\d+)*")
"""A release: `21` or `17.0.15`. Early-access builds have something behind it, and Java 8 calls itself `1.8.0_…`, which no release of AWS's client is for."""
_JAVA_OPTIONS = frozenset({"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"})
_NAME = re.compile(r"python3(\.\d+)?$")


@dataclass(frozen=True, slots=True, order=True)
class Interpreter:
    """A CPython, a Node.js or a JVM that was run and answered."""

    version: tuple[int, int, int]
    path: Path

    @property
    def major(self) -> int:
        return self.version[0]

    @property
    def minor(self) -> int:
        return self.version[1]

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


def find_interpreters(runtimes_dir: Path) -> list[Interpreter]:
    """Every usable CPython 3 release on this machine, newest first. Remembers answers in `runtimes_dir`."""
    return _find(runtimes_dir / CACHE_NAME, _candidates(), _probe)


def find_nodes(runtimes_dir: Path) -> list[Interpreter]:
    """Every usable Node.js release on this machine and in `runtimes_dir`, newest first. Remembers answers there."""
    return _find(runtimes_dir / NODES_CACHE_NAME, _node_candidates(runtimes_dir), probe_node)


def find_javas(runtimes_dir: Path) -> list[Interpreter]:
    """Every usable release of a JVM on this machine and in `runtimes_dir`, newest first. Remembers answers there."""
    return _find(runtimes_dir / JAVAS_CACHE_NAME, _java_candidates(runtimes_dir), _probe_java)


def _find(cache_path: Path, paths: Iterable[Path], probe: Callable[[Path], "Interpreter | None"]) -> list[Interpreter]:
    cache = _Cache.load(cache_path)
    candidates = list(dict.fromkeys(paths))
    unknown = [path for path in candidates if not cache.knows(path)]
    if unknown:
        with ThreadPoolExecutor(MAX_PROBES_AT_ONCE) as probes:
            for path, answer in zip(unknown, probes.map(probe, unknown), strict=True):
                cache.remember(path, answer)
        cache.save(keep=candidates)
    found = {
        interpreter.path: interpreter for path in candidates if (interpreter := cache.interpreter(path)) is not None
    }
    return sorted(found.values(), reverse=True)


def _candidates() -> Iterator[Path]:
    yield Path(getattr(sys, "_base_executable", None) or sys.executable)
    for folder in _folders():
        with contextlib.suppress(OSError):
            yield from sorted(
                entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name) and os.access(entry, os.X_OK)
            )


def _folders() -> Iterator[Path]:
    home = Path.home()
    yield from (Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry)
    yield from _globbed(Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions")
    data_home = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
    yield from _globbed(Path(os.environ.get("UV_PYTHON_INSTALL_DIR", data_home / "uv" / "python")))
    yield from (Path("/usr/local/bin"), Path("/usr/bin"))


def _node_candidates(runtimes_dir: Path) -> Iterator[Path]:
    home = Path.home()
    folders = [
        *_globbed(runtimes_dir, "nodejs*/bin"),
        *(Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry),
        *_globbed(Path(os.environ.get("NVM_DIR", home / ".nvm")) / "versions" / "node"),
        *(Path("/usr/local/bin"), Path("/usr/bin")),
    ]
    for folder in folders:
        path = folder / "node"
        if path.is_file() and os.access(path, os.X_OK):
            yield path


def _java_candidates(runtimes_dir: Path) -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    folders = [
        *_globbed(runtimes_dir, "java*/bin"),
        *([Path(home) / "bin"] if home else []),
        *(Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry),
        *_globbed(Path.home() / ".sdkman" / "candidates" / "java"),
        *_globbed(Path("/usr/lib/jvm")),
    ]
    for folder in folders:
        path = folder / "java"
        if path.is_file() and os.access(path, os.X_OK):
            yield path


def _globbed(versions: Path, pattern: str = "*/bin") -> Iterable[Path]:
    return sorted(versions.glob(pattern))


def _probe(path: Path) -> Interpreter | None:
    try:
        answer = subprocess.run(
            [path, "-I", "-S", "-c", _PROBE],
            capture_output=True,
            timeout=PROBE_TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        name, version, level, executable = json.loads(answer.stdout)
    except (OSError, ValueError, TypeError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0 or name != "cpython" or level != "final" or not os.access(executable, os.X_OK):
        return None
    # A plain link (python3 → python3.13) is followed, so that one installation counts once; venv links are resolved by the answer.
    return Interpreter((version[0], version[1], version[2]), Path(executable).resolve())


def probe_node(path: Path) -> Interpreter | None:
    """The Node.js at `path`, if there is one that runs. Imitations that answer to its name are none."""
    try:
        answer = subprocess.run(
            [path, "-e", _NODE_PROBE],
            capture_output=True,
            timeout=PROBE_TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"},
        )
        name, version_text, executable, imitation = json.loads(answer.stdout)
        version = _NODE_VERSION.fullmatch(version_text)  # a release has nothing behind its numbers
    except (OSError, ValueError, TypeError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0 or name != "node" or imitation or version is None or not os.access(executable, os.X_OK):
        return None
    return Interpreter((int(version[1]), int(version[2]), int(version[3])), Path(executable).resolve())


def _probe_java(path: Path) -> Interpreter | None:
    try:
        answer = subprocess.run(
            [path, "-XshowSettings:properties", "-version"],
            capture_output=True,
            timeout=PROBE_TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in _JAVA_OPTIONS},
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    properties = dict(_JAVA_PROPERTY.findall(answer.stderr))
    version = _JAVA_VERSION.fullmatch(properties.get("java.version", ""))
    executable = Path(properties.get("java.home", "/nowhere")) / "bin" / "java"
    if answer.returncode != 0 or version is None or not os.access(executable, os.X_OK):
        return None
    return Interpreter((int(version[1]), int(version[2] or 0), int(version[3] or 0)), executable.resolve())


class _Cache:
    """Answers by path; an entry holds as long as the file behind the path keeps its modification time."""

    def __init__(self, path: Path, entries: dict[str, dict[str, object]]) -> None:
        self._path = path
        self._entries = entries

    @classmethod
    def load(cls, path: Path) -> "_Cache":
        try:
            entries = json.loads(path.read_text())
        except (OSError, ValueError):
            entries = {}
        return cls(path, entries if isinstance(entries, dict) else {})

    def knows(self, path: Path) -> bool:
        entry = self._entries.get(str(path))
        return isinstance(entry, dict) and entry.get("mtime_ns") == _mtime_ns(path)

    def interpreter(self, path: Path) -> Interpreter | None:
        match self._entries.get(str(path)):
            case {"version": [int(major), int(minor), int(micro)], "executable": str(executable)} if os.access(
                executable, os.X_OK
            ):
                return Interpreter((major, minor, micro), Path(executable))
            case _:
                return None

    def remember(self, path: Path, answer: Interpreter | None) -> None:
        entry: dict[str, object] = {"mtime_ns": _mtime_ns(path)}
        if answer is not None:
            entry |= {"version": list(answer.version), "executable": str(answer.path)}
        self._entries[str(path)] = entry

    def save(self, keep: list[Path]) -> None:
        """Write whole or not at all; a folder that cannot be written only costs the next start its probes."""
        kept = {str(path): self._entries[str(path)] for path in keep if str(path) in self._entries}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, prefix=".interpreters-", delete=False) as file:
                json.dump(kept, file, indent=1)
            os.replace(file.name, self._path)


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
