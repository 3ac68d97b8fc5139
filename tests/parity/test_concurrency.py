"""Reserved and provisioned concurrency and account settings: what AWS answers. What they do is tested in flows/test_reserved_concurrency.py."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import botocore.config
import pytest
from tests.harness import Server, create_provider, publish_managed, wait_for
from tests.parity.steps import (
    REALM,
    SOURCE,
    STAMP,
    Answers,
    Refuses,
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

RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS

FUNCTIONS_ONLY = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
    "Please specify either a function name or an unqualified function ARN."
)
BELOW_MINIMUM = "account's UnreservedConcurrentExecution below its minimum value of [100]."


@pytest.fixture(autouse=True)
def nothing_is_taken(aws: "LambdaClient") -> Iterator[None]:
    """Each test begins with the whole account, and gives back what it took."""
    yield
    for function in aws.list_functions()["Functions"]:
        name = function["FunctionName"]
        for config in aws.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"]:
            qualifier = config["FunctionArn"].rpartition(":")[2]
            aws.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        aws.delete_function_concurrency(FunctionName=name)
    assert aws.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 1000


def reserve(count: int, expected: Answers | Refuses | None = None, source: Source = RECORDED, **members: Any) -> Step:
    request = {"FunctionName": "{F}", "ReservedConcurrentExecutions": count, **members}
    return Step(
        "put_function_concurrency", request, expected or Answers(200, {"ReservedConcurrentExecutions": count}), source
    )


def provision(
    count: int, qualifier: str, expected: Answers | Refuses | None = None, source: Source = RECORDED, **members: Any
) -> Step:
    request = {"FunctionName": "{F}", "Qualifier": qualifier, "ProvisionedConcurrentExecutions": count, **members}
    begun = Answers(202, {**allocation(count, "IN_PROGRESS"), "LastModified": STAMP})
    return Step("put_provisioned_concurrency_config", request, expected or begun, source)


def allocation(requested: int, status: str, available: int = 0) -> dict[str, Any]:
    return {
        "RequestedProvisionedConcurrentExecutions": requested,
        "AllocatedProvisionedConcurrentExecutions": available,
        "AvailableProvisionedConcurrentExecutions": available,
        "Status": status,
    }


def get(operation: str, expected: Answers | Refuses, source: Source = RECORDED, **members: Any) -> Step:
    return Step(operation, {"FunctionName": "{F}", **members}, expected, source)


RESERVED = [
    get("get_function_concurrency", Answers(200)),
    reserve(0),
    get("get_function_concurrency", Answers(200, {"ReservedConcurrentExecutions": 0}), OURS),
    reserve(1),
    get("get_function_concurrency", Answers(200, {"ReservedConcurrentExecutions": 1})),
    get("delete_function_concurrency", Answers(204)),
    get("get_function_concurrency", Answers(200)),
    get("delete_function_concurrency", Answers(204), OURS),
]

RESERVED_MISTAKES = [
    reserve(1, not_found(f"Function not found: {REALM}:function:doesnotexist:$LATEST"), FunctionName="doesnotexist"),
    # Existence is checked before the account's limit.
    reserve(1001, not_found(f"Function not found: {REALM}:function:doesnotexist:$LATEST"), FunctionName="doesnotexist"),
    reserve(1, invalid(FUNCTIONS_ONLY), FunctionName="{A}:$LATEST"),
    get("get_function_concurrency", invalid(FUNCTIONS_ONLY), OURS, FunctionName="{F}:1"),
    get("delete_function_concurrency", invalid(FUNCTIONS_ONLY), OURS, FunctionName="{F}:1"),
    get(
        "get_function_concurrency",
        not_found(f"Function not found: {REALM}:function:doesnotexist"),
        FunctionName="doesnotexist",
    ),
    get(
        "delete_function_concurrency",
        not_found(f"Function not found: {REALM}:function:doesnotexist"),
        OURS,
        FunctionName="doesnotexist",
    ),
    *(
        reserve(count, invalid(f"Specified ReservedConcurrentExecutions for function decreases {BELOW_MINIMUM}", None))
        for count in (901, 1001)
    ),
    reserve(900),
    # The function's own reservation does not count against it.
    reserve(899),
    reserve(
        2,
        invalid(f"Specified ReservedConcurrentExecutions for function decreases {BELOW_MINIMUM}", None),
        FunctionName="{G}",
    ),
    reserve(1, FunctionName="{G}"),
]

PUBLISHED = [
    get("publish_version", Answers(201, None)),
    get("create_alias", Answers(201, None), Name="live", FunctionVersion="1"),
]
NO_CONFIG = Refuses(
    404, "ProvisionedConcurrencyConfigNotFoundException", "No Provisioned Concurrency Config found for this function"
)
NEITHER = "The function resource provided must be an alias or a published version."


def on(qualifier: str, name: str = "{F}") -> dict[str, str]:
    return {"FunctionName": name, "Qualifier": qualifier}


GET, DELETE = "get_provisioned_concurrency_config", "delete_provisioned_concurrency_config"
LIST = "list_provisioned_concurrency_configs"
MISSING = f"{REALM}:function:doesnotexist"

PROVISIONED_MISTAKES = [
    *PUBLISHED,
    Step(GET, on("1"), NO_CONFIG, RECORDED),
    Step(GET, on("noalias", "doesnotexist"), not_found(f"Cannot find alias arn: {MISSING}:noalias"), RECORDED),
    Step(GET, on("noalias"), not_found("Cannot find alias arn: {A}:noalias"), RECORDED),
    Step(GET, on("10"), not_found("Function not found: {A}:10"), RECORDED),
    Step(GET, on("$LATEST"), invalid(NEITHER), RECORDED),
    Step(DELETE, on("1", "doesnotexist"), not_found(f"Function not found: {MISSING}:1"), RECORDED),
    Step(DELETE, on("noalias"), not_found("Cannot find alias arn: {A}:noalias"), RECORDED),
    Step(DELETE, on("10"), not_found("Function not found: {A}:10"), RECORDED),
    Step(DELETE, on("$LATEST"), invalid(NEITHER), RECORDED),
    Step(DELETE, on("1"), Answers(204), RECORDED),
    Step(LIST, {"FunctionName": "{F}"}, Answers(200, {"ProvisionedConcurrencyConfigs": []}), RECORDED),
    Step(LIST, {"FunctionName": "doesnotexist"}, not_found(f"Function not found: {MISSING}"), RECORDED),
    # Length, pattern and minimum come first: the function would not be found either.
    provision(1, "noalias", not_found(f"Cannot find alias arn: {MISSING}:noalias"), FunctionName="doesnotexist"),
    provision(1, "1", not_found(f"Function not found: {MISSING}:1"), FunctionName="doesnotexist"),
    provision(1, "noalias", not_found("Cannot find alias arn: {A}:noalias")),
    provision(1, "10", not_found("Function not found: {A}:10")),
    provision(
        1, "$LATEST", invalid("Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
    ),
    provision(
        1001,
        "1",
        invalid(
            "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000].", None
        ),
    ),
    provision(901, "1", invalid(f"Specified ConcurrentExecutions for function decreases {BELOW_MINIMUM}", None)),
    reserve(3),
    provision(
        4,
        "1",
        invalid(
            "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
        ),
        RECORDED,
    ),
]

PROVISIONED_LIFE = [
    *PUBLISHED,
    provision(1, "1"),
    provision(
        1,
        "live",
        conflict("Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"),
    ),
    Step(DELETE, on("1"), Answers(204), RECORDED),
    Step(GET, on("1"), NO_CONFIG, RECORDED),
    provision(1, "live"),
    provision(1, "1", conflict("Version is pointed by a Provisioned Concurrency alias")),
    reserve(
        0,
        invalid(
            " ReservedConcurrentExecutions  0 should not be lower than function's total provisioned concurrency [1].",
            None,
        ),
    ),
    get("delete_alias", Answers(204), Name="live"),
    Step(GET, on("live"), not_found("Cannot find alias arn: {A}:live"), RECORDED),
    Step(LIST, {"FunctionName": "{F}"}, Answers(200, {"ProvisionedConcurrencyConfigs": []}), RECORDED),
]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("reserved", RESERVED),
        ("reserved-mistakes", RESERVED_MISTAKES),
        ("provisioned-mistakes", PROVISIONED_MISTAKES),
        ("provisioned-life", PROVISIONED_LIFE),
    ],
)
def test_concurrency(aws: "LambdaClient", name: str, steps: list[Step]) -> None:
    converse(aws, f"concurrency-{name}", steps)


def test_zero_is_no_provisioned_concurrency(aws: "LambdaClient") -> None:
    # boto3 checks the minimum itself; AWS's text is recorded.
    unchecked = boto3.client(
        "lambda",
        endpoint_url=aws.meta.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=botocore.config.Config(parameter_validation=False, retries={"max_attempts": 0}),
    )
    refusal = constraint("0", "provisionedConcurrentExecutions", "Member must have value greater than or equal to 1")
    converse(unchecked, "concurrency-zero", [provision(0, "1", refusal)])


def test_get_function_shows_a_reservation(aws: "LambdaClient") -> None:
    converse(aws, "concurrency-shown", [reserve(0), reserve(7)])
    assert aws.get_function(FunctionName="concurrency-shown")["Concurrency"] == {"ReservedConcurrentExecutions": 7}
    assert "Concurrency" not in aws.get_function(FunctionName="concurrency-shown-other")


def test_a_reservation_on_a_capacity_provider_is_recorded_and_provisioning_refused(aws: "LambdaClient") -> None:
    publish_managed(aws, "concurrency-managed", SOURCE, create_provider(aws, "concurrency"), slots=1)
    put = aws.put_function_concurrency(FunctionName="concurrency-managed", ReservedConcurrentExecutions=5)
    assert put["ReservedConcurrentExecutions"] == 5
    assert aws.get_function_concurrency(FunctionName="concurrency-managed")["ReservedConcurrentExecutions"] == 5
    version = aws.publish_version(FunctionName="concurrency-managed")["Version"]
    with pytest.raises(aws.exceptions.InvalidParameterValueException) as caught:
        aws.put_provisioned_concurrency_config(
            FunctionName="concurrency-managed", Qualifier=version, ProvisionedConcurrentExecutions=1
        )
    assert "capacity provider" in caught.value.response["Error"]["Message"]


def test_account_settings_count_functions_code_and_what_is_taken(aws: "LambdaClient") -> None:
    before = aws.get_account_settings()
    assert before["AccountLimit"] == {
        "TotalCodeSize": 80530636800,
        "CodeSizeUnzipped": 262144000,
        "CodeSizeZipped": 52428800,
        "ConcurrentExecutions": 1000,
        "UnreservedConcurrentExecutions": 1000,
    }
    converse(aws, "account", [get("publish_version", Answers(201, None)), reserve(10), provision(3, "1")])
    after = aws.get_account_settings()
    size = aws.get_function_configuration(FunctionName="account")["CodeSize"]
    other = aws.get_function_configuration(FunctionName="account-other")["CodeSize"]
    assert after["AccountUsage"]["FunctionCount"] == before["AccountUsage"]["FunctionCount"] + 2
    assert after["AccountUsage"]["TotalCodeSize"] == before["AccountUsage"]["TotalCodeSize"] + 2 * size + other
    assert after["AccountLimit"]["UnreservedConcurrentExecutions"] == 990, "provisioned within the reservation"
    aws.delete_function_concurrency(FunctionName="account")
    assert aws.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 997


def test_provisioned_concurrency_is_listed_in_pages(aws: "LambdaClient") -> None:
    steps = [
        get("publish_version", Answers(201, None)),
        *(get("create_alias", Answers(201, None), Name=f"alias-{n}", FunctionVersion="1") for n in range(3)),
        *(provision(1, f"alias-{n}") for n in range(3)),
    ]
    converse(aws, "concurrency-pages", steps)
    seen = []
    for page in aws.get_paginator("list_provisioned_concurrency_configs").paginate(
        FunctionName="concurrency-pages", PaginationConfig={"PageSize": 2}
    ):
        seen += [config["FunctionArn"].rpartition(":")[2] for config in page["ProvisionedConcurrencyConfigs"]]
    assert seen == ["alias-0", "alias-1", "alias-2"]


def test_provisioned_concurrency_becomes_ready(server: Server, aws: "LambdaClient") -> None:
    converse(aws, "concurrency-ready", [*PUBLISHED, provision(2, "live")])

    def settled() -> dict[str, Any] | None:
        found: dict[str, Any] = dict(
            aws.get_provisioned_concurrency_config(FunctionName="concurrency-ready", Qualifier="live")
        )
        return found if found["Status"] != "IN_PROGRESS" else None

    found = wait_for(settled, "the allocation ends")
    assert {**found, "ResponseMetadata": None, "LastModified": None} == {
        **allocation(2, "READY", 2),
        "ResponseMetadata": None,
        "LastModified": None,
    }
    assert [e["version"] for e in server.environments("concurrency-ready")] == ["1", "1"]
