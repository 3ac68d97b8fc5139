"""Function URLs, served on the same port: by the Host header, or below a path for clients that cannot resolve the host.

    http://<url-id>.lambda-url.<region>.localhost:<port>/path        http://<host>:<port>/_lambstead/function-urls/<url-id>/path

A request is matched, judged (CORS, permission), made an event, run on the invoke path and answered; the rules are `core.function_urls` and
`core.http_events`. Nothing is written to the store. URL configs and policies are kept in memory until a function changes.
"""

import json
import logging
import secrets
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from lambstead.api.context import Context, StreamedResponse
from lambstead.core import function_urls, http_events
from lambstead.core.arn import FunctionRef
from lambstead.core.errors import DomainError, RequestEntityTooLarge, ResourceNotFound, ServiceFailure, TooManyRequests
from lambstead.core.function_urls import RESPONSE_STREAM, FunctionUrl
from lambstead.core.http_events import HttpAnswer, HttpRequest, MalformedAnswer
from lambstead.core.policies import ResourcePolicy
from lambstead.core.traces import trace_header
from lambstead.server.asgi import (
    BodyTooLarge,
    Receive,
    Scope,
    Send,
    TruncatedBody,
    read_body,
    send_parts,
    send_whole,
)
from lambstead.store.port import Reader
from lambstead.wire.gateway import HttpResponse

log = logging.getLogger(__name__)

PATH = "/_lambstead/function-urls/"
MAX_KNOWN = 10_000
"""URLs kept in memory; beyond that all are forgotten and read again."""
FORBIDDEN = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)


@dataclass(frozen=True, slots=True)
class _Known:
    url: FunctionUrl
    policy: ResourcePolicy | None


class _BrokenOff(Exception):
    """The function failed after its first bytes were sent; the connection is cut so that nobody takes them for the whole."""


class FunctionUrls:
    """ASGI application for function URLs; `url_id` says whether a request is for it."""

    def __init__(self, context: Context, port: int, max_event_bytes: int, *, needs_both: bool) -> None:
        self._context = context
        self._port = port
        self._max_event_bytes = max_event_bytes
        self._needs_both = needs_both
        self._known: dict[str, _Known] = {}
        self._changes = 0
        context.store.on_change(self._changed)

    def url_id(self, scope: Scope) -> str | None:
        """The id of the URL that a request is for; None for a request to something else."""
        if scope["path"].startswith(PATH):
            return str(scope["path"][len(PATH) :]).partition("/")[0]
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        return function_urls.url_id_of(host.decode("latin-1"), self._context.realm.region)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, url_id: str) -> None:
        request_id = str(uuid.UUID(int=secrets.randbits(128), version=4))
        trace = trace_header(_header(scope, b"x-amzn-trace-id"), self._context.now(), self._context.new_revision())
        common = [("x-amzn-requestid", request_id), ("x-amzn-trace-id", trace)]
        try:
            response = await self._answer(scope, receive, url_id, request_id, trace)
        except TruncatedBody:
            log.info("request-truncated", extra={"request_id": request_id, "path": scope["path"]})
            return
        except DomainError as error:
            response = _refusal(error)
        except Exception:  # the boundary of a request: log what happened, answer as AWS does
            log.exception("function-url-failed", extra={"request_id": request_id, "url_id": url_id})
            response = _refusal(ServiceFailure("Internal Server Error"))
        response.headers[:0] = common
        if response.parts is None:
            if scope["method"] == "HEAD":
                response = HttpResponse(response.status, response.headers, b"")
            await send_whole(send, response)
            return
        try:
            await send_parts(receive, send, response, response.parts)
        except _BrokenOff:
            log.info("function-url-broken-off", extra={"request_id": request_id, "url_id": url_id})

    async def _answer(self, scope: Scope, receive: Receive, url_id: str, request_id: str, trace: str) -> HttpResponse:
        known = await self._find(url_id)
        if known is None:
            return _json(403, {"Message": None}, "AccessDeniedException")
        url = known.url
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        given = dict(headers)
        origin = given.get("origin")
        asked = given.get("access-control-request-method")
        if url.cors is not None and function_urls.is_preflight(scope["method"], origin, asked):
            return HttpResponse(200, [*function_urls.preflight_headers(url.cors, origin or "", asked or "")], b"")
        try:
            response = await self._invoked(known, scope, headers, receive, request_id, trace)
        except DomainError as error:
            response = _refusal(error)
        if url.cors is not None:
            response.headers[:] = function_urls.answer_headers(url.cors, origin, response.headers)
        return response

    async def _invoked(
        self,
        known: _Known,
        scope: Scope,
        headers: Sequence[tuple[str, str]],
        receive: Receive,
        request_id: str,
        trace: str,
    ) -> HttpResponse:
        url, given, realm = known.url, dict(headers), self._context.realm
        query = scope["query_string"].decode("latin-1")
        access_key = None
        if url.auth_type == function_urls.AWS_IAM:
            access_key = function_urls.signing_key(given.get("authorization"), dict(parse_qsl(query)))
        caller = f"arn:aws:iam::{realm.account}:root" if access_key else None
        if not function_urls.may_invoke(url, known.policy, caller, needs_both=self._needs_both):
            return _json(403, {"Message": FORBIDDEN}, "AccessDeniedException")
        try:
            body = await read_body(given, receive, self._max_event_bytes)
        except BodyTooLarge as exc:
            raise RequestEntityTooLarge(f"Request must be smaller than {self._max_event_bytes} bytes") from exc
        at_host = not scope["path"].startswith(PATH)
        front = http_events.Front(
            api_id=url.url_id,
            domain=given["host"] if at_host else function_urls.address(url.url_id, realm.region, self._port),
            port=self._port,
            request_id=request_id,
            trace_id=trace,
            now=self._context.now(),
            account=realm.account if access_key else None,
            access_key=access_key,
        )
        request = HttpRequest(
            method=scope["method"],
            path=_path(scope["raw_path"].decode("latin-1"), url.url_id, at_host=at_host),
            query=query,
            headers=headers,
            body=body,
            protocol=f"HTTP/{scope['http_version']}",
            source_ip=scope["client"][0] if scope.get("client") else "",
        )
        event = http_events.event_of(request, front)
        if len(event) > self._max_event_bytes:
            raise RequestEntityTooLarge(f"{len(event)} byte payload is too large for the Invoke operation")
        return await self._run(url, event, request_id, trace)

    async def _run(self, url: FunctionUrl, event: bytes, request_id: str, trace: str) -> HttpResponse:
        invocations = self._context.invocations
        target = await invocations.resolve(FunctionRef(url.function, url.qualifier or None))
        members = {"request_id": request_id, "trace_id": trace, "client_context": "", "tenant_id": ""}
        try:
            if url.effective_invoke_mode == RESPONSE_STREAM:
                return await _streamed(await invocations.stream(target, payload=event, **members))
            outcome = await invocations.run(target, payload=event, **members)
            if outcome.is_error:
                return _bad_gateway()
            return _response(http_events.answer_of(outcome.payload, outcome.content_type))
        except MalformedAnswer as exc:
            log.info("function-url-malformed", extra={"request_id": request_id, "because": str(exc)})
            return _bad_gateway()

    # --- configs in memory -----------------------------------------------------------------------------------------------

    async def _find(self, url_id: str) -> _Known | None:
        known = self._known.get(url_id)
        if known is not None:
            return known

        def read(reader: Reader) -> _Known | None:
            url = reader.function_url_by_id(url_id)
            return None if url is None else _Known(url, reader.policy(url.function, url.qualifier))

        changes = self._changes
        known = await self._context.store.read(read)
        if known is not None and changes == self._changes:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[url_id] = known
        return known

    def _changed(self, functions: frozenset[str]) -> None:
        self._changes += 1
        self._known = {url_id: known for url_id, known in self._known.items() if known.url.function not in functions}


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _path(raw_path: str, url_id: str, *, at_host: bool) -> str:
    """The path that the function sees."""
    return raw_path if at_host else raw_path[len(PATH) + len(url_id) :] or "/"


