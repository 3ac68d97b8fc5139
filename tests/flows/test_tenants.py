"""Functions that isolate tenants: one tenant's environments never run another's invocations, whatever door these come through."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.durable import create_durable, event_of, finished, start_execution
from tests.harness import Server, create_function, invoke, running, wait_active, wait_for

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

PER_TENANT = {"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}}
MISSING = (
    "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."
)
NEEDLESS = "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try again."
MEMORY = """
import os, pathlib, tempfile, time

seen = []

def handler(event, context):
    seen.append(context.tenant_id)
    left = pathlib.Path(tempfile.gettempdir()) / "left"
    found = left.read_text().split() if left.exists() else []
    left.write_text(" ".join([*found, context.tenant_id]))
    if event and "folder" in event:
        folder = pathlib.Path(event["folder"])
        (folder / f"{context.tenant_id}-{os.getpid()}").touch()
        while not (folder / "open").exists():
            time.sleep(0.005)
    return {"tenant": context.tenant_id, "seen": seen, "left": found, "pid": os.getpid()}
"""
RECORDER = """
import json, pathlib

def handler(event, context):
    (pathlib.Path(event["folder"]) / context.aws_request_id).write_text(json.dumps([context.tenant_id, event]))
"""
ECHO_TENANT = """
def handler(event, context):
    return {"tenant": context.tenant_id, "event": event}
"""
ECHO_TENANT_DURABLY = """
from aws_durable_execution_sdk_python import durable_execution

@durable_execution
def handler(event, context):
    return {"tenant": context.lambda_context.tenant_id, "event": event}
"""
CHAINING = """
from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import InvokeConfig

@durable_execution
def handler(event, context):
    config = InvokeConfig(tenant_id=event.get("tenant"))
    return context.invoke(event["function"], "ping", name="chained", config=config)
