"""Runtime management configs and recursion configs: what AWS answers."""

from typing import TYPE_CHECKING, Any

import pytest
from tests.parity.steps import REALM, Answers, Source, Step, constraint, converse, invalid, not_found

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED, MODEL, OURS = Source.RECORDED, Source.MODEL, Source.OURS
F = {"FunctionName": "{F}"}
MISSING = not_found(f"Function not found: {REALM}:function:doesnotexist")
RUNTIME = f"arn:aws:lambda:us-east-1::runtime:{'0' * 64}"
PUT, GET = "put_runtime_management_config", "get_runtime_management_config"


def managed(mode: str = "Auto", arn: str = "{A}", **members: Any) -> Answers:
    return Answers(200, {"UpdateRuntimeOn": mode, "FunctionArn": arn, **members})


RUNTIME_MANAGEMENT = [
    Step(GET, F, managed(), MODEL),
    Step(PUT, {**F, "UpdateRuntimeOn": "FunctionUpdate"}, managed("FunctionUpdate"), MODEL),
    Step(GET, F, managed("FunctionUpdate"), MODEL),
    Step(GET, {**F, "Qualifier": "$LATEST"}, managed("FunctionUpdate", "{A}:$LATEST"), MODEL),
    Step("publish_version", F, Answers(201, None), MODEL),
    Step(GET, {**F, "Qualifier": "1"}, managed("Auto", "{A}:1"), OURS),
    Step(
        PUT,
        {**F, "Qualifier": "1", "UpdateRuntimeOn": "Manual", "RuntimeVersionArn": RUNTIME},
        managed("Manual", "{A}:1", RuntimeVersionArn=RUNTIME),
        MODEL,
    ),
    Step(GET, {"FunctionName": "{F}:1"}, managed("Manual", "{A}:1", RuntimeVersionArn=RUNTIME), MODEL),
    Step(GET, F, managed("FunctionUpdate"), MODEL),
    Step(
        PUT,
        {**F, "UpdateRuntimeOn": "Manual"},
        invalid("RuntimeVersionArn is required when UpdateRuntimeOn is Manual."),
        OURS,
    ),
    Step(
        PUT,
        {**F, "UpdateRuntimeOn": "Auto", "RuntimeVersionArn": RUNTIME},
        invalid("RuntimeVersionArn is allowed only when UpdateRuntimeOn is Manual."),
        OURS,
    ),
    Step(PUT, {"FunctionName": "doesnotexist", "UpdateRuntimeOn": "Auto"}, MISSING, OURS),
    Step(GET, {"FunctionName": "doesnotexist"}, MISSING, OURS),
    Step(GET, {**F, "Qualifier": "7"}, not_found("Function not found: {A}:7"), OURS),
    Step(
        PUT,
        {**F, "UpdateRuntimeOn": "Manual", "RuntimeVersionArn": RUNTIME},
        managed("Manual", RuntimeVersionArn=RUNTIME),
        MODEL,
    ),
    # Text from a report of a Terraform user (hashicorp/terraform-provider-aws 42699).
    Step(
        "update_function_configuration",
        {**F, "Runtime": "python3.12"},
        invalid(
            "Cannot change runtime identifier when runtime management configuration is set to 'Manual'. "
            "Change the runtime management configuration to 'Auto' or 'FunctionUpdate', then retry."
        ),
        RECORDED,
    ),
    Step("update_function_configuration", {**F, "Runtime": "python3.13", "Timeout": 9}, Answers(200, None), OURS),
]

RECURSION = [
    Step("get_function_recursion_config", F, Answers(200, {"RecursiveLoop": "Terminate"}), RECORDED),
    Step(
        "put_function_recursion_config",
        {**F, "RecursiveLoop": "Allow"},
        Answers(200, {"RecursiveLoop": "Allow"}),
        RECORDED,
    ),
    Step("get_function_recursion_config", F, Answers(200, {"RecursiveLoop": "Allow"}), RECORDED),
    Step(
        "put_function_recursion_config",
        {**F, "RecursiveLoop": "InvalidValue"},
        constraint("InvalidValue", "recursiveLoop", "Member must satisfy enum value set: [Terminate, Allow]"),
        RECORDED,
    ),
    Step("get_function_recursion_config", {"FunctionName": "doesnotexist"}, MISSING, OURS),
    Step(
        "put_function_recursion_config",
        {"FunctionName": "doesnotexist", "RecursiveLoop": "Allow"},
        MISSING,
        OURS,
    ),
    Step("get_function_recursion_config", F, Answers(200, {"RecursiveLoop": "Allow"}), RECORDED),
]


@pytest.mark.parametrize(("name", "steps"), [("runtime", RUNTIME_MANAGEMENT), ("recursion", RECURSION)])
def test_runtime_and_recursion(aws: "LambdaClient", name: str, steps: list[Step]) -> None:
    converse(aws, f"settings-{name}", steps)


def test_settings_of_a_function_do_not_disturb_each_other_and_end_with_it(aws: "LambdaClient") -> None:
    steps = [
        Step("put_function_recursion_config", {**F, "RecursiveLoop": "Allow"}, Answers(200, None), MODEL),
        Step("put_function_concurrency", {**F, "ReservedConcurrentExecutions": 3}, Answers(200, None), MODEL),
        Step("get_function_recursion_config", F, Answers(200, {"RecursiveLoop": "Allow"}), MODEL),
        Step("get_function_concurrency", F, Answers(200, {"ReservedConcurrentExecutions": 3}), MODEL),
        Step("delete_function", F, Answers(204, None), MODEL),
    ]
    converse(aws, "settings-gone", steps)
    after = [
        Step("get_function_recursion_config", F, Answers(200, {"RecursiveLoop": "Terminate"}), OURS),
        Step("get_function_concurrency", F, Answers(200), OURS),
    ]
    aws.delete_function(FunctionName="settings-gone-other")
    converse(aws, "settings-gone", after)
