"""The doctor: what this machine can do for functions, found out by trying."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lambstead.instance import nat
from lambstead.instance.cgroups import find_cgroups
from lambstead.instance.isolation import AUTOMATIC, OWN_ROOT, IsolationLevel
from lambstead.instance.levels import LevelFails, try_egress, try_level
from lambstead.instance.runtimes.catalogue import RuntimeStatus, list_runtimes

LEAST_FREE_BYTES = 1 << 30

CheckState = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `advice` says what to do about it, empty when there is nothing to do."""

    name: str
    state: CheckState
    detail: str
    advice: str = ""


def examine(data_dir: Path, runtimes_dir: Path, used: IsolationLevel) -> list[Check]:
    """Every check. Runs interpreters that were not seen before, so the first time takes up to some seconds."""
    return [
        *(_runtime(status) for status in list_runtimes(runtimes_dir) if status.state != "not built"),
        *(_isolation(level, used) for level in get_args(IsolationLevel)),
        _nat(used),
        _limits(),
        _disk(data_dir),
        _processors(),
    ]


def _runtime(status: RuntimeStatus) -> Check:
    name = f"runtime {status.identifier}"
    if status.state == "missing":
        # Without any Python nothing works; without another family only its functions do not.
        state: CheckState = "failed" if status.identifier.startswith("python") else "warning"
        return Check(name, state, "cannot run here", status.advice)
    place = f" at {status.interpreter_path}" if status.interpreter_path else ""
    running = f"{status.engine}{place}" if status.engine else "no engine yet"
    if status.state == "substituted":
        return Check(name, "warning", f"substituted by {running}", status.advice)
    client = f", {status.client}" if status.client else "" if status.state == "ready" else ", client not installed yet"
    return Check(name, "ok", running + client, status.advice)


def _isolation(level: IsolationLevel, used: IsolationLevel) -> Check:
    name = f"isolation {level}"
    try:
        detail = try_level(level)
    except LevelFails as exc:
        state: CheckState = "warning" if used == "process" and level in AUTOMATIC else "ok"
        return Check(name, state, f"does not work: {exc}", exc.advice)
    if level != used:
        return Check(name, "ok", f"works, not used: {detail}")
    if level == "process":
        return Check(
            name, "warning", f"USED: {detail}", "Run only functions that you trust, or make a stronger level work."
        )
    return Check(name, "ok", f"USED: {detail}")


def _nat(used: IsolationLevel) -> Check:
    """Tried at the level that is used if that can have it, else at the first that works."""
    failure = LevelFails("no isolation level that has networks of environments' own works.")
    for level in (used, *(each for each in get_args(IsolationLevel) if each in OWN_ROOT)):
        try:
            try_egress(level, "nat")
        except LevelFails as exc:
            failure = exc if level == used else failure
            continue
        program = nat.find_program()
        assert program is not None
        where = "" if level == used else f" at isolation level {level}, not at {used}"
        return Check("egress nat", "ok", f"works{where}, by {program.name}")
    return Check("egress nat", "ok", f"does not work: {failure}", failure.advice)


def _limits() -> Check:
    cgroups = find_cgroups()
    if cgroups is None:
        return Check(
            "limits",
            "warning",
            "memory and processes are watched every half second, because this user cannot make control groups",
            "Run as root, or under systemd with Delegate=yes and DelegateSubgroup=server, to have the kernel enforce them.",
        )
    return Check("limits", "ok", f"memory, CPU shares and processes are enforced by {cgroups.description}")


def _disk(data_dir: Path) -> Check:
    usage = shutil.disk_usage(data_dir)
    detail = f"{usage.free / 2**30:.1f} GiB free for {data_dir}"
    if usage.free < LEAST_FREE_BYTES:
        return Check("disk", "warning", detail, "Free some space, or choose another data directory with --data.")
    return Check("disk", "ok", detail)


def _processors() -> Check:
    return Check("processors", "ok", f"{os.cpu_count()} cores; vCPUs of instances are logical and may add up to more")
