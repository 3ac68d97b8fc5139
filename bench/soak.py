"""Many invocations while workers are killed at random: is every request settled exactly once, and does the server keep its size?

    python -m bench.soak                     # 200,000 invocations, ten kills a second

Every event carries a number. The function writes the number down, then returns it; so afterwards it is known of each how often it was answered, with
what, and how often it ran. A request is settled by its own number or by an error that says what happened; anything else is a violation:
no answer, a second answer, another one's answer, an event that ran twice, an error that nothing explains.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httptools
import psutil
import uvloop
from bench.contenders import AUTHORIZATION, Handler, deploy, lambstead
from bench.load import Target

from bench import machine

SLOTS = 16
CONNECTIONS = 32
WARM_UP_SHARE = 0.2
FLAT_WITHIN = 0.05
SOURCE = """
import os

def handler(event, context):
    path = os.path.join(event["ran"], str(os.getpid()))
    with open(path, "ab") as file:
        file.write(b"%d\\n" % event["number"])
    return event["number"]
"""
FUNCTION = Handler("Python", "python3.13", "soak.handler", {"soak.py": SOURCE})
EXPECTED = frozenset({"Runtime.ExitError", "ServiceException", "TooManyRequestsException"})
"""How a request may end other than well while workers are killed: its worker died, its environment was lost, no slot came free."""


@dataclass(slots=True)
class Tally:
    """What happened to every request."""

    requested: int
    answers: "bytearray" = field(init=False)
    """How often each number was answered."""
    ends: Counter[str] = field(default_factory=Counter)
    """How they ended: `success`, or the error's type."""
    violations: list[str] = field(default_factory=list)
    kills: int = 0
    sent: int = 0
    rss_bytes: list[tuple[int, int]] = field(default_factory=list)
    """Size of the server, with how many requests had been sent by then."""

    def __post_init__(self) -> None:
        self.answers = bytearray(self.requested)

    def next(self) -> int | None:
        if self.sent >= self.requested:
            return None
        self.sent += 1
        return self.sent - 1

    def answered(self, number: int, status: int, error: str, body: bytes) -> None:
        self.answers[number] = min(255, self.answers[number] + 1)
        if status == 200 and not error:
            self.ends["success"] += 1
            if body != b"%d" % number:
                self.violations.append(f"request {number} was answered with {body[:100]!r}")
            return
        end = error_type(status, error, body)
        self.ends[end] += 1
        if end not in EXPECTED:
            self.violations.append(f"request {number} ended in {status} {body[:200]!r}")

    def judge(self, ran: Counter[int]) -> None:
        """Add what only the whole shows."""
        for number, count in enumerate(self.answers):
            if count != 1:
                self.violations.append(f"request {number} was answered {count} times")
        self.violations += [f"event {number} ran {count} times" for number, count in ran.items() if count > 1]
        lost = self.ends["success"] - len(ran)
        if lost > 0:
            self.violations.append(f"{lost} successes of events that never ran")

    def growth(self) -> float:
        """By how much, as a share, the server was larger at any time after the warm-up than when that ended."""
        settled = [size for sent, size in self.rss_bytes if sent >= self.requested * WARM_UP_SHARE]
        return max(settled) / settled[0] - 1 if settled else 0.0


def error_type(status: int, error: str, body: bytes) -> str:
    """What kind of error an answer is, by what it says of itself."""
    if error.endswith("Exception"):
        return error
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["errorType"])
    return f"{status}"


class Caller(asyncio.Protocol):
    """One keep-alive connection that sends number after number."""

    def __init__(self, tally: Tally, target: Target, ran: Path) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tally = tally
        self._target = target
        self._ran = ran
        self._number: int | None = None
        self._body: list[bytes] = []
        self._error = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._number is None:
            self._tally.violations.append(f"an answer that nobody asked for: {data[:100]!r}")
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"x-amz-function-error", b"x-amzn-errortype"):
            self._error = value.decode()

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        number, self._number = self._number, None
        if number is not None:
            self._tally.answered(number, self._parser.get_status_code(), self._error, b"".join(self._body))
        self._body.clear()
        self._error = ""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._tally.violations.append(f"the connection was lost while request {self._number} ran: {exc}")
            self.done.set_result(None)

    def _send(self) -> None:
        self._number = self._tally.next()
        if self._number is None:
            self.done.set_result(None)
            self._transport.close()
            return
        body = json.dumps({"number": self._number, "ran": str(self._ran)}).encode()
        self._transport.write(self._target.with_body(body))


