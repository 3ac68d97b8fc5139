"""What idle connections and a waiting line cost those who are served: 10,000 open connections, 1,000 queued invocations.

    python -m bench.idle

Measured in turns on one server: a function called over one connection with nothing else there, and the same with the crowd: idle keep-alive
connections that have each made one request, and invocations of another function whose slots are all taken. Printed: p50 with and without, and
the server's memory per idle connection. The limit on open files is raised as far as the system allows.
"""

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import psutil
import uvloop
from bench.contenders import AUTHORIZATION, PYTHON, Handler, Lambstead, deploy, lambstead
from bench.load import Target

from bench import machine

IDLE_CONNECTIONS = 10_000
QUEUED = 1_000
SPARE_FILES = 500
ROUNDS = 5
SECONDS = 1.5
WAITING_SECONDS = 15.0
"""How long an invocation waits for a slot: longer than one measurement takes."""
SLOWER_BY = 0.20
BYTES_PER_CONNECTION = 10_000
CONNECTING_AT_ONCE = 500
HOLD = Handler(
    "Python",
    "python3.13",
    "hold.handler",
    {
        "hold.py": "import pathlib, time\n\n"
        "def handler(event, context):\n"
        "    while not pathlib.Path(event).exists():\n"
        "        time.sleep(0.2)\n"
    },
)


class Void(Exception):
    """The measurement says nothing: requests failed, or the crowd was not there while it was taken."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the crowd did."""

    alone_us: list[float]
    crowded_us: list[float]
    bytes_per_connection: float

    @property
    def slower_by(self) -> float:
        return statistics.median(self.crowded_us) / statistics.median(self.alone_us) - 1


class Idle(asyncio.Protocol):
    """A connection that makes one request and then stays. `answered` is set with the answer."""

    def __init__(self, request: bytes) -> None:
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError(str(exc or "closed by the server")))


async def connected(target: Target, count: int) -> list[Idle]:
    """So many connections that were each answered once."""
    loop = asyncio.get_running_loop()
    found: list[Idle] = []
    while len(found) < count:
        most = min(CONNECTING_AT_ONCE, count - len(found))
        opening = [loop.create_connection(lambda: Idle(target.request), target.host, target.port) for _ in range(most)]
        batch = [protocol for _, protocol in await asyncio.gather(*opening)]
        await asyncio.gather(*(protocol.answered for protocol in batch))
        found += batch
    return found


async def queued(target: Target, count: int) -> list[Idle]:
    """So many connections whose invocation waits for a slot."""
    loop = asyncio.get_running_loop()
    opening = [loop.create_connection(lambda: Idle(target.request), target.host, target.port) for _ in range(count)]
    return [protocol for _, protocol in await asyncio.gather(*opening)]


async def measured(server: Lambstead, idle: int, waiting: int, rounds: int, seconds: float = SECONDS) -> Finding:
    """Alternate between alone and crowded; the crowd comes and goes with every round. Functions `served` and `held` (one slot) are there."""
    served = Target.from_url(server.invoke_url("served"), b"{}", [AUTHORIZATION])
    held = Target.from_url(server.invoke_url("held"), b'"/nonexistent"', [AUTHORIZATION])
    holders = await queued(held, 1)
    alone, crowded = [], []
    sizes = []
    await p50(server, seconds)
    for _ in range(rounds):
        alone.append(await p50(server, seconds))
        before = psutil.Process(server.pid).memory_info().rss
        crowd = await connected(served, idle)
        sizes.append((psutil.Process(server.pid).memory_info().rss - before) / max(1, idle))
        line = await queued(held, waiting)
        crowded.append(await p50(server, seconds))
        still = [protocol for protocol in line if not protocol.answered.done()]
        if len(still) < waiting:
            raise Void(f"Only {len(still)} of {waiting} invocations still waited when the measurement ended.")
        # The server does not let those go who wait, so they are heard to the end: each is refused when its time is up.
        await asyncio.gather(*(protocol.answered for protocol in line))
        for protocol in (*crowd, *line):
            protocol.transport.abort()
        await gone(server, len(holders) + 1)
    for holder in holders:
        holder.transport.abort()
    # The first crowd needs fresh memory; later ones find what it left.
    return Finding(alone, crowded, sizes[0])


async def gone(server: Lambstead, left: int) -> None:
    """Wait until the server has no more than so many connections of clients."""
    for _ in range(600):
        connections = psutil.Process(server.pid).net_connections("tcp")
        if len([c for c in connections if c.status == psutil.CONN_ESTABLISHED]) <= left:
            return
        await asyncio.sleep(0.1)
    raise Void("The server still has the connections of a crowd that left a minute ago.")


async def p50(server: Lambstead, seconds: float) -> float:
    """Median latency over one connection, from the load generator in a process of its own."""
    command = [sys.executable, "-m", "bench.load", server.invoke_url("served"), "--requests", "10000000"]
    command += ["--limit-seconds", str(seconds), "--warm-up", "200", "--header", AUTHORIZATION]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    report = json.loads(output)
    if report["failures"]:
        raise Void(f"Requests failed: {report['first_failure']}")
    return float(report["p50_us"])


def raise_file_limit(wanted: int) -> None:
    """Raises SystemExit with advice if the system does not allow that many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
        raise SystemExit(
            f"{wanted} open files are needed, {soft} are allowed (hard limit {hard}). Raise it: ulimit -n {wanted}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--idle", type=int, default=IDLE_CONNECTIONS)
    parser.add_argument("--queued", type=int, default=QUEUED)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args(arguments)
    raise_file_limit(given.idle + given.queued + SPARE_FILES)
    print(machine.Conditions.now(machine.load_average(), "python -m bench.idle").sentence())
    with lambstead(slot_wait=f"{WAITING_SECONDS:g}s") as server:
        deploy(server, "served", PYTHON)
        deploy(server, "held", HOLD, 1)
        finding = uvloop.run(measured(server, given.idle, given.queued, given.rounds))
    print(
        f"p50 alone {us(finding.alone_us)}; with {given.idle:,} idle connections and {given.queued:,} waiting {us(finding.crowded_us)}: {finding.slower_by:+.1%}."
    )
    print(f"Memory per idle connection: {finding.bytes_per_connection:,.0f} bytes.")
    if finding.slower_by > SLOWER_BY or finding.bytes_per_connection > BYTES_PER_CONNECTION:
        sys.exit(1)


def us(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} µs ({min(values):.0f}–{max(values):.0f})"


if __name__ == "__main__":
    main()
