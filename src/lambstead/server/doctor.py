"""The doctor: what this machine can do for functions, found out by trying."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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


def examine(data_dir: Path, runtimes_dir: Path) -> list[Check]:
    """Every check. Runs interpreters that were not seen before, so the first time takes up to some seconds."""
    return [
        *(_runtime(status) for status in list_runtimes(runtimes_dir) if status.state != "not built"),
        _isolation(),
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


def _isolation() -> Check:
    return Check(
        "isolation",
        "warning",
        "level process: functions are ordinary processes of this user and see its files and network",
        "Run only functions that you trust; stronger levels are not built yet.",
    )


def _disk(data_dir: Path) -> Check:
    usage = shutil.disk_usage(data_dir)
    detail = f"{usage.free / 2**30:.1f} GiB free for {data_dir}"
    if usage.free < LEAST_FREE_BYTES:
        return Check("disk", "warning", detail, "Free some space, or choose another data directory with --data.")
    return Check("disk", "ok", detail)


def _processors() -> Check:
    return Check("processors", "ok", f"{os.cpu_count()} cores; vCPUs of instances are logical and may add up to more")
