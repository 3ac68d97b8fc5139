"""Whatever bytes come in: parameters, or a DomainError that renders to a 4xx. Never another exception, never a 500."""

import json
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from botocore.model import StructureShape
from hypothesis import given, settings
from hypothesis import strategies as st

from lambstead.core.errors import DomainError
from lambstead.wire.gateway import AwsApi

SERVICES = ("lambda", "logs", "apigateway")
SETTINGS = settings(deadline=None, max_examples=settings().max_examples * 3)

METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "", "get"])
RAW_SEGMENT = st.binary(max_size=8) | st.binary(max_size=6).map(quote_from_bytes).map(str.encode)
QUERY = st.binary(max_size=30) | st.lists(RAW_SEGMENT, max_size=4).map(b"=".join)
HEADER_NAMES = st.sampled_from(
    [
        "x-amz-target",
        "x-amz-invocation-type",
        "x-amz-log-type",
        "x-amz-client-context",
        "content-type",
        "authorization",
        "accept",
    ]
)
HEADERS = st.dictionaries(HEADER_NAMES, st.text(max_size=20), max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def answered(api: AwsApi, method: str, path: bytes, query: bytes, headers: dict[str, str], body: bytes) -> str | None:
    """The operation that was parsed, or None after a proper refusal."""
    name, refusal = None, None
    try:
        match = api.match(method, path, query, headers)
        name = match.operation
        parameters = api.parse(match, headers, body)
    except DomainError as error:
        refusal = error
    if refusal is None:
        assert isinstance(parameters, dict)
        return name
    response = api.fail(name, refusal, "r")
    assert 400 <= response.status < 500
    assert refusal.message in json.loads(response.body).values()
    return None


@pytest.mark.parametrize("service", SERVICES)
def test_arbitrary_requests(service: str) -> None:
    api = AwsApi.load(service)

    @SETTINGS
    @given(METHODS, st.lists(RAW_SEGMENT, max_size=6).map(b"/".join), QUERY, HEADERS, st.binary(max_size=40))
    def check(method: str, path: bytes, query: bytes, headers: dict[str, str], body: bytes) -> None:
        answered(api, method, b"/" + path, query, headers, body)

    check()


@pytest.mark.parametrize("service", SERVICES)
def test_real_operations_with_arbitrary_labels_queries_headers_and_bodies(service: str) -> None:
    """Bodies and queries use names of the operation's own members, so that wrong types reach every reader."""
    api = AwsApi.load(service)
    operations = [api.model.operation_model(name) for name in sorted(api.operations)]

    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(operations))
        members = dict(operation.input_shape.members) if operation.input_shape else {}
        wire = sorted({str(member.serialization.get("name", name)) for name, member in members.items()})
        names = st.sampled_from(wire) if wire else st.text(max_size=3)
        path, _, fixed = operation.http["requestUri"].partition("?")
        segments = [
            data.draw(RAW_SEGMENT).replace(b"/", b"") if part.startswith("{") else part.encode()
            for part in path.split("/")
        ]
        pairs = data.draw(st.lists(st.tuples(names, st.text(max_size=5)), max_size=3))
        query = "&".join(
            [fixed, *(f"{name}={quote_from_bytes(value.encode('utf-8', 'replace'))}" for name, value in pairs)]
        )
        headers = data.draw(st.dictionaries(names.map(str.lower), st.text(max_size=8), max_size=3))
        if api.target_prefix is not None:
            headers["x-amz-target"] = f"{api.target_prefix}.{operation.name}"
        body = data.draw(st.dictionaries(names, JSON, max_size=4).map(_dumped) | st.binary(max_size=12))
        answered(api, operation.http["method"], b"/".join(segments), query.encode(), headers, body)

    check()


def _dumped(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "replace")


@pytest.mark.parametrize("service", SERVICES)
def test_valid_structure_with_one_wrong_value_anywhere(service: str) -> None:
    """A body of the right outline whose members hold any JSON at all, two levels down."""
    api = AwsApi.load(service)
    writes = [
        operation
        for operation in map(api.model.operation_model, sorted(api.operations))
        if operation.input_shape and any(m.type_name == "structure" for m in operation.input_shape.members.values())
    ]

    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(writes))
        assert operation.input_shape
        outline = {
            name: {inner: data.draw(JSON) for inner in list(member.members)[:3]}
            for name, member in operation.input_shape.members.items()
            if isinstance(member, StructureShape)
        }
        headers = {"x-amz-target": f"{api.target_prefix}.{operation.name}"} if api.target_prefix else {}
        path = operation.http["requestUri"].partition("?")[0].replace("{", "").replace("}", "").encode()
        answered(api, operation.http["method"], path, b"", headers, _dumped(outline))

    check()
