"""Asynchronous invocations through AWS's own client: acknowledged at once, run, tried again, reported to destinations."""

import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.drivers.aws_stand_in import stand_in
from tests.harness import Server, create_function, create_provider, publish_managed, running, wait_active, wait_for

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

DELAY_S = 0.4
RECORD = """
import json, os, pathlib, time

def handler(event, context):
    \"\"\"Write down that we ran, then do as the event says.\"\"\"
    folder = pathlib.Path(event['folder'])
    run = {'id': context.aws_request_id, 'at': time.time(), 'arn': context.invoked_function_arn,
           'custom': context.client_context and context.client_context.custom}
    name = f"{time.time_ns()}-{os.getpid()}"
    (folder / f".{name}").write_text(json.dumps(run))
    os.rename(folder / f".{name}", folder / f"{name}.json")
    if len(list(folder.glob('*.json'))) <= event.get('errors', 0):
        raise ValueError('as asked')
    while event.get('hold') and not (folder / 'open').exists():
        time.sleep(0.005)
    return {'ran': name}
"""
KEEP = """
import json, os, pathlib

def handler(event, context):
    folder = pathlib.Path(os.environ['FOLDER'])
    (folder / f".{context.aws_request_id}").write_text(json.dumps(event))
    os.rename(folder / f".{context.aws_request_id}", folder / f"{context.aws_request_id}.json")
"""


