"""An AWS API as four functions: match a request, parse it, write its result or its error.

    request ── match ──► Match ── parse ──► parameters        (validated, by member name)
    result ── respond ──► HttpResponse                        DomainError ── fail ──► HttpResponse

Nothing here knows of sockets or ASGI. Bodies are whole, in memory, and have limits. Every malformed input ends in a DomainError;
any other exception is a bug of ours. Answers may come in parts (event streams). Headers that come in are a mapping with lower-case names; headers that go out are pairs
without Content-Length, which belongs to the server.
"""

import functools
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from botocore.model import OperationModel, StructureShape

from lambstead.core.errors import (
    DomainError,
    NotImplementedYet,
    RequestEntityTooLarge,
    RequestTooLarge,
    Serialization,
    UnknownOperation,
)
from lambstead.wire import json_protocols, models, overlay, validate
from lambstead.wire.errors import ErrorWriter
from lambstead.wire.eventstream import EventStreamWriter
from lambstead.wire.json_protocols import RequestReader, ResponseWriter
from lambstead.wire.json_values import ReaderCompiler, WriterCompiler
from lambstead.wire.routing import NoSuchPath, OtherMethods, Routed, Router

TARGET = "x-amz-target"


class UnsupportedProtocol(NotImplementedError):
    """The service speaks a protocol that this layer does not; a mistake in our configuration."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole response. The server adds Content-Length and Date."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    parts: AsyncGenerator[bytes, None] | None = None
    """Of an answer that comes in parts: what follows the (empty) body, until it ends. Then there is no Content-Length."""


@dataclass(frozen=True, slots=True)
class Match:
    """The operation that a request asks for, with the parts of the request that were read to find it."""

    operation: str
    labels: Mapping[str, str]
    query: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class OperationFacts:
    """What a server wants to know of an operation before it reads the body."""

    name: str
    max_body_bytes: int
    """Larger bodies are refused by `parse`; a server may refuse them earlier with `AwsApi.too_large`."""
    streams_request: bool
    """The body is one opaque member, for example the payload of Invoke."""
    streams_response: bool
    """The response body is one opaque member or an event stream."""


@dataclass(frozen=True, slots=True)
class _Operation:
    facts: OperationFacts
    reader: RequestReader
    check: Callable[[Mapping[str, Any]], validate.Found] | None
    constraint_error: type[DomainError]
    enums: Mapping[str, list[str]]
    writer: ResponseWriter
    events: EventStreamWriter | None


class AwsApi:
    """One service of AWS, derived from its model. Operations are compiled when they are first used."""

    def __init__(self, model: models.Model) -> None:
        self.model = model
        self.service = str(model.service_name)
        self.signing_name = models.signing_name(model)
        self.target_prefix = models.target_prefix(model)
        self._protocol = models.protocol(model)
        if self._protocol not in ("json", "rest-json"):
            raise UnsupportedProtocol(f"{self.service} speaks {self._protocol}; rest-json and json are answered")
        self._names = frozenset(model.operation_names)
        self._operations: dict[str, _Operation] = {}
        self._readers, self._writers = ReaderCompiler(), WriterCompiler()
        self._checkers = validate.CheckerCompiler(self.service)
        self._errors = ErrorWriter(model)
        self._router = Router(
            _templates(model) if self._protocol == "rest-json" else (),
            overlay.SPANNING_LABELS.get(self.service),
        )

    @classmethod
    @functools.cache
    def load(cls, service: str) -> "AwsApi":
        """The API of a service by botocore's name for it (`lambda`, `logs`, `apigateway`), once per process."""
        return cls(models.load(service))

    @property
    def operations(self) -> frozenset[str]:
        """The names of all operations of the model."""
        return self._names

    def facts(self, operation: str) -> OperationFacts:
        """What to know of an operation before reading a body. `operation` is one of `operations`."""
        return self._operation(operation).facts

    def match(self, method: str, raw_path: bytes, query_string: bytes, headers: Mapping[str, str]) -> Match:
        """Find the operation of a request. `raw_path` is as it came, not decoded, without the query.

        Raises UnknownOperation, or Serialization if path or query cannot be decoded.
        """
        if self._protocol == "json":
            return self._match_target(headers)
        query = json_protocols.parse_query(query_string)
        match self._router.route(method, raw_path, query):
            case Routed(operation, labels):
                return Match(operation, labels, query)
            case OtherMethods(allowed):
                raise UnknownOperation(f"{self.service} answers {', '.join(allowed)} on this path, not {method}.")
            case NoSuchPath():
                raise UnknownOperation(f"{self.service} has no operation for this path.")
            case never:
                assert_never(never)

    def _match_target(self, headers: Mapping[str, str]) -> Match:
        target = headers.get(TARGET, "")
        prefix, _, operation = target.rpartition(".")
        if prefix != self.target_prefix or operation not in self._names:
            asked = f"{target!r} in X-Amz-Target" if target else "a request without X-Amz-Target"
            raise UnknownOperation(f"{self.service} has no operation for {asked}.")
        return Match(operation, {}, {})

    def parse(self, match: Match, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """The parameters of a matched request, by member name: read, converted and checked against the model.

        Raises Serialization, RequestEntityTooLarge, the constraint error of the service (ValidationException for Lambda), or what the
        overlay says AWS raises instead.
        """
        operation = self._operation(match.operation)
        if len(body) > operation.facts.max_body_bytes:
            raise self.too_large(match.operation)
        try:
            parameters = operation.reader.read(match.labels, match.query, headers, body)
            found = operation.check(parameters) if operation.check is not None else []
        except RecursionError as exc:
            raise Serialization("Could not parse request body into json: it is nested too deeply.") from exc
        if found:
            raise operation.constraint_error(validate.message(found))
        for check in overlay.CHECKS.get((self.service, match.operation), ()):
            check(parameters, operation.enums)
        return parameters

    def respond(self, operation: str, result: Mapping[str, Any], request_id: str) -> HttpResponse:
        """The response for a result by member name; members that are None are omitted.

        An event stream may be given as an async generator of events, `{name: members}`; then the response has `parts`.
        A member that the model does not have raises KeyError: a misspelt name must not vanish silently.
        """
        compiled = self._operation(operation)
        events = compiled.events
        if events is not None and isinstance(result.get(events.member), AsyncGenerator):
            whole = {name: value for name, value in result.items() if name != events.member}
            status, headers, _ = compiled.writer.write(whole)
            parts = events.encoded(result[events.member])
            return HttpResponse(status, [("x-amzn-RequestId", request_id), *headers], b"", parts)
        status, headers, body = compiled.writer.write(result)
        return HttpResponse(status, [("x-amzn-RequestId", request_id), *headers], body)

    def fail(self, operation: str | None, error: DomainError, request_id: str) -> HttpResponse:
        """The response for an error; `operation` is None if no operation was matched.

        An error belongs to its service: shapes that this operation does not list, but the service has, are answered as modelled. Raises
        UnknownErrorShape for an error that neither model nor overlay knows.
        """
        status, headers, body = self._errors.write(error)
        return HttpResponse(status, [("x-amzn-RequestId", request_id), *headers], body)

    def not_built(self, operation: str) -> DomainError:
        """The error for an operation that AWS has and Lambstead does not answer yet.

        It is rendered as the service's own fault (Lambda: ServiceException), because callers have handlers for modelled errors only, with
        status 501, which SDKs do not repeat.
        """
        return NotImplementedYet(f"Lambstead does not answer {operation} yet. The operation exists in {self.service}.")

    def too_large(self, operation: str) -> DomainError:
        """The error for a body above `OperationFacts.max_body_bytes`: the operation's own where its model lists one (Invoke)."""
        limit = self._operation(operation).facts.max_body_bytes
        name = overlay.OPERATION_NAMES_IN_MESSAGES.get((self.service, operation), operation)
        listed = {shape.name for shape in self.model.operation_model(operation).error_shapes}
        error = RequestTooLarge if RequestTooLarge.shape in listed else RequestEntityTooLarge
        return error(f"Request must be smaller than {limit} bytes for the {name} operation")

    def _operation(self, name: str) -> _Operation:
        compiled = self._operations.get(name)
        if compiled is None:
            compiled = self._operations[name] = self._compile(self.model.operation_model(name))
        return compiled

    def _compile(self, operation: OperationModel) -> _Operation:
        reader, writer = self._reader_and_writer(operation)
        shape = operation.input_shape
        members = {} if shape is None else shape.members
        return _Operation(
            facts=OperationFacts(
                name=operation.name,
                max_body_bytes=overlay.MAX_BODY_BYTES.get(
                    (self.service, operation.name), overlay.DEFAULT_MAX_BODY_BYTES
                ),
                streams_request=operation.has_streaming_input or operation.has_event_stream_input,
                streams_response=operation.has_streaming_output or operation.has_event_stream_output,
            ),
            reader=reader,
            check=None if shape is None else self._checkers.input_checker(operation.name, shape),
            constraint_error=overlay.constraint_error(
                self.service, frozenset(error.name for error in operation.error_shapes)
            ),
            enums={name: member.metadata["enum"] for name, member in members.items() if "enum" in member.metadata},
            writer=writer,
            events=self._event_writer(operation),
        )

    def _event_writer(self, operation: OperationModel) -> EventStreamWriter | None:
        shape = operation.output_shape
        if shape is None or shape.event_stream_name is None:
            return None
        stream = shape.members[shape.event_stream_name]
        assert isinstance(stream, StructureShape)
        return EventStreamWriter.compile(shape.event_stream_name, stream, self._writers)

    def _reader_and_writer(self, operation: OperationModel) -> tuple[RequestReader, ResponseWriter]:
        if self._protocol == "json":
            return (
                json_protocols.json_request_reader(operation, self._readers),
                json_protocols.json_response_writer(operation, self._writers),
            )
        content_type = overlay.CONTENT_TYPES.get((self.service, operation.name))
        return (
            json_protocols.rest_request_reader(operation, self._readers),
            json_protocols.rest_response_writer(operation, self._writers, content_type),
        )


def _templates(model: models.Model) -> list[tuple[str, str, str]]:
    return [
        (name, model.operation_model(name).http["method"], model.operation_model(name).http["requestUri"])
        for name in model.operation_names
    ]


# --- which of several services a request is for -----------------------------------------------------------------------

_CREDENTIAL = re.compile(r"Credential=([^,\s]+)")


def signed_for(query_string: bytes, headers: Mapping[str, str]) -> str | None:
    """The service in the credential scope of a signed request (`lambda`, `s3`, …); None if it is not signed with SigV4.

    The scope reads `<key id>/<date>/<region>/<service>/aws4_request`; key ids contain no slash.
    """
    authorization = _CREDENTIAL.search(headers.get("authorization", ""))
    if authorization is not None:
        return _service_of(authorization[1])
    if b"X-Amz-Credential" not in query_string:
        return None
    try:
        credential = json_protocols.parse_query(query_string).get("X-Amz-Credential", [""])[0]
    except Serialization:
        return None
    return _service_of(credential)


def _service_of(credential: str) -> str | None:
    # Read from the right: SigV4a scopes have no region.
    parts = credential.rsplit("/", 2)
    return parts[1] if len(parts) == 3 and parts[2] == "aws4_request" and parts[1] else None


def choose(
    apis: Sequence[AwsApi], method: str, raw_path: bytes, query_string: bytes, headers: Mapping[str, str]
) -> AwsApi | None:
    """The API that a request is for: by credential scope, else by X-Amz-Target, else by path. None: not one of these.

    A request that is signed for another service is never guessed into one of ours. Several APIs may share a signing name (the two API
    Gateways); then target and path decide among them, and the first one answers what none of them knows.
    """
    signed = signed_for(query_string, headers)
    candidates = [api for api in apis if signed is None or api.signing_name == signed]
    if signed is not None and len(candidates) == 1:
        return candidates[0]
    for api in candidates:
        if _knows(api, method, raw_path, query_string, headers):
            return api
    return candidates[0] if signed is not None and candidates else None


def _knows(api: AwsApi, method: str, raw_path: bytes, query_string: bytes, headers: Mapping[str, str]) -> bool:
    if api.target_prefix is not None or TARGET in headers:
        return headers.get(TARGET, "").rpartition(".")[0] == api.target_prefix
    try:
        api.match(method, raw_path, query_string, headers)
    except DomainError:
        return False
    return True
