"""botocore speaks, we understand; we answer, botocore understands: for every operation and every error of three services.

Parameters and results are drawn from the shapes of the models. A request goes through botocore's serialiser and its preparation of the
URL, then through our `match` and `parse`; a response goes through our `respond` or `fail`, then through botocore's parser.
"""

import datetime
import io
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambstead.core.errors import DomainError
from lambstead.wire import java, overlay
from lambstead.wire.gateway import AwsApi, HttpResponse

SERVICES = ("lambda", "logs", "apigateway")
OPERATIONS = [(service, name) for service in SERVICES for name in sorted(AwsApi.load(service).operations)]
DEEPEST = 6

EVENT_STREAM_OUTPUTS = {
    # Their bodies are frames of an event stream, which whoever streams them encodes; botocore's parser needs a live connection.
    ("lambda", "InvokeWithResponseStream"),
    ("logs", "GetLogObject"),
    ("logs", "StartLiveTail"),
}
STRUCTURED_FACTS = {
    # A DomainError's facts are scalars; this member is a structure. Nothing of ours answers the error yet.
    ("logs", "MalformedQueryException", "queryCompileError"),
}
NARROWER_THAN_MODELLED: dict[tuple[str, str, str], st.SearchStrategy[Any]] = {
    # AWS refuses some values that its model admits (see the overlay): names above 64 characters, retired runtimes.
    ("lambda", "CreateFunction", "FunctionName"): st.from_regex(r"[a-zA-Z0-9-_]{1,64}", fullmatch=True),
    ("lambda", "CreateFunction", "Runtime"): st.sampled_from(["python3.13", "nodejs22.x", "provided.al2023"]),
    ("lambda", "UpdateFunctionConfiguration", "Runtime"): st.sampled_from(["python3.13", "java25", "ruby3.4"]),
}

