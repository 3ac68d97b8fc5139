"""The load generator counts what happened: every request once, failures as failures, CPU time of the watched tree."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.cpu import Moment, tree_seconds
from bench.load import Run, Target, measure, payload, percentile
from hypothesis import given
from hypothesis import strategies as st

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """URL and process id of a running echo server."""
    command = [sys.executable, "-m", "bench.echo"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/", process.pid
        finally:
            process.terminate()


@pytest.mark.parametrize("connections", [1, 16, 64])
def test_every_request_is_answered_and_counted_once(echo: tuple[str, int], connections: int) -> None:
    url, pid = echo
    counts = ["--connections", str(connections), "--requests", "3000", "--warm-up", "100"]
    command = [sys.executable, "-m", "bench.load", url, *counts, "--watch", str(pid)]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    report = json.loads(result.stdout)
    assert (report["requests"], report["failures"], report["connections"]) == (3000, 0, connections)
    assert 0 < report["p50_us"] <= report["p99_us"]
    assert set(report["cpu_us"]) == {"server"}


def test_requests_are_spread_over_time_when_a_rate_is_given() -> None:
    run = Run(Target("127.0.0.1", 1, "", b""), 10, 0.0, rate=100.0)
    assert [run.time_to_next(5.0) for _ in range(4)] == pytest.approx([0.0, 0.01, 0.02, 0.03])
    assert run.time_to_next(5.5) == 0.0, "what is late is sent at once"
    unlimited = Run(Target("127.0.0.1", 1, "", b""), 10, 0.0)
    assert [unlimited.time_to_next(5.0) for _ in range(3)] == [0.0, 0.0, 0.0]


async def answer_with(answer: bytes) -> tuple[asyncio.Server, int]:
    """A server that gives every chunk of every connection the same answer."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer and await reader.read(65536):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "answered", "failures", "because"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 20, 0, ""),
        (b"HTTP/1.1 429 Slow\r\ncontent-length: 4\r\n\r\nfull", 20, 20, "429: full"),
        (b"HTTP/1.1 200 OK\r\nX-Amz-Function-Error: Unhandled\r\ncontent-length: 2\r\n\r\n{}", 20, 20, "200: {}"),
        (b"", 0, 2, "the connection was lost: closed by the server"),
    ],
    ids=["success", "refusal", "function error", "lost connection"],
)
def test_failures_are_told_from_successes(answer: bytes, answered: int, failures: int, because: str) -> None:
    async def run() -> None:
        server, port = await answer_with(answer)
        async with server:
            target = Target.from_url(f"http://127.0.0.1:{port}/", b"{}", [])
            report = await measure(target, 2, 20, 30, None)
        assert (report.requests, report.failures, report.first_failure) == (answered, failures, because)

    asyncio.run(run())


def test_a_server_that_closes_after_each_answer_gets_a_new_connection() -> None:
    connections = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if await reader.read(65536):
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
        async with server:
            target = Target.from_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", b"{}", [])
            report = await measure(target, 3, 30, 30, None)
        assert (report.requests, report.failures) == (30, 0)
        assert connections >= 30

    asyncio.run(run())


@pytest.mark.parametrize("size", [2, 15, 16, 100, 10_000, 1_000_000])
def test_an_event_is_json_of_the_size_that_was_asked_for(size: int) -> None:
    assert len(payload(size)) == size
    assert json.loads(payload(size))


def test_the_share_of_others_is_what_the_machine_did_beyond_the_watched_tree() -> None:
    busy = "import sys, time; t = time.process_time()\nwhile time.process_time() - t < 0.4: pass\nprint('done', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        watched, unwatched = Moment.now([process.pid]), Moment.now([])
        process.stdout.readline()
        as_ours = Moment.now([process.pid]).others_share(watched)
        as_others = Moment.now([]).others_share(unwatched)
        process.communicate(b"")
    assert as_ours < as_others <= 1


def test_the_time_limit_ends_a_run() -> None:
    run = Run(Target("", 0, "", b""), requests=10, deadline=0.0)
    assert not run.take()


def test_request_is_whole_http() -> None:
    target = Target.from_url("http://127.0.0.1:99/a/b?c=d", b"[1]", ["X-Name: value"])
    assert (target.host, target.port) == ("127.0.0.1", 99)
    assert target.request == (
        b"POST /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:99\r\nX-Name: value\r\nContent-Length: 3\r\n\r\n[1]"
    )
    assert target.with_body(b"{}") == target.request.replace(b"3\r\n\r\n[1]", b"2\r\n\r\n{}")


def test_cpu_time_of_children_counts_for_their_level() -> None:
    grandchild = "import sys, time; t = time.process_time()\nwhile time.process_time() - t < 0.2: pass\nprint('done', flush=True); sys.stdin.read()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    root = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        used = tree_seconds(process.pid)
        process.communicate("")
    assert set(used) == {"server", "agent", "workers"}
    assert used["workers"] >= 0.19


@given(st.lists(st.integers(min_value=0), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
def test_percentile_is_a_value_that_so_many_do_not_exceed(values: list[int], share: float) -> None:
    result = percentile(values, share)
    assert result in values
    assert sum(value <= result for value in values) >= share * len(values) - 1e-9
    assert sum(value < result for value in values) < share * len(values) + 1e-9
