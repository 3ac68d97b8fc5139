"""The protocols rest-json and json (awsJson 1.0 and 1.1): requests to parameters, results to responses.

For every operation a `RequestReader` and a `ResponseWriter` are compiled from its shapes on first use. rest-json spreads members
over path, query, headers, status code and body; json has everything in the body and the operation in `X-Amz-Target`.
Reading is total: whatever bytes come in, the outcome is parameters or a Serialization error. Constraints of the model (presence,
length, pattern, …) are not looked at here; `validate` does that.

Event streams travel as bytes that somebody else has framed: a member marked `eventstream` is taken and given as is.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from lambstead.core.errors import Serialization
from lambstead.wire import json_values, timestamps
from lambstead.wire.eventstream import CONTENT_TYPE as EVENT_STREAM
from lambstead.wire.json_values import Reader, ReaderCompiler, Writer, WriterCompiler

Headers = list[tuple[str, str]]
TextReader = Callable[[str], Any]
TextWriter = Callable[[Any], str]

MAX_QUERY_PARTS = 1000
"""A query string with more parts is refused; the largest AWS allows is a list of 50 tag keys."""

_NOT_IN_A_HEADER = re.compile(r"[\x00-\x1f\x7f]")


def parse_query(query_string: bytes) -> dict[str, list[str]]:
    """Names and values of a query string, decoded; a name without `=` has the value ''. Raises Serialization."""
    if not query_string:
        return {}
    parts = query_string.split(b"&")
    if len(parts) > MAX_QUERY_PARTS:
        raise Serialization(f"The query string has {len(parts)} parts; at most {MAX_QUERY_PARTS} are read.")
    found: dict[str, list[str]] = {}
    try:
        for part in filter(None, parts):
            name, _, value = part.partition(b"=")
            found.setdefault(_unquote(name), []).append(_unquote(value))
    except UnicodeDecodeError as exc:
        raise Serialization("The query string of the request is not UTF-8 after percent-decoding.") from exc
    return found


def _unquote(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode()


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestReader:
    """Reads the requests of one operation. A part that the operation does not have is an empty tuple or None."""

    labels: tuple[tuple[str, str, TextReader], ...]
    """(member, name in the path, reader)"""
    query: tuple[tuple[str, str, TextReader, bool], ...]
    """(member, name in the query, reader of one value, whether it is a list)"""
    query_map: tuple[str, frozenset[str], bool] | None
    """The member that takes every query part not named here, and whether its values are lists."""
    headers: tuple[tuple[str, str, TextReader], ...]
    """(member, lower-case name, reader)"""
    header_maps: tuple[tuple[str, str], ...]
    """(member, lower-case prefix)"""
    body: Callable[[bytes], dict[str, Any]] | None

    def read(
        self, labels: Mapping[str, str], query: Mapping[str, list[str]], headers: Mapping[str, str], body: bytes
    ) -> dict[str, Any]:
        """Parameters by member name. `headers` has lower-case names. Raises Serialization."""
        found = {} if self.body is None else self.body(body)
        for member, name, read in self.labels:
            found[member] = read(labels[name])
        if query:
            self._read_query(query, found)
        for member, name, read in self.headers:
            if (text := headers.get(name)) is not None:
                found[member] = read(text)
        for member, prefix in self.header_maps:
            if values := {name[len(prefix) :]: text for name, text in headers.items() if name.startswith(prefix)}:
                found[member] = values
        return found

    def _read_query(self, query: Mapping[str, list[str]], found: dict[str, Any]) -> None:
        for member, name, read, is_list in self.query:
            if (texts := query.get(name)) is not None:
                found[member] = [read(text) for text in texts] if is_list else read(texts[0])
        if self.query_map is not None:
            member, taken, lists = self.query_map
            rest = {name: texts if lists else texts[0] for name, texts in query.items() if name not in taken}
            if rest:
                found[member] = rest


def json_request_reader(operation: OperationModel, compiler: ReaderCompiler) -> RequestReader:
    """The reader for the protocol json: all members in the body."""
    shape = operation.input_shape
    body = None if shape is None else _document_reader(compiler.reader(shape))
    return RequestReader((), (), None, (), (), body)


def rest_request_reader(operation: OperationModel, compiler: ReaderCompiler) -> RequestReader:
    """The reader for the protocol rest-json: members by their location, the rest in the body."""
    shape = operation.input_shape
    if shape is None:
        return RequestReader((), (), None, (), (), None)
    located = [(name, _wire_name(name, member), member) for name, member in shape.members.items()]
    query = [(name, wire, member) for name, wire, member in located if _location(member) == "querystring"]
    fixed = [part.partition("=")[0] for part in operation.http["requestUri"].partition("?")[2].split("&") if part]
    return RequestReader(
        labels=tuple((n, wire, _text_reader(m, "iso8601")) for n, wire, m in located if _location(m) == "uri"),
        query=tuple(
            (name, wire, _text_reader(_element(member), "iso8601"), isinstance(member, ListShape))
            for name, wire, member in query
            if not isinstance(member, MapShape)
        ),
        query_map=_query_map(query, fixed),
        headers=tuple((n, w.lower(), _header_reader(m)) for n, w, m in located if _location(m) == "header"),
        header_maps=tuple((n, w.lower()) for n, w, m in located if _location(m) == "headers"),
        body=_rest_body_reader(shape, compiler),
    )


def _query_map(query: list[tuple[str, str, Shape]], fixed: list[str]) -> tuple[str, frozenset[str], bool] | None:
    taken = frozenset([*fixed, *(wire for _, wire, member in query if not isinstance(member, MapShape))])
    for name, _, member in query:
        if isinstance(member, MapShape):
            return name, taken, isinstance(member.value, ListShape)
    return None


def _rest_body_reader(shape: StructureShape, compiler: ReaderCompiler) -> Callable[[bytes], dict[str, Any]] | None:
    payload = shape.serialization.get("payload")
    if payload is not None:
        return _payload_reader(payload, shape.members[payload], payload in shape.required_members, compiler)
    members = {
        _wire_name(name, member): (name, compiler.reader(member))
        for name, member in shape.members.items()
        if _location(member) is None
    }
    return _document_reader(json_values.structure_reader(members)) if members else None


def _document_reader(reader: Reader) -> Callable[[bytes], dict[str, Any]]:
    def read(body: bytes) -> dict[str, Any]:
        document: dict[str, Any] = reader(json_values.parse(body))
        return document

    return read


def _payload_reader(
    name: str, member: Shape, required: bool, compiler: ReaderCompiler
) -> Callable[[bytes], dict[str, Any]]:
    """The whole body is one member. An empty body is its absence, unless it is required: then it is the empty value."""
    if member.type_name == "string":
        convert: Callable[[bytes], Any] = _read_text_payload
    elif member.type_name == "blob" or member.serialization.get("eventstream"):
        convert = bytes
    else:
        reader = compiler.reader(member)

        def convert(body: bytes) -> Any:
            return reader(json_values.parse(body))

        required = False
    return lambda body: {name: convert(body)} if body or required else {}


def _read_text_payload(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise Serialization("The body of the request is not UTF-8 text.") from exc


def _location(member: Shape) -> str | None:
    location: str | None = member.serialization.get("location")
    return location


def _wire_name(name: str, member: Shape) -> str:
    return str(member.serialization.get("name", name))


def _element(member: Shape) -> Shape:
    return member.member if isinstance(member, ListShape) else member


def _text_reader(shape: Shape, timestamp_format: timestamps.Format) -> TextReader:
    """A reader of text from path, query or header. Timestamps are read in every format, whatever the place's own is."""
    match shape.type_name:
        case "integer" | "long" | "float" | "double":
            reader = ReaderCompiler().reader(shape)
            convert = int if shape.type_name in ("integer", "long") else float
            return lambda text: reader(_number(text, convert))
        case "boolean":
            return _read_boolean_text
        case "timestamp" | "blob":
            return ReaderCompiler().reader(shape)
        case _:
            return str


