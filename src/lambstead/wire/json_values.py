"""JSON values and the shapes of a service model: compiled readers and writers for the body of a message.

Compiling turns a botocore shape into closures once, so that a request pays for its own members only. Readers take what a JSON
parser gives and return values by member name: blobs as bytes, timestamps as aware datetimes. They follow AWS: unknown members
are ignored (newer clients), null means absent, wrong JSON types are answered in AWS's words. Those words were measured by others
on Athena, SQS and SES (awsJson and restJson services behave alike): `STRING_VALUE can not be converted to an Integer`,
`TRUE_VALUE …`, `NUMBER_VALUE …`, `Start of list found where not expected`, `Start of structure or map found where not expected.`,
`Expected list or null` and `Expected null` for a scalar in place of a list and a structure.

Writers omit members that are None and refuse members the model does not have: that would be a misspelt name of ours.
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from botocore.model import ListShape, MapShape, Shape, StructureShape

from lambstead.core.errors import Serialization
from lambstead.wire import timestamps

# JSON values have no narrower static type: which member holds which type is known from the model at run time only.
Reader = Callable[[Any], Any]
Writer = Callable[[Any], Any]

_SMALLEST_LONG, _LARGEST_LONG = -(2**63), 2**63 - 1
_TOKENS: dict[type, str] = {str: "STRING_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE"}
_SPECIAL_DOUBLES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def parse(body: bytes) -> Any:
    """The JSON value of a body; an empty body is an empty object. Raises Serialization."""
    if not body:
        return {}
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Serialization(f"Could not parse request body into json: {exc}") from exc
    except RecursionError as exc:
        raise Serialization("Could not parse request body into json: it is nested too deeply.") from exc


def dump(value: Any) -> bytes:
    """The value as JSON text in UTF-8."""
    return msgspec.json.encode(value)


def mismatch(value: object, wanted: str) -> Serialization:
    """The error for a value of the wrong JSON type; `wanted` carries its article, as in `an Integer`."""
    match value:
        case list():
            return Serialization("Start of list found where not expected")
        case dict():
            return Serialization("Start of structure or map found where not expected.")
        case bool():
            token = "TRUE_VALUE" if value else "FALSE_VALUE"
        case _:
            token = _TOKENS[type(value)]
    return Serialization(f"{token} can not be converted to {wanted}")


class ReaderCompiler:
    """Compiles readers. One compiler serves one service: readers of named shapes are shared, also where shapes recur."""

    def __init__(self) -> None:
        self._named: dict[str, Reader] = {}

    def reader(self, shape: Shape) -> Reader:
        match shape:
            case StructureShape() | ListShape() | MapShape():
                return self._aggregate(shape)
            case _:
                return _SCALAR_READERS[shape.type_name]

    def _aggregate(self, shape: StructureShape | ListShape | MapShape) -> Reader:
        if (known := self._named.get(shape.name)) is not None:
            return known
        finished: list[Reader] = []
        self._named[shape.name] = lambda value: finished[0](value)
        match shape:
            case StructureShape():
                reader = self._structure(shape)
            case ListShape():
                reader = self._list(shape)
            case MapShape():
                reader = self._map(shape)
        finished.append(reader)
        self._named[shape.name] = reader
        return reader

    def _structure(self, shape: StructureShape) -> Reader:
        if shape.is_document_type:
            return _read_document
        members = {
            member.serialization.get("name", name): (name, self.reader(member))
            for name, member in shape.members.items()
            if "location" not in member.serialization
        }
        return _union_reader(shape.name, members) if shape.is_tagged_union else structure_reader(members)

    def _list(self, shape: ListShape) -> Reader:
        item = self.reader(shape.member)

        def read(value: Any) -> list[Any]:
            if type(value) is not list:
                raise mismatch(value, "") if type(value) is dict else Serialization("Expected list or null")
            return [None if entry is None else item(entry) for entry in value]

        return read

    def _map(self, shape: MapShape) -> Reader:
        item = self.reader(shape.value)

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise mismatch(value, "") if type(value) is list else Serialization("Expected null")
            return {key: None if entry is None else item(entry) for key, entry in value.items()}

        return read


def structure_reader(members: Mapping[str, tuple[str, Reader]]) -> Reader:
    """A reader of objects with these members: wire name to (member name, reader)."""

    def read(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise mismatch(value, "") if type(value) is list else Serialization("Expected null")
        found = {}
        for key, item in value.items():
            member = members.get(key)
            if member is not None and item is not None:
                found[member[0]] = member[1](item)
        return found

    return read


def _union_reader(name: str, members: Mapping[str, tuple[str, Reader]]) -> Reader:
    structure = structure_reader(members)

    def read(value: Any) -> dict[str, Any]:
        found: dict[str, Any] = structure(value)
        if len(found) != 1:
            raise Serialization(
                f"{name} is a union: exactly one of {', '.join(members)} must be set, {len(found)} are."
            )
        return found

    return read


def _read_document(value: Any) -> Any:
    return value


def _read_string(value: Any) -> str:
    if type(value) is not str:
        raise mismatch(value, "a String")
    return value


def _integer_reader(wanted: str) -> Reader:
    def read(value: Any) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not _SMALLEST_LONG <= value <= _LARGEST_LONG:
            raise mismatch(value, wanted)
        return value

    return read


def _floating_reader(wanted: str) -> Reader:
    def read(value: Any) -> float:
        if type(value) is float:
            return value
        if type(value) is int and _SMALLEST_LONG <= value <= _LARGEST_LONG:
            return float(value)
        if type(value) is str and value in _SPECIAL_DOUBLES:
            return _SPECIAL_DOUBLES[value]
        raise mismatch(value, wanted)

    return read


def _read_boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise mismatch(value, "a Boolean")
    return value


def _read_timestamp(value: Any) -> Any:
    try:
        return timestamps.read(value)
    except timestamps.NotATimestamp as exc:
        raise mismatch(value, "milliseconds since epoch") from exc


def _read_blob(value: Any) -> bytes:
    if type(value) is not str:
        raise mismatch(value, "Base64")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as exc:
        raise Serialization("STRING_VALUE can not be converted to Base64: it is not valid base64 text") from exc


_SCALAR_READERS: dict[str, Reader] = {
    "string": _read_string,
    "character": _read_string,
    "integer": _integer_reader("an Integer"),
    "long": _integer_reader("a Long"),
    "float": _floating_reader("a Float"),
    "double": _floating_reader("a Double"),
    "boolean": _read_boolean,
    "timestamp": _read_timestamp,
    "blob": _read_blob,
}


class WriterCompiler:
    """Compiles writers; None stands for a value that JSON carries as it is. Shared per service, like the readers."""

    def __init__(self) -> None:
        self._named: dict[str, Writer | None] = {}

    def writer(self, shape: Shape) -> Writer | None:
        match shape:
            case StructureShape() | ListShape() | MapShape():
                return self._aggregate(shape)
            case _:
                return _scalar_writer(shape)

    def _aggregate(self, shape: StructureShape | ListShape | MapShape) -> Writer | None:
        if shape.name in self._named:
            return self._named[shape.name]
        finished: list[Writer | None] = []

        def recurring(value: Any) -> Any:
            return value if finished[0] is None else finished[0](value)

        self._named[shape.name] = recurring
        match shape:
            case StructureShape():
                writer = self._structure(shape)
            case ListShape():
                writer = _list_writer(self.writer(shape.member))
            case MapShape():
                writer = _map_writer(self.writer(shape.value))
        finished.append(writer)
        self._named[shape.name] = writer
        return writer

    def _structure(self, shape: StructureShape) -> Writer | None:
        if shape.is_document_type:
            return None
        return structure_writer(
            shape.name,
            {
                name: (member.serialization.get("name", name), self.writer(member))
                for name, member in shape.members.items()
            },
        )


def structure_writer(shape_name: str, members: Mapping[str, tuple[str, Writer | None]]) -> Writer:
    """A writer of structures: member name to (wire name, writer)."""
    order = tuple((name, wire, writer) for name, (wire, writer) in members.items())

    def write(value: Mapping[str, Any]) -> dict[str, Any]:
        if not value.keys() <= members.keys():
            raise KeyError(f"{shape_name} has no member {', '.join(sorted(value.keys() - members.keys()))}")
        written = {}
        for name, wire, writer in order:
            item = value.get(name)
            if item is not None:
                written[wire] = item if writer is None else writer(item)
        return written

    return write


def _list_writer(item: Writer | None) -> Writer:
    if item is None:
        return list
    return lambda value: [None if entry is None else item(entry) for entry in value]


def _map_writer(item: Writer | None) -> Writer:
    if item is None:
        return dict
    return lambda value: {key: None if entry is None else item(entry) for key, entry in value.items()}


def _scalar_writer(shape: Shape) -> Writer | None:
    match shape.type_name:
        case "blob":
            return write_blob
        case "timestamp":
            fmt = timestamps.declared(shape.serialization.get("timestampFormat"), "unixtimestamp")
            return lambda value: timestamps.write(value, fmt)
        case "float" | "double":
            return write_double
        case _:
            return None


def write_blob(value: bytes | str) -> str:
    """Base64 text of bytes; text is taken as its UTF-8 bytes."""
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode("ascii")


def write_double(value: float) -> float | str:
    """A JSON number, or the names the protocols give to numbers that JSON does not have."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
