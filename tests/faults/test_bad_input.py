"""Hundreds of malformed requests, made from the service model: each gets a modelled 4xx, and none leaves anything behind."""

import base64
import http.client
import io
import json
import random
import re
import socket
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape
from tests.harness import (
    OPERATOR,
    ROLE,
    Server,
    create_function,
    create_provider,
    on_provider,
    package,
    running,
    wait_active,
)

from lambstead.api.operations import LAMBDA

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
SOURCE = "def handler(event, context):\n    return 1\n"
REALM = "arn:aws:lambda:us-east-1:000000000000"
HEADERS = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=0"
}


@dataclass(frozen=True)
class Asked:
    """One request as it goes out, and what is wrong with it."""

    what: str
    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True)
class Answered:
    status: int
    error_type: str
    body: bytes


EVENT_SOURCE = {
    "Enabled": True,
    "BatchSize": 10,
    "MaximumBatchingWindowInSeconds": 1,
    "ParallelizationFactor": 2,
    "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}},
    "MaximumRecordAgeInSeconds": 60,
    "BisectBatchOnFunctionError": True,
    "MaximumRetryAttempts": 1,
    "TumblingWindowInSeconds": 1,
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "FilterCriteria": {"Filters": [{"Pattern": '{"a": ["b"]}'}]},
}


def valid_parameters(provider: str) -> dict[str, dict[str, Any]]:
    """One request per operation that would be carried out, for members that are not text in the path."""
    zipped = base64.b64encode(package(SOURCE)).decode()
    return {
        "CreateFunction": {
            "FunctionName": "new",
            "Runtime": "python3.13",
            "Handler": "app.handler",
            "Role": ROLE,
            "Code": {"ZipFile": zipped},
            "Description": "d",
            "Timeout": 3,
            "MemorySize": 2048,
            "Publish": False,
            "PackageType": "Zip",
            "Environment": {"Variables": {"A": "b"}},
            "Tags": {"k": "v"},
            "Architectures": ["x86_64"],
            "EphemeralStorage": {"Size": 512},
            "LoggingConfig": {"LogFormat": "JSON"},
            "TracingConfig": {"Mode": "PassThrough"},
            **on_provider(provider, 4),
        },
        "UpdateFunctionCode": {"ZipFile": zipped, "Publish": False, "DryRun": False, "RevisionId": "r"},
        "UpdateFunctionConfiguration": {"Timeout": 3, "MemorySize": 256, "Description": "d", "Role": ROLE},
        "PublishVersion": {"Description": "d", "CodeSha256": "x", "RevisionId": "r"},
        "CreateAlias": {"Name": "a", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}},
        "UpdateAlias": {"FunctionVersion": "1", "Description": "d"},
        "TagResource": {"Tags": {"a": "b"}},
        "CreateCapacityProvider": {
            "CapacityProviderName": "new",
            "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
            "PermissionsConfig": {"CapacityProviderOperatorRoleArn": OPERATOR},
            "InstanceRequirements": {"Architectures": ["x86_64"], "AllowedInstanceTypes": ["m7i.*"]},
            "CapacityProviderScalingConfig": {
                "MaxVCpuCount": 12,
                "ScalingMode": "Manual",
                "ScalingPolicies": [
                    {"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 50.0}
                ],
            },
        },
        "UpdateCapacityProvider": {"CapacityProviderScalingConfig": {"MaxVCpuCount": 12}},
        "PutFunctionScalingConfig": {
            "FunctionScalingConfig": {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 2}
        },
        "AddPermission": {
            "StatementId": "s",
            "Action": "lambda:InvokeFunction",
            "Principal": "s3.amazonaws.com",
            "SourceArn": "arn:aws:s3:::bucket",
            "SourceAccount": "111111111111",
            "EventSourceToken": "t",
            "PrincipalOrgID": "o-1234567890",
            "FunctionUrlAuthType": "NONE",
            "InvokedViaFunctionUrl": True,
        },
        "PutResourcePolicy": {"Policy": "{}", "RevisionId": "0a1b2c3d-0000-4000-8000-000000000000"},
        "PutFunctionConcurrency": {"ReservedConcurrentExecutions": 1},
        "PutProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": 1},
        **{
            operation: {
                "MaximumRetryAttempts": 1,
                "MaximumEventAgeInSeconds": 60,
                "DestinationConfig": {"OnSuccess": {"Destination": f"{REALM}:function:existing"}, "OnFailure": {}},
            }
            for operation in ("PutFunctionEventInvokeConfig", "UpdateFunctionEventInvokeConfig")
        },
        **{
            operation: {
                "AuthType": "NONE",
                "InvokeMode": "BUFFERED",
                "Cors": {"AllowCredentials": True, "AllowMethods": ["GET"], "AllowOrigins": ["*"], "MaxAge": 5},
            }
            for operation in ("CreateFunctionUrlConfig", "UpdateFunctionUrlConfig")
        },
        "CreateCodeSigningConfig": {
            "AllowedPublishers": {"SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/x"]},
            "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"},
            "Description": "d",
            "Tags": {"k": "v"},
        },
        "UpdateCodeSigningConfig": {
            "AllowedPublishers": {"SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/x"]},
            "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"},
            "Description": "d",
        },
        "PutFunctionCodeSigningConfig": {"CodeSigningConfigArn": f"{REALM}:code-signing-config:csc-0123456789abcdef0"},
        "PutRuntimeManagementConfig": {
            "UpdateRuntimeOn": "Manual",
            "RuntimeVersionArn": "arn:aws:lambda:us-east-1::runtime:x",
        },
        "PutFunctionRecursionConfig": {"RecursiveLoop": "Allow"},
        "PublishLayerVersion": {
            "Content": {"ZipFile": zipped},
            "Description": "d",
            "CompatibleRuntimes": ["python3.13"],
            "CompatibleArchitectures": ["x86_64"],
            "LicenseInfo": "MIT",
        },
        "AddLayerVersionPermission": {"StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": "*"},
        "CreateEventSourceMapping": {
            "FunctionName": "existing",
            "EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/s",
            "StartingPosition": "LATEST",
            **EVENT_SOURCE,
        },
        "UpdateEventSourceMapping": {"FunctionName": "existing", **EVENT_SOURCE},
    }


