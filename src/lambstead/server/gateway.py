"""A gateway process: one of several that accept connections on the port of one server.

    python -m lambstead.server.gateway --number N --listener FD --calls SOCKET --http SOCKET --realm REGION:ACCOUNT …

It reads, checks and answers Invoke and InvokeWithResponseStream; the server, to which it has one link, decides what runs where and when. Everything else is
passed on to the server. It keeps nothing, and it ends when the server's end of the link does. On SIGTERM running calls may finish first.
"""

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from lambstead.api.context import Call, Request, Response
from lambstead.api.lambda_invoke import checked_payload, decoded_client_context
from lambstead.api.lambda_invoke_stream import as_events
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.traces import trace_header
from lambstead.dataplane.outcomes import Invocation
from lambstead.server.asgi import Receive, Scope, Send
from lambstead.server.aws import AwsGateway
from lambstead.server.http import HttpServer
from lambstead.server.invoke_protocol import ShortWay
from lambstead.server.proxy import Proxy
from lambstead.server.server_link import ServerLink
from lambstead.wire.gateway import AwsApi

log = logging.getLogger("lambstead.gateway")

STREAMED_PREFIX = "/2021-11-15/functions/"
STREAMED_SUFFIX = "/response-streaming-invocations"
_ELSEWHERE = frozenset({b"x-amz-log-type", b"x-amz-invocation-type"})
"""Headers that take a streamed invocation to the server: log tails and dry runs are asked there."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the server tells the process."""

    number: int
    listener: int
    """Descriptor of the listening socket."""
    calls: Path
    http: Path
    realm: Realm
    stream_bytes_per_s: int
    stop_wait: timedelta
    log_level: str

    def words(self) -> list[str]:
        """The arguments that `parse` reads back."""
        return [
            *("--number", str(self.number)),
            *("--listener", str(self.listener)),
            *("--calls", str(self.calls)),
            *("--http", str(self.http)),
            *("--realm", f"{self.realm.region}:{self.realm.account}"),
            *("--stream-bytes-per-s", str(self.stream_bytes_per_s)),
            *("--stop-wait-s", str(self.stop_wait.total_seconds())),
            *("--log-level", self.log_level),
        ]

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Given":
        parser = argparse.ArgumentParser(
            prog="python -m lambstead.server.gateway",
            description="One of several processes that answer on a server's port; started by `lambstead up --gateways N`.",
        )
        parser.add_argument("--number", type=int, required=True)
        parser.add_argument("--listener", type=int, required=True, help="descriptor of the listening socket")
        parser.add_argument("--calls", type=Path, required=True, help="the server's socket for invocations")
        parser.add_argument("--http", type=Path, required=True, help="the server's socket for everything else")
        parser.add_argument("--realm", required=True, help="REGION:ACCOUNT")
        parser.add_argument("--stream-bytes-per-s", type=int, required=True)
        parser.add_argument("--stop-wait-s", type=float, required=True)
        parser.add_argument("--log-level", default="info")
        found = parser.parse_args(words)
        region, _, account = found.realm.partition(":")
        return cls(
            found.number,
            found.listener,
            found.calls,
            found.http,
            Realm(region, account),
            found.stream_bytes_per_s,
            timedelta(seconds=found.stop_wait_s),
            found.log_level,
        )


class StreamedInvokes:
    """InvokeWithResponseStream, as the API has it, with the server behind a link."""

    def __init__(self, link: ServerLink, realm: Realm) -> None:
        self._link = link
        self._realm = realm

    async def invoke(self, request: Request, call: Call) -> Response:
        ref = FunctionRef.parse(request["FunctionName"], self._realm, request.get("Qualifier"))
        payload = checked_payload(request.get("Payload") or b"")
        invocation = Invocation(
            call.request_id,
            payload or b"{}",
            trace_header(call.headers.get("x-amzn-trace-id", ""), datetime.now(UTC), call.request_id),
            decoded_client_context(request.get("ClientContext", "")),
            request.get("TenantId", ""),
        )
        return as_events(await self._link.stream(ref, invocation), call.request_id, None)


class _Application:
    """What goes where, of all that is no plain Invoke."""

    def __init__(self, streamed: AwsGateway, proxy: Proxy) -> None:
        self._streamed = streamed
        self._proxy = proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        is_streamed = scope["method"] == "POST" and path.startswith(STREAMED_PREFIX) and path.endswith(STREAMED_SUFFIX)
        if is_streamed and not any(name in _ELSEWHERE for name, _ in scope["headers"]):
            await self._streamed(scope, receive, send)
        else:
            await self._proxy(scope, receive, send)


async def _serve(given: Given) -> int:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: None if stop.done() else stop.set_result(None))
    link = ServerLink(given.stream_bytes_per_s)
    await link.connect(given.calls)
    api = AwsApi.load("lambda")
    proxy = Proxy(given.http)

    async def pass_on(scope: Scope, receive: Receive, send: Send, service: str, request_id: str) -> None:
        """What is signed for another service is the server's to answer, whatever its path looks like."""
        await proxy(scope, receive, send)

    streamed = AwsGateway({api: {"InvokeWithResponseStream": StreamedInvokes(link, given.realm).invoke}}, pass_on)
    http = HttpServer(_Application(streamed, proxy), ShortWay(api, link, given.realm, proxy.invoke))
    gc.collect()
    gc.freeze()  # as the server does
    listener = socket.socket(fileno=given.listener)
    listener.setblocking(False)
    await http.start(listener)
    link.ready(given.number)
    await asyncio.wait((stop, link.lost), return_when=asyncio.FIRST_COMPLETED)
    server_is_there = not link.lost.done()
    await http.stop(given.stop_wait if server_is_there else timedelta(0))
    link.close()
    return 0 if server_is_there else 1


def main(words: Sequence[str]) -> int:
    """Serve until told to end; the exit code: 0 after an orderly end, 1 if the server is gone."""
    given = Given.parse(words)
    logging.basicConfig(
        level=given.log_level.upper(),
        format=f"%(asctime)s gateway {given.number} %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    try:
        return uvloop.run(_serve(given))
    except OSError as exc:
        log.error("server-unreachable: %s", exc)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
