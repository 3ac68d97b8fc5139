"""The short way through the server: uvicorn's HTTP protocol, with the plain Invoke and the plain checkpoint answered before an ASGI cycle is made.

A *plain* Invoke is a POST to `/2015-03-31/functions/<name>/invocations` for a RequestResponse without log tail or durable name, on a connection with nothing unanswered. A
client context and a tenant may come along if they are what they should be. Everything else goes the ordinary way: what will be refused for its headers, and durable functions
once they turn out to be that. The short way has no rules of its own: names are read by the service model once per URL and remembered, payloads, contexts and tenants are checked and
errors are worded by the same functions as on the ordinary way. What a plain checkpoint is stands in `short_checkpoints`.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from email.utils import formatdate
from typing import Any, Protocol, cast

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lambstead.api.lambda_invoke import checked_payload, decoded_client_context
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.errors import DomainError, NeedsOrdinaryWay
from lambstead.core.tenancy import is_tenant_id
from lambstead.core.traces import is_trace_header
from lambstead.dataplane.lane import Settle
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.server.joined_writes import JoinedWrites
from lambstead.server.short_calls import Calls, ShortCall, rendered
from lambstead.server.short_checkpoints import ShortCheckpoints
from lambstead.wire.gateway import AwsApi, HttpResponse

PREFIX = b"/2015-03-31/functions/"
SUFFIX = b"/invocations"
MAX_URLS = 10_000
"""URLs whose meaning is remembered; beyond that all are forgotten and learnt again."""
LARGE_BODY_BYTES = 64 * 1024
"""Announced bodies from this size on, and what arrives in pieces from this size on, are not shown to the parser."""
SEEK_HEAD_BYTES = 64 * 1024
"""How far into a large piece the end of a head is looked for; behind that the parser gets everything."""
JOIN_BELOW_BYTES = 16 * 1024
"""Payloads smaller than this are copied behind their head; larger ones go to the transport as they are."""

_NOT_PLAIN = frozenset(
    {
        *(b"x-amz-log-type", b"x-amz-durable-execution-name"),
        *(b"expect", b"upgrade"),
    }
)
"""Headers whose presence makes a request not plain; the invocation type does unless it is RequestResponse."""


class Runs(Protocol):
    """Who runs what was called: the invoke path of this process, or the server behind a gateway process."""

    def start(self, ref: FunctionRef, invocation: Invocation, settle: Settle) -> None:
        """Run one event; `settle` hears how it ended or why it was refused, exactly once. Never raises."""


class OrdinaryWay(Protocol):
    """The ordinary way, for an Invoke that was read on the short one."""

    def __call__(
        self, api: AwsApi, operation: str, request: Mapping[str, Any], headers: Mapping[str, str], request_id: str, /
    ) -> Coroutine[None, None, HttpResponse]: ...


class ShortWay(Calls):
    """What all connections share: the invoke path, what URLs name, rendered heads, and which calls run."""

    def __init__(
        self,
        api: AwsApi,
        runs: Runs,
        realm: Realm,
        ordinary_way: OrdinaryWay,
        checkpoints: ShortCheckpoints | None = None,
    ) -> None:
        """Without `checkpoints` those go the ordinary way."""
        super().__init__()
        self.start = runs.start
        self.checkpoints = checkpoints
        self._ordinary_way = ordinary_way
        self.max_body_bytes = api.facts("Invoke").max_body_bytes
        self._api = api
        self._realm = realm
        self._urls: dict[bytes, FunctionRef] = {}
        self._heads: dict[tuple[str, bool, bool], bytes] = {}
        self._second = 0
        self._date = b""
        self._tasks: set[asyncio.Task[None]] = set()
        """Calls that were handed over."""

    def named(self, url: bytes) -> FunctionRef | None:
        """What the URL of an Invoke names; None if that is for the ordinary way to say."""
        known = self._urls.get(url)
        if known is not None:
            return known
        path, _, query = url.partition(b"?")
        try:
            match = self._api.match("POST", path, query, {})
            if match.operation != "Invoke":
                return None
            request = self._api.parse(match, {}, b"")
            ref = FunctionRef.parse(request["FunctionName"], self._realm, request.get("Qualifier"))
        except DomainError:
            return None
        if len(self._urls) >= MAX_URLS:
            self._urls.clear()
        self._urls[url] = ref
        return ref

    def trace(self, given: bytes) -> str:
        """The caller's trace header if it is one, else a new unsampled one."""
        text = given.decode("latin-1")
        if given and is_trace_header(text):
            return text
        digits = f"{self.random_bits(160):040x}"
        return f"Root=1-{int(time.time()):08x}-{digits[:24]};Parent={digits[24:]};Sampled=0"

    def head(self, answer: Outcome | DomainError, request_id: str) -> tuple[bytes, bytes]:
        """Status line and headers, and the body, of an answer. Content-Length and Date are the connection's."""
        if isinstance(answer, DomainError):
            response = self._api.fail("Invoke", answer, request_id)
            return rendered(response), response.body
        kind = (answer.executed_version, answer.is_error, bool(answer.payload))
        head = self._heads.get(kind)
        if head is None:
            error = "Unhandled" if answer.is_error else None
            result = {"StatusCode": 200, "ExecutedVersion": answer.executed_version, "FunctionError": error}
            like_it = b"{}" if answer.payload else b""  # an empty payload has no type
            head = self._heads[kind] = rendered(self._api.respond("Invoke", {**result, "Payload": like_it}, "%b"))
        return head.replace(b"%b", request_id.encode(), 1), answer.payload

    def too_large(self) -> DomainError:
        return self._api.too_large("Invoke")

    def date(self) -> bytes:
        """The Date header of this second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
        return self._date

    def hand_over(self, call: "_Call", payload: bytes) -> None:
        """Have the call answered on the ordinary way."""
        task = asyncio.create_task(self._hand_over(call, payload), name="invoke handed over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, call: "_Call", payload: bytes) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in call.headers}
        request = {"FunctionName": call.ref.name, "Qualifier": call.ref.qualifier, "Payload": payload}
        for member, header in (("ClientContext", "x-amz-client-context"), ("TenantId", "x-amz-tenant-id")):
            if header in headers:
                request[member] = headers[header]
        response = await self._ordinary_way(self._api, "Invoke", request, headers, call.request_id)
        self.answer(call, rendered(response), response.body)


def _client_context(header: bytes) -> str | None:
    """JSON text of a client context; None if the ordinary way will refuse it, or has something to say about it."""
    try:
        return decoded_client_context(header.decode("latin-1")) or None
    except DomainError:
        return None


def _tenant_id(header: bytes) -> str | None:
    """A tenant's id; None if it is not one."""
    text = header.decode("latin-1")
    return text if is_tenant_id(text) else None


