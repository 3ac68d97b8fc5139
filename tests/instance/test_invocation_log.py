"""The platform's lines about invocations, written in batches: where they stand, what time they are of, and when they are there."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.instance.harness import eventually
from tests.instance.test_runtime_api import _start_message

from lambstead.core.log_streams import TIMES_SUFFIX, Times
from lambstead.instance.invocation_log import InvocationLog
from lambstead.instance.log_capture import LogCapture
from lambstead.instance.platform_log import Ended, PlatformLog

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Table:
    """A log file with everything that writes into it."""

    def __init__(self, path: Path, memory: Callable[[], int] = lambda: 0, *, log_format: str = "Text") -> None:
        self.path = path
        self.capture = LogCapture(path, max_sources=4)
        read_fd, self.printing = os.pipe()
        self.capture.add_source(read_fd)
        start = msgspec.structs.replace(_start_message("on-demand"), log_format=log_format)
        self.platform = PlatformLog(start, "python:3.13.0", self.capture.write_line)
        self.log = InvocationLog(self.platform, self.capture, memory)

    def printed(self, text: str) -> None:
        os.write(self.printing, f"{text}\n".encode())

    def lines(self) -> list[str]:
        """Every line up to its first tab."""
        return [line.split("\t")[0] for line in self.path.read_text().splitlines()]

    def close(self) -> None:
        os.close(self.printing)
        self.capture.close()


def success(request_id: str) -> Ended:
    return Ended(request_id, "success", 1.5)


STEPS = st.sampled_from(["start", "print", "end", "read", "exit", "wait"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_every_line_stands_where_it_would_stand_if_it_were_written_at_once(tmp_path: Path, steps: list[str]) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    expected: list[str] = []
    unread: list[str] = []

    async def main() -> None:
        table = Table(path)
        for number, step in enumerate(steps):
            match step:
                case "start":
                    table.log.started(f"r{number}")
                    expected.append(f"START RequestId: r{number} Version: 7")
                case "print":
                    table.printed(f"p{number}")
                    unread.append(f"p{number}")
                case "end":
                    table.log.ended(success(f"r{number}"))
                    expected.extend([*unread, f"END RequestId: r{number}", f"REPORT RequestId: r{number}"])
                    unread.clear()
                case "read":
                    table.capture.drain()
                    expected.extend(unread)
                    unread.clear()
                case "exit":
                    table.log.runtime_exited(f"x{number}", "Runtime.ExitError")
                    expected.extend([f"x{number}", "Runtime.ExitError"])
                case _:
                    table.log.write_now()
        table.close()

    asyncio.run(main())
    written = [line.split("\t")[0] for line in path.read_text().splitlines()]
    assert written == expected + unread


async def test_lines_are_written_together_and_have_the_times_they_are_of(tmp_path: Path) -> None:
    table = Table(tmp_path / "log", log_format="JSON")
    before = time.time_ns() // 1_000_000
    table.log.started("one")
    while (between := time.time_ns() // 1_000_000) <= before + 1:
        pass  # the clock, not the loop, must go on
    table.log.ended(success("one"))
    assert table.path.read_bytes() == b""
    await eventually(lambda: table.path.read_text().count("\n") == 2, "both lines are there")
    records = [json.loads(line) for line in table.path.read_text().splitlines()]
    assert [record["type"] for record in records] == ["platform.start", "platform.report"]
    times = Times(table.path.with_suffix(TIMES_SUFFIX).read_bytes(), 0)
    second = table.path.read_bytes().index(b"\n") + 1
    assert before <= times.at(0) < between <= times.at(second)
    for record, at in zip(records, (times.at(0), times.at(second)), strict=True):
        assert record["time"].endswith(f".{at % 1000:03d}Z")
    table.close()


async def test_the_runtimes_size_is_looked_up_once_for_a_batch_and_never_falls(tmp_path: Path) -> None:
    sizes = [40 * MIB, 30 * MIB, 0]
    asked: list[int] = []

    def memory() -> int:
        asked.append(sizes.pop(0))
        return asked[-1]

    table = Table(tmp_path / "log", memory)
    for number in range(3):
        table.log.started(str(number))
        table.log.ended(success(str(number)))
    table.log.write_now()
    assert len(asked) == 1
    table.log.ended(success("later"))
    table.log.write_now()
    table.log.ended(success("at the end"))
    table.close()
    reports = [line for line in table.path.read_text().splitlines() if line.startswith("REPORT")]
    assert len(reports) == 5
    assert all("\tMax Memory Used: 40 MB\t" in report for report in reports)


async def test_the_size_at_a_time_out_is_looked_up_while_there_is_somebody_to_ask(tmp_path: Path) -> None:
    size = 64 * MIB
    table = Table(tmp_path / "log", lambda: size)
    table.log.ended(Ended("late", "timeout", 1000.0, "Sandbox.Timedout", 1000))
    size = 0  # the runtime is killed
    table.close()
    written = table.path.read_text()
    assert "late Task timed out after 1.00 seconds\n\nEND RequestId: late\nREPORT RequestId: late\t" in written
    assert "\tMax Memory Used: 64 MB\tStatus: timeout\t" in written