def _number(text: str, convert: Callable[[str], float]) -> float | str:
    """The number in a text, or the text itself where it is none, for the JSON reader to refuse in its words."""
    try:
        # Python also reads `1_000`, blanks and digits of other scripts; AWS does not.
        return convert(text) if text.isascii() and "_" not in text and text == text.strip() else text
    except ValueError:
        return text


def _read_boolean_text(text: str) -> bool:
    match text.lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise json_values.mismatch(text, "a Boolean")


def _header_reader(member: Shape) -> TextReader:
    if member.serialization.get("jsonvalue"):
        return _read_json_header
    if not isinstance(member, ListShape):
        return _text_reader(member, "rfc822")
    item = _text_reader(member.member, "rfc822")
    dates = member.member.type_name == "timestamp"
    return lambda text: [item(entry) for entry in _header_entries(text, dates)]


def _read_json_header(text: str) -> Any:
    try:
        return json.loads(binascii.a2b_base64(text, strict_mode=True))
    except (ValueError, RecursionError) as exc:
        raise Serialization("A header that carries a JSON value is not base64 text of JSON.") from exc


_ENTRY = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,]*))\s*(?:,|$)')


def _header_entries(text: str, dates: bool) -> Iterator[str]:
    """Entries of a header list: comma-separated, quoted where they hold commas. HTTP dates hold one comma each."""
    at = 0
    while at < len(text) and (entry := _ENTRY.match(text, at)) is not None:
        at = entry.end()
        value = entry[2].strip() if entry[1] is None else re.sub(r"\\(.)", r"\1", entry[1])
        if dates and value[:3].isalpha() and len(value) <= len("Wednesday") and at < len(text):
            rest = text[at:].partition(",")[0]
            at += len(rest) + 1
            value = f"{value},{rest}"
        yield value


