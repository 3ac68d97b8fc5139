"""Strategies for the parameters and results of an API's operations, from the shapes of its model; and botocore at both ends of the wire."""

import datetime
import io
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import strategies as st

from lambstead.wire import java
from lambstead.wire.gateway import AwsApi, HttpResponse

DEEPEST = 6

NARROWER_THAN_MODELLED: dict[tuple[str, str, str], st.SearchStrategy[Any]] = {
    # AWS refuses some values that its model admits (see the overlay): names above 64 characters, retired runtimes.
    ("lambda", "CreateFunction", "FunctionName"): st.from_regex(r"[a-zA-Z0-9-_]{1,64}", fullmatch=True),
    ("lambda", "CreateFunction", "Runtime"): st.sampled_from(["python3.13", "nodejs22.x", "provided.al2023"]),
    ("lambda", "UpdateFunctionConfiguration", "Runtime"): st.sampled_from(["python3.13", "java25", "ruby3.4"]),
}

UNICODE = st.characters(exclude_categories=["Cs"])
HEADER_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12).map(
    lambda text: text.strip() or "x"
)
MILLISECONDS = st.integers(0, 7_000_000_000_000).map(
    lambda ms: datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(milliseconds=ms)
)
WHOLE_SECONDS = MILLISECONDS.map(lambda moment: moment.replace(microsecond=0))