async def soak(
    url: str, server_pid: int, ran: Path, invocations: int, connections: int, kills_per_second: float
) -> Tally:
    """Send so many invocations of the soak function while its workers are killed; `ran` is an empty folder for it."""
    tally = Tally(invocations)
    target = Target.from_url(url, b"", [AUTHORIZATION])
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(tally, target, ran), target.host, target.port))[1]
        for _ in range(connections)
    ]
    beside = [
        asyncio.create_task(kill_workers(tally, server_pid, kills_per_second), name="kill workers"),
        asyncio.create_task(watch_size(tally, server_pid), name="watch size"),
    ]
    await asyncio.wait([caller.done for caller in callers])
    for task in beside:
        task.cancel()
    await asyncio.wait(beside)
    for task in beside:
        if not task.cancelled() and (error := task.exception()):
            raise error
    tally.judge(executions(ran))
    return tally


async def kill_workers(tally: Tally, server_pid: int, per_second: float) -> None:
    """Kill a random worker now and then, until cancelled."""
    while True:
        await asyncio.sleep(random.expovariate(per_second))
        found = list(workers(server_pid))
        if found:
            with suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)
                tally.kills += 1


def workers(server_pid: int) -> Iterator[int]:
    """Worker processes: the children of the environments' main processes, which are children of the agents."""
    with suppress(psutil.NoSuchProcess):
        parents = {server_pid: 0}
        for process in psutil.Process(server_pid).children(recursive=True):
            depth = parents[process.pid] = parents.get(process.ppid(), 0) + 1
            if depth == 3 and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid


async def watch_size(tally: Tally, server_pid: int) -> None:
    while True:
        tally.rss_bytes.append((tally.sent, psutil.Process(server_pid).memory_info().rss))
        await asyncio.sleep(0.2)


def executions(ran: Path) -> Counter[int]:
    """How often each number ran, as the function wrote it down. What a killed worker wrote half is not counted."""
    found: Counter[int] = Counter()
    for file in ran.iterdir():
        found.update(int(line) for line in file.read_bytes().split(b"\n")[:-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--invocations", type=int, default=200_000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--kills-per-second", type=float, default=10.0)
    given = parser.parse_args(arguments)
    print(machine.Conditions.now(machine.load_average(), "python -m bench.soak").sentence())
    # Functions write down what they ran where this process reads it, and its workers are found by their place in the tree of processes.
    with lambstead(isolation="process") as server, tempfile.TemporaryDirectory() as ran:
        deploy(server, "soak", FUNCTION, SLOTS)
        began = time.monotonic()
        tally = uvloop.run(
            soak(
                server.invoke_url("soak"),
                server.pid,
                Path(ran),
                given.invocations,
                given.connections,
                given.kills_per_second,
            )
        )
        report(tally, time.monotonic() - began)
    if tally.violations or tally.growth() > FLAT_WITHIN:
        sys.exit(1)


def report(tally: Tally, seconds: float) -> None:
    ends = ", ".join(f"{count:,} {end}" for end, count in tally.ends.most_common())
    print(f"{tally.requested:,} requests in {seconds:.0f} s with {tally.kills} workers killed: {ends}.")
    sizes = [size / 2**20 for sent, size in tally.rss_bytes if sent >= tally.requested * WARM_UP_SHARE]
    print(
        f"Server after warm-up: {sizes[0]:.1f} MiB, at most {max(sizes):.1f}, at the end {sizes[-1]:.1f} ({tally.growth():+.1%})."
    )
    print(f"{len(tally.violations)} violations." if tally.violations else "Every request was settled exactly once.")
    for violation in tally.violations[:20]:
        print(f"  {violation}")


if __name__ == "__main__":
    main()
