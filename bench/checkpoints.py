"""What the server can take of checkpoints: simulated clients that play the durable function, over raw keep-alive connections.

    python -m bench.checkpoints [--executions 16] [--seconds 5]

A real function is invoked for every execution, but it only hands its event to this process and waits. This process then checkpoints in its place,
one after another per execution, each with the START and the SUCCEED of one step: the next one is sent when the answer is there. So the SDK's work is not in
the numbers, and all that the server does for a step is: HTTP, the rules, the write, the fsync. Latency is that of the client, a little more than the server's own time.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httptools
import uvloop
from bench.contenders import AUTHORIZATION, Handler, Lambstead, deploy, lambstead
from bench.cpu import Moment, tree_seconds
from bench.load import Target, percentile, request

from bench import machine

MAX_STEPS = 2_900
"""Steps of one execution; it may have 3,000 operations."""
FUNCTION = "played"
SOURCE = """
import json, socket

def handler(event, context):
    port = json.loads(event["InitialExecutionState"]["Operations"][0]["ExecutionDetails"]["InputPayload"])
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as file:
        file.write(json.dumps(event).encode() + b"\\n")
        file.flush()
        return json.loads(file.readline())
"""
PLAYED = Handler("Python", "python3.13", "played.handler", {"played.py": SOURCE})
DURABLE: Mapping[str, Any] = {"DurableConfig": {"ExecutionTimeout": 600}}


class Refused(Exception):
    """A checkpoint, or the execution itself, was not answered as it should be: the measurement says nothing."""


@dataclass(slots=True)
class Finding:
    """What was measured. Latencies in nanoseconds, as the client saw them."""

    executions: int
    latencies_ns: list[int] = field(default_factory=list)
    seconds: float = 0.0
    server_cpu_us: float = 0.0
    """CPU time of the server's process per step."""
    fsync_us: float = 0.0
    """Median of an fsync of the same disk, taken before: below that no acknowledged write can be."""
    others_share: float = 0.0

    def document(self) -> dict[str, Any]:
        return {
            "executions": self.executions,
            "steps": len(self.latencies_ns),
            "steps_per_s": len(self.latencies_ns) / self.seconds,
            "p50_us": percentile(self.latencies_ns, 0.5) / 1000,
            "p99_us": percentile(self.latencies_ns, 0.99) / 1000,
            "server_cpu_us": self.server_cpu_us,
            "fsync_us": self.fsync_us,
            "others_share": self.others_share,
        }


class Player(asyncio.Protocol):
    """One connection that checkpoints for one execution. `done` is set at the deadline, or when the execution is full."""

    def __init__(self, head: str, token: str, deadline: float) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_ns: list[int] = []
        self._head = head
        self._token = token
        self._deadline = deadline
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        self.latencies_ns.append(time.perf_counter_ns() - self._sent_at)
        body = b"".join(self._body)
        self._body.clear()
        if self._parser.get_status_code() != 200:
            self.done.set_exception(Refused(f"{self._parser.get_status_code()}: {body[:300]!r}"))
            return
        self._token = json.loads(body)["CheckpointToken"]
        if time.monotonic() > self._deadline or len(self.latencies_ns) >= MAX_STEPS:
            self.done.set_result(None)
            self._transport.close()
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(Refused(f"the connection was lost: {exc or 'closed by the server'}"))

    def send(self) -> None:
        number = len(self.latencies_ns)
        step = {"Id": f"{number:032x}", "Type": "STEP", "SubType": "Step", "Name": f"step {number}"}
        document = {
            "CheckpointToken": self._token,
            "ClientToken": f"{number:036x}",
            "Updates": [{**step, "Action": "START"}, {**step, "Action": "SUCCEED", "Payload": str(number)}],
        }
        body = json.dumps(document).encode()
        self._sent_at = time.perf_counter_ns()
        self._transport.write(request(self._head, body))


@asynccontextmanager
async def executions(server: Lambstead, count: int) -> AsyncIterator[list[dict[str, Any]]]:
    """So many executions whose function has been invoked and waits: their events. They end well with the context; raises Refused if one does not."""
    events: asyncio.Queue[tuple[dict[str, Any], asyncio.StreamWriter]] = asyncio.Queue()

    async def invoked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        events.put_nowait((json.loads(await reader.readline()), writer))

    parked = await asyncio.start_server(invoked, "127.0.0.1", 0, limit=2**24)
    port = parked.sockets[0].getsockname()[1]
    callers = [asyncio.create_task(invoke(server, port)) for _ in range(count)]
    async with asyncio.timeout(60):
        found = [await events.get() for _ in range(count)]
    yield [event for event, _ in found]
    for _, writer in found:
        writer.write(b'{"Status": "SUCCEEDED", "Result": "null"}\n')
        writer.close()
    await asyncio.gather(*callers)
    parked.close()


async def invoke(server: Lambstead, port: int) -> None:
    """Start an execution and wait for its end. Raises Refused unless it succeeds."""
    url = server.invoke_url(FUNCTION) + "?Qualifier=$LATEST.PUBLISHED"
    target = Target.from_url(url, str(port).encode(), [AUTHORIZATION, "Connection: close"])
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(target.request)
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200") or b"x-amz-function-error" in answer.lower():
        raise Refused(answer.decode(errors="replace")[:500])


async def played(server: Lambstead, count: int, seconds: float) -> Finding:
    """Checkpoint in the place of so many executions for a time."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(server.url)
    finding = Finding(count, fsync_us=fsync_us())
    async with executions(server, count) as events:
        deadline = time.monotonic() + seconds
        players = []
        for event in events:
            path = f"/2025-12-01/durable-executions/{quote(event['DurableExecutionArn'], safe='')}/checkpoint"
            lines = f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json", AUTHORIZATION
            player = Player("".join(f"{line}\r\n" for line in lines), event["CheckpointToken"], deadline)
            await loop.create_connection(partial(_same, player), parts.hostname or "", parts.port or 80)
            players.append(player)
        before, cpu_before = Moment.now([server.pid]), tree_seconds(server.pid)
        began = time.perf_counter()
        for player in players:
            player.send()
        await asyncio.gather(*(player.done for player in players))
        finding.seconds = time.perf_counter() - began
        finding.others_share = Moment.now([server.pid]).others_share(before)
        finding.latencies_ns = [each for player in players for each in player.latencies_ns]
        used = tree_seconds(server.pid)["server"] - cpu_before["server"]
        finding.server_cpu_us = used / len(finding.latencies_ns) * 1e6
    return finding


def _same(player: Player) -> Player:
    return player


def fsync_us(times: int = 50) -> float:
    """Median time of writing a page and syncing it, on the disk where the server of a benchmark keeps its data."""
    found = []
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-") as folder, (Path(folder) / "probe").open("wb") as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter_ns() - began)
    return percentile(found, 0.5) / 1000


def deploy_played(server: Lambstead, slots: int) -> None:
    """The function that hands its events over."""
    deploy(server, FUNCTION, PLAYED, slots, **DURABLE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--executions", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    print(machine.Conditions.now(machine.load_average(), "python -m bench.checkpoints").sentence())
    # The function talks to this process, which only the level `process` lets it.
    with lambstead(isolation="process") as server:
        deploy_played(server, max(given.executions))
        for count in given.executions:
            print(json.dumps(uvloop.run(played(server, count, given.seconds)).document()))


if __name__ == "__main__":
    main()