class InvokeProtocol(HttpToolsProtocol):
    """One connection. Belongs to its event loop."""

    def __init__(self, short_way: ShortWay, **uvicorn: Any) -> None:  # Any: uvicorn's own arguments, passed on
        super().__init__(**uvicorn)
        self.short_way = short_way
        self._receiving: ShortCall | None = None
        """The plain request whose body is coming in."""
        self._unanswered: ShortCall | None = None
        """The plain request that runs."""
        self._large: ShortCall | None = None
        """The plain request whose body is received without the parser."""

    def shutdown(self) -> None:
        if self._unanswered is None:
            super().shutdown()
        else:
            self._unanswered.keep_alive = False

    # --- bytes -------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give the parser what it has to see. The body of a large plain request is not among that: the parser would copy it once more."""
        if self._large is None and len(data) < LARGE_BODY_BYTES:
            super().data_received(data)
            return
        rest = memoryview(data)
        if self._large is None:
            # What looks like the end of a head: if it is one, the body behind it is still whole; if not, the parser does not mind the cut.
            end = data.find(b"\r\n\r\n", 0, SEEK_HEAD_BYTES) + 4
            if end >= 4:
                self._feed(rest[:end])
                rest = rest[end:]
        if self._large is not None:
            rest = self._take_body(self._large, rest)
        if rest and not self.transport.is_closing():
            self._feed(rest)

    def _feed(self, data: memoryview) -> None:
        super().data_received(cast(bytes, data))  # the parser takes any buffer, whatever uvicorn's types say

    def _take_body(self, call: ShortCall, data: memoryview) -> memoryview:
        """Add what belongs to the body; returns what is behind it."""
        self._unset_keepalive_if_required()
        body, rest = data[: call.missing_bytes], data[call.missing_bytes :]
        call.add(body)
        if not call.missing_bytes:
            # The old parser still waits for this body.
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.on_message_complete()
        return rest

    # --- parser callbacks ------------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        call = self._plain()
        if call is None:
            before: object = self.cycle
            super().on_headers_complete()
            if self.cycle is not before:  # no new one for an upgrade that was refused
                self.cycle.transport = cast(asyncio.Transport, JoinedWrites(self.transport))
        else:
            self._receiving = call
            self._large = call if call.missing_bytes >= LARGE_BODY_BYTES else None

    def on_body(self, body: bytes) -> None:
        if self._receiving is None:
            super().on_body(body)
        else:
            self._receiving.add(body)

    def on_message_complete(self) -> None:
        call = self._receiving
        if call is None:
            super().on_message_complete()
            return
        self._receiving = self._large = None
        self._unanswered = call
        call.run()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._receiving = self._large = None
        if self._unanswered is not None:
            self._unanswered.connection = None
            self._unanswered = None

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # Any: uvicorn's own types
        if self._unanswered is None:
            super()._start_asgi_task(cycle, app)
            return
        # A request that was pipelined behind a plain one: its turn comes with the answer.
        self.flow.pause_reading()
        self.pipeline.appendleft((cycle, app))

    def _plain(self) -> ShortCall | None:
        """The plain request that this head begins; None for any other, and behind one that is not answered yet."""
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        if self._unanswered is not None or (self._asked_before() and not self.cycle.response_complete):
            return None
        url = self.url
        if url.startswith(PREFIX) and SUFFIX in url:
            return self._plain_invoke(url)
        checkpoints = self.short_way.checkpoints
        if checkpoints is None:
            return None
        return checkpoints.plain(self, self.short_way, url, self.headers, keep_alive=self.parser.should_keep_alive())

    def _plain_invoke(self, url: bytes) -> "_Call | None":
        size, trace = 0, b""
        context: str | None = ""
        tenant: str | None = ""
        for name, value in self.headers:
            if name in _NOT_PLAIN or (name == b"x-amz-invocation-type" and value != b"RequestResponse"):
                return None
            if name == b"x-amzn-trace-id":
                trace = value
            elif name == b"content-length":
                size = int(value)  # the parser has refused anything but digits
            elif name == b"x-amz-client-context":
                context = None if context else _client_context(value)  # told twice is for the ordinary way
            elif name == b"x-amz-tenant-id":
                tenant = None if tenant else _tenant_id(value)
            elif name == b"host" and b".lambda-url." in value:
                return None  # a function URL may have any path
        if context is None or tenant is None:
            return None
        if size > self.short_way.max_body_bytes:
            return None  # the ordinary way refuses an announced oversize before it is read
        ref = self.short_way.named(url)
        if ref is None:
            return None
        return _Call(self, ref, size, trace, context, tenant, keep_alive=self.parser.should_keep_alive())

    def _asked_before(self) -> bool:
        """True once a request of this connection went the ordinary way; until then uvicorn has no cycle, whatever its types say."""
        cycle: object = self.cycle
        return cycle is not None

    # --- the answer --------------------------------------------------------------------------------------------------------

    def write_answer(self, call: ShortCall, head: bytes, body: bytes) -> None:
        """Write the whole answer and go on with what was pipelined behind it."""
        self._unanswered = None
        transport = self.transport
        if transport.is_closing():
            return
        close = b"" if call.keep_alive else b"connection: close\r\n"
        start = b"%b%b%bcontent-length: %d\r\n\r\n" % (head, self.short_way.date(), close, len(body))
        if len(body) < JOIN_BELOW_BYTES:
            transport.write(start + body)
        else:
            transport.writelines((start, body))
        if call.keep_alive:
            self.on_response_complete()
        else:
            transport.close()


