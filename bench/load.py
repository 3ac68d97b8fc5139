"""A load generator: keep-alive connections that each send the next request when the answer is there (a closed loop).

It runs as a process of its own so that its work is not counted as the server's, and reports latency, rate and the CPU
time of a watched process tree, taken around the measured requests only, and how busy others kept the machine meanwhile. Wall time depends
on what else the machine does; CPU time per request much less, so that is the number to keep. Output is one JSON document, see `Report`.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop
from bench.cpu import Moment, tree_seconds


@dataclass(frozen=True, slots=True)
class Target:
    """Where to and what: one request, sent again and again."""

    host: str
    port: int
    head: str
    """Request line and headers, but for the length of the body."""
    request: bytes

    @classmethod
    def from_url(cls, url: str, body: bytes, headers: Sequence[str]) -> "Target":
        """A POST of `body` to a URL with further headers, each written `Name: value`."""
        parts = urlsplit(url)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        head = "".join(f"{line}\r\n" for line in (f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", *headers))
        return cls(parts.hostname or "", parts.port or 80, head, request(head, body))

    def with_body(self, body: bytes) -> bytes:
        """The same request with another body."""
        return request(self.head, body)


def request(head: str, body: bytes) -> bytes:
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Report:
    """What one run measured. Latencies and CPU times in microseconds; CPU is per request, by level of the watched tree."""

    connections: int
    requests: int
    failures: int
    first_failure: str
    seconds: float
    rate: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_us: dict[str, float]
    others_share: float
    """Share of the machine that other processes used meanwhile, between 0 and 1."""


class Run:
    """The requests of one run, shared by its connections: how many are still to be sent, and what came back."""

    def __init__(self, target: Target, requests: int, deadline: float, rate: float = 0.0) -> None:
        self.target = target
        self.latencies_ns: list[int] = []
        self.failures = 0
        self.first_failure = ""
        self._to_send = requests
        self._deadline = deadline
        self._pause = 1 / rate if rate else 0.0
        self._due = 0.0

    def time_to_next(self, now: float) -> float:
        """Seconds until the next request is due at the rate of the run; 0 for one that is due, and in a run without a rate."""
        if not self._pause:
            return 0.0
        self._due = self._due or now
        wait = max(0.0, self._due - now)
        self._due += self._pause
        return wait

    def take(self) -> bool:
        """Whether one more request is to be sent."""
        if self._to_send <= 0 or time.monotonic() > self._deadline:
            return False
        self._to_send -= 1
        return True

    def fail(self, because: str) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or because


class Caller(asyncio.Protocol):
    """One connection; `done` is set when it has nothing more to send or was lost."""

    def __init__(self, run: Run) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = run
        self._body: list[bytes] = []
        self._function_error = False
        self._opening: asyncio.Future[None] | None = None
        """The next connection, while it is being opened."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._parser = httptools.HttpResponseParser(self)

    def start(self) -> None:
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._function_error |= name.lower() == b"x-amz-function-error"

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        self._run.latencies_ns.append(time.perf_counter_ns() - self._sent_at)
        status = self._parser.get_status_code()
        if status != 200 or self._function_error:
            self._run.fail(f"{status}: {b''.join(self._body)[:300].decode('utf-8', 'replace')}")
        self._body.clear()
        self._function_error = False
        if self._parser.should_keep_alive():
            self._send()
        elif self._opening is None:
            # A server that closes after its answer gets a new connection each time, as a client would do.
            self._transport.close()
            self._opening = asyncio.ensure_future(self._open_again())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opening is None and not self.done.done():
            self._run.fail(f"the connection was lost: {exc or 'closed by the server'}")
            self.done.set_result(None)

    async def _open_again(self) -> None:
        loop, target = asyncio.get_running_loop(), self._run.target
        try:
            await loop.create_connection(lambda: self, target.host, target.port)
        except OSError as exc:
            self._opening = None
            self.connection_lost(exc)
            return
        self._opening = None
        self._send()

    def _send(self) -> None:
        if self._run.take():
            loop = asyncio.get_running_loop()
            if wait := self._run.time_to_next(loop.time()):
                loop.call_later(wait, self._write)
            else:
                self._write()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def _write(self) -> None:
        self._sent_at = time.perf_counter_ns()
        self._transport.write(self._run.target.request)


async def measure(
    target: Target, connections: int, requests: int, limit_seconds: float, watch: int | None, rate: float = 0.0
) -> Report:
    """Send `requests`, or as many as fit into the time limit, over so many connections; not more than `rate` a second if that is given."""
    run = Run(target, requests, time.monotonic() + limit_seconds, rate)
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(run), target.host, target.port))[1] for _ in range(connections)
    ]
    moment = Moment.now([] if watch is None else [watch])
    cpu_before = tree_seconds(watch)
    began = time.perf_counter()
    for caller in callers:
        caller.start()
    # An answer that never comes must not hang the benchmark.
    _, silent = await asyncio.wait([caller.done for caller in callers], timeout=limit_seconds + 10)
    seconds = time.perf_counter() - began
    cpu_after = tree_seconds(watch)
    others = Moment.now([] if watch is None else [watch]).others_share(moment)
    if silent:
        run.fail(f"{len(silent)} connections got no answer")
    answered = len(run.latencies_ns)
    cpu = {level: used - cpu_before.get(level, 0.0) for level, used in cpu_after.items()}
    return Report(
        connections=connections,
        requests=answered,
        failures=run.failures,
        first_failure=run.first_failure,
        seconds=seconds,
        rate=answered / seconds,
        p50_us=percentile(run.latencies_ns, 0.50) / 1000,
        p99_us=percentile(run.latencies_ns, 0.99) / 1000,
        p999_us=percentile(run.latencies_ns, 0.999) / 1000,
        cpu_us={level: used / max(1, answered) * 1e6 for level, used in cpu.items()},
        others_share=others,
    )


def percentile(values: Sequence[int], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; 0 without values."""
    return sorted(values)[max(0, -(-int(len(values) * share * 1000) // 1000) - 1)] if values else 0.0


def payload(size: int) -> bytes:
    """An event of exactly so many bytes: a JSON object, or a number where there is no room for one."""
    if size < 16:
        return b"1" * size
    return b'{"text": "' + b"x" * (size - 12) + b'"}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--warm-up", type=int, default=0, help="requests sent before, not measured")
    parser.add_argument("--warm-up-seconds", type=float, help="time at most for them; otherwise as for the others")
    parser.add_argument("--limit-seconds", type=float, default=15.0)
    parser.add_argument("--body-bytes", type=int, default=2, help="size of the event")
    parser.add_argument("--header", action="append", default=[], help="Name: value")
    parser.add_argument("--watch", type=int, help="process whose tree's CPU time is measured")
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second, for a server that could do more")
    parser.add_argument("--cpus", help="run on these CPUs only, separated by commas")
    given = parser.parse_args()
    if given.cpus:
        os.sched_setaffinity(0, [int(cpu) for cpu in given.cpus.split(",")])
    target = Target.from_url(given.url, payload(given.body_bytes), given.header)

    async def both() -> Report:
        if given.warm_up:
            limit = given.warm_up_seconds or given.limit_seconds
            await measure(target, given.connections, given.warm_up, limit, None)
        return await measure(target, given.connections, given.requests, given.limit_seconds, given.watch, given.rate)

    json.dump(asdict(uvloop.run(both())), sys.stdout)


if __name__ == "__main__":
    main()
