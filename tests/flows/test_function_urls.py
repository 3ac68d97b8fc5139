"""Function URLs over HTTP: the event a function gets, what its answer becomes, who may, CORS, and streams."""

import base64
import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from tests.harness import (
    FUNCTIONS,
    Server,
    archive,
    create_function,
    create_provider,
    publish_managed,
    running,
    wait_active,
    with_runtime,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

ECHO = """
import json
def handler(event, context):
    if (event.get("queryStringParameters") or {}).get("do") == "return":
        return json.loads(event["body"])
    if (event.get("queryStringParameters") or {}).get("do") == "fail":
        raise RuntimeError("no")
    return event
"""
ANSWER = "/?do=return"
NODE = archive({"index.mjs": (FUNCTIONS / "http.mjs").read_text()})
FORBIDDEN = {
    "Message": "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
}


@dataclass(frozen=True)
class Reply:
    """One HTTP response, read to its end."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def connect(
    url: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Send a request. The host is not resolved: not every resolver knows that names below localhost are this machine."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": parts.netloc, **(headers or {})}.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        with connection.getresponse() as response:
            yield response


def ask(url: str, method: str = "GET", path: str = "/", body: bytes | None = None, **headers: str) -> Reply:
    with connect(
        url, method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
    ) as response:
        return Reply(response.status, response.getheaders(), response.read())


def returns(url: str, answer: Any) -> Reply:
    """What a caller gets when the function returns this."""
    return ask(url, "POST", ANSWER, json.dumps(answer).encode(), Content_Type="application/json")


def allow(aws: "LambdaClient", name: str, qualifier: str | None = None, sid: str = "url") -> None:
    where = {"Qualifier": qualifier} if qualifier else {}
    aws.add_permission(
        FunctionName=name,
        StatementId=sid,
        Action="lambda:InvokeFunctionUrl",
        Principal="*",
        FunctionUrlAuthType="NONE",
        **where,  # type: ignore[arg-type]
    )


def with_url(aws: "LambdaClient", name: str, source: str = ECHO, auth: str = "NONE", **members: Any) -> str:
    """A function that anybody may reach by the URL."""
    create_function(aws, name, source)
    wait_active(aws, name, "$LATEST")
    if auth == "NONE":
        allow(aws, name)
    return aws.create_function_url_config(FunctionName=name, AuthType=auth, **members)["FunctionUrl"]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def url(aws: "LambdaClient") -> str:
    return with_url(aws, "echo")


@pytest.fixture(scope="module")
def node(aws: "LambdaClient") -> str:
    create_function(
        aws, "node", "", Runtime=with_runtime("nodejs22.x"), Handler="index.handler", Code={"ZipFile": NODE}, Timeout=20
    )
    wait_active(aws, "node", "$LATEST")
    allow(aws, "node")
    made = aws.create_function_url_config(FunctionName="node", AuthType="NONE", InvokeMode="RESPONSE_STREAM")
    return made["FunctionUrl"]


# --- the event ---------------------------------------------------------------------------------------------------------------


def test_the_event_of_a_request(aws: "LambdaClient", url: str) -> None:
    reply = ask(
        url,
        "PUT",
        "//a%20path/x%2Fy?q=1&many=a&many=%2Fb&empty=",
        b'{"a": "\xc3\xa9"}',
        Content_Type="application/json; charset=utf-8",
        Cookie="one=1; two=2",
        User_Agent="tester",
        X_Mixed="Value",
    )
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    event = reply.document
    context = event.pop("requestContext")
    host = urlsplit(url).netloc
    assert event == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/a%20path/x%2Fy",
        "rawQueryString": "q=1&many=a&many=%2Fb&empty=",
        "cookies": ["one=1", "two=2"],
        "headers": {
            "host": host,
            "content-type": "application/json; charset=utf-8",
            "content-length": "11",
            "user-agent": "tester",
            "x-mixed": "Value",
            "x-amzn-trace-id": event["headers"]["x-amzn-trace-id"],
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-port": host.partition(":")[2],
            "x-forwarded-proto": "http",
        },
        "queryStringParameters": {"q": "1", "many": "a,/b", "empty": ""},
        "body": '{"a": "é"}',
        "isBase64Encoded": False,
    }
    assert event["headers"]["x-amzn-trace-id"].startswith("Root=1-")
    assert context.pop("http") == {
        "method": "PUT",
        "path": "/a path/x/y",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "tester",
    }
    assert context.pop("requestId") == reply.header("x-amzn-requestid")
    assert context.pop("timeEpoch") > 1_700_000_000_000
    assert context.pop("time").endswith(" +0000")
    url_id = host.partition(".")[0]
    assert context == {
        "accountId": "anonymous",
        "apiId": url_id,
        "domainName": host,
        "domainPrefix": url_id,
        "routeKey": "$default",
        "stage": "$default",
    }


def test_a_request_without_body_query_and_cookies_has_no_such_members(url: str) -> None:
    event = ask(url).document
    assert not {"body", "cookies", "queryStringParameters"} & set(event)
    assert (event["isBase64Encoded"], event["rawPath"], event["rawQueryString"]) == (False, "/", "")


@pytest.mark.parametrize(
    ("kind", "body", "is_base64"),
    [
        ("text/plain", b"text", False),
        ("application/xml", b"<a/>", False),
        ("application/problem+json", b"{}", False),
        ("application/x-www-form-urlencoded", b"a=1", True),
        ("multipart/form-data; boundary=x", b"--x--", True),
        ("application/octet-stream", b"\x00\xff", True),
        ("text/plain", b"\xff\xfe", True),
    ],
)
def test_text_comes_as_it_is_and_all_else_as_base64(url: str, kind: str, body: bytes, *, is_base64: bool) -> None:
    event = ask(url, "POST", "/", body, Content_Type=kind).document
    assert event["isBase64Encoded"] is is_base64
    assert event["body"].encode() == (base64.b64encode(body) if is_base64 else body)


def test_a_url_may_have_the_path_of_an_invoke(url: str) -> None:
    reply = ask(url, "POST", "/2015-03-31/functions/missing/invocations", b"{}", Content_Type="application/json")
    assert reply.document["rawPath"] == "/2015-03-31/functions/missing/invocations"


def test_the_same_url_below_a_path(server: Server, url: str) -> None:
    url_id = urlsplit(url).netloc.partition(".")[0]
    below = f"/_lambstead/function-urls/{url_id}"
    for path, seen in ((f"{below}/a%2Fb?x=1", "/a%2Fb"), (below, "/"), (f"{below}/", "/")):
        event = ask(server.url, "GET", path).document
        assert event["rawPath"] == seen
        assert event["requestContext"]["domainName"] == urlsplit(url).netloc


# --- answers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ({"hello": "wörld"}, '{"hello":"wörld"}'),
        (["hello", 3, True, None], '["hello",3,true,null]'),
        ("plain", "plain"),
        (3.1, "3.1"),
        (None, "null"),
        ({"body": "no status"}, '{"body":"no status"}'),
    ],
)
def test_what_has_no_status_code_is_the_body(url: str, result: Any, body: str) -> None:
    reply = returns(url, result)
    assert (reply.status, reply.header("content-type"), reply.body.decode()) == (200, "application/json", body)


def test_a_whole_answer(url: str) -> None:
    reply = returns(
        url,
        {
            "statusCode": "418",
            "headers": {
                "Content-Type": "text/html",
                "X-Number": 7,
                "X-Flag": True,
                "Content-Length": "9999",
                "Date": "never",
            },
            "cookies": ["a=1; Secure", "b=2"],
            "body": base64.b64encode(b"\x00\xff").decode(),
            "isBase64Encoded": True,
        },
    )
    assert (reply.status, reply.body, reply.header("content-type")) == (418, b"\x00\xff", "text/html")
    assert [value for name, value in reply.headers if name.lower() == "set-cookie"] == ["a=1; Secure", "b=2"]
    assert (reply.header("x-number"), reply.header("x-flag"), reply.header("content-length")) == ("7", "true", "2")
    # What belongs to the connection is shown under another name.
    assert reply.header("x-amzn-remapped-content-length") == "9999"
    assert reply.header("x-amzn-remapped-date") == "never"


def test_an_answer_of_a_document(url: str) -> None:
    reply = returns(url, {"statusCode": 200, "body": {"a": [1, 2]}})
    assert (reply.status, reply.body) == (200, b'{"a":[1,2]}')


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body(url: str, status: int) -> None:
    reply = returns(url, {"statusCode": status})
    assert (reply.status, reply.body) == (status, b"")


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": 101},
        {"statusCode": True},
        {"statusCode": None},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "headers": {"X": {}}},
        {"statusCode": 200, "headers": {"X": "a\r\nSet-Cookie: b"}},
        {"statusCode": 200, "headers": {"bad name": "a"}},
        {"statusCode": 200, "cookies": "a=1"},
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
    ],
    ids=str,
)
def test_an_answer_that_is_none(url: str, result: Any) -> None:
    reply = returns(url, result)
    assert (reply.status, reply.body) == (502, b"Internal Server Error")
    assert reply.header("set-cookie") is None


def test_an_error_of_the_function(url: str) -> None:
    reply = ask(url, "GET", "/?do=fail")
    assert (reply.status, reply.body, reply.header("content-type")) == (
        502,
        b"Internal Server Error",
        "application/json",
    )


def test_a_request_that_is_too_large(url: str) -> None:
    reply = ask(url, "POST", "/", b"x" * (6 * 1024 * 1024 + 200_000), Content_Type="text/plain")
    assert (reply.status, reply.header("x-amzn-errortype")) == (413, "RequestEntityTooLargeException")
    # It fits before it is base64, and not after.
    reply = ask(url, "POST", "/", b"x" * (5 * 1024 * 1024), Content_Type="image/png")
    assert reply.status == 413


def test_reserved_concurrency_of_zero_throttles(aws: "LambdaClient") -> None:
    url = with_url(aws, "throttled")
    aws.put_function_concurrency(FunctionName="throttled", ReservedConcurrentExecutions=0)
    reply = ask(url)
    assert (reply.status, reply.header("x-amzn-errortype")) == (429, "TooManyRequestsException")


# --- which function ----------------------------------------------------------------------------------------------------------


def test_an_unknown_url(url: str) -> None:
    unknown = url.replace(urlsplit(url).netloc.partition(".")[0], "0" * 32)
    reply = ask(unknown)
    assert (reply.status, reply.body, reply.header("content-type")) == (403, b'{"Message":null}', "application/json")
    assert reply.header("x-amzn-errortype") == "AccessDeniedException"


def test_an_alias_has_a_url_and_a_permission_of_its_own(aws: "LambdaClient") -> None:
    source = "def handler(event, context):\n    return [context.function_version, context.invoked_function_arn]\n"
    with_url(aws, "aliased", source)
    version = aws.publish_version(FunctionName="aliased")["Version"]
    wait_active(aws, "aliased", version)
    aws.create_alias(FunctionName="aliased", Name="live", FunctionVersion=version)
    url = aws.create_function_url_config(FunctionName="aliased", Qualifier="live", AuthType="NONE")["FunctionUrl"]
    assert ask(url).status == 403  # the permission is the function's, not the alias's
    allow(aws, "aliased", "live")
    version_seen, arn = ask(url).document
    assert (version_seen, arn.rpartition(":")[2]) == (version, "live")
    aws.delete_alias(FunctionName="aliased", Name="live")
    assert ask(url).status == 403


def test_changes_are_seen_at_once(aws: "LambdaClient") -> None:
    url = with_url(aws, "changing")
    assert ask(url).status == 200
    aws.remove_permission(FunctionName="changing", StatementId="url")
    assert (ask(url).status, ask(url).document) == (403, FORBIDDEN)
    allow(aws, "changing")
    assert ask(url).status == 200
    aws.update_function_url_config(FunctionName="changing", AuthType="AWS_IAM")
    assert ask(url).status == 403
    aws.delete_function_url_config(FunctionName="changing")
    assert ask(url).document == {"Message": None}


def test_a_managed_function(aws: "LambdaClient") -> None:
    publish_managed(aws, "managed", ECHO, create_provider(aws), slots=1)
    allow(aws, "managed")
    url = aws.create_function_url_config(FunctionName="managed", AuthType="NONE")["FunctionUrl"]
    assert ask(url, "GET", "/managed").document["rawPath"] == "/managed"


# --- who may -----------------------------------------------------------------------------------------------------------------


def test_nobody_may_without_a_permission(aws: "LambdaClient") -> None:
    create_function(aws, "private", ECHO)
    wait_active(aws, "private", "$LATEST")
    url = aws.create_function_url_config(FunctionName="private", AuthType="NONE")["FunctionUrl"]
    reply = ask(url)
    assert (reply.status, reply.document) == (403, FORBIDDEN)
    assert reply.header("x-amzn-errortype") == "AccessDeniedException"
    # A permission for the other kind of URL, and one for somebody in particular, are none for anybody.
    grant = {"FunctionName": "private", "Action": "lambda:InvokeFunctionUrl"}
    aws.add_permission(**grant, StatementId="iam", Principal="*", FunctionUrlAuthType="AWS_IAM")  # type: ignore[arg-type]
    aws.add_permission(**grant, StatementId="one", Principal="123456789012", FunctionUrlAuthType="NONE")  # type: ignore[arg-type]
    assert ask(url).status == 403
    allow(aws, "private")
    assert ask(url).status == 200


def signed(url: str, path: str, service: str = "lambda") -> dict[str, str]:
    request = botocore.awsrequest.AWSRequest("GET", f"{url.rstrip('/')}{path}")
    credentials = botocore.credentials.Credentials("AKIDEXAMPLE", "secret")
    botocore.auth.SigV4Auth(credentials, service, "us-east-1").add_auth(request)
    return {name.replace("-", "_"): value for name, value in request.headers.items()}


def test_a_url_for_the_account_wants_a_signature(aws: "LambdaClient") -> None:
    url = with_url(aws, "signed", auth="AWS_IAM")
    assert (ask(url).status, ask(url).document) == (403, FORBIDDEN)
    assert ask(url, "GET", "/", Authorization="Basic abc").status == 403
    assert ask(url, "GET", "/", None, **signed(url, "/", service="s3")).status == 403
    event = ask(url, "GET", "/", None, **signed(url, "/")).document
    iam = event["requestContext"]["authorizer"]["iam"]
    assert (iam["accessKey"], iam["accountId"], iam["userArn"]) == (
        "AKIDEXAMPLE",
        "000000000000",
        "arn:aws:iam::000000000000:root",
    )
    assert event["requestContext"]["accountId"] == "000000000000"
    by_query = (
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261121%2Fus-east-1%2Flambda%2Faws4_request"
        f"&X-Amz-Date=20261121T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}"
    )
    assert ask(url, "GET", f"/{by_query}").status == 200


def test_the_policy_can_deny(aws: "LambdaClient") -> None:
    url = with_url(aws, "denied")
    arn = aws.get_function_configuration(FunctionName="denied")["FunctionArn"]
    deny = {"Sid": "no", "Effect": "Deny", "Principal": "*", "Action": "lambda:Invoke*", "Resource": arn}
    allow_all = {**deny, "Sid": "yes", "Effect": "Allow"}
    aws.put_resource_policy(ResourceArn=arn, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow_all]}))
    assert ask(url).status == 200
    aws.put_resource_policy(
        ResourceArn=arn, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow_all, deny]})
    )
    assert ask(url).status == 403


@pytest.fixture
def strict(runtimes: Path, tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data", url_permissions="both") as server:
        yield server


def test_both_permissions_where_the_profile_asks_for_them(strict: Server) -> None:
    aws = strict.aws
    url = with_url(aws, "both")
    assert ask(url).status == 403
    aws.add_permission(
        FunctionName="both",
        StatementId="invoke",
        Action="lambda:InvokeFunction",
        Principal="*",
        InvokedViaFunctionUrl=True,
    )
    assert ask(url).status == 200


# --- cross-origin requests ---------------------------------------------------------------------------------------------------


def preflight(url: str, origin: str, method: str) -> Mapping[str, str]:
    reply = ask(url, "OPTIONS", "/", Origin=origin, Access_Control_Request_Method=method)
    assert (reply.status, reply.body) == (200, b"")
    return {n.lower(): v for n, v in reply.headers if n.lower().startswith("access-control-")}


def test_cross_origin_requests_are_answered_by_the_configuration(aws: "LambdaClient") -> None:
    cors: Any = {
        "AllowOrigins": ["https://app.example"],
        "AllowMethods": ["GET", "POST"],
        "AllowHeaders": ["x-own"],
        "ExposeHeaders": ["x-shown"],
        "AllowCredentials": True,
        "MaxAge": 60,
    }
    url = with_url(aws, "cors", Cors=cors)
    assert preflight(url, "https://app.example", "POST") == {
        "access-control-allow-origin": "https://app.example",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "x-own",
        "access-control-max-age": "60",
    }
    assert preflight(url, "https://other.example", "POST") == {}
    assert preflight(url, "https://app.example", "DELETE") == {}
    own = json.dumps({"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*"}, "body": "b"}).encode()
    reply = ask(url, "POST", ANSWER, own, Content_Type="application/json", Origin="https://app.example")
    assert [value for name, value in reply.headers if name.lower() == "access-control-allow-origin"] == [
        "https://app.example"
    ]
    assert (reply.header("access-control-expose-headers"), reply.header("vary")) == ("x-shown", "Origin")
    assert ask(url, "GET", "/", Origin="https://other.example").header("access-control-allow-origin") is None
    # A refusal must be readable by the page that asked, too.
    aws.remove_permission(FunctionName="cors", StatementId="url")
    refused = ask(url, "GET", "/", Origin="https://app.example")
    assert (refused.status, refused.header("access-control-allow-origin")) == (403, "https://app.example")


def test_any_origin(aws: "LambdaClient") -> None:
    url = with_url(aws, "anywhere", Cors={"AllowOrigins": ["*"], "AllowMethods": ["*"]})
    assert preflight(url, "https://x.example", "PATCH") == {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "*",
    }


def test_without_cors_the_function_answers_preflights(url: str) -> None:
    event = ask(url, "OPTIONS", "/", Origin="https://x.example", Access_Control_Request_Method="GET").document
    assert event["requestContext"]["http"]["method"] == "OPTIONS"


# --- streams -----------------------------------------------------------------------------------------------------------------


def test_a_stream_begins_with_its_prelude_and_flows(node: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with connect(node, "GET", f"/some/path?do=http&file={quote(str(gate))}") as response:
        assert response.status == 201
        assert (response.getheader("content-type"), response.getheader("x-test")) == ("text/plain", "yes")
        assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
        assert response.read1() == b"first|"  # while the function waits
        gate.touch()
        assert response.read() == b"/some/path"


def test_a_stream_without_a_prelude(node: str) -> None:
    reply = ask(node)
    assert (reply.status, reply.header("content-type"), reply.body) == (200, "text/csv", b"a,b\n")


def test_a_stream_that_breaks_off_is_no_whole_answer(node: str) -> None:
    with connect(node, "GET", "/?do=break") as response:
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead):
            response.read()


@pytest.mark.parametrize("what", ["early", "nonsense"])
def test_a_stream_that_never_became_an_answer(node: str, what: str) -> None:
    reply = ask(node, "GET", f"/?do={what}")
    assert (reply.status, reply.body) == (502, b"Internal Server Error")


def test_a_function_that_streams_behind_a_url_that_does_not(aws: "LambdaClient", node: str) -> None:
    aws.update_function_url_config(FunctionName="node", InvokeMode="BUFFERED")
    try:
        reply = ask(node, "GET", "/x?do=http")
        assert (reply.status, reply.header("x-test"), reply.body) == (201, "yes", b"first|/x")
    finally:
        aws.update_function_url_config(FunctionName="node", InvokeMode="RESPONSE_STREAM")


def test_a_function_that_does_not_stream_behind_a_url_that_does(aws: "LambdaClient") -> None:
    url = with_url(aws, "whole", InvokeMode="RESPONSE_STREAM")
    # Recorded: the result is not interpreted.
    reply = returns(url, {"statusCode": 418, "body": "b"})
    assert (reply.status, reply.document) == (200, {"statusCode": 418, "body": "b"})
    assert ask(url, "GET", "/?do=fail").status == 502