"""


def deploy(aws: "LambdaClient", name: str, source: str, **members: Any) -> None:
    create_function(aws, name, source, **PER_TENANT, **members)
    wait_active(aws, name, "$LATEST")


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def test_a_tenant_finds_its_own_globals_and_files_again_and_nobody_elses(aws: "LambdaClient") -> None:
    deploy(aws, "memory", MEMORY)
    for turn in range(3):
        for tenant in ("blue", "green", "blue/green: 1@x"):
            answer = invoke(aws, "memory", TenantId=tenant).payload
            assert answer["tenant"] == tenant
            assert answer["seen"] == [tenant] * (turn + 1)
            assert answer["left"] == [*tenant.split()] * turn


def test_a_tenant_at_once_gets_environments_of_its_own_and_waits_for_no_other(
    server: Server, aws: "LambdaClient", tmp_path: Path
) -> None:
    deploy(aws, "at-once", MEMORY, Timeout=60)
    tenants = ["blue", "green", "blue", "green", "red"]
    event = {"folder": str(tmp_path)}
    calls = [server.clients.submit(invoke, aws, "at-once", event, TenantId=tenant) for tenant in tenants]
    wait_for(lambda: len(list(tmp_path.iterdir())) == len(tenants), "all of them run at once")
    of_function = server.environments("at-once")
    assert sorted(each["tenant"] for each in of_function) == sorted(tenants)
    (tmp_path / "open").touch()
    answers = [call.result(30).payload for call in calls]
    assert [answer["seen"] for answer in answers] == [[tenant] for tenant in tenants]
    assert len({answer["pid"] for answer in answers}) == len(tenants)


def test_versions_and_aliases_isolate_tenants_too(aws: "LambdaClient") -> None:
    deploy(aws, "published", MEMORY)
    version = aws.publish_version(FunctionName="published")
    assert version["TenancyConfig"] == PER_TENANT["TenancyConfig"]
    aws.create_alias(FunctionName="published", Name="live", FunctionVersion="1")
    first = invoke(aws, "published", Qualifier="live", TenantId="blue").payload
    assert invoke(aws, "published", Qualifier="1", TenantId="green").payload["seen"] == ["green"]
    again = invoke(aws, "published", Qualifier="1", TenantId="blue").payload
    assert (again["pid"], again["seen"]) == (first["pid"], ["blue", "blue"])
    with pytest.raises(ClientError) as error:
        invoke(aws, "published", Qualifier="live")
    assert refused(error) == ("InvalidParameterValueException", MISSING)


def test_an_idle_tenant_makes_way_for_another_at_the_limit(tmp_path: Path) -> None:
    with running(tmp_path / "data", standard_environments="2") as server:
        deploy(server.aws, "crowded", MEMORY)
        tenants = [f"tenant-{number}" for number in range(5)]
        answers = [invoke(server.aws, "crowded", TenantId=tenant).payload for tenant in tenants]
        assert [answer["seen"] for answer in answers] == [[tenant] for tenant in tenants]
        assert len(server.environments("crowded")) <= 2


def test_platform_records_and_the_functions_own_name_the_tenant_in_json(server: Server, aws: "LambdaClient") -> None:
    source = "import logging\ndef handler(event, context):\n    logging.getLogger().warning('at work')\n"
    deploy(aws, "logged", source, LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "DEBUG"})
    invoke(aws, "logged", TenantId="blue")

    def tenants() -> dict[str, str | None] | None:
        records = [json.loads(line) for line in server.logs("logged").splitlines()]
        found = {
            each.get("type", each.get("message")): each.get("record", each).get("tenantId")
            for each in records
            if each.get("type", "platform.start") in ("platform.start", "platform.runtimeDone", "platform.report")
        }
        return found if len(found) == 4 else None

    assert wait_for(tenants, "start, line, end and report are logged") == {
        "platform.start": "blue",
        "at work": "blue",
        "platform.runtimeDone": "blue",
        "platform.report": "blue",
    }


def test_streamed_invocations_carry_the_tenant(aws: "LambdaClient") -> None:
    deploy(aws, "streamed", MEMORY)
    for tenant in ("blue", "green"):
        answer = aws.invoke_with_response_stream(FunctionName="streamed", TenantId=tenant, Payload=b"{}")
        parts = [event["PayloadChunk"]["Payload"] for event in answer["EventStream"] if "PayloadChunk" in event]
        assert json.loads(b"".join(parts))["seen"] == [tenant]
    with pytest.raises(ClientError) as error:
        aws.invoke_with_response_stream(FunctionName="streamed", Payload=b"{}")
    assert refused(error) == ("InvalidParameterValueException", MISSING)


@pytest.mark.parametrize("flags", [(), ("--gateways", "1")])
def test_the_short_way_refuses_an_invocation_without_a_tenant(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with running(tmp_path / "data", *flags) as server:
        deploy(server.aws, "short", MEMORY)
        for _ in range(2):  # the first time the function is read from the store
            with pytest.raises(ClientError) as error:
                invoke(server.aws, "short")
            assert refused(error) == ("InvalidParameterValueException", MISSING)
        assert invoke(server.aws, "short", TenantId="blue").payload["seen"] == ["blue"]


def test_events_and_schedules_carry_the_tenant(server: Server, aws: "LambdaClient", tmp_path: Path) -> None:
    deploy(aws, "recorder", RECORDER)
    payload = json.dumps({"folder": str(tmp_path)})
    taken = aws.invoke(FunctionName="recorder", InvocationType="Event", TenantId="blue", Payload=payload)
    assert taken["StatusCode"] == 202
    for name, kind in (("by-event", "Event"), ("by-answer", "RequestResponse")):
        call = {"FunctionName": "recorder", "InvocationType": kind, "TenantId": name, "Payload": payload}
        server.client("scheduler").create_schedule(
            Name=f"{name}-{uuid.uuid4().hex[:8]}",
            ScheduleExpression=f"at({datetime.now(UTC):%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={
                "Arn": "arn:aws:scheduler:::aws-sdk:lambda:invoke",
                "RoleArn": "arn:aws:iam::000000000000:role/r",
                "Input": json.dumps(call),
            },
        )
    seen = wait_for(
        lambda: found if len(found := {json.loads(f.read_text())[0] for f in tmp_path.iterdir()}) == 3 else None,
        "the event and both schedules have run",
    )
    assert seen == {"blue", "by-event", "by-answer"}


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_a_tenant_must_be_named_exactly_if_the_function_isolates_tenants(aws: "LambdaClient", kind: Any) -> None:
    name = f"asked-{kind.lower()}"
    deploy(aws, name, ECHO_TENANT)
    create_function(aws, f"{name}-plain", ECHO_TENANT)
    wait_active(aws, f"{name}-plain", "$LATEST")
    with pytest.raises(ClientError) as without:
        aws.invoke(FunctionName=name, InvocationType=kind)
    assert refused(without) == ("InvalidParameterValueException", MISSING)
    with pytest.raises(ClientError) as needless:
        aws.invoke(FunctionName=f"{name}-plain", InvocationType=kind, TenantId="blue")
    assert refused(needless) == ("InvalidParameterValueException", NEEDLESS)


@pytest.mark.parametrize("is_durable", [True, False])
def test_chained_invocations_carry_the_tenant(aws: "LambdaClient", is_durable: bool) -> None:
    name = f"chained-{'durable' if is_durable else 'plain'}"
    if is_durable:
        create_durable(aws, name, ECHO_TENANT_DURABLY, **PER_TENANT)
    else:
        deploy(aws, name, ECHO_TENANT)
    create_durable(aws, f"{name}-caller", CHAINING)
    function = f"{name}:$LATEST"
    arn = start_execution(aws, f"{name}-caller", {"function": function, "tenant": "blue"})
    ended = finished(aws, arn)
    assert ended["Status"] == "SUCCEEDED", ended
    assert json.loads(ended["Result"]) == {"tenant": "blue", "event": "ping"}
    assert event_of(aws, arn, "ChainedInvokeStarted")["ChainedInvokeStartedDetails"]["TenantId"] == "blue"

    without = finished(aws, start_execution(aws, f"{name}-caller", {"function": function}))
    assert without["Status"] == "FAILED"
    assert without["Error"]["ErrorMessage"] == MISSING


def test_a_durable_function_runs_every_invocation_for_its_tenant(aws: "LambdaClient") -> None:
    create_durable(aws, "durable-tenant", ECHO_TENANT_DURABLY, **PER_TENANT)
    for tenant in ("blue", "green"):
        answer = aws.invoke(FunctionName="durable-tenant", Qualifier="$LATEST", TenantId=tenant, Payload=b"1")
        assert json.load(answer["Payload"]) == {"tenant": tenant, "event": 1}
    with pytest.raises(ClientError) as error:
        aws.invoke(FunctionName="durable-tenant", Qualifier="$LATEST", Payload=b"1")
    assert refused(error) == ("InvalidParameterValueException", MISSING)