def documents(folder: Path) -> list[dict[str, Any]]:
    """What functions wrote into a folder, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"event_retry_delay": f"{DELAY_S * 1000:g}ms", "event_backoff_first": "20ms", "slot_wait": "50ms"}
    with running(tmp_path_factory.mktemp("events") / "data", **settings) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def deploy(aws: "LambdaClient", source: str = RECORD, **members: Any) -> str:
    """A standard function of a new name, Active."""
    name = f"f-{uuid.uuid4().hex[:8]}"
    create_function(aws, name, source, **members)
    wait_active(aws, name, "$LATEST")
    return name


def keeper(aws: "LambdaClient", folder: Path) -> str:
    """A function that keeps its events as files in `folder`; its ARN."""
    folder.mkdir()
    name = deploy(aws, KEEP, Environment={"Variables": {"FOLDER": str(folder)}})
    return aws.get_function_configuration(FunctionName=name)["FunctionArn"]


def send(aws: "LambdaClient", name: str, event: object, **members: Any) -> str:
    """An Event invocation; its request id."""
    answer = aws.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode(), **members)
    assert answer["StatusCode"] == 202
    assert answer["Payload"].read() == b""
    assert "ExecutedVersion" not in answer
    return answer["ResponseMetadata"]["RequestId"]


def ran(folder: Path, times: int) -> list[dict[str, Any]]:
    return wait_for(lambda: d if len(d := documents(folder)) >= times else None, f"{times} runs")


def test_an_event_is_acknowledged_at_once_and_run_with_its_request_id(aws: "LambdaClient", folder: Path) -> None:
    name = deploy(aws)
    request_id = send(aws, name, {"folder": str(folder), "hold": True})
    (run,) = ran(folder, 1)
    assert run["id"] == request_id
    assert run["arn"].endswith(f":function:{name}")
    (folder / "open").touch()


def test_invoke_async_is_an_event_by_its_older_name(aws: "LambdaClient", folder: Path) -> None:
    name = deploy(aws)
    answer = aws.invoke_async(FunctionName=name, InvokeArgs=json.dumps({"folder": str(folder)}).encode())
    assert answer["Status"] == 202
    assert ran(folder, 1)[0]["id"] == answer["ResponseMetadata"]["RequestId"]


def test_function_errors_are_retried_twice_with_growing_pauses_and_the_same_id(
    aws: "LambdaClient", folder: Path
) -> None:
    name = deploy(aws)
    request_id = send(aws, name, {"folder": str(folder), "errors": 2})
    runs = ran(folder, 3)
    assert {run["id"] for run in runs} == {request_id}
    pauses = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(runs)]
    assert pauses[0] >= DELAY_S
    assert pauses[1] >= 2 * DELAY_S


def test_an_event_reaches_managed_functions_with_client_context_and_qualifier(
    server: Server, aws: "LambdaClient", folder: Path
) -> None:
    publish_managed(aws, "managed", RECORD, create_provider(aws), slots=2)
    context = "eyJjdXN0b20iOiB7ImsiOiAidiJ9fQ=="
    send(aws, "managed", {"folder": str(folder)}, ClientContext=context)
    (run,) = ran(folder, 1)
    assert run["custom"] == {"k": "v"}
    assert run["arn"].endswith(":managed:$LATEST.PUBLISHED")


def test_more_events_than_slots_wait_for_their_turn_and_all_run(aws: "LambdaClient", folder: Path) -> None:
    publish_managed(aws, "narrow", RECORD, create_provider(aws, "narrow-pool"), slots=1)
    folders = [folder / str(number) for number in range(12)]
    for each in folders:
        each.mkdir()
        send(aws, "narrow", {"folder": str(each)})
    for each in folders:
        assert len(ran(each, 1)) == 1


@pytest.mark.parametrize(
    ("name", "error", "members", "status"),
    [
        ("nobody", "ResourceNotFoundException", {}, 404),
        ("real", "InvalidRequestContentException", {"Payload": b"{"}, 400),
        ("real", "InvalidRequestContentException", {"ClientContext": "!!"}, 400),
        ("real", "RequestEntityTooLargeException", {"Payload": b'"' + b"x" * 1_048_575 + b'"'}, 413),
        ("real", "ResourceNotFoundException", {"Qualifier": "7"}, 404),
    ],
)
def test_what_cannot_be_run_is_refused_and_not_queued(
    server: Server, aws: "LambdaClient", name: str, error: str, members: dict[str, Any], status: int
) -> None:
    if name == "real":
        name = deploy(aws)
    with pytest.raises(ClientError) as caught:
        aws.invoke(FunctionName=name, InvocationType="Event", **members)
    assert caught.value.response["Error"]["Code"] == error
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    if status == 413:
        assert caught.value.response["Error"]["Message"] == (
            "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)"
        )
    wait_for(lambda: server.status()["events"]["queued"] == 0, "the queue is empty")


def test_the_largest_payload_arrives_whole(aws: "LambdaClient", folder: Path) -> None:
    source = RECORD.replace("run = {", "run = {'size': len(json.dumps(event, ensure_ascii=False)), ")
    name = deploy(aws, source)
    event = {"folder": str(folder), "text": ""}
    event["text"] = "x" * (1_048_576 - len(json.dumps(event)))
    send(aws, name, event)
    assert ran(folder, 1)[0]["size"] == 1_048_576


def test_an_event_of_a_function_that_is_deleted_meanwhile_is_dropped(
    server: Server, aws: "LambdaClient", folder: Path
) -> None:
    name = deploy(aws)
    send(aws, name, {"folder": str(folder), "errors": 3})
    ran(folder, 1)
    aws.delete_function(FunctionName=name)
    wait_for(lambda: server.status()["events"]["dropped"].get(name) == 1, "the event is dropped")


def test_a_function_that_invokes_itself_is_stopped_after_sixteen_rounds(
    server: Server, aws: "LambdaClient", folder: Path
) -> None:
    source = RECORD.replace(
        "return {'ran': name}",
        "import boto3\n    boto3.client('lambda').invoke(FunctionName=context.function_name, InvocationType='Event',"
        " Payload=json.dumps(event))",
    )
    name = deploy(aws, source, Timeout=30)
    before = server.status()["events"]["ended"].get("RecursiveInvocation", 0)
    send(aws, name, {"folder": str(folder)})
    wait_for(
        lambda: server.status()["events"]["ended"].get("RecursiveInvocation", 0) == before + 1,
        "the loop is stopped",
        60,
    )
    assert len(documents(folder)) == 16


# --- destinations -------------------------------------------------------------------------------------------------------------


def test_destination_functions_hear_of_success_and_of_failure(aws: "LambdaClient", folder: Path) -> None:
    for each in ("good", "bad"):
        (folder / each).mkdir()
    good, bad = keeper(aws, folder / "told-good"), keeper(aws, folder / "told-bad")
    name = deploy(aws)
    aws.put_function_event_invoke_config(
        FunctionName=name,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnSuccess": {"Destination": good}, "OnFailure": {"Destination": bad}},
    )
    sent = send(aws, name, {"folder": str(folder / "good")})
    failed = send(aws, name, {"folder": str(folder / "bad"), "errors": 9})
    (success,), (failure,) = ran(folder / "told-good", 1), ran(folder / "told-bad", 1)
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}:$LATEST"
    assert success["requestContext"] == {
        "requestId": sent,
        "functionArn": arn,
        "condition": "Success",
        "approximateInvokeCount": 1,
    }
    assert success["requestPayload"] == {"folder": str(folder / "good")}
    assert success["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert list(success["responsePayload"]) == ["ran"]
    assert failure["requestContext"] == {
        "requestId": failed,
        "functionArn": arn,
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 2,
    }
    assert failure["responseContext"]["functionError"] == "Unhandled"
    assert failure["responsePayload"]["errorMessage"] == "as asked"
    assert failure["responsePayload"]["requestId"] == failed


def test_the_config_of_the_qualifier_that_was_named_applies(aws: "LambdaClient", folder: Path) -> None:
    told = keeper(aws, folder / "told")
    name = deploy(aws)
    aws.publish_version(FunctionName=name)
    aws.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    aws.put_function_event_invoke_config(
        FunctionName=name, Qualifier="live", DestinationConfig={"OnSuccess": {"Destination": told}}
    )
    for qualifier in (None, "1", "live"):
        each = folder / str(qualifier)
        each.mkdir()
        send(aws, name, {"folder": str(each)}, **({"Qualifier": qualifier} if qualifier else {}))
        ran(each, 1)
    (record,) = ran(folder / "told", 1)
    assert record["requestContext"]["functionArn"].endswith(f":function:{name}:live")
    assert record["responseContext"]["executedVersion"] == "1"


def test_a_function_without_concurrency_gives_its_events_to_the_destination(aws: "LambdaClient", folder: Path) -> None:
    """Recorded: ZeroReservedConcurrency, a count of 0 and no response."""
    told = keeper(aws, folder / "told")
    name = deploy(aws)
    aws.put_function_event_invoke_config(FunctionName=name, DestinationConfig={"OnFailure": {"Destination": told}})
    aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    send(aws, name, {"folder": str(folder)})
    (record,) = ran(folder / "told", 1)
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert not record.keys() & {"responseContext", "responsePayload"}
    assert not list(folder.glob("*.json")), "it was not run"


def test_reserved_concurrency_lets_events_wait_and_none_is_lost(aws: "LambdaClient", folder: Path) -> None:
    name = deploy(aws)
    aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    folders = [folder / str(number) for number in range(6)]
    for each in folders:
        each.mkdir()
        send(aws, name, {"folder": str(each)})
    for each in folders:
        assert len(ran(each, 1)) == 1


def test_a_function_that_may_loop_is_not_stopped(server: Server, aws: "LambdaClient", folder: Path) -> None:
    source = RECORD.replace(
        "return {'ran': name}",
        "import boto3\n    if len(list(folder.glob('*.json'))) < 20:\n        boto3.client('lambda').invoke("
        "FunctionName=context.function_name, InvocationType='Event', Payload=json.dumps(event))",
    )
    name = deploy(aws, source, Timeout=30)
    aws.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    send(aws, name, {"folder": str(folder)})
    assert len(ran(folder, 20)) == 20


def test_queues_get_records_and_dead_letters_and_what_cannot_be_reached_is_counted(
    runtimes: Path, tmp_path: Path, folder: Path
) -> None:
    queue = "arn:aws:sqs:us-east-1:000000000000:q"
    topic = "arn:aws:sns:us-east-1:000000000000:t"
    with stand_in() as elsewhere, running(tmp_path / "data", endpoint_url_sqs=elsewhere.url, companion="off") as server:
        aws = server.aws
        name = deploy(aws, DeadLetterConfig={"TargetArn": queue})
        aws.put_function_event_invoke_config(
            FunctionName=name,
            MaximumRetryAttempts=0,
            DestinationConfig={"OnSuccess": {"Destination": queue}, "OnFailure": {"Destination": topic}},
        )
        good = send(aws, name, {"folder": str(folder)})
        wait_for(lambda: len(elsewhere.got) == 1, "the record arrives")
        assert json.loads(elsewhere.got[0].body["MessageBody"])["requestContext"]["requestId"] == good
        bad = send(aws, name, {"folder": str(folder), "errors": 9})
        wait_for(lambda: len(elsewhere.got) == 2, "the dead letter arrives")
        letter = elsewhere.got[1].body
        assert json.loads(letter["MessageBody"]) == {"folder": str(folder), "errors": 9}
        assert letter["MessageAttributes"]["RequestID"]["StringValue"] == bad
        assert letter["MessageAttributes"]["ErrorMessage"]["StringValue"] == "as asked"
        assert server.status()["events"]["destination_delivery_failures"] == {name: 1}
        for _ in range(2):
            send(aws, name, {"folder": str(folder), "errors": 99})
        wait_for(lambda: server.status()["events"]["destination_delivery_failures"] == {name: 3}, "all are counted")
        log = (tmp_path / "data" / "up.log").read_text()
        assert log.count("event-undeliverable") == 1, "logged once"
