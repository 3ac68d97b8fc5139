"""Log streams read from the files that environments append to. How they lie on disk is said in `core.log_streams`."""

import os
from collections.abc import Iterator
from pathlib import Path

from lambstead.core.log_streams import (
    GROUP_SUFFIX,
    LOG_SUFFIX,
    STAMP_BYTES,
    TIMES_SUFFIX,
    LogEvent,
    LogGroup,
    LogStream,
    Times,
    default_group,
    file_name,
    groups_of,
    stream_name,
)

BLOCK_BYTES = 64 * 1024


class LogFiles:
    """See `store.port.Logs`. Lines that are not finished yet are not there yet; blank lines are no events, as in CloudWatch."""

    def __init__(self, folder: Path) -> None:
        """`folder` has a folder for each function."""
        self._folder = folder

    def groups(self) -> list[LogGroup]:
        return groups_of(stream for path in self._folder.glob(f"*/*{LOG_SUFFIX}") if (stream := _stream(path)))

    def streams(self, group: str) -> list[LogStream]:
        own = group.removeprefix(default_group(""))
        paths = [path.with_suffix(LOG_SUFFIX) for path in self._folder.glob(f"*/*{GROUP_SUFFIX}")]
        if own != group and "/" not in own and not own.startswith("."):
            paths += (self._folder / own).glob(f"*{LOG_SUFFIX}")
        found = {path: stream for path in paths if (stream := _stream(path)) and stream.group == group}
        return sorted(found.values(), key=lambda stream: stream.name)

    def events(self, stream: LogStream, start_ms: int, end_ms: int, after: int = 0) -> Iterator[LogEvent]:
        path = self._path(stream)
        times = _times(path, stream)
        first = times.position_of(start_ms)
        if first is None:
            return
        with path.open("rb") as file:
            position = file.seek(max(first, after))
            for line in file:
                at_ms = times.at(position)
                if at_ms >= end_ms or not line.endswith(b"\n"):
                    return
                if not line.isspace():
                    yield LogEvent(at_ms, stream.name, position, line.decode("utf-8", "replace"), len(line))
                position += len(line)

    def events_backward(
        self, stream: LogStream, start_ms: int, end_ms: int, before: int | None = None
    ) -> Iterator[LogEvent]:
        path = self._path(stream)
        times = _times(path, stream)
        first, last = times.position_of(start_ms), times.position_of(end_ms)
        if first is None:
            return
        with path.open("rb") as file:
            end = min(position for position in (last, before, file.seek(0, os.SEEK_END)) if position is not None)
            for position, line in _lines_backward(file.fileno(), first, end):
                if line.endswith(b"\n") and not line.isspace():
                    text = line.decode("utf-8", "replace")
                    yield LogEvent(times.at(position), stream.name, position, text, len(line))

    def _path(self, stream: LogStream) -> Path:
        return self._folder / stream.function / file_name(stream.name)


def _stream(path: Path) -> LogStream | None:
    """The stream in a file; None if it was deleted meanwhile."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    created_ms = found.st_mtime_ns // 1_000_000
    first_ms, last_ms = created_ms, created_ms
    try:
        with path.with_suffix(TIMES_SUFFIX).open("rb") as file:
            stamps = file.read(STAMP_BYTES)
            whole = file.seek(0, os.SEEK_END) // STAMP_BYTES * STAMP_BYTES
            file.seek(max(0, whole - STAMP_BYTES))
            times = Times(stamps + file.read(STAMP_BYTES), created_ms)
            created_ms, first_ms, last_ms = times.first_ms, times.first_ms, times.last_ms
    except FileNotFoundError:
        pass  # of a release that kept no times: all its lines are of the last change
    return LogStream(
        group=_group(path),
        function=path.parent.name,
        name=stream_name(path),
        created_ms=created_ms,
        size_bytes=found.st_size,
        first_event_ms=first_ms if found.st_size else None,
        last_event_ms=last_ms if found.st_size else None,
    )


def _group(path: Path) -> str:
    try:
        return path.with_suffix(GROUP_SUFFIX).read_text()
    except FileNotFoundError:
        return default_group(path.parent.name)


def _times(path: Path, stream: LogStream) -> Times:
    try:
        return Times(path.with_suffix(TIMES_SUFFIX).read_bytes(), stream.created_ms)
    except FileNotFoundError:
        return Times(b"", stream.created_ms)


def _lines_backward(file: int, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines between two positions, last first, each with its position. `begin` is where a line begins."""
    rest = b""
    while end > begin:
        start = max(begin, end - BLOCK_BYTES)
        block = os.pread(file, end - start, start) + rest
        *lines, tail = block.split(b"\n")
        # What follows the last line end is nothing, or a line that is not finished.
        pieces = [line + b"\n" for line in lines] + ([tail] if tail else [])
        # The first piece can begin in the block before.
        kept = 0 if start == begin else 1
        position = start + len(block)
        for line in reversed(pieces[kept:]):
            position -= len(line)
            yield position, line
        rest, end = (pieces[0] if kept else b""), start
