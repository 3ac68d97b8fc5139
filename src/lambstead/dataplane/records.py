"""Platform records of invocations whose workers speak the link themselves: nobody but the gateway sees them begin and end.

Records leave sideways: adding one costs the invocation a tuple in a bounded queue; a task writes what has gathered, per environment, a few times a
second. When the queue is full, records are dropped and counted, and the count is written once there is room again. The files are the same that
the environments' agents append to, whole lines at a time.
"""

import asyncio
import logging
import os
import time
from collections import deque
from io import FileIO
from pathlib import PurePath

import msgspec

from lambstead.core.log_streams import TIMES_SUFFIX, stamp
from lambstead.core.platform_records import (
    InvocationStatus,
    Level,
    LogOf,
    Record,
    levels_shown,
    reported,
    started,
    timestamp_of,
)

log = logging.getLogger(__name__)

MAX_QUEUED = 100_000
FLUSH_EVERY_S = 0.1
BATCH = 200
"""Records that are written in one go: about half a millisecond, in which no invocation moves."""

_encode = msgspec.json.Encoder().encode


class PlatformRecords:
    """The queue and its writer. Belongs to one event loop."""

    def __init__(self) -> None:
        self._logs: dict[str, tuple[LogOf, frozenset[Level]]] = {}
        """By environment; with the levels that its log shows."""
        self._queue: deque[tuple[LogOf, float, Record]] = deque()
        self._dropped: dict[LogOf, int] = {}
        self._flush: asyncio.TimerHandle | None = None

    def opened(self, environment_id: str, to: LogOf) -> None:
        """Records of this environment go there from now on."""
        self._logs[environment_id] = to, levels_shown(to.system_level)

    def closed(self, environment_id: str) -> None:
        """The environment is over; what is queued is still written."""
        self._logs.pop(environment_id, None)

    def started(self, environment_id: str, request_id: str) -> None:
        """An invocation begins in the environment."""
        found = self._logs.get(environment_id)
        if found is not None:
            to, shown = found
            self._add(to, shown, started(request_id, to.version, to.function_arn))

    def ended(
        self, environment_id: str, request_id: str, status: InvocationStatus, duration_s: float, error_type: str
    ) -> None:
        """An invocation ended in the environment."""
        found = self._logs.get(environment_id)
        if found is not None:
            to, shown = found
            self._add(to, shown, reported(request_id, status, duration_s * 1000, error_type))

    def write_now(self) -> None:
        """Write everything that is queued."""
        while self._queue or self._dropped:
            self._write_batch()

    def _write_in_turns(self) -> None:
        """Write what is queued, a batch at a time: invocations do not wait for the rest of it."""
        self._write_batch()
        self._flush = asyncio.get_running_loop().call_later(0, self._write_in_turns) if self._queue else None

    def _write_batch(self) -> None:
        texts: dict[PurePath, list[bytes]] = {}
        for _ in range(min(BATCH, len(self._queue))):
            to, at, record = self._queue.popleft()
            texts.setdefault(to.path, []).append(_encode(record.document(timestamp_of(at))))
        if not self._queue:
            for to, count in self._dropped.items():
                reason: dict[str, object] = {"reason": "the queue of records was full", "droppedRecords": count}
                dropped = Record("platform.logsDropped", reason, "WARN")
                texts.setdefault(to.path, []).append(_encode(dropped.document(timestamp_of(time.time()))))
            self._dropped.clear()
        for path, lines in texts.items():
            _append(path, b"\n".join(lines) + b"\n")

    def _add(self, to: LogOf, shown: frozenset[Level], record: Record) -> None:
        if record.level not in shown:
            return
        if len(self._queue) >= MAX_QUEUED:
            self._dropped[to] = self._dropped.get(to, 0) + 1
            return
        self._queue.append((to, time.time(), record))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self._write_in_turns)


def _append(path: PurePath, text: bytes) -> None:
    """Append whole lines, and before them their time. What the disk refuses is lost, and said in the server's log."""
    try:
        with _appending(path) as lines, _appending(path.with_suffix(TIMES_SUFFIX)) as times:
            times.write(stamp(os.fstat(lines.fileno()).st_size, time.time_ns() // 1_000_000))
            lines.write(text)
    except OSError as exc:
        log.warning("records-not-written", extra={"path": str(path), "because": str(exc)})


def _appending(path: PurePath) -> FileIO:
    return FileIO(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644), "ab")
