"""Lines into a file: whole, bounded, valid, and in nobody's way."""

import asyncio
import itertools
import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.instance.harness import eventually

from lambstead.instance.log_capture import MAX_LINE_BYTES, LogCapture

pytestmark = pytest.mark.anyio


@pytest.fixture
async def capture(tmp_path: Path) -> LogCapture:
    return LogCapture(tmp_path / "log", max_sources=8)


def a_pipe(capture: LogCapture) -> int:
    read_fd, write_fd = os.pipe()
    capture.add_source(read_fd)
    return write_fd


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(st.tuples(st.integers(0, 2), st.text("ab\nü🧀", max_size=12)), max_size=30))
def test_lines_of_concurrent_sources_never_mix(tmp_path: Path, writes: list[tuple[int, str]]) -> None:
    path = tmp_path / "mixed"
    path.unlink(missing_ok=True)

    async def main() -> None:
        capture = LogCapture(path, max_sources=8)
        fds = [a_pipe(capture) for _ in range(3)]
        for source, text in writes:
            os.write(fds[source], text.encode())
            capture.drain()
        for fd in fds:
            os.close(fd)
        capture.close()

    asyncio.run(main())
    written = path.read_text().split("\n")
    expected = []
    for source in range(3):
        text = "".join(t for s, t in writes if s == source)
        lines = text.split("\n")
        expected += lines[:-1] + ([lines[-1]] if lines[-1] else [])
    assert sorted(written[:-1]) == sorted(expected)


async def test_a_line_above_the_limit_is_broken_between_characters(capture: LogCapture, tmp_path: Path) -> None:
    fd = a_pipe(capture)
    text = "x" + "ü" * MAX_LINE_BYTES + "\nshort\n"
    os.set_blocking(fd, False)
    data = text.encode()
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            capture.drain()
    os.close(fd)
    capture.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert all(len(line.encode()) <= MAX_LINE_BYTES for line in lines)
    assert "".join(lines[:-1]) == text.splitlines()[0]
    assert lines[-1] == "short"
    assert len(lines) == 4


async def test_bytes_that_are_not_utf8_become_replacement_characters(capture: LogCapture, tmp_path: Path) -> None:
    fd = a_pipe(capture)
    os.write(fd, b"before \xff\xfe after\n")
    os.close(fd)
    capture.close()
    assert (tmp_path / "log").read_text() == "before \ufffd\ufffd after\n"


async def test_the_log_socket_takes_sources_and_refuses_too_many(capture: LogCapture, tmp_path: Path) -> None:
    path = tmp_path / "s"
    capture.listen(path)
    sockets = []
    for number in range(10):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        sockets.append(client)
        capture.drain()
        if number < 8:
            client.sendall(f"line {number}\n".encode())
    assert sockets[9].recv(1) == b""
    capture.close()
    for client in sockets:
        client.close()
    assert sorted((tmp_path / "log").read_text().splitlines()) == [f"line {n}" for n in range(8)]


async def test_output_is_written_promptly_without_being_asked_for(capture: LogCapture, tmp_path: Path) -> None:
    fd = a_pipe(capture)
    os.write(fd, b"now\n")
    await eventually(lambda: (tmp_path / "log").read_text() == "now\n", "the line is in the file")
    os.close(fd)
    capture.close()


async def test_lines_that_the_disk_refuses_are_counted_in_the_log(tmp_path: Path) -> None:
    """/dev/full refuses every byte; then the file is one that takes them."""
    capture = LogCapture(Path("/dev/full"), max_sources=1)
    capture.write_line("lost")
    good = os.open(tmp_path / "good", os.O_WRONLY | os.O_CREAT)
    os.dup2(good, capture.file_descriptor)
    os.close(good)
    capture.write_line("kept")
    capture.close()
    dropped, kept = (tmp_path / "good").read_text().splitlines()
    assert json.loads(dropped)["record"]["droppedBytes"] == len("lost\n")
    assert kept == "kept"


def frame(text: bytes) -> bytes:
    return b"\xa5\x5a\x00\x0e" + len(text).to_bytes(4, "big") + (1).to_bytes(8, "big") + text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.text("ab\nü", max_size=30), max_size=8),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_records_in_frames_end_with_their_line_however_they_arrive(
    tmp_path: Path, records: list[str], cuts: list[int]
) -> None:
    path = tmp_path / "framed"
    path.unlink(missing_ok=True)
    data = b"".join(frame(record.encode()) for record in records)

    async def main() -> None:
        capture = LogCapture(path, max_sources=8)
        read_fd, write_fd = os.pipe()
        capture.add_frames(read_fd)
        at = 0
        for cut in itertools.cycle(cuts):
            os.write(write_fd, data[at : at + cut])
            capture.drain()
            at += cut
            if at >= len(data):
                break
        os.close(write_fd)
        capture.close()

    asyncio.run(main())
    expected = "".join(record if record.endswith("\n") or not record else record + "\n" for record in records)
    assert path.read_text() == expected


async def test_what_is_no_frame_is_kept_as_plain_lines(capture: LogCapture, tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    capture.add_frames(read_fd)
    os.write(write_fd, frame(b"framed") + b"\xa5plain\nmore")
    os.close(write_fd)
    capture.close()
    assert (tmp_path / "log").read_bytes() == "framed\n\ufffdplain\nmore\n".encode()
