"""Platform records of an invocation on a managed instance, as they stand in the function's log.

Fields are those of the reference on managed instances, §9: a report carries a duration and nothing else. Levels follow AWS's table: a start and a
successful report are INFO, any other report is WARN.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import PurePath
from typing import Literal, NamedTuple, get_args

InvocationStatus = Literal["success", "error", "timeout", "failure"]
Level = Literal["DEBUG", "INFO", "WARN"]

LEVELS: dict[str, int] = {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "ERROR": 4, "FATAL": 5}


@cache
def levels_shown(system_log_level: str) -> frozenset[Level]:
    """The levels of the records that a log at this system level has; an unknown level counts as INFO."""
    least = LEVELS.get(system_log_level.upper(), LEVELS["INFO"])
    return frozenset(level for level in get_args(Level) if LEVELS[level] >= least)


class Record(NamedTuple):
    """One record: its type, its members, and the level that decides whether the function's log shows it."""

    type: str
    members: dict[str, object]
    level: Level

    def is_shown(self, system_log_level: str) -> bool:
        """True if a log at this system level has the record; an unknown level counts as INFO."""
        return self.level in levels_shown(system_log_level)

    def document(self, time: str) -> dict[str, object]:
        """The record as it is written; `time` is a timestamp."""
        return {"time": time, "type": self.type, "record": self.members}


def timestamp(at: datetime) -> str:
    """`2026-11-21T10:00:00.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp_of(epoch_seconds: float) -> str:
    """The timestamp of a moment that is given in seconds of the epoch; fast for many of the same second, faster for those of the same millisecond."""
    return _millisecond(int(epoch_seconds * 1000))


@lru_cache(maxsize=2)
def _millisecond(epoch_milliseconds: int) -> str:
    return f"{_second(epoch_milliseconds // 1000)}.{epoch_milliseconds % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def started(request_id: str, version: str, function_arn: str) -> Record:
    """An invocation begins."""
    return Record("platform.start", {"requestId": request_id, "version": version, "functionArn": function_arn}, "INFO")


def reported(request_id: str, status: InvocationStatus, duration_ms: float, error_type: str = "") -> Record:
    """An invocation ended."""
    members: dict[str, object] = {"requestId": request_id, "status": status}
    if error_type:
        members["errorType"] = error_type
    members["metrics"] = {"durationMs": round(duration_ms, 3)}
    return Record("platform.report", members, "INFO" if status == "success" else "WARN")


@dataclass(frozen=True, slots=True)
class LogOf:
    """Where an environment's records go, and which of them."""

    path: PurePath
    version: str
    function_arn: str
    system_level: str