class _Call(ShortCall):
    """A plain Invoke from its headers to its answer."""

    __slots__ = ("_payload", "_short_way", "client_context", "headers", "ref", "tenant_id", "trace")

    def __init__(
        self,
        connection: InvokeProtocol,
        ref: FunctionRef,
        size: int,
        trace: bytes,
        client_context: str,
        tenant_id: str,
        *,
        keep_alive: bool,
    ) -> None:
        short_way = connection.short_way
        super().__init__(connection, short_way.new_request_id(), size, short_way.max_body_bytes, keep_alive=keep_alive)
        self.ref = ref
        self.trace = trace
        self.client_context = client_context
        """JSON text."""
        self.tenant_id = tenant_id
        self.headers = connection.headers
        """As they came, for the ordinary way."""
        self._short_way = short_way
        self._payload = b""

    def run(self) -> None:
        """The body is complete: admit the invocation, or refuse it."""
        self._short_way.started(self)
        try:
            if self.is_too_large:
                raise self._short_way.too_large()
            payload = checked_payload(self.body()) or b"{}"
        except DomainError as error:
            self.settle(error)
            return
        self._payload = payload
        trace_id = self._short_way.trace(self.trace)
        invocation = Invocation(self.request_id, payload, trace_id, self.client_context, self.tenant_id)
        self._short_way.start(self.ref, invocation, self.settle)

    def settle(self, answer: Outcome | DomainError) -> None:
        """The one answer, whatever it is."""
        if isinstance(answer, NeedsOrdinaryWay):
            self._short_way.hand_over(self, self._payload)
        else:
            self._short_way.answer(self, *self._short_way.head(answer, self.request_id))