LABELS = {
    "FunctionName": "missing",
    "CapacityProviderName": "missing",
    "Name": "missing",
    "StatementId": "missing",
    "ResourceArn": f"{REALM}:function:missing",
    "CodeSigningConfigArn": f"{REALM}:code-signing-config:csc-0123456789abcdef0",
    "LayerName": "missing",
    "VersionNumber": "1",
    "UUID": "00000000-0000-0000-0000-000000000000",
}


def path_of(operation: str, provider: str, **labels: str) -> str:
    """The path of an operation about resources that do not exist."""
    path = MODEL.operation_model(operation).http["requestUri"]
    values = {**LABELS, "Resource": provider.replace("pool", "missing"), **labels}
    for name, value in values.items():
        path = path.replace("{" + name + "}", quote(value, safe="$"))
    shape = MODEL.operation_model(operation).input_shape
    if shape is not None and "Qualifier" in shape.required_members:
        path += "?Qualifier=1"
    return str(path)


def wrong_values(shape: Shape) -> Iterator[tuple[str, Any]]:
    """Values that the shape does not admit, each with a word for it."""
    for name, value in {"number": 7, "text": "text", "boolean": True, "list": [1], "object": {"x": 1}}.items():
        if name != {"string": "text", "integer": "number", "long": "number", "double": "number", "float": "number"}.get(
            shape.type_name, {"structure": "object", "map": "object"}.get(shape.type_name, shape.type_name)
        ) and not (shape.type_name == "blob" and name == "text"):
            yield f"a {name}", value
    limits = shape.metadata
    if shape.type_name == "string":
        if "enum" in limits:
            yield "an unknown enum value", "NoSuchValue"
        if limits.get("max", 1 << 30) < 100_000:
            yield "a text that is too long", "a" * (limits["max"] + 1)
        if limits.get("pattern") not in (None, ".*", r"[\s\S]*"):
            yield "a text outside the pattern", "\t!\u2603\t"
        yield "a lone surrogate", "\ud800"
    elif shape.type_name in ("integer", "long", "double"):
        yield "a huge number", 10**400
        if "max" in limits:
            yield "a number above the range", limits["max"] + 1
        if limits.get("min"):
            yield "a number below the range", limits["min"] - 1
    elif shape.type_name == "blob":
        yield "bad base64", "!!!"
    elif isinstance(shape, ListShape):
        for what, value in wrong_values(shape.member):
            yield f"a list of {what}", [value]
        if limits.get("max", 1 << 30) < 1000:
            yield "a list that is too long", ["x"] * (limits["max"] + 1)
    elif isinstance(shape, MapShape):
        for what, value in wrong_values(shape.value):
            yield f"a map to {what}", {"k": value}


