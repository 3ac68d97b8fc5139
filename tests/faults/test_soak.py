"""Thousands of invocations while workers die, and a crowd that only waits: the small versions of `bench.soak` and `bench.idle`."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
import uvloop
from bench.contenders import Lambstead
from bench.idle import HOLD, measured
from bench.soak import SLOTS, SOURCE, Tally, soak
from tests.harness import PUBLISHED, create_provider, publish_managed, running, wait_for

INVOCATIONS = 6_000


def test_every_invocation_is_settled_exactly_once_while_workers_are_killed(runtimes: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    with running(tmp_path / "data", slot_wait="30s") as server:
        publish_managed(server.aws, "soak", SOURCE, create_provider(server.aws), slots=SLOTS, Timeout=30)
        url = f"{server.url}/2015-03-31/functions/soak/invocations"
        tally = uvloop.run(soak(url, server.process.pid, ran, INVOCATIONS, connections=32, kills_per_second=30))
        assert tally.violations == []
        assert tally.kills >= 5, "workers were killed"
        assert tally.ends["success"] > 0.9 * INVOCATIONS
        ended = tally.ends["success"] + tally.ends["Runtime.ExitError"]
        wait_for(lambda: records(server.data, "platform.report") == ended, "each invocation has one report in the log")
        assert records(server.data, "platform.start") == ended


def records(data: Path, kind: str) -> int:
    return sum(file.read_bytes().count(f'"{kind}"'.encode()) for file in (data / "logs").rglob("*") if file.is_file())


def test_who_only_waits_does_not_stop_those_who_are_served_and_costs_little_memory(
    runtimes: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "data", slot_wait="4s", stop_wait="200ms") as server:
        provider = create_provider(server.aws)
        publish_managed(server.aws, "served", "def handler(event, context):\n    return event\n", provider, slots=4)
        publish_managed(server.aws, "held", HOLD.files["hold.py"], provider, slots=1, Timeout=60)
        # Else the line is load, and whom another environment takes out of it is held for a minute too.
        server.aws.put_function_scaling_config(
            FunctionName="held",
            Qualifier=PUBLISHED,
            FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1},
        )
        here = Lambstead(server.url, server.process.pid)
        finding = asyncio.run(measured(here, idle=500, waiting=200, rounds=1, seconds=0.7))
    assert finding.crowded_us, "those who are served are served while the others wait; bench.idle measures how fast"
    assert finding.bytes_per_connection < 15_000


@pytest.mark.parametrize(
    ("answers", "ran", "violation"),
    [
        ([(0, 200, "", b"0")], {0: 1}, "request 1 was answered 0 times"),
        ([(0, 200, "", b"0"), (1, 200, "", b"1"), (1, 200, "", b"1")], {0: 1, 1: 1}, "request 1 was answered 2 times"),
        ([(0, 200, "", b"1"), (1, 200, "", b"1")], {0: 1, 1: 1}, "request 0 was answered with b'1'"),
        ([(0, 200, "", b"0"), (1, 200, "", b"1")], {0: 1, 1: 2}, "event 1 ran 2 times"),
        ([(0, 200, "", b"0"), (1, 200, "", b"1")], {0: 1}, "1 successes of events that never ran"),
        ([(0, 200, "", b"0"), (1, 500, "", b"{}")], {0: 1}, "request 1 ended in 500 b'{}'"),
    ],
)
def test_the_soak_sees_what_must_not_be(
    answers: list[tuple[int, int, str, bytes]], ran: dict[int, int], violation: str
) -> None:
    tally = Tally(2)
    for answer in answers:
        tally.answered(*answer)
    tally.judge(Counter(ran))
    assert violation in tally.violations


def test_the_soak_takes_named_ends_for_what_they_are() -> None:
    tally = Tally(3)
    tally.answered(0, 200, "", b"0")
    tally.answered(1, 200, "Unhandled", b'{"errorType": "Runtime.ExitError", "errorMessage": "gone"}')
    tally.answered(2, 429, "TooManyRequestsException", b"{}")
    tally.judge(Counter({0: 1, 1: 1}))
    assert tally.violations == []
    assert tally.ends == {"success": 1, "Runtime.ExitError": 1, "TooManyRequestsException": 1}