# --- responses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResponseWriter:
    """Writes the results of one operation."""

    shape_name: str
    status: int
    content_type: str | None
    """For bodies; None where the model has a header member for it, which is then the caller's to give."""
    members: frozenset[str]
    status_member: str | None
    headers: tuple[tuple[str, str, TextWriter], ...]
    """(member, header name, writer)"""
    header_maps: tuple[tuple[str, str], ...]
    """(member, prefix)"""
    body: Callable[[Mapping[str, Any]], bytes]

    def write(self, result: Mapping[str, Any]) -> tuple[int, Headers, bytes]:
        """Status, headers and body for a result by member name. A member the model does not have raises KeyError."""
        if not result.keys() <= self.members:
            raise KeyError(f"{self.shape_name} has no member {', '.join(sorted(result.keys() - self.members))}")
        status = self.status
        if self.status_member is not None and result.get(self.status_member) is not None:
            status = int(result[self.status_member])
        headers = [
            (name, header_text(write(result[member])))
            for member, name, write in self.headers
            if result.get(member) is not None
        ]
        for member, prefix in self.header_maps:
            headers += [(prefix + name, header_text(text)) for name, text in (result.get(member) or {}).items()]
        body = b"" if status == 204 else self.body(result)
        if body and self.content_type is not None:
            headers.append(("Content-Type", self.content_type))
        return status, headers, body


def json_response_writer(operation: OperationModel, compiler: WriterCompiler) -> ResponseWriter:
    """The writer for the protocol json. An operation without output still answers an empty body, as AWS does."""
    shape = operation.output_shape
    content_type = f"application/x-amz-json-{operation.metadata['jsonVersion']}"
    stream = None if shape is None else _event_stream_member(shape)
    if stream is not None:
        body, content_type = _given_bytes(stream), EVENT_STREAM
    else:
        body = _no_body if shape is None else _document_writer(compiler.writer(shape))
    members = frozenset() if shape is None else frozenset(shape.members)
    return ResponseWriter(operation.name, _status(operation), content_type, members, None, (), (), body)


