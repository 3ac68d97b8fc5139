"""A plain Invoke is answered on a way of its own: whatever it carries, its answer is the same as on the ordinary way, byte for byte.

`X-Amz-Log-Type: None` says nothing and takes a request the ordinary way. What cannot be alike (request ids, dates, trace ids) is replaced before
the comparison; nothing else is.
"""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.durable import create_durable
from tests.harness import Server, create_function, create_provider, publish_managed, running, wait_active
from tests.raw_client import RawClient

SOURCE = """
def handler(event, context):
    cc = context.client_context
    return {
        "event": event, "tenant": context.tenant_id,
        "client": cc and {"custom": cc.custom, "env": cc.env, "title": cc.client and cc.client.app_title},
    }
"""
DURABLE = """
from aws_durable_execution_sdk_python import durable_execution

@durable_execution
def handler(event, context):
    return {"event": event, "tenant": context.lambda_context.tenant_id}
"""
FUNCTIONS = ("managed", "standard", "per-tenant", "durable", "nobody")


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


WHOLE = encoded(json.dumps({"client": {"app_title": "ångström ☃"}, "custom": {"k": "v"}, "env": {"e": "f"}}))
CARRIED: dict[str, dict[str, str]] = {
    "nothing": {},
    "a context": {"X-Amz-Client-Context": WHOLE},
    "a context in letters of Unicode": {
        "X-Amz-Client-Context": encoded(json.dumps({"custom": {"☃": "å\n"}}, ensure_ascii=False))
    },
    "a context with lines": {"X-Amz-Client-Context": encoded('{\n  "custom": {"k": "v"}\r\n}')},
    "a context of the largest size": {"X-Amz-Client-Context": encoded('{"custom": {"k": "' + "x" * 2666 + '"}}')},
    "a context that is too large": {"X-Amz-Client-Context": encoded('{"custom": {"k": "' + "x" * 2670 + '"}}')},
    "a context that is empty": {"X-Amz-Client-Context": ""},
    "a context that is no Base64": {"X-Amz-Client-Context": "{}"},
    "a context that is no JSON": {"X-Amz-Client-Context": encoded("{")},
    "a context that is no object": {"X-Amz-Client-Context": encoded("[1]")},
    "a context that is no UTF-8": {"X-Amz-Client-Context": encoded(b'{"k": "\xff"}')},
    "a tenant": {"X-Amz-Tenant-Id": "blue"},
    "a tenant with signs": {"X-Amz-Tenant-Id": "blue/green: 1@x+y=z_.-"},
    "a tenant of the longest name": {"X-Amz-Tenant-Id": "t" * 256},
    "a tenant with too long a name": {"X-Amz-Tenant-Id": "t" * 257},
    "a tenant without a name": {"X-Amz-Tenant-Id": ""},
    "a tenant with a name that is not allowed": {"X-Amz-Tenant-Id": "blue;green"},
    "a tenant in letters that are not allowed": {"X-Amz-Tenant-Id": "blå"},
    "both": {"X-Amz-Tenant-Id": "blue", "X-Amz-Client-Context": WHOLE},
    "both, the context wrong": {"X-Amz-Tenant-Id": "blue", "X-Amz-Client-Context": "?"},
    "a trace and both": {
        "X-Amz-Tenant-Id": "blue",
        "X-Amz-Client-Context": WHOLE,
        "X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    },
}
BODIES = {"an event": b'{"a": "\xe2\x98\x83"}', "no JSON": b"{", "nothing": b""}
ORDINARY = {"X-Amz-Log-Type": "None"}


@pytest.fixture(scope="module", params=["one process", "a gateway process"])
def server(
    request: pytest.FixtureRequest, runtimes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    flags = ["--gateways", "1"] if request.param == "a gateway process" else []
    with running(tmp_path_factory.mktemp("ways") / "data", *flags) as server:
        aws = server.aws
        publish_managed(aws, "managed", SOURCE, create_provider(aws))
        create_function(aws, "standard", SOURCE)
        create_function(aws, "per-tenant", SOURCE, TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
        create_durable(aws, "durable", DURABLE)
        for name in ("standard", "per-tenant"):
            wait_active(aws, name, "$LATEST")
        yield server


def post(client: RawClient, name: str, headers: dict[str, str], body: bytes, query: bytes = b"") -> object:
    """Status, headers and body, comparable."""
    path = f"/2015-03-31/functions/{name}/invocations".encode()
    answer = client.send("POST", path, query, headers, body)
    kept = {(name.lower(), value) for name, value in answer.headers if name.lower() not in ("date", "x-amzn-requestid")}
    uuid = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    return answer.status, sorted(kept), re.sub(uuid, b"<uuid>", answer.body)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_both_ways_give_the_same_answer(server: Server, function: str) -> None:
    with RawClient(server.url) as client:
        for what, headers in CARRIED.items():
            for event, body in BODIES.items() if len(headers) == 1 else [("an event", BODIES["an event"])]:
                short = post(client, function, headers, body)
                assert short == post(client, function, headers | ORDINARY, body), (what, event)


def test_what_is_carried_arrives(server: Server) -> None:
    with RawClient(server.url) as client:
        path = b"/2015-03-31/functions/per-tenant/invocations"
        answer = client.send("POST", path, b"", CARRIED["both"], b"1")
        assert json.loads(answer.body) == {
            "event": 1,
            "tenant": "blue",
            "client": {"custom": {"k": "v"}, "env": {"e": "f"}, "title": "ångström ☃"},
        }


def test_a_durable_function_keeps_what_its_start_asked_for(server: Server) -> None:
    """It turns out to be durable on the short way: nothing that came with the request may be lost."""
    path = b"/2015-03-31/functions/durable/invocations"
    with RawClient(server.url) as client:
        for header in ("X-Lambstead-Time-Skip", "X-Lambstead-Attributes"):
            refused = client.send("POST", path, b"Qualifier=$LATEST", {header: "perhaps"}, b"1")
            assert refused.status == 400, header
            assert header.lower().encode() in refused.body
