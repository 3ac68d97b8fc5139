"""EventBridge Scheduler's API: what AWS answers to creating, reading, changing and deleting schedules, their groups and tags."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.harness import Server
from tests.parity.steps import Answers, Refuses, Source, Step, hold

RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS
ACCOUNT = "arn:aws:scheduler:us-east-1:000000000000"
ROLE = "arn:aws:iam::000000000000:role/scheduler"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
UNIVERSAL = "arn:aws:scheduler:::aws-sdk:lambda:invoke"
TARGET = {"Arn": FUNCTION, "RoleArn": ROLE}
OFF = {"Mode": "OFF"}
SOME = {"Name": "some", "ScheduleExpression": "cron(0 0 1 1 ? 2100)", "FlexibleTimeWindow": OFF, "Target": TARGET}
INVALID = [
    # Recorded by others on AWS.
    *(
        "cron(0 1 * * * *)",
        "cron(7 20 * * NOT *)",
        "cron(INVALID)",
        "cron(0 dummy ? * MON-FRI *)",
        "cron(71 8 1 * ? *)",
    ),
    *("cron()", "rate(10 seconds)", "rate(10 years)", "rate()", "rate(10)", "rate(10 minutess)", "rate(foo minutes)"),
    *("rate(-10 minutes)", "rate( 10 minutes )", " rate(10 minutes)", "at(2021-12-31T23:59:59Z)", "at(2021-12-31)"),
]


def refused(text: str) -> Refuses:
    return Refuses(400, "ValidationException", text, None)


def missing(text: str) -> Refuses:
    return Refuses(404, "ResourceNotFoundException", text, None)


def conflict(text: str) -> Refuses:
    return Refuses(409, "ConflictException", text, None)


def created(name: str, group: str = "default") -> Answers:
    return Answers(200, {"ScheduleArn": f"{ACCOUNT}:schedule/{group}/{name}"})


STEPS = [
    *(
        Step(
            "create_schedule",
            {**SOME, "ScheduleExpression": text},
            refused(f"Invalid Schedule Expression {text}."),
            RECORDED,
        )
        for text in INVALID
    ),
    Step("get_schedule", {"Name": "some"}, missing("Schedule some does not exist."), RECORDED),
    Step("delete_schedule", {"Name": "some"}, missing("Schedule some does not exist."), RECORDED),
    Step("update_schedule", SOME, missing("Schedule some does not exist."), RECORDED),
    Step("create_schedule", SOME, created("some"), MODEL),
    Step("create_schedule", SOME, conflict("Schedule some already exists."), DOCUMENTATION),
    Step("create_schedule", {**SOME, "Name": "repeated", "ClientToken": "t-1"}, created("repeated"), MODEL),
    Step("create_schedule", {**SOME, "Name": "repeated", "ClientToken": "t-1"}, created("repeated"), MODEL),
    Step(
        "create_schedule",
        {**SOME, "Name": "repeated", "ClientToken": "t-1", "Description": "another request"},
        conflict("Schedule repeated already exists."),
        OURS,
    ),
    Step("delete_schedule", {"Name": "repeated", "ClientToken": "t-2"}, Answers(200, {}), MODEL),
    Step("delete_schedule", {"Name": "repeated", "ClientToken": "t-2"}, Answers(200, {}), MODEL),
    Step(
        "delete_schedule",
        {"Name": "repeated", "ClientToken": "t-3"},
        missing("Schedule repeated does not exist."),
        MODEL,
    ),
    Step(
        "create_schedule",
        {**SOME, "GroupName": "nobody"},
        missing("Schedule group nobody does not exist."),
        DOCUMENTATION,
    ),
    Step("list_schedules", {"GroupName": "nobody"}, missing("Schedule group nobody does not exist."), MODEL),
    Step(
        "create_schedule",
        {**SOME, "ScheduleExpressionTimezone": "Mars/Olympus"},
        refused(
            "Invalid ScheduleExpressionTimezone Mars/Olympus: it is not a name of the IANA time zone database, for example Europe/Berlin."
        ),
        OURS,
    ),
    Step(
        "create_schedule",
        {**SOME, "StartDate": datetime.now(UTC) - timedelta(hours=1)},
        refused("The StartDate you specify cannot be earlier than 5 minutes ago."),
        RECORDED,
    ),
    Step(
        "create_schedule",
        {**SOME, "FlexibleTimeWindow": {"Mode": "FLEXIBLE"}},
        refused("FlexibleTimeWindow needs MaximumWindowInMinutes when Mode is FLEXIBLE."),
        OURS,
    ),
    Step("delete_schedule_group", {"Name": "default"}, refused("The default schedule group cannot be deleted."), OURS),
    Step("delete_schedule_group", {"Name": "nobody"}, missing("Schedule group nobody does not exist."), DOCUMENTATION),
    Step(
        "create_schedule_group", {"Name": "g"}, Answers(200, {"ScheduleGroupArn": f"{ACCOUNT}:schedule-group/g"}), MODEL
    ),
    Step("create_schedule_group", {"Name": "g"}, conflict("Schedule group g already exists."), DOCUMENTATION),
    Step("create_schedule", {**SOME, "GroupName": "g"}, created("some", "g"), MODEL),
    Step(
        "tag_resource",
        {"ResourceArn": f"{ACCOUNT}:schedule-group/g", "Tags": [{"Key": "TagKey", "Value": "TagValue"}]},
        Answers(200, {}),
        RECORDED,
    ),
    Step(
        "list_tags_for_resource",
        {"ResourceArn": f"{ACCOUNT}:schedule-group/g"},
        Answers(200, {"Tags": [{"Key": "TagKey", "Value": "TagValue"}]}),
        RECORDED,
    ),
    Step(
        "untag_resource",
        {"ResourceArn": f"{ACCOUNT}:schedule-group/g", "TagKeys": ["TagKey"]},
        Answers(200, {}),
        RECORDED,
    ),
    Step(
        "list_tags_for_resource", {"ResourceArn": f"{ACCOUNT}:schedule-group/g"}, Answers(200, {"Tags": []}), RECORDED
    ),
    Step(
        "list_tags_for_resource",
        {"ResourceArn": f"{ACCOUNT}:schedule-group/nobody"},
        missing("Schedule group nobody does not exist."),
        OURS,
    ),
    Step("delete_schedule_group", {"Name": "g"}, Answers(200, {}), MODEL),
    Step("get_schedule", {"Name": "some", "GroupName": "g"}, missing("Schedule some does not exist."), DOCUMENTATION),
]

SUPPORTED = "Lambstead schedules invoke its own functions: Arn is the ARN of a function"
BAD_TARGETS: list[tuple[dict[str, Any], str]] = [
    ({"Arn": "arn:aws:sqs:us-east-1:000000000000:q"}, SUPPORTED),
    ({"Arn": "arn:aws:scheduler:::aws-sdk:sqs:sendMessage", "Input": "{}"}, SUPPORTED),
    ({"Arn": "f"}, SUPPORTED),
    (
        {"Arn": FUNCTION, "SqsParameters": {"MessageGroupId": "m"}},
        f"SqsParameters does not apply to this target. {SUPPORTED}",
    ),
    ({"Arn": "arn:aws:lambda:eu-west-1:000000000000:function:f"}, "is not a function of this Lambstead"),
    ({"Arn": FUNCTION, "Input": "not json"}, "Input must be well-formed JSON"),
    ({"Arn": FUNCTION, "Input": "NaN"}, "Input must be well-formed JSON"),
    ({"Arn": FUNCTION, "Input": "[" * 100_000}, "Input must be well-formed JSON"),
    ({"Arn": FUNCTION, "Input": f'"{"x" * 1_048_576}"'}, "Input must be at most 1048576 bytes"),
    ({"Arn": UNIVERSAL}, "Invoke needs FunctionName"),
    ({"Arn": UNIVERSAL, "Input": "[]"}, "must be a JSON object of strings"),
    ({"Arn": UNIVERSAL, "Input": '{"FunctionName": "f", "Payload": {}}'}, "Payload is a string that holds JSON"),
    ({"Arn": UNIVERSAL, "Input": '{"FunctionName": "f", "Payload": "{"}'}, "Payload must hold JSON"),
    ({"Arn": UNIVERSAL, "Input": '{"FunctionName": "f", "InvocationType": "DryRun"}'}, "InvocationType DryRun"),
    ({"Arn": UNIVERSAL, "Input": '{"FunctionName": "f", "Colour": "red"}'}, "Invoke has no parameter Colour"),
    ({"Arn": UNIVERSAL, "Input": '{"FunctionName": "f", "TenantId": "a\\nb"}'}, "TenantId takes 1 to 256 letters"),
    ({"Arn": UNIVERSAL, "Input": '{"FunctionName": "f", "TenantId": ""}'}, "TenantId takes 1 to 256 letters"),
    (
        {"Arn": UNIVERSAL, "Input": '{"FunctionName": "f:1", "Qualifier": "2"}'},
        "does not match the specified qualifier",
    ),
]


@pytest.fixture(scope="module")
def scheduler(server: Server) -> Any:
    return server.client("scheduler")


def test_schedules_are_answered_as_aws_does(scheduler: Any) -> None:
    hold(scheduler, STEPS, {})


@pytest.mark.parametrize(("target", "text"), BAD_TARGETS)
def test_targets_that_cannot_be_invoked_are_refused(scheduler: Any, target: dict[str, Any], text: str) -> None:
    with pytest.raises(scheduler.exceptions.ValidationException) as caught:
        scheduler.create_schedule(**{**SOME, "Name": "bad", "Target": {"RoleArn": ROLE, **target}})
    assert text in caught.value.response["Error"]["Message"]
    with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
        scheduler.get_schedule(Name="bad")


def test_a_schedule_is_read_back_with_aws_s_defaults(scheduler: Any) -> None:
    scheduler.create_schedule(**{**SOME, "Name": "plain"})
    schedule = scheduler.get_schedule(Name="plain")
    schedule.pop("ResponseMetadata")
    assert schedule.pop("CreationDate") == schedule.pop("LastModificationDate")
    assert schedule == {
        **SOME,
        "Name": "plain",
        "Arn": f"{ACCOUNT}:schedule/default/plain",
        "GroupName": "default",
        "ScheduleExpressionTimezone": "UTC",
        "State": "ENABLED",
        "ActionAfterCompletion": "NONE",
        "Target": {**TARGET, "RetryPolicy": {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}},
    }
    (summary,) = scheduler.list_schedules(NamePrefix="plain")["Schedules"]
    assert summary["Target"] == {"Arn": FUNCTION}


def test_an_update_replaces_everything(scheduler: Any) -> None:
    """API reference, UpdateSchedule: what the request leaves out goes back to its default."""
    end = datetime(2200, 1, 1, tzinfo=UTC)
    scheduler.create_schedule(
        **{**SOME, "Name": "changing", "Description": "first", "State": "DISABLED", "EndDate": end},
        ScheduleExpressionTimezone="Europe/Berlin",
        ActionAfterCompletion="DELETE",
        KmsKeyArn="arn:aws:kms:us-east-1:000000000000:key/k",
    )
    before = scheduler.get_schedule(Name="changing")
    assert (before["EndDate"], before["State"], before["KmsKeyArn"][-5:]) == (end, "DISABLED", "key/k")
    retries = {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
    target = {**TARGET, "Arn": UNIVERSAL, "Input": '{"FunctionName": "f"}', "RetryPolicy": retries}
    changed = {
        "Name": "changing",
        "Target": target,
        "FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 5},
    }
    scheduler.update_schedule(**{**SOME, **changed})
    after = scheduler.get_schedule(Name="changing")
    assert after["CreationDate"] == before["CreationDate"]
    assert after["LastModificationDate"] > before["LastModificationDate"]
    assert {name: after[name] for name in changed} == changed
    assert (after["State"], after["ActionAfterCompletion"], after["ScheduleExpressionTimezone"]) == (
        "ENABLED",
        "NONE",
        "UTC",
    )
    assert not {"Description", "EndDate", "KmsKeyArn"} & set(after)


def test_the_default_group_is_there_and_groups_are_listed(scheduler: Any) -> None:
    scheduler.create_schedule_group(Name="listed", Tags=[{"Key": "k", "Value": "v"}])
    group = scheduler.get_schedule_group(Name="listed")
    assert (group["State"], group["Arn"]) == ("ACTIVE", f"{ACCOUNT}:schedule-group/listed")
    assert scheduler.list_tags_for_resource(ResourceArn=group["Arn"])["Tags"] == [{"Key": "k", "Value": "v"}]
    assert scheduler.get_schedule_group(Name="default")["State"] == "ACTIVE"
    pages = scheduler.get_paginator("list_schedule_groups").paginate(PaginationConfig={"PageSize": 1})
    assert {"default", "listed"} <= {each["Name"] for page in pages for each in page["ScheduleGroups"]}
    (found,) = scheduler.list_schedule_groups(NamePrefix="list")["ScheduleGroups"]
    assert found["Name"] == "listed"
    scheduler.delete_schedule_group(Name="listed")
    with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
        scheduler.list_tags_for_resource(ResourceArn=group["Arn"])


def test_constraints_of_the_model_are_answered_in_its_words(scheduler: Any) -> None:
    with pytest.raises(scheduler.exceptions.ValidationException, match="1 validation error detected"):
        scheduler.create_schedule(**{**SOME, "Name": "white space"})
