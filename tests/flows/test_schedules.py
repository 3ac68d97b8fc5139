"""Schedules through AWS's own client and the command: created, fired, seen by the function, retried, told to a dead-letter queue."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.drivers.aws_stand_in import StandIn, stand_in
from tests.durable import create_durable
from tests.harness import Server, create_function, running, wait_active, wait_for

REALM = "us-east-1:000000000000"
ROLE = "arn:aws:iam::000000000000:role/scheduler"
UNIVERSAL = "arn:aws:scheduler:::aws-sdk:lambda:invoke"
QUEUE = f"arn:aws:sqs:{REALM}:lost"
KEEP = """
import json, os, pathlib

def handler(event, context):
    folder = pathlib.Path(os.environ['FOLDER'])
    kept = {'event': event, 'id': context.aws_request_id, 'arn': context.invoked_function_arn}
    (folder / f".{context.aws_request_id}").write_text(json.dumps(kept))
    os.rename(folder / f".{context.aws_request_id}", folder / f"{context.aws_request_id}.json")
    if isinstance(event, dict) and event.get('fails'):
        raise ValueError('as asked')
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[StandIn]:
    with stand_in() as service:
        yield service


@pytest.fixture(scope="module")
def server(runtimes: Path, elsewhere: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(
        tmp_path_factory.mktemp("lambstead") / "data", endpoint_url_sqs=elsewhere.url, event_backoff_first="50ms"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def scheduler(server: Server) -> Any:
    return server.client("scheduler")


def deployed(server: Server, folder: Path, name: str) -> str:
    """A function that keeps its events in a folder; its ARN."""
    created = create_function(server.aws, name, KEEP, Environment={"Variables": {"FOLDER": str(folder)}})
    wait_active(server.aws, name, "$LATEST")
    return str(created["FunctionArn"])


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def at(after: timedelta = timedelta(seconds=1)) -> str:
    return f"at({datetime.now(UTC) + after:%Y-%m-%dT%H:%M:%S})"


def create(scheduler: Any, name: str, expression: str, target: dict[str, Any], **members: Any) -> str:
    request = {"FlexibleTimeWindow": {"Mode": "OFF"}, "Target": {"RoleArn": ROLE, **target}, **members}
    return str(scheduler.create_schedule(Name=name, ScheduleExpression=expression, **request)["ScheduleArn"])


def is_gone(scheduler: Any, name: str) -> bool:
    try:
        scheduler.get_schedule(Name=name)
    except scheduler.exceptions.ResourceNotFoundException:
        return True
    return False


def test_a_one_time_schedule_fires_with_its_attributes_and_deletes_itself(
    server: Server, scheduler: Any, tmp_path: Path
) -> None:
    function = deployed(server, tmp_path, "once")
    event = {
        "arn": "<aws.scheduler.schedule-arn>",
        "time": "<aws.scheduler.scheduled-time>",
        "id": "<aws.scheduler.execution-id>",
        "attempt": "<aws.scheduler.attempt-number>",
        "unknown": "<aws.scheduler.nothing>",
    }
    expression = at()
    arn = create(
        scheduler, "once", expression, {"Arn": function, "Input": json.dumps(event)}, ActionAfterCompletion="DELETE"
    )
    (run,) = wait_for(lambda: kept(tmp_path), "the function ran")
    execution_id = run["event"].pop("id")
    assert len(execution_id) == 16
    assert run["event"] == {
        "arn": arn,
        "time": f"{expression[3:-1]}Z",
        "attempt": "1",
        "unknown": "<aws.scheduler.nothing>",
    }
    wait_for(lambda: is_gone(scheduler, "once"), "the schedule deleted itself")
    assert len(kept(tmp_path)) == 1


def test_a_one_time_schedule_without_the_action_stays(server: Server, scheduler: Any, tmp_path: Path) -> None:
    create(scheduler, "stays", at(timedelta(0)), {"Arn": deployed(server, tmp_path, "stays")})
    wait_for(lambda: kept(tmp_path), "the function ran")
    assert scheduler.get_schedule(Name="stays")["State"] == "ENABLED"


def test_a_rate_begins_at_once_with_aws_s_event(server: Server, scheduler: Any, tmp_path: Path) -> None:
    arn = create(scheduler, "rate", "rate(1 hour)", {"Arn": deployed(server, tmp_path, "rated")})
    (run,) = wait_for(lambda: kept(tmp_path), "the function ran")
    event = run["event"]
    assert (event["source"], event["detail-type"], event["detail"]) == ("aws.scheduler", "Scheduled Event", "{}")
    assert (event["resources"], event["account"], event["region"]) == ([arn], "000000000000", "us-east-1")
    fired_at = datetime.fromisoformat(event["time"])
    assert abs(fired_at - scheduler.get_schedule(Name="rate")["CreationDate"]) < timedelta(seconds=2)
    # An update of what has nothing to do with the time does not fire it again: the next event in the folder is the other one's.
    schedule = scheduler.get_schedule(Name="rate")
    scheduler.update_schedule(
        Name="rate",
        Description="changed",
        **{name: schedule[name] for name in ("ScheduleExpression", "FlexibleTimeWindow", "Target")},
    )
    create(scheduler, "other", at(timedelta(0)), {"Arn": schedule["Target"]["Arn"], "Input": '"other"'})
    wait_for(lambda: len(kept(tmp_path)) == 2, "the other one ran")
    assert sorted(type(each["event"]).__name__ for each in kept(tmp_path)) == ["dict", "str"]


def test_qualifiers_and_universal_targets_reach_the_version_they_name(
    server: Server, scheduler: Any, tmp_path: Path
) -> None:
    function = deployed(server, tmp_path, "versioned")
    server.aws.publish_version(FunctionName="versioned")
    server.aws.create_alias(FunctionName="versioned", Name="live", FunctionVersion="1")
    wait_active(server.aws, "versioned", "1")
    payload = json.dumps({"at": "<aws.scheduler.scheduled-time>"})
    create(scheduler, "by-arn", at(timedelta(0)), {"Arn": f"{function}:live"})
    for kind in ("Event", "RequestResponse"):
        given = {"FunctionName": "versioned", "Qualifier": "1", "InvocationType": kind, "Payload": payload}
        create(scheduler, f"by-{kind}", at(timedelta(0)), {"Arn": UNIVERSAL, "Input": json.dumps(given)})
    wait_for(lambda: len(kept(tmp_path)) == 3, "all three ran")
    assert sorted(each["arn"] for each in kept(tmp_path)) == [f"{function}:1", f"{function}:1", f"{function}:live"]
    universal = [each["event"] for each in kept(tmp_path) if each["arn"] == f"{function}:1"]
    assert [list(event) for event in universal] == [["at"], ["at"]]
    assert all(event["at"].endswith("Z") for event in universal)


def test_an_error_of_a_synchronous_target_is_an_answer_and_not_tried_again(
    server: Server, scheduler: Any, tmp_path: Path
) -> None:
    """AWS: Invoke succeeded; the schedule has done its part. Then the row is gone, and with it whatever could run again."""
    deployed(server, tmp_path, "failing")
    given = {"FunctionName": "failing", "Payload": '{"fails": true}'}
    create(scheduler, "failing", at(timedelta(0)), {"Arn": UNIVERSAL, "Input": json.dumps(given)})
    settled = "schedule-invoked schedule='arn:aws:scheduler:us-east-1:000000000000:schedule/default/failing'"
    wait_for(lambda: settled in (server.data / "up.log").read_text(), "the invocation was settled")
    assert len(kept(tmp_path)) == 1


def test_a_target_that_does_not_exist_is_told_to_the_dead_letter_queue(scheduler: Any, elsewhere: StandIn) -> None:
    expression = at(timedelta(0))
    missing = f"arn:aws:lambda:{REALM}:function:missing"
    arn = create(
        scheduler,
        "missing",
        expression,
        {"Arn": missing, "Input": '{"n": "<aws.scheduler.attempt-number>"}', "DeadLetterConfig": {"Arn": QUEUE}},
    )
    got = wait_for(lambda: [each for each in elsewhere.got if each.operation == "SendMessage"], "a dead letter")
    (letter,) = (each.body for each in got)
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert len(attributes.pop("EXECUTION_ID")) == 16
    assert attributes == {
        "ERROR_CODE": "ResourceNotFoundException",
        "ERROR_MESSAGE": f"Function not found: {missing}:$LATEST",
        "IS_PAYLOAD_TRUNCATED": "false",
        "RETRY_ATTEMPTS": "0",
        "SCHEDULED_TIME": f"{expression[3:-1]}Z",
        "SCHEDULE_ARN": arn,
        "TARGET_ARN": missing,
    }
    assert letter["MessageBody"] == '{"n": "1"}'


def test_disabled_and_deleted_schedules_do_not_fire(server: Server, scheduler: Any, tmp_path: Path) -> None:
    function = deployed(server, tmp_path, "quiet")
    expression = at(timedelta(seconds=1))
    for name, state in (("off", "DISABLED"), ("deleted", "ENABLED"), ("turned-off", "ENABLED"), ("on", "ENABLED")):
        create(scheduler, name, expression, {"Arn": function, "Input": json.dumps(name)}, State=state)
    scheduler.delete_schedule(Name="deleted")
    scheduler.update_schedule(
        Name="turned-off",
        ScheduleExpression=expression,
        State="DISABLED",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": function, "RoleArn": ROLE},
    )
    wait_for(lambda: kept(tmp_path), "the one that is on")
    create(scheduler, "last", at(timedelta(0)), {"Arn": function, "Input": '"last"'})
    wait_for(lambda: len(kept(tmp_path)) >= 2, "the last one")
    assert sorted(each["event"] for each in kept(tmp_path)) == ["last", "on"]


WORKFLOW = """
from aws_durable_execution_sdk_python import durable_execution

@durable_execution
def handler(event, context):
    return event
"""


def test_a_durable_function_is_started_as_an_execution(server: Server, scheduler: Any) -> None:
    create_durable(server.aws, "workflow", WORKFLOW)
    arn = f"arn:aws:lambda:{REALM}:function:workflow:$LATEST"
    create(scheduler, "plain-target", at(timedelta(0)), {"Arn": arn, "Input": '{"by": "arn"}'})
    for kind, named in (
        ("Event", {"DurableExecutionName": "run-<aws.scheduler.execution-id>"}),
        ("RequestResponse", {}),
    ):
        given = {"FunctionName": arn, "InvocationType": kind, "Payload": json.dumps({"by": kind}), **named}
        create(scheduler, f"workflow-{kind}", at(timedelta(0)), {"Arn": UNIVERSAL, "Input": json.dumps(given)})

    def executions() -> list[dict[str, Any]] | None:
        listed = server.aws.list_durable_executions_by_function(FunctionName="workflow", Statuses=["SUCCEEDED"])
        return [dict(each) for each in listed["DurableExecutions"]] if len(listed["DurableExecutions"]) == 3 else None

    found = wait_for(executions, "three executions succeeded")
    inputs = [
        server.aws.get_durable_execution(DurableExecutionArn=each["DurableExecutionArn"])["InputPayload"]
        for each in found
    ]
    assert sorted(json.loads(each)["by"] for each in inputs) == ["Event", "RequestResponse", "arn"]
    assert sum(each["DurableExecutionName"].startswith("run-") for each in found) == 1


# --- the command -----------------------------------------------------------------------------------------------------------------


def test_the_command_creates_shows_and_deletes(server: Server, scheduler: Any, tmp_path: Path) -> None:
    deployed(server, tmp_path, "commanded")
    created = server.command(
        "schedule",
        "create",
        "by-hand",
        "--expression",
        at(timedelta(0)),
        "--function",
        "commanded",
        "--input",
        '{"n": 1}',
    )
    assert (created.returncode, created.stderr) == (0, ""), created
    (run,) = wait_for(lambda: kept(tmp_path), "the function ran")
    assert run["event"] == {"n": 1}

    listed = server.command("schedule", "list", "--prefix", "by-hand", "--json")
    assert [each["Name"] for each in json.loads(listed.stdout)] == ["by-hand"]
    assert "by-hand" in server.command("schedule", "list").stdout
    shown = server.command("schedule", "show", "by-hand")
    assert "function:commanded" in shown.stdout
    assert json.loads(server.command("schedule", "show", "by-hand", "--json").stdout)["Target"]["Input"] == '{"n": 1}'
    assert server.command("schedule", "delete", "by-hand").stdout == "Deleted by-hand.\n"
    again = server.command("schedule", "delete", "by-hand")
    assert again.returncode == 2
    assert "Schedule by-hand does not exist." in again.stderr


def test_the_command_takes_every_option_to_the_api(server: Server, scheduler: Any) -> None:
    result = server.command(
        "schedule",
        *(
            "create",
            "full",
            "--expression",
            "cron(0 9 * * ? *)",
            "--function",
            "any:live",
            "--timezone",
            "Europe/Berlin",
        ),
        *("--description", "every morning", "--start", "2100-01-01T00:00:00Z", "--end", "2101-01-01", "--window", "15"),
        *("--disabled", "--delete-after", "--json"),
    )
    assert json.loads(result.stdout) == {"ScheduleArn": f"arn:aws:scheduler:{REALM}:schedule/default/full"}
    schedule = scheduler.get_schedule(Name="full")
    assert schedule["StartDate"] == datetime(2100, 1, 1, tzinfo=UTC)
    assert schedule["EndDate"] == datetime(2101, 1, 1, tzinfo=UTC)
    assert schedule["FlexibleTimeWindow"] == {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}
    assert (schedule["State"], schedule["ActionAfterCompletion"]) == ("DISABLED", "DELETE")
    assert (schedule["ScheduleExpressionTimezone"], schedule["Description"]) == ("Europe/Berlin", "every morning")
    assert schedule["Target"]["Arn"] == f"arn:aws:lambda:{REALM}:function:any:live"


def test_the_command_says_when_a_schedule_will_not_run(server: Server) -> None:
    result = server.command(
        "schedule", "create", "past", "--expression", "at(2020-01-01T00:00:00)", "--function", "any"
    )
    assert result.returncode == 0
    assert "will not run" in result.stderr


# --- lists -----------------------------------------------------------------------------------------------------------------------


def test_lists_are_complete_under_paging(scheduler: Any) -> None:
    scheduler.create_schedule_group(Name="paged")
    names = [f"p-{number:02}" for number in range(7)]
    for name in names:
        create(
            scheduler, name, "cron(0 0 1 1 ? 2100)", {"Arn": f"arn:aws:lambda:{REALM}:function:any"}, GroupName="paged"
        )
    pages = scheduler.get_paginator("list_schedules").paginate(GroupName="paged", PaginationConfig={"PageSize": 3})
    assert [each["Name"] for page in pages for each in page["Schedules"]] == names
    everywhere = scheduler.get_paginator("list_schedules").paginate(NamePrefix="p-0", PaginationConfig={"PageSize": 2})
    assert [each["Name"] for page in everywhere for each in page["Schedules"]] == names
    with pytest.raises(ClientError, match="Invalid NextToken"):
        scheduler.list_schedules(NextToken="nonsense")
    scheduler.delete_schedule_group(Name="paged")
    with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
        scheduler.get_schedule(Name="p-00", GroupName="paged")