def wrong_members(shape: StructureShape, valid: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The valid document with one thing wrong, at any depth."""
    for member in shape.required_members:
        if member in valid:
            yield f"{member} missing", {key: value for key, value in valid.items() if key != member}
    for member, value in valid.items():
        member_shape = shape.members[member]
        for what, wrong in wrong_values(member_shape):
            yield f"{member} is {what}", {**valid, member: wrong}
        if isinstance(member_shape, StructureShape):
            for what, inner in wrong_members(member_shape, value):
                yield f"{member}.{what}", {**valid, member: inner}


def from_the_model(provider: str) -> Iterator[Asked]:
    """Each built operation, with each member of its body wrong in each way."""
    valid = valid_parameters(provider)
    for operation in LAMBDA:
        model = MODEL.operation_model(operation)
        method, path = model.http["method"], path_of(operation, provider)
        shape = model.input_shape
        if operation not in valid or not isinstance(shape, StructureShape):
            continue
        for what, document in wrong_members(shape, valid[operation]):
            yield Asked(f"{operation}: {what}", method, path, json.dumps(document).encode())
        good = json.dumps(valid[operation]).encode()
        for what, body in {
            "truncated JSON": good[:-3],
            "two documents": good + good,
            "an array": b"[]",
            "a number": b"12",
            "not JSON": b"\x00\xff\xfe",
            "deep nesting": b'{"Description":' + b"[" * 50_000,
            "UTF-16": good.decode().encode("utf-16"),
        }.items():
            yield Asked(f"{operation}: {what}", method, path, body)


def from_paths(provider: str) -> Iterator[Asked]:
    """Labels and query parameters outside their patterns, unknown paths, wrong methods."""
    for operation in LAMBDA:
        model = MODEL.operation_model(operation)
        for label in ("Resource", *LABELS):
            if "{" + label + "}" in model.http["requestUri"]:
                for wrong in ("%20", "a%00b", "%FF%FE", "x" * 400, "!", "..", "arn:aws:s3:::bucket", "%"):
                    path = str(model.http["requestUri"]).replace("{" + label + "}", wrong)
                    for name, value in LABELS.items():
                        path = path.replace("{" + name + "}", quote(value, safe="$"))
                    yield Asked(f"{operation}: {label} is {wrong[:20]!r}", model.http["method"], path, b"{}")
        yield Asked(f"{operation}: wrong method", "PATCH", path_of(operation, provider), b"{}")
    for path in (
        "/2015-03-31/functions?MaxItems=0",
        "/2015-03-31/functions?MaxItems=x",
        "/2015-03-31/functions?Marker=zzz",
    ):
        yield Asked(path, "GET", path)
    for path in ("/nowhere", "/2015-03-31", "//", "/2015-03-31/functions/f/unknown", "/%2e%2e/etc/passwd"):
        yield Asked(f"unknown path {path}", "GET", path)
    marker = base64.urlsafe_b64encode(json.dumps(["x", 10**30]).encode()).decode()
    yield Asked("a marker out of range", "GET", f"/2015-03-31/functions?FunctionVersion=ALL&Marker={marker}")


def bad_packages() -> Iterator[tuple[str, bytes]]:
    """Uploads that are no good zips."""

    def zipped(name: str, data: bytes = b"x", mode: int = 0) -> bytes:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(entry, data)
        return archive.getvalue()

    yield "no zip", b"this is no zip"
    yield "an empty zip file", b""
    yield "a truncated zip", package(SOURCE)[:-20]
    yield "a damaged zip", package(SOURCE * 50).replace(b"def", b"xxx", 1)
    yield "path traversal", zipped("../../escaped.py")
    yield "an absolute path", zipped("/escaped.py")
    yield "a windows path", zipped("..\\escaped.py")
    yield "a link out of the package", zipped("link", b"/etc", stat.S_IFLNK | 0o777)
    yield "a bomb", zipped("zeros", bytes(262_144_001))


def carry_out(server: Server, asked: Asked) -> Answered:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    try:
        connection.putrequest(asked.method, asked.path, skip_accept_encoding=True)
        for name, value in {**HEADERS, "Content-Length": str(len(asked.body))}.items():
            connection.putheader(name, value)
        connection.endheaders(asked.body)
        response = connection.getresponse()
        return Answered(response.status, response.headers.get("x-amzn-errortype", ""), response.read())
    finally:
        connection.close()


def check(asked: Asked, answered: Answered) -> None:
    assert 400 <= answered.status < 500, (asked.what, answered)
    assert answered.error_type.endswith("Exception"), (asked.what, answered)
    document = json.loads(answered.body)
    assert document.get("message") or document.get("Message"), (asked.what, answered)


@pytest.fixture(scope="module")
def quiet(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has one provider and one function, and should have nothing else afterwards."""
    with running(tmp_path_factory.mktemp("bad") / "data") as server:
        create_provider(server.aws)
        create_function(server.aws, "existing", SOURCE)
        wait_active(server.aws, "existing", "$LATEST")
        yield server


def everything(server: Server, aws: "LambdaClient") -> object:
    return (
        [f["FunctionName"] for f in aws.list_functions(FunctionVersion="ALL")["Functions"]],
        aws.get_function(FunctionName="existing")["Configuration"],
        aws.list_aliases(FunctionName="existing")["Aliases"],
        [p["CapacityProviderArn"] for p in aws.list_capacity_providers()["CapacityProviders"]],
        aws.list_code_signing_configs()["CodeSigningConfigs"],
        aws.list_layers()["Layers"],
        aws.list_event_source_mappings()["EventSourceMappings"],
        server.status()["events"],
        aws.get_account_settings()["AccountLimit"],
        aws.list_function_url_configs(FunctionName="existing")["FunctionUrlConfigs"],
        aws.list_function_event_invoke_configs(FunctionName="existing")["FunctionEventInvokeConfigs"],
        aws.get_function_recursion_config(FunctionName="existing")["RecursiveLoop"],
        sorted(path.name for path in (server.data / "packages").iterdir()),
    )


def test_malformed_requests_get_a_modelled_4xx_and_leave_nothing(quiet: Server) -> None:
    provider = quiet.aws.list_capacity_providers()["CapacityProviders"][0]["CapacityProviderArn"]
    before = everything(quiet, quiet.aws)
    requests = [*from_the_model(provider), *from_paths(provider)]
    assert len(requests) > 500
    for asked in requests:
        check(asked, carry_out(quiet, asked))
    assert everything(quiet, quiet.aws) == before


def test_bad_packages_are_refused_and_leave_nothing(quiet: Server) -> None:
    before = everything(quiet, quiet.aws)
    for what, archive in bad_packages():
        encoded = base64.b64encode(archive).decode()
        create = {
            "FunctionName": "new",
            "Runtime": "python3.13",
            "Handler": "a.b",
            "Role": ROLE,
            "Code": {"ZipFile": encoded},
        }
        for asked in (
            Asked(f"create with {what}", "POST", "/2015-03-31/functions", json.dumps(create).encode()),
            Asked(
                f"update with {what}",
                "PUT",
                "/2015-03-31/functions/existing/code",
                json.dumps({"ZipFile": encoded}).encode(),
            ),
        ):
            check(asked, carry_out(quiet, asked))
    assert everything(quiet, quiet.aws) == before
    assert not list(quiet.data.rglob("escaped.py"))


def test_oversize_requests_are_refused_before_they_are_read(quiet: Server) -> None:
    for path, limit in (
        ("/2015-03-31/functions", 70_167_211),
        ("/2015-03-31/functions/existing/invocations", 6_291_556),
    ):
        address = urlsplit(quiet.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {limit + 10_000_000}\r\n\r\n"
            connection.sendall(head.encode())
            answer = b""
            while b"\r\n\r\n{" not in answer:
                answer += connection.recv(65536)
        assert b" 413 " in answer.split(b"\r\n")[0], answer
        assert b"must be smaller than" in answer


def test_requests_that_break_off_and_bytes_that_are_no_http_harm_nobody(quiet: Server) -> None:
    address = urlsplit(quiet.url)
    noise = random.Random(7)
    before = everything(quiet, quiet.aws)
    whole = json.dumps({"FunctionName": "cut", "Runtime": "python3.13"}).encode()
    starts = [
        b"POST /2015-03-31/functions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + whole,
        b"POST /2015-03-31/functions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"GET /2015-03-31/func",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /2015-03-31/functions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /2015-03-31/functions HTTP/1.1\r\nContent-Length: 10\r\nContent-Length: 11\r\n\r\n0123456789",
        *(bytes(noise.randrange(256) for _ in range(200)) for _ in range(50)),
    ]
    for start in starts:
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            connection.sendall(start)
    assert everything(quiet, quiet.aws) == before


def test_operations_that_are_not_built_say_so_by_name(quiet: Server) -> None:
    for operation in sorted(set(MODEL.operation_names) - set(LAMBDA)):
        with pytest.raises(quiet.aws.exceptions.ServiceException) as caught:
            _call_minimal(quiet.aws, operation)
        assert operation in caught.value.response["Error"]["Message"]


def _call_minimal(aws: "LambdaClient", operation: str) -> None:
    """Call an operation with the least that its model asks for."""
    method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
    shape = MODEL.operation_model(operation).input_shape
    parameters = {name: _least(shape.members[name]) for name in shape.required_members} if shape else {}
    getattr(aws, method)(**parameters)


def _least(shape: Shape) -> Any:
    if isinstance(shape, StructureShape):
        return {name: _least(shape.members[name]) for name in shape.required_members}
    if isinstance(shape, ListShape):
        return [_least(shape.member)] * max(1, shape.metadata.get("min", 1))
    if isinstance(shape, MapShape):
        return {}
    if "enum" in shape.metadata:
        return shape.metadata["enum"][0]
    examples = {
        "integer": max(1, shape.metadata.get("min", 1)),
        "long": 1,
        "double": 1.0,
        "boolean": False,
        "blob": b"x",
        "timestamp": 0,
    }
    return examples.get(shape.type_name) or _matching(shape)


def _matching(shape: Shape) -> str:
    """A text of the shape's pattern, out of a few that cover the patterns of the model."""

    arn = "arn:aws:lambda:us-east-1:000000000000"
    candidates = [
        *(["0a1b2c3d-0000-4000-8000-000000000000"] if shape.name == "UUIDString" else []),
        "existing",
        "1",
        f"{arn}:function:existing",
        f"{arn}:function:existing:1/durable-execution/name/id",
        f"{arn}:code-signing-config:csc-0123456789abcdef0",
        f"{arn}:layer:layer:1",
        "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/abcdefghij",
        "lambda:InvokeFunction",
        "lambda:GetLayerVersion",
        "000000000000",
        "0123456789abcdef",
        "a" * 40,
    ]
    for candidate in candidates:
        if re.fullmatch(shape.metadata.get("pattern", ".*"), candidate) and len(candidate) >= shape.metadata.get(
            "min", 0
        ):
            return candidate
    raise AssertionError(f"no example for {shape.name}: {shape.metadata}")
