"""The levels `oci` and `gvisor`: an environment in a container, made by an OCI runtime from a bundle that is written for it.

`oci` is runc, or crun where only that is installed: what the level `sandbox` gives, with the machinery that container hosts already trust. `gvisor` is
runsc: system calls end in a kernel of its own, written in Go, and reach ours only as few of other kinds.

    launcher (dies with the agent, makes the network, packs descriptors) ─► runc run ─► process 1, which reaps ─► the runtime

Nothing is left to undo when all of it was killed: state and bundle lie in the environment's folder, and control groups of the runtime's own are
found by their name (`cgroups`). The environment's limits are those of its group, as at the other levels. Sources: OCI runtime-spec 1.0.2, the manuals
of runc 1.1 and runsc.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from lambstead.instance import root_directory
from lambstead.instance.cgroups import OF_CONTAINER
from lambstead.instance.isolation import (
    TASK_ROOT,
    TEMP_DIR,
    Confinement,
    Isolation,
    Places,
    ProcessPlan,
    Wish,
)
from lambstead.instance.outside import launched_outside
from lambstead.instance.root_directory import GROUP_ID, USER_ID, Bind, Entry, Folder, Link, Text
from lambstead.instance.seccomp import container_profile

ContainerLevel = Literal["oci", "gvisor"]
PROGRAMS: dict[ContainerLevel, tuple[str, ...]] = {"oci": ("runc", "crun"), "gvisor": ("runsc",)}
"""Of several, the first that is installed."""

_SETUP_ID = 65534
"""Whom the container's root is to this machine where root starts it: nobody, and only until the function's process is there."""
_Json = dict[str, Any]  # parts of config.json


def find_program(level: ContainerLevel) -> Path | None:
    """Where the level's OCI runtime is; None if it is not installed."""
    found = next(filter(None, map(shutil.which, PROGRAMS[level])), None)
    return Path(found) if found else None


def plan_container(wish: Wish, places: Places, isolation: Isolation, program: Path) -> ProcessPlan:
    """The plan at these levels; writes the bundle into the environment's folder. Raises OSError."""
    is_gvisor = isolation.level == "gvisor"
    passed = tuple(sorted((wish.gate_fd, *wish.inherited))) if isolation.passes_descriptors else ()
    confinement = Confinement(
        gate_fd=wish.gate_fd if isolation.passes_descriptors else -1,
        listen_port=0,
        die_with_pid=0,
        open_files=wish.limits.open_files,
        processes=0 if wish.is_in_cgroup else wish.limits.processes,
        is_init=True,
        packed_fds=passed,
    )
    bundle, state = wish.folder / "bundle", wish.folder / "containers"
    state.mkdir()
    _write_bundle(bundle, _config(wish, places, isolation, wish.command.argv(confinement)))
    _make_root(bundle / "rootfs", places, isolation)
    options = _gvisor_options(isolation) if is_gvisor else _rootless_option(program)
    command = (str(program), "--root", str(state), *options, "run", "--bundle", str(bundle))
    preserve = ("--preserve-fds", str(len(passed))) if passed else ()
    return ProcessPlan(
        argv=launched_outside(wish, isolation, (*command, *preserve, wish.name), passed),
        working_directory=places.code,
        variables={"PATH": os.environ.get("PATH", os.defpath), **wish.marks},
        pass_fds=(wish.gate_fd, *passed),
        signals_as_status=True,
        is_keeper=not is_gvisor,
    )


def _rootless_option(program: Path) -> tuple[str, ...]:
    """runc finds out that it is not root, but not that root of a user namespace of ours is none; crun has no such option."""
    return ("--rootless", "true") if os.geteuid() and program.name == "runc" else ()


def _gvisor_options(isolation: Isolation) -> Iterator[str]:
    # Its network is the one it is started in: this machine's, or the one that was made for the environment before.
    yield from ("--network=host", "--ignore-cgroups", "--host-uds=open", "--overlay2=none")
    if os.geteuid():
        yield "--rootless"


def _write_bundle(bundle: Path, config: _Json) -> None:
    bundle.mkdir(mode=0o700)
    (bundle / "config.json").write_text(json.dumps(config))