class Generator:
    """Strategies for the shapes of one service, kept by shape and depth. `constrained`: within the model's limits.

    `known` has values of shapes, by name, that mean something to the server that is asked; two values in three of such a shape are of them.
    """

    def __init__(self, *, constrained: bool, known: Mapping[str, st.SearchStrategy[Any]] | None = None) -> None:
        self._constrained = constrained
        self._known = known or {}
        self._kept: dict[tuple[str, int], st.SearchStrategy[Any]] = {}

    def strategy(self, shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
        key = (shape.name, depth)
        if key not in self._kept:
            made = self._made(shape, depth)
            self._kept[key] = (
                st.one_of(self._known[shape.name], self._known[shape.name], made) if shape.name in self._known else made
            )
        return self._kept[key]

    def _made(self, shape: Shape, depth: int) -> st.SearchStrategy[Any]:
        match shape:
            case StructureShape():
                return self._structure(shape, depth)
            case ListShape():
                low, high = self._sizes(shape, depth)
                return st.lists(self.strategy(shape.member, depth + 1), min_size=low, max_size=high)
            case MapShape():
                low, high = self._sizes(shape, depth)
                key, value = self.strategy(shape.key, depth + 1), self.strategy(shape.value, depth + 1)
                return st.dictionaries(key, value, min_size=low, max_size=high)
            case _:
                return self._scalar(shape)

    def _structure(self, shape: StructureShape, depth: int) -> st.SearchStrategy[Any]:
        members = dict(shape.members)
        if shape.is_tagged_union:
            return st.one_of(
                [st.fixed_dictionaries({name: self.strategy(m, depth + 1)}) for name, m in members.items()]
            )
        needed = {name: self.strategy(members[name], depth + 1) for name in shape.required_members}
        if depth >= DEEPEST:
            return st.fixed_dictionaries(needed)
        rest = {name: self.strategy(m, depth + 1) for name, m in members.items() if name not in needed}
        return st.fixed_dictionaries(needed, optional=rest)

    def _sizes(self, shape: Shape, depth: int) -> tuple[int, int]:
        low, high = self._bounds(shape, 0, 1000)
        return low, low if depth >= DEEPEST else min(high, low + 2)

    def _bounds(self, shape: Shape, low: int, high: int) -> tuple[int, int]:
        if not self._constrained:
            return low, high
        return int(shape.metadata.get("min", low)), int(shape.metadata.get("max", high))

    def _scalar(self, shape: Shape) -> st.SearchStrategy[Any]:
        match shape.type_name:
            case "string":
                return self._text(shape)
            case "integer":
                return st.integers(*self._bounds(shape, -(2**31), 2**31 - 1))
            case "long":
                return st.integers(*self._bounds(shape, -(2**63), 2**63 - 1))
            case "float" | "double":
                limits = shape.metadata if self._constrained else {}
                return st.floats(limits.get("min"), limits.get("max"), allow_nan=False, allow_infinity=False)
            case "boolean":
                return st.booleans()
            case "timestamp":
                return MILLISECONDS
            case "blob":
                low, high = self._bounds(shape, 0, 40)
                return st.binary(min_size=low, max_size=min(high, low + 40))
            case other:
                raise AssertionError(f"no strategy for {other}")

    def _text(self, shape: Shape) -> st.SearchStrategy[str]:
        if "enum" in shape.metadata:
            return st.sampled_from(shape.metadata["enum"])
        low, high = self._bounds(shape, 0, 10**6)
        pattern = shape.metadata.get("pattern") if self._constrained else None
        if pattern is None:
            return st.text(UNICODE, min_size=low, max_size=min(high, low + 12))
        matching = java.JavaPattern(pattern)
        if r"\p{" in pattern:
            # Tags: a class of letters, blanks and digits of all scripts, too wide for a strategy from the expression itself.
            texts = st.text(st.characters(categories=["L", "Z", "N"], include_characters="_.:/=+-@"), max_size=12)
        else:
            texts = st.from_regex(matching.ascii, fullmatch=True)
        return texts.filter(lambda text: low <= len(text) <= high and matching.matches(text))


def parameters(api: AwsApi, operation: OperationModel, inputs: Generator) -> st.SearchStrategy[dict[str, Any]]:
    """Valid parameters, except those whose wire form is the same as their absence: empty lists and maps in a query, empty bodies."""
    shape = operation.input_shape
    if shape is None:
        return st.just({})
    payload = shape.serialization.get("payload")
    names = {member.serialization.get("name") for member in shape.members.values()}
    strategies: dict[str, st.SearchStrategy[Any]] = {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        strategy = NARROWER_THAN_MODELLED.get((api.service, operation.name, name))
        strategy = strategy if strategy is not None else inputs.strategy(member)
        match location:
            case "uri":
                strategy = strategy.filter(lambda value: value != "")
            case "header" if member.type_name == "string" and not {"enum", "pattern"} & member.metadata.keys():
                strategy = HEADER_TEXT
            case "querystring" if isinstance(member, MapShape):
                strategy = strategy.filter(lambda value: value and not names & value.keys())
            case "querystring" if isinstance(member, ListShape):
                strategy = st.lists(inputs.strategy(member.member), min_size=1, max_size=3)
        if name == payload:
            strategy = strategy.filter(lambda value: len(value) > 0)
        if member.type_name == "timestamp" and location == "header":
            strategy = WHOLE_SECONDS
        strategies[name] = strategy
    required = {name: strategies.pop(name) for name in shape.required_members}
    return st.fixed_dictionaries(required, optional=strategies)


def sent(
    operation: OperationModel, params: dict[str, Any], *, validated: bool = True
) -> tuple[str, bytes, bytes, dict[str, str], bytes]:
    """What botocore puts on the wire: method, raw path, query string, headers with lower-case names, body.

    It refuses parameters that lack something or have another type unless `validated` is False.
    """
    serializer = create_serializer(operation.metadata["protocol"], include_validation=validated)
    request = serializer.serialize_to_request(params, operation)
    request.setdefault("context", {})
    prepare_request_dict(request, "http://127.0.0.1:4566", context={}, user_agent="test")
    prepared = create_request_object(request).prepare()
    url = urlsplit(prepared.url)
    headers = {name.lower(): _text(value) for name, value in prepared.headers.items()}
    return prepared.method, url.path.encode(), url.query.encode(), headers, prepared.body or b""


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def received(operation: OperationModel, response: HttpResponse, shape: Shape | None, *, stream: bool) -> dict[str, Any]:
    """What botocore makes of a response."""
    parser = create_parser(operation.metadata["protocol"])
    headers = HeadersDict(response.headers)
    body: Any = io.BytesIO(response.body) if stream else response.body
    raw = {"status_code": response.status, "headers": headers, "body": body, "context": {}}
    parsed: dict[str, Any] = parser.parse(raw, shape)  # type: ignore[arg-type]  # the stubs forbid None; botocore passes it itself
    return parsed