def rest_response_writer(
    operation: OperationModel, compiler: WriterCompiler, payload_type: str | None = None
) -> ResponseWriter:
    """The writer for the protocol rest-json. `payload_type` is the content type where the model does not tell."""
    shape = operation.output_shape
    if shape is None:
        nothing: frozenset[str] = frozenset()
        return ResponseWriter(operation.name, _status(operation), "application/json", nothing, None, (), (), _no_body)
    located = [(name, _wire_name(name, member), member) for name, member in shape.members.items()]
    content_type, body = _rest_body_writer(shape, compiler)
    gives_content_type = any(_location(m) == "header" and wire.lower() == "content-type" for _, wire, m in located)
    return ResponseWriter(
        shape_name=shape.name,
        status=_status(operation),
        content_type=None if gives_content_type else payload_type or content_type,
        members=frozenset(shape.members),
        status_member=next((name for name, _, m in located if _location(m) == "statusCode"), None),
        headers=tuple((n, w, header_writer(m)) for n, w, m in located if _location(m) == "header"),
        header_maps=tuple((n, w) for n, w, m in located if _location(m) == "headers"),
        body=body,
    )


def _status(operation: OperationModel) -> int:
    return int(operation.http.get("responseCode", 200))


def _no_body(result: Mapping[str, Any]) -> bytes:
    return b""


def _event_stream_member(shape: StructureShape) -> str | None:
    name: str | None = shape.event_stream_name
    return name


def _given_bytes(member: str) -> Callable[[Mapping[str, Any]], bytes]:
    return lambda result: _as_bytes(result.get(member))


def _as_bytes(value: bytes | str | None) -> bytes:
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else bytes(value)


def _document_writer(writer: Writer | None) -> Callable[[Any], bytes]:
    return json_values.dump if writer is None else lambda value: json_values.dump(writer(value))


def _rest_body_writer(
    shape: StructureShape, compiler: WriterCompiler
) -> tuple[str, Callable[[Mapping[str, Any]], bytes]]:
    payload = shape.serialization.get("payload")
    if payload is None:
        return "application/json", _members_writer(shape, compiler)
    member = shape.members[payload]
    if member.serialization.get("eventstream"):
        return EVENT_STREAM, _given_bytes(payload)
    if member.type_name in ("blob", "string"):
        return "application/octet-stream" if member.type_name == "blob" else "text/plain", _given_bytes(payload)
    write = _document_writer(compiler.writer(member))
    return "application/json", lambda result: b"{}" if result.get(payload) is None else write(result[payload])


def _members_writer(shape: StructureShape, compiler: WriterCompiler) -> Callable[[Mapping[str, Any]], bytes]:
    members = tuple(
        (name, _wire_name(name, member), compiler.writer(member))
        for name, member in shape.members.items()
        if _location(member) is None
    )

    def write(result: Mapping[str, Any]) -> bytes:
        document = {}
        for name, wire, writer in members:
            item = result.get(name)
            if item is not None:
                document[wire] = item if writer is None else writer(item)
        return json_values.dump(document)

    return write


def header_writer(member: Shape) -> TextWriter:
    """The writer of a member that travels in a header."""
    if member.serialization.get("jsonvalue"):
        return lambda value: base64.b64encode(json_values.dump(value)).decode("ascii")
    if isinstance(member, ListShape):
        item = header_writer(member.member)
        return lambda value: ",".join(_quoted(item(entry)) for entry in value if entry is not None)
    match member.type_name:
        case "boolean":
            return lambda value: "true" if value else "false"
        case "timestamp":
            fmt = timestamps.declared(member.serialization.get("timestampFormat"), "rfc822")
            return lambda value: str(timestamps.write(value, fmt))
        case "blob":
            return json_values.write_blob
        case "float" | "double":
            return lambda value: str(json_values.write_double(value))
        case _:
            return str


def _quoted(entry: str) -> str:
    if "," not in entry and '"' not in entry:
        return entry
    escaped = entry.replace("\\", "\\\\").replace('"', '\\"')
    # HTTP dates hold a comma by nature and travel unquoted.
    return entry if re.fullmatch(r"[A-Z][a-z]{2}, \d.* GMT", entry) else f'"{escaped}"'


def header_text(value: str) -> str:
    """The value as one header line: control characters (which would end the line and start another) become blanks."""
    return _NOT_IN_A_HEADER.sub(" ", value).encode().decode("latin-1")
