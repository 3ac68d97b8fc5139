"""Routing by raw path: every operation of the models, precedence, encoded slashes, and what an unknown path is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.errors import Serialization, UnknownOperation
from lambstead.wire.gateway import AwsApi, Match
from lambstead.wire.routing import NoSuchPath, OtherMethods, Routed, Router

LAMBDA = AwsApi.load("lambda")
GATEWAY = AwsApi.load("apigateway")

ROUTER = Router(
    [
        ("Fixed", "GET", "/a/b"),
        ("Label", "GET", "/a/{X}"),
        ("Deep", "GET", "/a/b/c"),
        ("DeepLabel", "GET", "/a/{X}/d"),
        ("Greedy", "GET", "/g/{Key+}"),
        ("GreedyTags", "GET", "/g/{Key+}/tags"),
        ("Plain", "GET", "/q"),
        ("OneValue", "GET", "/q?mode=x"),
        ("TwoParts", "GET", "/q?mode=x&flag"),
        ("Written", "PUT", "/q"),
        ("Root", "GET", "/"),
    ]
)


ARN = "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST/durable-execution/history/id"


@pytest.mark.parametrize("path", [ARN, ARN.replace("/", "%2F"), ARN.replace(":", "%3A").replace("$", "%24")])
@pytest.mark.parametrize(
    ("method", "suffix", "operation"),
    [
        ("GET", "", "GetDurableExecution"),
        ("GET", "/history", "GetDurableExecutionHistory"),
        ("GET", "/state", "GetDurableExecutionState"),
        ("POST", "/checkpoint", "CheckpointDurableExecution"),
        ("DELETE", "", "DeleteDurableExecution"),
    ],
)
def test_an_arn_may_stand_in_a_path_as_it_is(path: str, method: str, suffix: str, operation: str) -> None:
    matched = LAMBDA.match(method, f"/2025-12-01/durable-executions/{path}{suffix}".encode(), b"", {})
    assert matched == Match(operation, {"DurableExecutionArn": ARN}, {})


def test_a_callback_id_may_hold_slashes() -> None:
    for callback_id in ("a/b+c==", "a%2Fb%2Bc%3D%3D"):
        path = f"/2025-12-01/durable-execution-callbacks/{callback_id}/succeed".encode()
        assert LAMBDA.match("POST", path, b"", {}).labels == {"CallbackId": "a/b+c=="}


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        (b"/a/b", {}, Routed("Fixed", {})),
        (b"/a/bb", {}, Routed("Label", {"X": "bb"})),
        (b"/a/b/c", {}, Routed("Deep", {})),
        (b"/a/b/d", {}, Routed("DeepLabel", {"X": "b"})),  # the literal branch ends nowhere: back to the label
        (b"/a/x%2Fy", {}, Routed("Label", {"X": "x/y"})),
        (b"/a/x%2fy/d", {}, Routed("DeepLabel", {"X": "x/y"})),
        (b"/a/a+b%20c", {}, Routed("Label", {"X": "a+b c"})),
        (b"/a/%C3%A9", {}, Routed("Label", {"X": "é"})),
        (b"/g/1/2/3", {}, Routed("Greedy", {"Key": "1/2/3"})),
        (b"/g/1%2F2", {}, Routed("Greedy", {"Key": "1/2"})),
        (b"/g/1/tags", {}, Routed("Greedy", {"Key": "1/tags"})),  # longest first
        (b"/q", {}, Routed("Plain", {})),
        (b"/q", {"mode": ["y"]}, Routed("Plain", {})),
        (b"/q", {"mode": ["x"]}, Routed("OneValue", {})),
        (b"/q", {"mode": ["x"], "flag": [""]}, Routed("TwoParts", {})),
        (b"/q/", {}, Routed("Plain", {})),
        (b"/", {}, Routed("Root", {})),
        (b"", {}, Routed("Root", {})),
        (b"/a/", {}, NoSuchPath()),
        (b"/a//d", {}, NoSuchPath()),
        (b"/g", {}, NoSuchPath()),
        (b"/A/b", {}, NoSuchPath()),
        (b"/q//", {}, NoSuchPath()),
    ],
)
def test_the_most_specific_route_wins(path: bytes, query: dict[str, list[str]], expected: object) -> None:
    assert ROUTER.route("GET", path, query) == expected


def test_a_known_path_with_another_method_says_which_methods_it_has() -> None:
    assert ROUTER.route("DELETE", b"/q", {}) == OtherMethods(("GET", "PUT"))
    assert ROUTER.route("DELETE", b"/a/b", {}) == OtherMethods(("GET",))
    with pytest.raises(UnknownOperation, match="DELETE, GET on this path, not PATCH"):
        LAMBDA.match("PATCH", b"/2015-03-31/functions/f", b"", {})
    with pytest.raises(UnknownOperation, match="no operation for this path"):
        LAMBDA.match("GET", b"/2015-03-31/functiosn/f", b"", {})


def test_a_label_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Serialization):
        ROUTER.route("GET", b"/a/%ff", {})


@pytest.mark.parametrize("api", [LAMBDA, GATEWAY], ids=lambda api: api.service)
def test_every_operation_is_found_at_its_own_template(api: AwsApi) -> None:
    for name in api.operations:
        http = api.model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        match = api.match(http["method"], path.encode(), query.encode(), {})
        assert match.operation == name
        assert match.labels == {label: f"{{{label}}}" for label in match.labels}
        assert len(match.labels) == path.count("{")


@pytest.mark.parametrize(
    ("method", "path", "query", "operation"),
    [
        ("GET", b"/2018-10-31/layers", b"", "ListLayers"),
        ("GET", b"/2018-10-31/layers", b"find=LayerVersion&Arn=a", "GetLayerVersionByArn"),
        ("GET", b"/2019-09-30/functions/f/provisioned-concurrency", b"Qualifier=1", "GetProvisionedConcurrencyConfig"),
        ("GET", b"/2019-09-30/functions/f/provisioned-concurrency", b"List=ALL", "ListProvisionedConcurrencyConfigs"),
        ("POST", b"/2015-03-31/functions/", b"", "CreateFunction"),  # older SDKs
        ("GET", b"/2015-03-31/functions/", b"", "ListFunctions"),
        ("POST", b"/2025-11-30/capacity-providers", b"", "CreateCapacityProvider"),
    ],
)
def test_lambda_paths_that_look_alike_are_told_apart(method: str, path: bytes, query: bytes, operation: str) -> None:
    assert LAMBDA.match(method, path, query, {}).operation == operation


def test_an_arn_with_encoded_slashes_is_one_label() -> None:
    arn = (
        "arn:aws:lambda:us-east-1:000000000000:function:f:1/durable-execution/name/11111111-1111-1111-1111-111111111111"
    )
    raw = arn.replace(":", "%3A").replace("/", "%2F")
    match = LAMBDA.match("GET", f"/2025-12-01/durable-executions/{raw}/history".encode(), b"", {})
    assert match == Match("GetDurableExecutionHistory", {"DurableExecutionArn": arn}, {})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_any_text_survives_percent_encoding_in_a_greedy_label(parts: list[str]) -> None:
    raw = b"/".join("".join(f"%{byte:02X}" for byte in part.encode()).encode() for part in parts)
    assert ROUTER.route("GET", b"/g/" + raw, {}) == Routed("Greedy", {"Key": "/".join(parts)})
