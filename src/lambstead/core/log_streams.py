"""Log groups, log streams and log events, and how they lie on disk.

    logs/<function>/2026-11-21-[1]4f….log     what one environment wrote, line by line: the log stream 2026/11/21/[1]4f…
    logs/<function>/2026-11-21-[1]4f….times   when: stamps of 16 bytes, each the position it is true from, and the time
    logs/<function>/2026-11-21-[1]4f….group   the log group, where it is not the function's own /aws/lambda/<function>

Whoever appends lines writes a stamp first, so a line never stands without its time. Several processes append to one log, which is why stamps can
be a little out of order; `Times` puts them in order and lets time only grow, so that a reader can go on from where it stopped.
"""

import hashlib
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import PurePath

LOG_SUFFIX, TIMES_SUFFIX, GROUP_SUFFIX = ".log", ".times", ".group"
_STAMP = struct.Struct("<QQ")
STAMP_BYTES = _STAMP.size
PROVIDERS_FOLDER = "capacity.providers"
"""Instead of a function's: the system logs of capacity providers. No function can have this name."""


def default_group(function: str) -> str:
    """The log group of a function that names no other."""
    return f"/aws/lambda/{function}"


def stream_of(instance_id: str, environment_id: str, version: str, started: datetime) -> str:
    """The log stream of an environment, in AWS's form `2026/11/21/[1]4f…`; its 32 digits are the environment's mark."""
    return f"{started:%Y/%m/%d}/[{version}]{environment_mark(instance_id, environment_id)}"


def instance_mark(instance_id: str) -> str:
    """The first 16 digits in the names of the log streams of an instance's environments."""
    return hashlib.sha256(instance_id.encode()).hexdigest()[:16]


def environment_mark(instance_id: str, environment_id: str) -> str:
    """The 32 digits in the name of an environment's log stream. Every process of it knows that name, so it can be found by them."""
    return instance_mark(instance_id) + hashlib.sha256(environment_id.encode()).hexdigest()[:16]


def file_name(stream: str) -> str:
    """The file of a log stream; streams are named `year/month/day/[version]id`."""
    return stream.replace("/", "-") + LOG_SUFFIX


def stream_name(file: PurePath) -> str:
    """The log stream that a file holds."""
    return file.stem.replace("-", "/", 3)


def stamp(position: int, at_ms: int) -> bytes:
    """What says that lines from `position` on are of `at_ms`, in milliseconds of the epoch."""
    return _STAMP.pack(position, at_ms)


class Times:
    """When the lines of one log were written, by their position."""

    def __init__(self, stamps: bytes, created_ms: int) -> None:
        """`stamps` as they are in the file, an unfinished one at the end included; lines before the first one are of `created_ms`."""
        whole = len(stamps) // STAMP_BYTES * STAMP_BYTES
        ordered = sorted(_STAMP.iter_unpack(stamps[:whole]))
        self._positions = [position for position, _ in ordered]
        self._times = list(accumulate((at for _, at in ordered), max))
        self.first_ms = self._times[0] if self._times and self._positions[0] == 0 else created_ms

    @property
    def last_ms(self) -> int:
        """The time of the last stamp."""
        return self._times[-1] if self._times else self.first_ms

    def at(self, position: int) -> int:
        """The time of the line that begins there."""
        found = bisect_right(self._positions, position)
        return self._times[found - 1] if found else self.first_ms

    def position_of(self, at_ms: int) -> int | None:
        """Where the first line of `at_ms` or later begins; None if there is none so far."""
        if at_ms <= self.first_ms:
            return 0
        found = bisect_left(self._times, at_ms)
        return self._positions[found] if found < len(self._positions) else None


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Where the logs of one or more functions go."""

    name: str
    created_ms: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class LogStream:
    """What one environment wrote."""

    group: str
    function: str
    """Whose environment it was."""
    name: str
    created_ms: int
    size_bytes: int
    first_event_ms: int | None
    """None while it is empty."""
    last_event_ms: int | None


@dataclass(frozen=True, slots=True, order=True)
class LogEvent:
    """One line. Events of a group are in order of time; those of the same millisecond by stream and position."""

    at_ms: int
    stream: str
    position: int
    """Of its first byte in the stream."""
    message: str
    """With its line end, as Lambda sends it."""
    size_bytes: int

    @property
    def end(self) -> int:
        """The position after it."""
        return self.position + self.size_bytes

    @property
    def id(self) -> str:
        """A name of its own within the group: 56 digits, as CloudWatch's are, that sort like the events of a stream."""
        mixed = int.from_bytes(self.stream.encode()[-8:], "big")
        return f"{self.at_ms:018d}{mixed:020d}{self.position:018d}"


def groups_of(streams: Iterable[LogStream]) -> list[LogGroup]:
    """The log groups of these streams, by name."""
    found: dict[str, LogGroup] = {}
    for stream in streams:
        known = found.get(stream.group, LogGroup(stream.group, stream.created_ms, 0))
        created_ms = min(known.created_ms, stream.created_ms)
        found[stream.group] = LogGroup(stream.group, created_ms, known.stored_bytes + stream.size_bytes)
    return [found[name] for name in sorted(found)]