# --- answers -----------------------------------------------------------------------------------------------------------------


async def _streamed(answer: StreamedResponse) -> HttpResponse:
    """The response of a function behind a streaming URL: what it streams, or its whole result as it is. Raises MalformedAnswer."""
    parts = answer.__aiter__()
    begun = b""
    head = HttpAnswer(200, [("content-type", "application/octet-stream")])
    try:
        begun = await anext(parts, b"")
        if answer.content_type is None:
            outcome = answer.outcome
            if isinstance(outcome, DomainError):
                raise outcome
            if outcome.is_error:
                return _bad_gateway()
            if outcome.content_type == http_events.HTTP_INTEGRATION:
                return _response(http_events.answer_of(outcome.payload, outcome.content_type))
            return HttpResponse(200, [("content-type", outcome.content_type)], outcome.payload)
        if answer.content_type == http_events.HTTP_INTEGRATION:
            while http_events.SEPARATOR not in begun and len(begun) <= http_events.MAX_PRELUDE_BYTES:
                part = await anext(parts, b"")
                if not part:
                    break
                begun += part
            prelude, separator, begun = begun.partition(http_events.SEPARATOR)
            if not separator:
                raise MalformedAnswer("the stream ended, or went on for too long, before its separator")
            head = http_events.prelude_answer(prelude)
        else:
            head = HttpAnswer(200, [("content-type", answer.content_type)])
    except BaseException:
        answer.abandon()
        raise
    return HttpResponse(head.status, [*head.headers], b"", _rest(answer, begun, parts))


async def _rest(answer: StreamedResponse, begun: bytes, parts: Any) -> AsyncGenerator[bytes, None]:  # Any: an iterator
    try:
        if begun:
            yield begun
        async for part in parts:
            yield part
        outcome = answer.outcome
        if isinstance(outcome, DomainError) or outcome.is_error:
            raise _BrokenOff
    finally:
        answer.abandon()


def _response(answer: HttpAnswer) -> HttpResponse:
    return HttpResponse(answer.status, [*answer.headers], answer.body)


def _bad_gateway() -> HttpResponse:
    """What callers hear of a function's error: no more than that there was one."""
    return HttpResponse(502, [("content-type", "application/json")], b"Internal Server Error")


def _refusal(error: DomainError) -> HttpResponse:
    match error:
        case TooManyRequests():
            return _json(429, {"Message": error.message}, error.shape)
        case RequestEntityTooLarge():
            return _json(413, {"Message": error.message}, error.shape)
        case ResourceNotFound():
            return _json(403, {"Message": None}, "AccessDeniedException")
        case _:
            # A version that cannot run now, a lost environment: nothing that the caller of a URL could do about it.
            log.warning("function-url-unavailable", extra={"because": error.message})
            return _json(500, {"Message": "Internal Server Error"}, "InternalServerErrorException")


def _json(status: int, document: dict[str, str | None], error_type: str) -> HttpResponse:
    headers = [("content-type", "application/json"), ("x-amzn-errortype", error_type)]
    return HttpResponse(status, headers, json.dumps(document, separators=(",", ":")).encode())
