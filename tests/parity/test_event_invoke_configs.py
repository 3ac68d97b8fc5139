"""Event invoke configs: what AWS answers. What the queue makes of them is tested with the queue."""

from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import create_provider, publish_managed
from tests.parity.steps import (
    REALM,
    SOURCE,
    Answers,
    Moment,
    Refuses,
    Source,
    Step,
    constraint,
    converse,
    invalid,
    not_found,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS
PUT, UPDATE = "put_function_event_invoke_config", "update_function_event_invoke_config"
GET, DELETE = "get_function_event_invoke_config", "delete_function_event_invoke_config"
LIST = "list_function_event_invoke_configs"
F = {"FunctionName": "{F}"}
ACCOUNT = "us-east-1:000000000000"
ARN_PATTERN = (
    r"Member must satisfy regular expression pattern: $|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):"
    r"([a-zA-Z0-9\-])+:((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)


def config(qualifier: str = "$LATEST", destinations: Any = None, **members: Any) -> dict[str, Any]:
    none: dict[str, Any] = {"OnSuccess": {}, "OnFailure": {}}
    return {
        "FunctionArn": "{A}:" + qualifier,
        "LastModified": Moment(),
        "DestinationConfig": {**none, **(destinations or {})},
        **members,
    }


def answers(qualifier: str = "$LATEST", destinations: Any = None, **members: Any) -> Answers:
    return Answers(200, config(qualifier, destinations, **members))


def absent(qualifier: str = "$LATEST", arn: str = "{A}") -> Refuses:
    return not_found(f"The function {arn}:{qualifier} doesn't have an EventInvokeConfig")


PUBLISHED = [
    Step("publish_version", F, Answers(201, None), RECORDED),
    Step("create_alias", {**F, "Name": "live", "FunctionVersion": "1"}, Answers(201, None), RECORDED),
]

LIFE = [
    Step(GET, F, absent(), RECORDED),
    Step(UPDATE, {**F, "MaximumRetryAttempts": 0}, absent(), RECORDED),
    Step(PUT, {**F, "MaximumRetryAttempts": 0}, answers(MaximumRetryAttempts=0), RECORDED),
    # Put replaces everything.
    Step(PUT, {**F, "MaximumEventAgeInSeconds": 60}, answers(MaximumEventAgeInSeconds=60), RECORDED),
    # Update merges.
    Step(UPDATE, {**F, "MaximumEventAgeInSeconds": 60}, answers(MaximumEventAgeInSeconds=60), RECORDED),
    Step(
        UPDATE,
        {**F, "MaximumRetryAttempts": 1},
        answers(MaximumEventAgeInSeconds=60, MaximumRetryAttempts=1),
        RECORDED,
    ),
    *(
        Step(GET, name, answers(MaximumEventAgeInSeconds=60, MaximumRetryAttempts=1), RECORDED)
        for name in (F, {**F, "Qualifier": "$LATEST"}, {"FunctionName": "{F}:$LATEST"})
    ),
    Step("publish_version", F, Answers(201, None), RECORDED),
    Step(GET, {**F, "Qualifier": "1"}, absent("1"), RECORDED),
    Step(
        PUT,
        {**F, "Qualifier": "1", "MaximumEventAgeInSeconds": 120},
        answers("1", MaximumEventAgeInSeconds=120),
        RECORDED,
    ),
    Step("create_alias", {**F, "Name": "live", "FunctionVersion": "1"}, Answers(201, None), RECORDED),
    *(
        Step(PUT, {**name, "MaximumRetryAttempts": 1}, answers("live", MaximumRetryAttempts=1), RECORDED)
        for name in (
            {**F, "Qualifier": "live"},
            {"FunctionName": "{A}:live"},
            {"FunctionName": "{A}:live", "Qualifier": "live"},
            {"FunctionName": "{F}:live"},
        )
    ),
    Step(
        LIST,
        F,
        Answers(
            200,
            {
                "FunctionEventInvokeConfigs": [
                    config(MaximumEventAgeInSeconds=60, MaximumRetryAttempts=1),
                    config("1", MaximumEventAgeInSeconds=120),
                    config("live", MaximumRetryAttempts=1),
                ]
            },
        ),
        RECORDED,
    ),
    Step(DELETE, F, Answers(204), RECORDED),
    Step(DELETE, F, absent(), RECORDED),
    Step(DELETE, {**F, "Qualifier": "1"}, Answers(204), RECORDED),
    Step("delete_alias", {**F, "Name": "live"}, Answers(204), MODEL),
    Step(LIST, F, Answers(200, {"FunctionEventInvokeConfigs": []}), RECORDED),
]

MISTAKES = [
    *PUBLISHED,
    *(
        Step(PUT, {**name, "MaximumRetryAttempts": 1}, not_found("The function doesn't exist."), RECORDED)
        for name in (
            {"FunctionName": "doesnotexist"},
            {"FunctionName": f"{REALM}:function:doesnotexist"},
            {**F, "Qualifier": "nobody"},
        )
    ),
    Step(
        UPDATE,
        {"FunctionName": "doesnotexist", "MaximumRetryAttempts": 1},
        not_found("The function doesn't exist."),
        RECORDED,
    ),
    Step(LIST, {"FunctionName": "doesnotexist"}, not_found("The function doesn't exist."), RECORDED),
    *(
        Step(operation, {"FunctionName": "doesnotexist"}, absent(arn=f"{REALM}:function:doesnotexist"), RECORDED)
        for operation in (GET, DELETE)
    ),
    Step(GET, {**F, "Qualifier": "nobody"}, absent("nobody"), RECORDED),
    Step(UPDATE, {**F, "Qualifier": "live", "MaximumRetryAttempts": 1}, absent("live"), RECORDED),
    Step(PUT, F, invalid("You must specify at least one of error handling or destination setting."), RECORDED),
    *(
        Step(
            PUT,
            {**name, "MaximumRetryAttempts": 1},
            invalid("The derived qualifier from the function name does not match the specified qualifier."),
            RECORDED,
        )
        for name in (
            {"FunctionName": "{A}:live", "Qualifier": "1"},
            {"FunctionName": "{F}:live", "Qualifier": "$LATEST"},
            {"FunctionName": "{F}:1", "Qualifier": "live"},
        )
    ),
]


def to(on_success: str | None = None, on_failure: str | None = None) -> dict[str, Any]:
    destinations = {"OnSuccess": on_success, "OnFailure": on_failure}
    return {**F, "DestinationConfig": {event: {"Destination": arn} for event, arn in destinations.items() if arn}}


def refused(on_success: str | None = None, on_failure: str | None = None) -> Refuses:
    success = f"OnSuccess(destination={on_success})" if on_success else "null"
    failure = f"OnFailure(destination={on_failure})" if on_failure else "null"
    return invalid(
        f"The provided destination config DestinationConfig(onSuccess={success}, onFailure={failure}) is invalid."
    )


OTHER = f"{REALM}:function:" + "{G}"
QUEUE, BUCKET = f"arn:aws:sqs:{ACCOUNT}:queue", "arn:aws:s3:::bucket"
TOPIC, BUS = f"arn:aws:sns:{ACCOUNT}:topic", f"arn:aws:events:{ACCOUNT}:event-bus/default"
NOBODY = f"{REALM}:function:doesnotexist"
DESTINATIONS = [
    Step(PUT, to(OTHER), answers(destinations={"OnSuccess": {"Destination": OTHER}}), RECORDED),
    Step(PUT, {**F, "DestinationConfig": {"OnSuccess": {}}}, answers(), RECORDED),
    Step(PUT, {**F, "DestinationConfig": {"OnFailure": {}}}, answers(), RECORDED),
    *(
        Step(
            PUT,
            to(arn, QUEUE),
            answers(destinations={"OnSuccess": {"Destination": arn}, "OnFailure": {"Destination": QUEUE}}),
            MODEL,
        )
        for arn in (TOPIC, BUS, QUEUE)
    ),
    # Update leaves the destination alone that it does not name; an empty one takes it away.
    Step(
        UPDATE,
        to(on_failure=BUCKET),
        answers(destinations={"OnSuccess": {"Destination": QUEUE}, "OnFailure": {"Destination": BUCKET}}),
        DOCUMENTATION,
    ),
    Step(
        UPDATE,
        {**F, "DestinationConfig": {"OnSuccess": {"Destination": ""}}},
        answers(destinations={"OnFailure": {"Destination": BUCKET}}),
        OURS,
    ),
    Step(PUT, to(NOBODY), invalid(f"The destination ARN {NOBODY} is invalid."), RECORDED),
    Step(PUT, to("{A}"), invalid("You can't specify the function as a destination for itself."), RECORDED),
    Step(PUT, to(on_failure="{A}:1"), invalid("You can't specify the function as a destination for itself."), OURS),
    Step(PUT, to(f"arn:aws:iam:{ACCOUNT}:x"), refused(f"arn:aws:iam:{ACCOUNT}:x"), RECORDED),
    Step(PUT, to(BUCKET), refused(BUCKET), DOCUMENTATION),
    Step(PUT, to(on_failure="kafka://topic"), refused(on_failure="kafka://topic"), DOCUMENTATION),
    Step(PUT, to(TOPIC, f"{QUEUE}.fifo"), refused(TOPIC, f"{QUEUE}.fifo"), DOCUMENTATION),
    Step(
        PUT,
        to(on_failure="arn:aws:_-/!lambda:x"),
        constraint("arn:aws:_-/!lambda:x", "destinationConfig.onFailure.destination", ARN_PATTERN),
        RECORDED,
    ),
    Step(GET, F, answers(destinations={"OnFailure": {"Destination": BUCKET}}), OURS),
]


@pytest.mark.parametrize(("name", "steps"), [("life", LIFE), ("mistakes", MISTAKES), ("destinations", DESTINATIONS)])
def test_event_invoke_configs(aws: "LambdaClient", name: str, steps: list[Step]) -> None:
    converse(aws, f"invokes-{name}", steps)


def test_configs_are_listed_in_pages(aws: "LambdaClient") -> None:
    puts = [
        Step(PUT, {**F, "Qualifier": qualifier, "MaximumRetryAttempts": 1}, Answers(200, None), MODEL)
        for qualifier in ("live", "1", "$LATEST")
    ]
    converse(aws, "invokes-pages", [*PUBLISHED, *puts])
    pages = aws.get_paginator("list_function_event_invoke_configs").paginate(
        FunctionName="invokes-pages", PaginationConfig={"PageSize": 2}
    )
    found = [[c["FunctionArn"].rpartition(":")[2] for c in page["FunctionEventInvokeConfigs"]] for page in pages]
    assert found == [["$LATEST", "1"], ["live"]]


def test_the_version_published_on_a_provider_can_have_a_config(aws: "LambdaClient") -> None:
    publish_managed(aws, "invokes-managed", SOURCE, create_provider(aws, "invokes"), slots=1)
    put = aws.put_function_event_invoke_config(
        FunctionName="invokes-managed", Qualifier="$LATEST.PUBLISHED", MaximumRetryAttempts=1
    )
    assert put["FunctionArn"].endswith(":function:invokes-managed:$LATEST.PUBLISHED")
