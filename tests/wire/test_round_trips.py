"""botocore speaks, we understand; we answer, botocore understands: for every operation and every error of three services.

Parameters and results are drawn from the shapes of the models. A request goes through botocore's serialiser and its preparation of the
URL, then through our `match` and `parse`; a response goes through our `respond` or `fail`, then through botocore's parser.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.wire.strategies import HEADER_TEXT, NARROWER_THAN_MODELLED, UNICODE, Generator, parameters, received, sent

from lambstead.core.errors import DomainError
from lambstead.wire import java, overlay
from lambstead.wire.gateway import AwsApi

SERVICES = ("lambda", "logs", "apigateway")
OPERATIONS = [(service, name) for service in SERVICES for name in sorted(AwsApi.load(service).operations)]

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
round_trip = settings(
    # The default of 100 examples per test, shared out over some 750 operations and errors.
    max_examples=max(4, settings().max_examples // 5),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

INPUTS = {service: Generator(constrained=True) for service in SERVICES}
OUTPUTS = {service: Generator(constrained=False) for service in SERVICES}


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_what_botocore_sends_is_what_we_read(service: str, name: str) -> None:
    api = AwsApi.load(service)
    operation = api.model.operation_model(name)

    @round_trip
    @given(parameters(api, operation, INPUTS[service]))
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
