"""Function URL configs: what AWS answers. How the URLs themselves answer: `tests/flows/test_function_urls.py`."""

from typing import TYPE_CHECKING, Any

import pytest
from tests.parity.steps import (
    REALM,
    STAMP,
    Answers,
    Like,
    Source,
    Step,
    conflict,
    constraint,
    converse,
    invalid,
    not_found,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED, MODEL, OURS = Source.RECORDED, Source.MODEL, Source.OURS
URL = Like(r"http://[0-9a-f]{32}\.lambda-url\.us-east-1\.localhost:\d+/")
ABSENT = "The resource you requested does not exist."
NO_FUNCTION = "Function does not exist"
QUALIFIER_PATTERN = r"Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)"
CREATE, GET, UPDATE = "create_function_url_config", "get_function_url_config", "update_function_url_config"
DELETE, LIST = "delete_function_url_config", "list_function_url_configs"


def created(arn: str = "{A}", **members: Any) -> Answers:
    config = {"FunctionUrl": URL, "FunctionArn": arn, "AuthType": "NONE", "CreationTime": STAMP, **members}
    return Answers(201, config, {"url": "FunctionUrl"})


def shown(arn: str = "{A}", **members: Any) -> dict[str, Any]:
    times = {"CreationTime": STAMP, "LastModifiedTime": STAMP}
    return {"FunctionUrl": URL, "FunctionArn": arn, "AuthType": "NONE", "InvokeMode": "BUFFERED", **times, **members}


def without_mode(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "InvokeMode"}


F = {"FunctionName": "{F}"}
PUBLISHED = [
    Step("publish_version", F, Answers(201, None), RECORDED),
    Step("create_alias", {**F, "Name": "live", "FunctionVersion": "1"}, Answers(201, None), RECORDED),
]
CORS = {"AllowCredentials": True, "AllowMethods": ["GET"], "AllowOrigins": ["https://example.com"], "MaxAge": 5}

LIFE = [
    Step(GET, F, not_found(ABSENT), RECORDED),
    Step(CREATE, {**F, "AuthType": "NONE"}, created(), RECORDED),
    Step(
        CREATE,
        {**F, "AuthType": "NONE"},
        conflict(
            "Failed to create function url config for [functionArn = {A}]. "
            "Error message:  FunctionUrlConfig exists for this Lambda function"
        ),
        RECORDED,
    ),
    Step(GET, F, Answers(200, shown(FunctionUrl="{url}")), RECORDED),
    Step(UPDATE, {**F, "AuthType": "AWS_IAM"}, Answers(200, without_mode(shown(AuthType="AWS_IAM"))), RECORDED),
    Step(UPDATE, {**F, "Cors": CORS}, Answers(200, without_mode(shown(AuthType="AWS_IAM", Cors=CORS))), MODEL),
    Step(
        UPDATE,
        {**F, "InvokeMode": "RESPONSE_STREAM", "AuthType": "NONE"},
        Answers(200, shown(Cors=CORS, InvokeMode="RESPONSE_STREAM")),
        MODEL,
    ),
    Step(GET, F, Answers(200, shown(Cors=CORS, InvokeMode="RESPONSE_STREAM", FunctionUrl="{url}")), MODEL),
    Step(DELETE, F, Answers(204), RECORDED),
    Step(GET, F, not_found(ABSENT), RECORDED),
    Step(DELETE, F, not_found(ABSENT), RECORDED),
    Step(CREATE, {**F, "AuthType": "AWS_IAM"}, created(AuthType="AWS_IAM"), OURS),
]

QUALIFIERS = [
    *PUBLISHED,
    Step(LIST, F, Answers(200, {"FunctionUrlConfigs": []}), RECORDED),
    Step(CREATE, {**F, "AuthType": "NONE"}, created(), RECORDED),
    Step(
        CREATE,
        {"FunctionName": "{A}:live", "AuthType": "NONE", "InvokeMode": "BUFFERED"},
        created("{A}:live", InvokeMode="BUFFERED"),
        RECORDED,
    ),
    Step(LIST, F, Answers(200, {"FunctionUrlConfigs": [shown(), shown("{A}:live")]}), RECORDED),
    # Without a qualifier only the unqualified one goes.
    Step(DELETE, F, Answers(204), RECORDED),
    Step(GET, F, not_found(ABSENT), RECORDED),
    Step(GET, {**F, "Qualifier": "live"}, Answers(200, shown("{A}:live", FunctionUrl="{url}")), RECORDED),
    Step("delete_alias", {**F, "Name": "live"}, Answers(204), MODEL),
    Step(LIST, F, Answers(200, {"FunctionUrlConfigs": []}), OURS),
]


def mistakes() -> list[Step]:
    auth: dict[str, Any] = {"AuthType": "NONE"}
    unknown = {"FunctionName": "doesnotexist"}
    unknown_arn = {"FunctionName": f"{REALM}:function:doesnotexist"}
    nobody = {**F, "Qualifier": "nobody"}
    mismatch = invalid("The derived qualifier from the function name does not match the specified qualifier.")
    steps = [*PUBLISHED, Step(LIST, unknown, not_found(NO_FUNCTION), RECORDED)]
    for operation, text, more in (
        (CREATE, NO_FUNCTION, auth),
        (GET, ABSENT, {}),
        (UPDATE, NO_FUNCTION, auth),
        (DELETE, ABSENT, {}),
    ):
        steps += [
            Step(operation, {**name, **more}, not_found(text), RECORDED) for name in (unknown, unknown_arn, nobody)
        ]
        steps += [
            Step(
                operation,
                {**F, "Qualifier": qualifier, **more},
                constraint(qualifier, "qualifier", QUALIFIER_PATTERN),
                RECORDED,
            )
            for qualifier in ("1", "2", "$LATEST", "$LATEST.PUBLISHED")
        ]
        steps.append(Step(operation, {"FunctionName": "{F}:live", "Qualifier": "nobody", **more}, mismatch, RECORDED))
    wrong_mode = constraint("x", "invokeMode", "Member must satisfy enum value set: [RESPONSE_STREAM, BUFFERED]")
    return [
        *steps,
        Step(UPDATE, {**F, **auth}, not_found(ABSENT), RECORDED),
        Step(CREATE, {**F, **auth, "InvokeMode": "x"}, wrong_mode, RECORDED),
    ]


@pytest.mark.parametrize(("name", "steps"), [("life", LIFE), ("qualifiers", QUALIFIERS), ("mistakes", mistakes())])
def test_function_urls(aws: "LambdaClient", name: str, steps: list[Step]) -> None:
    converse(aws, f"urls-{name}", steps)


def test_url_configs_are_listed_in_pages_the_unqualified_one_first(aws: "LambdaClient") -> None:
    steps: list[Step] = [
        *PUBLISHED,
        Step("create_alias", {**F, "Name": "a", "FunctionVersion": "1"}, Answers(201, None), MODEL),
        *(
            Step(CREATE, {"FunctionName": name, "AuthType": "NONE"}, Answers(201, None), MODEL)
            for name in ("{F}:live", "{F}", "{F}:a")
        ),
    ]
    converse(aws, "urls-pages", steps)
    pages = aws.get_paginator("list_function_url_configs").paginate(
        FunctionName="urls-pages", PaginationConfig={"PageSize": 1}
    )
    found = [[c["FunctionArn"].rpartition("urls-pages")[2] for c in page["FunctionUrlConfigs"]] for page in pages]
    assert found == [[""], [":a"], [":live"]]


def test_a_url_id_is_never_given_out_twice(aws: "LambdaClient") -> None:
    seen = set()
    for number in range(5):
        converse(aws, f"urls-unique-{number}", [Step(CREATE, {**F, "AuthType": "NONE"}, created(), RECORDED)])
        seen.add(aws.get_function_url_config(FunctionName=f"urls-unique-{number}")["FunctionUrl"])
    assert len(seen) == 5