round_trip = settings(
    # The default of 100 examples per test, shared out over some 750 operations and errors.
    max_examples=max(4, settings().max_examples // 5),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

UNICODE = st.characters(exclude_categories=["Cs"])
HEADER_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12).map(
    lambda text: text.strip() or "x"
)
MILLISECONDS = st.integers(0, 7_000_000_000_000).map(
    lambda ms: datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(milliseconds=ms)
)
WHOLE_SECONDS = MILLISECONDS.map(lambda moment: moment.replace(microsecond=0))


class Generator:
    """Strategies for the shapes of one service, kept by shape and depth. `constrained`: within the model's limits."""

    def __init__(self, *, constrained: bool) -> None:
        self._constrained = constrained
        self._kept: dict[tuple[str, int], st.SearchStrategy[Any]] = {}

    def strategy(self, shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
        key = (shape.name, depth)
        if key not in self._kept:
            self._kept[key] = self._made(shape, depth)
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


INPUTS = {service: Generator(constrained=True) for service in SERVICES}
OUTPUTS = {service: Generator(constrained=False) for service in SERVICES}


def parameters(api: AwsApi, operation: OperationModel) -> st.SearchStrategy[dict[str, Any]]:
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
        strategy = strategy if strategy is not None else INPUTS[api.service].strategy(member)
        match location:
            case "uri":
                strategy = strategy.filter(lambda value: value != "")
            case "header" if member.type_name == "string" and not {"enum", "pattern"} & member.metadata.keys():
                strategy = HEADER_TEXT
            case "querystring" if isinstance(member, MapShape):
                strategy = strategy.filter(lambda value: value and not names & value.keys())
            case "querystring" if isinstance(member, ListShape):
                strategy = st.lists(INPUTS[api.service].strategy(member.member), min_size=1, max_size=3)
        if name == payload:
            strategy = strategy.filter(lambda value: len(value) > 0)
        if member.type_name == "timestamp" and location == "header":
            strategy = WHOLE_SECONDS
        strategies[name] = strategy
    required = {name: strategies.pop(name) for name in shape.required_members}
    return st.fixed_dictionaries(required, optional=strategies)


def sent(operation: OperationModel, params: dict[str, Any]) -> tuple[str, bytes, bytes, dict[str, str], bytes]:
    """What botocore puts on the wire: method, raw path, query string, headers with lower-case names, body."""
    serializer = create_serializer(operation.metadata["protocol"], include_validation=True)
    request = serializer.serialize_to_request(params, operation)
    request.setdefault("context", {})
    prepare_request_dict(request, "http://127.0.0.1:4566", context={}, user_agent="test")
    prepared = create_request_object(request).prepare()
    url = urlsplit(prepared.url)
    headers = {name.lower(): _text(value) for name, value in prepared.headers.items()}
    return prepared.method, url.path.encode(), url.query.encode(), headers, prepared.body or b""


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_what_botocore_sends_is_what_we_read(service: str, name: str) -> None:
    api = AwsApi.load(service)
    operation = api.model.operation_model(name)

    @round_trip
    @given(parameters(api, operation))
    def check(params: dict[str, Any]) -> None:
        method, path, query, headers, body = sent(operation, params)
        match = api.match(method, path, query, headers)
        assert match.operation == name
        read = api.parse(match, headers, body)
        payload = operation.input_shape.serialization.get("payload") if operation.input_shape else None
        if payload is not None and payload not in params:
            # An absent structure and an empty one are both `{}` on the wire.
            assert not read.pop(payload, None)
        assert read == params

    check()


def results(service: str, operation: OperationModel) -> st.SearchStrategy[dict[str, Any]]:
    shape = operation.output_shape
    if shape is None:
        return st.just({})
    strategies = {
        name: _result_member(OUTPUTS[service].strategy(member), member) for name, member in shape.members.items()
    }
    return st.fixed_dictionaries({}, optional=strategies)


def _result_member(strategy: st.SearchStrategy[Any], member: Shape) -> st.SearchStrategy[Any]:
    match member.serialization.get("location"):
        case "statusCode":
            return st.sampled_from([200, 202])
        case "header" if member.type_name == "string" and "enum" not in member.metadata:
            return HEADER_TEXT
        case _:
            return strategy


def received(operation: OperationModel, response: HttpResponse, shape: Shape | None, *, stream: bool) -> dict[str, Any]:
    """What botocore makes of a response."""
    parser = create_parser(operation.metadata["protocol"])
    headers = HeadersDict(response.headers)
    body: Any = io.BytesIO(response.body) if stream else response.body
    raw = {"status_code": response.status, "headers": headers, "body": body, "context": {}}
    parsed: dict[str, Any] = parser.parse(raw, shape)  # type: ignore[arg-type]  # the stubs forbid None; botocore passes it itself
    return parsed


@pytest.mark.parametrize(("service", "name"), [each for each in OPERATIONS if each not in EVENT_STREAM_OUTPUTS])
def test_what_we_answer_is_what_botocore_reads(service: str, name: str) -> None:
    api = AwsApi.load(service)
    operation = api.model.operation_model(name)
    payload: str | None = operation.output_shape.serialization.get("payload") if operation.output_shape else None

    @round_trip
    @given(results(service, operation))
    def check(result: dict[str, Any]) -> None:
        response = api.respond(name, result, "request-1")
        parsed = received(operation, response, operation.output_shape, stream=operation.has_streaming_output)
        metadata = parsed.pop("ResponseMetadata")
        assert metadata["RequestId"] == "request-1"
        status_member = next((n for n, m in _members(operation) if m.serialization.get("location") == "statusCode"), "")
        assert metadata["HTTPStatusCode"] == result.get(status_member, operation.http.get("responseCode", 200))
        expected = {status_member: metadata["HTTPStatusCode"], **result} if status_member else dict(result)
        if operation.has_streaming_output and payload is not None:
            parsed[payload] = parsed[payload].read()
            expected.setdefault(payload, b"")
        if response.status == 204:
            assert response.body == b""
        assert parsed == expected

    check()


def _members(operation: OperationModel) -> list[tuple[str, Shape]]:
    return list(operation.output_shape.members.items()) if operation.output_shape else []


def _error_shapes(service: str) -> list[StructureShape]:
    model = AwsApi.load(service).model
    shapes = (model.shape_for(name) for name in model.shape_names)
    return [shape for shape in shapes if isinstance(shape, StructureShape) and shape.metadata.get("exception")]


RAW = {service: Loader().load_service_model(service, "service-2") for service in SERVICES}
ERRORS = [(service, shape.name) for service in SERVICES for shape in _error_shapes(service)]


def domain_error(shape_name: str) -> Callable[..., DomainError]:
    return type(shape_name, (DomainError,), {"shape": shape_name})


@pytest.mark.parametrize(("service", "shape_name"), ERRORS)
def test_what_we_refuse_is_what_botocore_raises(service: str, shape_name: str) -> None:
    api = AwsApi.load(service)
    shape = api.model.shape_for(shape_name)
    assert isinstance(shape, StructureShape)
    operation = api.model.operation_model(sorted(api.operations)[0])
    described = RAW[service]["shapes"][shape_name]
    status = described.get("error", {}).get("httpStatusCode", 500 if described.get("fault") else 400)
    facts = {
        name: HEADER_TEXT
        for name, member in shape.members.items()
        if name.lower() not in ("message", "type") and (service, shape_name, name) not in STRUCTURED_FACTS
    }

    @round_trip
    @given(st.text(UNICODE, max_size=40), st.fixed_dictionaries({}, optional=facts))
    def check(message: str, given_facts: dict[str, str]) -> None:
        error = domain_error(shape_name)(message, **given_facts)
        response = api.fail(operation.name, error, "request-2")
        parsed = received(operation, response, operation.output_shape, stream=False)
        assert parsed["Error"]["Code"] == shape_name
        assert parsed["Error"]["Message"] == message
        assert parsed["ResponseMetadata"]["HTTPStatusCode"] == response.status == status
        assert parsed["ResponseMetadata"]["RequestId"] == "request-2"
        members = received(operation, response, shape, stream=False)
        members.pop("ResponseMetadata", None)
        expected: dict[str, str] = dict(given_facts)
        if "Type" in shape.members:
            expected["Type"] = "User" if response.status < 500 else "Service"
        expected |= {name: message for name in shape.members if name.lower() == "message"}
        assert members == expected

    check()


def test_the_exceptions_from_the_round_trips_are_exactly_those_that_need_one() -> None:
    models = {service: AwsApi.load(service).model for service in SERVICES}
    streams = {
        (service, name)
        for service, name in OPERATIONS
        if models[service].operation_model(name).has_event_stream_output
        or models[service].operation_model(name).has_event_stream_input
    }
    assert streams == EVENT_STREAM_OUTPUTS
    structured = {
        (service, shape.name, name)
        for service in SERVICES
        for shape in _error_shapes(service)
        for name, member in shape.members.items()
        if isinstance(member, StructureShape | ListShape | MapShape)
    }
    assert structured == STRUCTURED_FACTS


def test_every_narrowed_parameter_has_values_that_the_model_admits_and_we_refuse() -> None:
    refused = {
        ("lambda", "CreateFunction", "FunctionName"): "x" * 65,
        ("lambda", "CreateFunction", "Runtime"): "python2.7",
        ("lambda", "UpdateFunctionConfiguration", "Runtime"): "python2.7",
    }
    assert refused.keys() == NARROWER_THAN_MODELLED.keys()
    api = AwsApi.load("lambda")
    for (_, name, member), value in refused.items():
        operation = api.model.operation_model(name)
        params = {"FunctionName": "f", "Role": "arn:aws:iam::000000000000:role/r", "Code": {}, member: value}
        if name != "CreateFunction":
            del params["Role"], params["Code"]
        method, path, query, headers, body = sent(operation, params)
        with pytest.raises(DomainError) as refusal:
            api.parse(api.match(method, path, query, headers), headers, body)
        assert refusal.value.shape == "InvalidParameterValueException"


def test_every_pattern_of_the_served_models_is_translated_except_those_listed() -> None:
    untranslated = set()
    for service in SERVICES:
        model = AwsApi.load(service).model
        for name in model.shape_names:
            pattern = model.shape_for(name).metadata.get("pattern")
            try:
                if pattern is not None:
                    java.JavaPattern(pattern).matches("\N{LATIN SMALL LETTER E WITH ACUTE}")
                    java.JavaPattern(pattern).matches("e")
            except java.Untranslatable:
                untranslated.add(pattern)
    assert untranslated == overlay.UNTRANSLATED_PATTERNS


def test_numbers_that_json_lacks_travel_by_name() -> None:
    api = AwsApi.load("lambda")
    operation = api.model.operation_model("GetAlias")
    weights = {"1": math.inf, "2": -math.inf}
    response = api.respond("GetAlias", {"RoutingConfig": {"AdditionalVersionWeights": weights}}, "r")
    parsed = received(operation, response, operation.output_shape, stream=False)
    assert parsed["RoutingConfig"]["AdditionalVersionWeights"] == weights