def _make_root(root: Path, places: Places, isolation: Isolation) -> None:
    """The folder that becomes `/`: links, small files, and a place for everything that is mounted."""
    for folder in ("proc", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)  # runc gives what it mounts there the mode of what was there
    for entry in _entries(places, isolation):
        place = root / entry.name.relative_to("/")
        if isinstance(entry, Folder) or (isinstance(entry, Bind) and entry.source.is_dir()):
            place.mkdir(parents=True, exist_ok=True)
            continue
        if any((root / parent).is_symlink() for parent in entry.name.relative_to("/").parents):
            continue  # below something that is mounted
        place.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case Link(_, to):
                place.symlink_to(to)
            case Text(_, content):
                place.write_text(content)
            case _:
                place.touch()


def _entries(places: Places, isolation: Isolation) -> Iterable[Entry]:
    return (*root_directory.system(isolation), *root_directory.own(places))


def _config(wish: Wish, places: Places, isolation: Isolation, argv: tuple[str, ...]) -> _Json:
    """The bundle's config.json."""
    is_root = os.geteuid() == 0
    uid, gid = (USER_ID, GROUP_ID) if is_root or isolation.level == "gvisor" else (0, 0)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": gid},
            "args": list(argv),
            "env": [f"{name}={value}" for name, value in wish.variables.items()],
            "cwd": str(TASK_ROOT),
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "lambda",
        "mounts": [*_mounts(wish, places, isolation)],
        "linux": _gvisor_namespaces() if isolation.level == "gvisor" else _linux(wish, isolation, is_root=is_root),
    }


def _mounts(wish: Wish, places: Places, isolation: Isolation) -> Iterator[_Json]:
    for entry in root_directory.system(isolation):
        yield from _mount(entry)
    yield _special("/proc", "proc", "ro", "nosuid", "nodev", "noexec")
    # gVisor would not let a device be written on a read-only file system; there the folder is root's, and the function is not.
    read_only = () if isolation.level == "gvisor" else ("ro",)
    yield _special("/dev", "tmpfs", *read_only, "nosuid", "strictatime", "mode=755", "size=65536k")
    yield _special(str(TEMP_DIR), "tmpfs", "nosuid", "nodev", "mode=1777", f"size={wish.limits.temp_bytes}")
    for entry in root_directory.own(places):
        yield from _mount(entry)


def _special(place: str, kind: str, *options: str) -> _Json:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}


def _mount(entry: Entry) -> Iterator[_Json]:
    if isinstance(entry, Bind):
        options = ["rbind" if entry.source.is_dir() else "bind", "ro", "nosuid", "nodev"]
        yield {
            "destination": str(entry.name),
            "type": "bind",
            "source": str(entry.source.resolve()),
            "options": options,
        }


def _linux(wish: Wish, isolation: Isolation, *, is_root: bool) -> _Json:
    groups = (
        {"cgroupsPath": f"{wish.name}{OF_CONTAINER}"} if is_root else {}
    )  # an ordinary user's failure is forgiven only without a name
    return {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "cgroup", "user")],
        "uidMappings": _mapping(USER_ID, os.geteuid(), isolation),
        "gidMappings": _mapping(GROUP_ID, os.getegid(), isolation),
        "seccomp": container_profile(),
        **groups,
        "maskedPaths": [
            f"/proc/{name}"
            for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "scsi")
        ],
        "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
    }


def _mapping(inside: int, ours: int, isolation: Isolation) -> list[_Json]:
    """Runtimes need a root in the container to build it. An ordinary user has one id to give, so there the function is root by name."""
    if ours == 0:
        return [
            {"containerID": 0, "hostID": _SETUP_ID, "size": 1},
            {"containerID": inside, "hostID": 0, "size": 1},
        ]
    return [{"containerID": 0, "hostID": 0 if isolation.new_network_outside else ours, "size": 1}]


def _gvisor_namespaces() -> _Json:
    """What gVisor's kernel needs of ours. Users are its own: whoever started it reads the files."""
    return {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]}
