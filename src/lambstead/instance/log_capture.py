"""Everything an environment prints, line by line, into one file.

Sources are the pipe of the main process and, in managed-instances mode, the connections to the log socket: every worker makes two, its
stdout and its stderr. AWS's client for Python hands log records over a pipe of their own, in frames, because a record need not end with a line
end. Lines of different sources never mix, because each source keeps its own unfinished line. Reading is prompt and memory is bounded by the
line limit per source; a process that prints waits only while the agent is busy.

Limits: a line above `MAX_LINE_BYTES` is broken there; bytes that are not UTF-8 become replacement characters; what the disk refuses is
dropped, counted and reported by a `platform.logsDropped` line once writing works again. Beside the log stand the times of its lines (`core.log_streams`).
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lambstead.core.log_streams import TIMES_SUFFIX, stamp

MAX_LINE_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
FRAME_HEADER = struct.Struct(">4sIQ")
FRAME_MARK = b"\xa5\x5a\x00"
"""With it every frame of AWS's runtime interface clients begins; the fourth byte tells the level."""
MAX_DRAIN_BYTES = 8 * 1024 * 1024
"""What one `drain` takes from one source, so that a process that prints without end cannot hold the agent."""


class LogCapture:
    """The log file of one environment and what feeds it. Use from the event loop's thread."""

    def __init__(self, path: Path, max_sources: int) -> None:
        """Open `path` for appending. `max_sources` bounds the connections to the log socket; further ones are refused. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)
        try:
            self._times = os.open(path.with_suffix(TIMES_SUFFIX), flags, 0o644)
        except OSError:
            os.close(self._file)
            raise
        self._stamped_ms = 0
        self._max_sources = max_sources
        self._sources: dict[int, _Source | _Frames] = {}
        self._listener: socket.socket | None = None
        self._dropped_bytes = 0
        self._precede: Callable[[], None] | None = None

    @property
    def file_descriptor(self) -> int:
        """The log file's; below zero once closed."""
        return self._file

    def write_line(self, line: str) -> None:
        """Append one line of the platform's own."""
        self._append(line.encode("utf-8", "replace") + b"\n")

    def precede_by(self, write: Callable[[], None]) -> None:
        """Before anything else is appended from now on, `write` may append what it has, by `write_lines`."""
        self._precede = write

    def write_lines(self, lines: Sequence[tuple[int, str]]) -> None:
        """Append lines of the platform's own, each with the time that it is of, in milliseconds."""
        if not lines or self._file < 0:
            return
        stamps: list[bytes] = []
        texts: list[bytes] = []
        try:
            self._tell_dropped()
            position = os.lseek(self._file, 0, os.SEEK_END)
            for at_ms, line in lines:
                if at_ms != self._stamped_ms:
                    stamps.append(stamp(position, at_ms))
                    self._stamped_ms = at_ms
                texts.append(line.encode("utf-8", "replace") + b"\n")
                position += len(texts[-1])
            if stamps:
                os.write(self._times, b"".join(stamps))
            self._write(b"".join(texts))
        except OSError:
            self._dropped_bytes += sum(map(len, texts))

    def listen(self, path: Path) -> None:
        """Accept sources on a Unix socket at `path`, at most 107 bytes long."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(str(path))
        listener.listen(512)
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    def add_source(self, fd: int) -> None:
        """Read lines from this descriptor until its end; it is owned and closed here."""
        self._watch(fd, _Source())

    def add_frames(self, fd: int) -> None:
        """Read log records in the frames of AWS's clients until the end of this descriptor; it is owned and closed here."""
        self._watch(fd, _Frames())

    def _watch(self, fd: int, source: "_Source | _Frames") -> None:
        os.set_blocking(fd, False)
        self._sources[fd] = source
        self._loop.add_reader(fd, self._readable, fd)

    def drain(self) -> None:
        """Take everything that was printed before this call: after an invocation's answer, or after the last process ended."""
        if self._listener is not None:
            self._accept()
        for fd in list(self._sources):
            taken = 0
            while taken < MAX_DRAIN_BYTES and (read := self._read(fd)):
                taken += read

    def close(self) -> None:
        """Take what is left and close everything. Unfinished lines are written."""
        self.drain()
        if self._precede is not None:
            self._precede()
        for fd in list(self._sources):
            self._end(fd)
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        os.close(self._file)
        os.close(self._times)
        self._file = -1

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None:
            try:
                connection, _ = listener.accept()
            except OSError:  # nobody waits (any more), or no descriptors are left for now
                return
            if len(self._sources) >= self._max_sources:
                connection.close()
            else:
                self.add_source(connection.detach())

    def _readable(self, fd: int) -> None:
        self._read(fd)

    def _read(self, fd: int) -> int:
        """Read once; the number of bytes, 0 if there was nothing or the source ended."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self._end(fd)
            return 0
        self._append(self._sources[fd].lines(data))
        return len(data)

    def _end(self, fd: int) -> None:
        source = self._sources.pop(fd)
        self._loop.remove_reader(fd)
        os.close(fd)
        self._append(source.rest())

    def _append(self, data: bytes) -> None:
        if not data or self._file < 0:
            return
        if self._precede is not None:
            self._precede()
        try:
            self._stamp()
            self._tell_dropped()
            self._write(data)
        except OSError:
            self._dropped_bytes += len(data)

    def _stamp(self) -> None:
        """Note the time of what is appended next, before it is there. The server appends to the same file, so its end is looked up."""
        now_ms = time.time_ns() // 1_000_000
        if now_ms != self._stamped_ms:
            os.write(self._times, stamp(os.lseek(self._file, 0, os.SEEK_END), now_ms))
            self._stamped_ms = now_ms

    def _tell_dropped(self) -> None:
        if self._dropped_bytes:
            self._write(self._dropped_record())
            self._dropped_bytes = 0

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _dropped_record(self) -> bytes:
        record = {"reason": "The log file could not be written.", "droppedBytes": self._dropped_bytes}
        return json.dumps({"type": "platform.logsDropped", "record": record}).encode() + b"\n"


class _Source:
    """One stream of lines and its unfinished end."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = b""

    def lines(self, data: bytes) -> bytes:
        """The whole lines that `data` completes, as valid UTF-8."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._partial += data
            return _valid(self._overflow())
        whole = self._partial + data[:end]
        self._partial = data[end:]
        # Reads are shorter than the limit, so only the first of these lines can be too long.
        first = whole.index(b"\n")
        if first > MAX_LINE_BYTES:
            piece, rest = _cut(whole)
            whole = piece + b"\n" + rest
        return _valid(whole)

    def _overflow(self) -> bytes:
        if len(self._partial) <= MAX_LINE_BYTES:
            return b""
        piece, self._partial = _cut(self._partial)
        return piece + b"\n"

    def rest(self) -> bytes:
        """The unfinished line, finished."""
        rest, self._partial = self._partial, b""
        return _valid(rest + b"\n") if rest else b""


class _Frames:
    """Records in frames: type, length, time in microseconds, and the text, which gets a line end if it has none.

    What does not begin like a frame is taken for plain lines from there on: somebody else found the descriptor and printed to it.
    """

    __slots__ = ("_header", "_missing", "_plain", "_text")

    def __init__(self) -> None:
        self._text = _Source()
        self._header = b""
        self._missing = 0
        """Bytes of the record that are still to come."""
        self._plain = False

    def lines(self, data: bytes) -> bytes:
        """The whole lines that `data` completes, as valid UTF-8."""
        found = []
        while data and not self._plain:
            if not self._missing:
                needed = FRAME_HEADER.size - len(self._header)
                self._header, data = self._header + data[:needed], data[needed:]
                if not FRAME_MARK.startswith(self._header[: len(FRAME_MARK)]):
                    self._plain, data = True, self._header + data
                elif len(self._header) == FRAME_HEADER.size:
                    _, self._missing, _ = FRAME_HEADER.unpack(self._header)
                    self._header = b""
                continue
            part, data = data[: self._missing], data[self._missing :]
            self._missing -= len(part)
            found.append(self._text.lines(part))
            if not self._missing:
                found.append(self._text.rest())
        if data:
            found.append(self._text.lines(data))
        return b"".join(found)

    def rest(self) -> bytes:
        """The unfinished record, finished."""
        return self._text.rest()


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """The line's first `MAX_LINE_BYTES`, not inside a character, and what follows."""
    end = MAX_LINE_BYTES
    while end > MAX_LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end], line[end:]


def _valid(data: bytes) -> bytes:
    with contextlib.suppress(UnicodeDecodeError):
        data.decode()
        return data
    return data.decode("utf-8", "replace").encode()
