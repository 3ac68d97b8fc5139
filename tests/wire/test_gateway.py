"""Which API a request is for, what is known of an operation before its body, and responses as a whole."""

import subprocess
import sys

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lambstead.core.errors import UnknownOperation
from lambstead.wire import gateway, models
from lambstead.wire.gateway import AwsApi

LAMBDA = AwsApi.load("lambda")
LOGS = AwsApi.load("logs")
GATEWAY = AwsApi.load("apigateway")
APIS = [LAMBDA, LOGS, GATEWAY]
TARGET = {"x-amz-target": "Logs_20140328.DescribeLogGroups"}


def signed(service: str) -> dict[str, str]:
    request = AWSRequest("GET", "http://127.0.0.1/")
    SigV4Auth(Credentials("key", "secret", "token"), service, "us-east-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def presigned(service: str) -> bytes:
    request = AWSRequest("GET", "http://127.0.0.1/")
    SigV4QueryAuth(Credentials("key", "secret"), service, "us-east-1").add_auth(request)
    return str(request.url).partition("?")[2].encode()


@pytest.mark.parametrize("service", ["lambda", "logs", "apigateway", "s3"])
def test_the_credential_scope_of_signed_and_presigned_requests_is_read(service: str) -> None:
    assert gateway.signed_for(b"", signed(service)) == service
    assert gateway.signed_for(presigned(service), {}) == service


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (b"", {}),
        (b"", {"authorization": "Basic a2V5OnNlY3JldA=="}),
        (b"", {"authorization": "AWS4-HMAC-SHA256 Credential=key"}),
        (b"", {"authorization": "AWS4-HMAC-SHA256 Credential=a/b/c/d/e"}),
        (b"X-Amz-Credential=%ff", {}),
        (b"X-Amz-Credential", {}),
    ],
)
def test_a_request_without_a_readable_scope_is_not_signed(query: bytes, headers: dict[str, str]) -> None:
    assert gateway.signed_for(query, headers) is None


@pytest.mark.parametrize(
    ("request_", "chosen"),
    [
        (("GET", b"/nowhere", b"", signed("lambda")), LAMBDA),
        (("POST", b"/", presigned("logs"), {}), LOGS),
        (("GET", b"/2015-03-31/functions", b"", signed("apigateway")), GATEWAY),
        (("GET", b"/2015-03-31/functions", b"", signed("s3")), None),  # another service's: never guessed into ours
        (("POST", b"/", b"", TARGET), LOGS),
        (("POST", b"/", b"", {"x-amz-target": "DynamoDB_20120810.ListTables"}), None),
        (("GET", b"/2015-03-31/functions", b"", {}), LAMBDA),
        (("GET", b"/restapis", b"", {}), GATEWAY),
        (("GET", b"/bucket/key", b"", {}), None),
    ],
)
def test_the_api_is_chosen_by_scope_then_target_then_path(
    request_: tuple[str, bytes, bytes, dict[str, str]], chosen: AwsApi | None
) -> None:
    assert gateway.choose(APIS, *request_) is chosen


def test_an_unsigned_request_is_not_given_to_the_only_api_there_is() -> None:
    assert gateway.choose([LAMBDA], "GET", b"/bucket/key", b"", {}) is None
    assert gateway.choose([LAMBDA], "GET", b"/2015-03-31/functions", b"", {}) is LAMBDA


def test_apis_that_share_a_signing_name_are_told_apart_by_path() -> None:
    second = AwsApi.load("apigatewayv2")
    assert second.signing_name == GATEWAY.signing_name
    apis = [GATEWAY, second]
    assert gateway.choose(apis, "GET", b"/v2/apis", b"", signed("apigateway")) is second
    assert gateway.choose(apis, "GET", b"/restapis", b"", signed("apigateway")) is GATEWAY
    assert gateway.choose(apis, "GET", b"/neither", b"", signed("apigateway")) is GATEWAY


@pytest.mark.parametrize(
    "target", ["", "Logs_20140328.", "Logs_20140328.Nothing", "DescribeLogGroups", "X.DescribeLogGroups"]
)
def test_an_unknown_target_is_an_unknown_operation(target: str) -> None:
    with pytest.raises(UnknownOperation):
        LOGS.match("POST", b"/", b"", {"x-amz-target": target})


def test_facts_tell_of_limits_and_streams() -> None:
    invoke = LAMBDA.facts("Invoke")
    assert (invoke.streams_request, invoke.streams_response, invoke.max_body_bytes) == (True, True, 6_291_556)
    listed = LAMBDA.facts("ListFunctions")
    assert (listed.streams_request, listed.streams_response) == (False, False)
    assert LAMBDA.facts("InvokeWithResponseStream").streams_response
    assert LOGS.facts("StartLiveTail").streams_response


def test_the_answer_of_invoke_carries_headers_and_the_payload_as_given() -> None:
    result = {"StatusCode": 200, "FunctionError": "Unhandled", "ExecutedVersion": "3", "Payload": b'{"a":1}'}
    response = LAMBDA.respond("Invoke", result, "request-1")
    assert (response.status, response.body) == (200, b'{"a":1}')
    assert dict(response.headers) == {
        "x-amzn-RequestId": "request-1",
        "X-Amz-Function-Error": "Unhandled",
        "X-Amz-Executed-Version": "3",
        "Content-Type": "application/json",
    }


@pytest.mark.parametrize(
    ("operation", "result", "status", "body"),
    [
        ("CreateFunction", {"FunctionName": "f"}, 201, b'{"FunctionName":"f"}'),
        ("GetFunctionConcurrency", {}, 200, b"{}"),
        ("TagResource", {}, 204, b""),
        ("DeleteFunction", {"StatusCode": 204}, 204, b""),
        ("DeleteFunction", {"StatusCode": 202}, 202, b"{}"),
        ("DeleteAlias", {}, 204, b""),
        ("CreateCapacityProvider", {"CapacityProvider": {"State": None}}, 202, b'{"CapacityProvider":{}}'),
        ("InvokeWithResponseStream", {"StatusCode": 200, "EventStream": b"frames"}, 200, b"frames"),
    ],
)
def test_status_and_body_follow_the_model(operation: str, result: dict[str, object], status: int, body: bytes) -> None:
    response = LAMBDA.respond(operation, result, "r")
    assert (response.status, response.body) == (status, body)


def test_an_answer_without_output_is_empty_in_the_json_protocol() -> None:
    response = LOGS.respond("CreateLogGroup", {}, "r")
    assert (response.status, response.body) == (200, b"")


def test_a_service_that_nobody_models_and_a_protocol_we_do_not_speak_are_configuration_mistakes() -> None:
    with pytest.raises(models.UnknownService, match="lambada"):
        AwsApi.load("lambada")
    with pytest.raises(gateway.UnsupportedProtocol, match="rest-xml"):
        AwsApi.load("s3")


def test_serving_an_api_needs_neither_a_botocore_session_nor_a_client() -> None:
    program = (
        "import sys; from lambstead.wire.gateway import AwsApi; api = AwsApi.load('lambda');"
        "api.parse(api.match('GET', b'/2015-03-31/functions/f', b'', {}), {}, b'');"
        "print(sorted({'botocore.session', 'botocore.client', 'boto3'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
