"""Requests to break and requests to keep: for an operation of a model, valid parameters, and every way its model gives to spoil them.

A `Break` names a place in the input and what is wrong there. Breaks of the model's constraints are put into the parameters before
botocore serialises them; breaks of JSON are put into the body it made; breaks of HTTP into the request line.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import strategies as st
from tests.wire.strategies import Generator, parameters, sent

from lambstead.wire import java, overlay
from lambstead.wire.gateway import AwsApi

DEEPEST = 5
"""Places further down are not broken."""
LONGEST = 20_000
"""Length limits above this are left to tests of their own."""
ITEM, KEY, VALUE = "[]", "{key}", "{value}"
NOT_OF_ANY_PATTERN = ("!", "a b", "* ?", "é", "%%%%%%%%%%%%%%", "\n", " .-", "a/b//", "$", "§" * 12, "-" * 40, " " * 60)


@dataclass(frozen=True)
class Sent:
    """A request as it goes out."""

    method: str
    path: bytes
    query: bytes
    headers: dict[str, str]
    body: bytes
    told: str
    """What was drawn, for messages."""

    def __str__(self) -> str:
        return f"{self.method} {self.path.decode()[:300]}?{self.query.decode()[:200]} {self.body[:300]!r} ({self.told})"


@dataclass(frozen=True)
class Break:
    """What is wrong with a request, where, and the code of the only right answer."""

    kind: str
    place: tuple[str, ...]
    code: str
    shape: Shape | None = None

    def __str__(self) -> str:
        return f"{self.kind} at {'.'.join(self.place) or 'the request'}"


# --- valid ------------------------------------------------------------------------------------------------------------


def valid(
    api: AwsApi, operation: OperationModel, inputs: Generator, unserved: frozenset[str], aimed: Mapping[str, Any]
) -> st.SearchStrategy[Sent]:
    """Requests within the model: with few optional members or with many, mostly without those that the server is known to refuse.

    Some have the parameters `aimed`, which name what is there.
    """
    return _valid(operation, parameters(api, operation, inputs), unserved, aimed)


@st.composite
def _valid(
    draw: st.DrawFn,
    operation: OperationModel,
    every: st.SearchStrategy[dict[str, Any]],
    unserved: frozenset[str],
    aimed: Mapping[str, Any],
) -> Sent:
    drawn = draw(every)
    required = set(operation.input_shape.required_members) if operation.input_shape else set()
    optional = sorted(drawn.keys() - required)
    # The first one is drawn first, and with nothing optional: a request that is there to succeed.
    kind = draw(st.sampled_from(["aimed", "aimed", "required", "few", "few", "served", "all"]))
    match kind:
        case "required":
            optional = []
        case "few" | "aimed":
            served = [name for name in optional if name not in unserved]
            most = 3 if kind == "few" else 1
            optional = draw(st.lists(st.sampled_from(served), max_size=most, unique=True)) if served else []
        case "served":
            optional = [name for name in optional if name not in unserved]
        case _:
            pass  # all of them
    kept = {name: value for name, value in drawn.items() if name in required or name in optional}
    return _sent(operation, {**kept, **aimed} if kind == "aimed" else kept, f"{kind}, #{draw(SALT)}")


SALT = st.integers(0, 2**32)
"""Keeps requests apart that are equal otherwise: an operation without parameters is asked as often as any."""


def _sent(operation: OperationModel, params: Mapping[str, Any], told: str) -> Sent:
    return Sent(*sent(operation, dict(params), validated=False), told)


# --- invalid ----------------------------------------------------------------------------------------------------------


def breaks(api: AwsApi, operation: OperationModel) -> list[Break]:
    """Every way to spoil a request to the operation."""
    found = [Break("unknown path", (), "UnknownOperationException"), Break("method", (), "UnknownOperationException")]
    shape = operation.input_shape
    if shape is None:
        return found
    for name, member in shape.members.items():
        location = member.serialization.get("location", "body")
        required = name in shape.required_members
        if required and location != "uri" and shape.serialization.get("payload") != name:
            found.append(Break("missing", (name,), "ValidationException"))
        found += [
            replace(each, code="InvalidParameterValueException")
            if each.kind == "enum" and f"{operation.name}.{name}" in overlay.UNCHECKED_ENUMS[api.service]
            else each
            for each in _breaks(member, (name,), location)
        ]
    if _has_json_body(operation):
        found += [Break("malformed JSON", (), "SerializationException")] * 2
    return found


def _has_json_body(operation: OperationModel) -> bool:
    shape = operation.input_shape
    if shape is None:
        return False
    payload = shape.serialization.get("payload")
    if payload is not None:
        return isinstance(shape.members[payload], StructureShape)
    return any("location" not in member.serialization for member in shape.members.values())


def _breaks(shape: Shape, place: tuple[str, ...], location: str) -> Iterator[Break]:
    constraint = "ValidationException"
    if len(place) > DEEPEST or shape.serialization.get("eventstream"):
        return
    for kind in _broken_limits(shape, location):
        yield Break(kind, place, constraint, shape)
    if location == "body" and shape.type_name != "blob":
        yield Break("JSON type", place, "SerializationException", shape)
    if location == "querystring" and shape.type_name in ("integer", "long", "boolean"):
        yield Break("text for a scalar", place, "SerializationException", shape)
    match shape:
        case StructureShape():
            for name, member in shape.members.items():
                if name in shape.required_members:
                    yield Break("missing", (*place, name), constraint)
                yield from _breaks(member, (*place, name), location)
        case ListShape():
            yield from _breaks(shape.member, (*place, ITEM), location)
        case MapShape():
            yield from (each for each in _breaks(shape.key, (*place, KEY), location) if each.kind != "JSON type")
            yield from _breaks(shape.value, (*place, VALUE), location)
        case _:
            pass


def _broken_limits(shape: Shape, location: str) -> Iterator[str]:
    limits = shape.metadata
    if "enum" in limits:
        yield "enum"
        return
    if shape.type_name == "string":
        if limits.get("max", LONGEST) < LONGEST:
            yield "too long"
        # An empty label is another path, an empty header no header, an empty list in a query no list.
        if limits.get("min", 0) > (1 if location in ("uri", "header") else 0):
            yield "too short"
        if "pattern" in limits and _unmatched(shape, location) is not None:
            yield "pattern"
    elif shape.type_name in ("integer", "long", "float", "double"):
        if "min" in limits:
            yield "too low"
        if "max" in limits:
            yield "too high"
    elif isinstance(shape, ListShape | MapShape) and location == "body":
        if limits.get("min", 0) > 0:
            yield "too few"
        if isinstance(shape, ListShape) and limits.get("max", 1000) < 1000:
            yield "too many"


def _unmatched(shape: Shape, location: str) -> str | None:
    """A text of legal length that the shape's pattern refuses."""
    matching = java.JavaPattern(shape.metadata["pattern"])
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max", LONGEST)
    texts = [text * (-(-low // len(text)) or 1) for text in NOT_OF_ANY_PATTERN]
    if location in ("header", "uri"):
        texts = [text for text in texts if text.isascii() and text.strip() == text and "/" not in text]
    return next((text for text in texts if low <= len(text) <= high and not matching.matches(text)), None)


def invalid(api: AwsApi, operation: OperationModel, inputs: Generator) -> st.SearchStrategy[tuple[Sent, Break]]:
    """Requests that are right but for one thing, and that thing."""
    return _invalid(operation, parameters(api, operation, inputs), breaks(api, operation), inputs)


@st.composite
def _invalid(
    draw: st.DrawFn,
    operation: OperationModel,
    every: st.SearchStrategy[dict[str, Any]],
    ways: list[Break],
    inputs: Generator,
) -> tuple[Sent, Break]:
    wrong = draw(st.sampled_from(ways))
    params = draw(every)
    # What is not needed may have trouble of its own: an answer about that would be right, too.
    assert operation.input_shape or not params
    needed = set(operation.input_shape.required_members) if operation.input_shape else set()
    params = {name: value for name, value in params.items() if name in needed or name in wrong.place[:1]}
    told = f"{wrong}, #{draw(SALT)}"
    match wrong.kind:
        case "unknown path":
            whole = _sent(operation, params, told)
            return replace(whole, path=b"/no/such/path" + whole.path), wrong
        case "method":
            return replace(_sent(operation, params, told), method="PATCH"), wrong
        case "malformed JSON":
            bodies = [b"{", b'{"a":}', b"[1,", b'{"a" 1}', b"nothing", b'"text"', b"[]", b"{}{}", b'{"a": "\xff"}']
            return replace(_sent(operation, params, told), body=draw(st.sampled_from(bodies))), wrong
        case "JSON type":
            assert operation.input_shape
            assert wrong.shape
            whole = _sent(operation, _with(draw, operation.input_shape, params, wrong.place, inputs), told)
            document = json.loads(whole.body)
            spoilt = _spoilt(document, _wire_place(operation, wrong.place), _other_type(draw, wrong.shape))
            return replace(whole, body=json.dumps(spoilt).encode()), wrong
        case "text for a scalar":
            assert wrong.shape
            name = str(wrong.shape.serialization.get("name", wrong.place[0]))
            params.pop(wrong.place[0], None)
            whole = _sent(operation, params, told)
            text = draw(st.sampled_from(["abc", "1x", "yes", "1_0", "--1"]))
            return replace(whole, query=whole.query + b"&" * bool(whole.query) + f"{name}={text}".encode()), wrong
        case _:
            assert operation.input_shape
            spoilt = _with(draw, operation.input_shape, params, wrong.place, inputs)
            location = operation.input_shape.members[wrong.place[0]].serialization.get("location", "body")
            spoilt = _put(spoilt, wrong.place, wrong, location, draw, inputs)
            return _sent(operation, spoilt, told), wrong


def _with(draw: st.DrawFn, shape: Shape, value: Any, place: tuple[str, ...], inputs: Generator) -> Any:
    """The value with everything on the way to a place in it."""
    if not place:
        return value
    first, rest = place[0], place[1:]
    match shape:
        case StructureShape():
            kept = {} if shape.is_tagged_union else value
            held = value[first] if first in value else draw(inputs.strategy(shape.members[first]))
            return {**kept, first: _with(draw, shape.members[first], held, rest, inputs)}
        case ListShape():
            head = value[0] if value else draw(inputs.strategy(shape.member))
            return [_with(draw, shape.member, head, rest, inputs), *value[1:]]
        case MapShape():
            key = next(iter(value)) if value else draw(inputs.strategy(shape.key))
            held = value[key] if value else draw(inputs.strategy(shape.value))
            return {**value, key: _with(draw, shape.value, held, rest, inputs) if first == VALUE else held}
        case _:
            raise AssertionError(f"{shape.name} has nothing at {place}")


def _put(value: Any, place: tuple[str, ...], wrong: Break, location: str, draw: st.DrawFn, inputs: Generator) -> Any:
    """The value with the break at its place."""
    if not place:
        assert wrong.shape
        return _bad(wrong.shape, wrong.kind, value, location, draw, inputs)
    first, rest = place[0], place[1:]
    if wrong.kind == "missing" and not rest:
        return {name: held for name, held in value.items() if name != first}
    if first == ITEM:
        return [_put(value[0], rest, wrong, location, draw, inputs), *value[1:]]
    if first == KEY:
        key = next(iter(value))
        return {_put(key, rest, wrong, location, draw, inputs): value[key]}
    if first == VALUE:
        key = next(iter(value))
        return {**value, key: _put(value[key], rest, wrong, location, draw, inputs)}
    return {**value, first: _put(value[first], rest, wrong, location, draw, inputs)}


def _bad(shape: Shape, kind: str, value: Any, location: str, draw: st.DrawFn, inputs: Generator) -> Any:
    limits = shape.metadata
    match kind:
        case "too long":
            return "x" * (limits["max"] + draw(st.integers(1, 9)))
        case "too short":
            return "x" * (limits["min"] - 1)
        case "pattern":
            return _unmatched(shape, location)
        case "enum":
            return draw(st.sampled_from(["NoSuchValue", limits["enum"][0].swapcase() + "x", "-"]))
        case "too low":
            return limits["min"] - 1
        case "too high":
            return limits["max"] + 1
        case "too few":
            return value[: limits["min"] - 1] if isinstance(shape, ListShape) else {}
        case "too many":
            assert isinstance(shape, ListShape)
            return [draw(inputs.strategy(shape.member))] * (limits["max"] + 1)
        case _:
            raise AssertionError(kind)


def _other_type(draw: st.DrawFn, shape: Shape) -> Any:
    match shape:
        case ListShape():
            return draw(st.sampled_from([{}, {"a": 1}, "text", 7, True]))
        case MapShape() | StructureShape():
            return draw(st.sampled_from([[], ["a"], "text", 7, False]))
        case _:
            return draw(st.sampled_from([[], {}, {"a": []}, [None]]))


def _wire_place(operation: OperationModel, place: tuple[str, ...]) -> tuple[str, ...]:
    shape: Shape | None = operation.input_shape
    assert shape is not None
    payload = shape.serialization.get("payload")
    found = []
    for step in place:
        match shape:
            case StructureShape():
                shape = shape.members[step]
                found.append(str(shape.serialization.get("name", step)))
            case ListShape():
                shape = shape.member
                found.append(step)
            case MapShape():
                shape = shape.value
                found.append(step)
            case _:
                raise AssertionError(f"{shape.name} has nothing at {step}")
    return tuple(found[1:] if payload == place[0] else found)


def _spoilt(document: Any, place: tuple[str, ...], value: Any) -> Any:
    """The document with a value at a place in it."""
    if not place:
        return value
    first, rest = place[0], place[1:]
    if first == ITEM:
        return [_spoilt(document[0], rest, value), *document[1:]]
    key = next(iter(document)) if first == VALUE else first
    return {**document, key: _spoilt(document[key], rest, value)}
