"""Tenant isolation: what AWS answers. That tenants are kept apart: `tests/flows/test_tenants.py`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import create_function, create_provider, on_provider, package, wait_active
from tests.parity.steps import SOURCE, Answers, Refuses, Source, Step, constraint, hold, invalid

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

MODEL, RECORDED, DOCUMENTATION, OURS = Source.MODEL, Source.RECORDED, Source.DOCUMENTATION, Source.OURS
PER_TENANT = {"TenantIsolationMode": "PER_TENANT"}
MISSING = (
    "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."
)
NEEDLESS = "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try again."
TENANT_PATTERN = r"Member must satisfy regular expression pattern: [a-zA-Z0-9\._:\/=+\-@ ]+"
F, T = {"FunctionName": "{F}"}, {"FunctionName": "{T}"}


def unfit(feature: str) -> Refuses:
    return invalid(f"{feature} is not supported for functions with tenancy configuration.")


INVOKE = [
    # The words as AWS answered others; the Developer Guide, "Troubleshooting tenant isolation", names the error for both ways round.
    Step("invoke", T, invalid(MISSING), RECORDED),
    Step("invoke", {**T, "InvocationType": "Event"}, invalid(MISSING), DOCUMENTATION),
    Step("invoke", {**T, "TenantId": "blue", "InvocationType": "DryRun"}, Answers(204, None), MODEL),
    Step("invoke", {**T, "TenantId": "blue", "InvocationType": "Event"}, Answers(202, None), DOCUMENTATION),
    Step("invoke", {**F, "TenantId": "blue"}, invalid(NEEDLESS), DOCUMENTATION),
    Step("invoke_with_response_stream", T, invalid(MISSING), DOCUMENTATION),
    Step("invoke_with_response_stream", {**F, "TenantId": "blue"}, invalid(NEEDLESS), DOCUMENTATION),
    Step("invoke_async", {**T, "InvokeArgs": b"{}"}, invalid(MISSING), OURS),
    Step("invoke", {**T, "TenantId": "blue!"}, constraint("blue!", "tenantId", TENANT_PATTERN), MODEL),
]
FEATURES = [
    # That these are not to be had together: Developer Guide, "Tenant isolation", supported features and limitations.
    Step("create_function_url_config", {**T, "AuthType": "NONE"}, unfit("A function URL"), OURS),
    Step("publish_version", T, Answers(201, None), MODEL),
    Step(
        "put_provisioned_concurrency_config",
        {**T, "Qualifier": "1", "ProvisionedConcurrentExecutions": 1},
        unfit("Provisioned concurrency"),
        OURS,
    ),
    Step(
        "create_event_source_mapping",
        {**T, "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:queue"},
        unfit("An event source mapping"),
        OURS,
    ),
    Step(
        "update_function_configuration", {**T, "SnapStart": {"ApplyOn": "PublishedVersions"}}, unfit("SnapStart"), OURS
    ),
    Step("put_function_concurrency", {**T, "ReservedConcurrentExecutions": 5}, Answers(200, None), DOCUMENTATION),
]


@pytest.mark.parametrize("steps", [INVOKE, FEATURES], ids=["invoke", "features"])
def test_conversations(aws: "LambdaClient", steps: list[Step], request: pytest.FixtureRequest) -> None:
    plain = f"tenancy-{request.node.callspec.id}"
    for name, members in ((plain, {}), (f"{plain}-t", {"TenancyConfig": PER_TENANT})):
        create_function(aws, name, SOURCE, **members)
        wait_active(aws, name, "$LATEST")
    hold(aws, steps, {"F": plain, "T": f"{plain}-t"})


def test_the_mode_is_in_every_configuration_and_stays(aws: "LambdaClient") -> None:
    name = "tenancy-shown"
    created = create_function(aws, name, SOURCE, TenancyConfig=PER_TENANT)
    wait_active(aws, name, "$LATEST")
    updated = aws.update_function_configuration(FunctionName=name, Description="changed")
    wait_active(aws, name, "$LATEST")
    code = aws.update_function_code(FunctionName=name, ZipFile=package(SOURCE + "# changed\n"))
    wait_active(aws, name, "$LATEST")
    shown: list[Mapping[str, Any]] = [
        created,
        updated,
        code,
        aws.publish_version(FunctionName=name),
        aws.get_function(FunctionName=name)["Configuration"],
        aws.get_function_configuration(FunctionName=name, Qualifier="1"),
        *aws.list_versions_by_function(FunctionName=name)["Versions"],
        *(each for each in aws.list_functions()["Functions"] if each["FunctionName"] == name),
    ]
    assert [each["TenancyConfig"] for each in shown] == [PER_TENANT] * 9


@pytest.mark.parametrize("feature", ["CapacityProviderConfig", "SnapStart"])
def test_what_a_function_cannot_be_created_with(aws: "LambdaClient", feature: str) -> None:
    members: dict[str, Any] = {"SnapStart": {"ApplyOn": "PublishedVersions"}}
    if feature == "CapacityProviderConfig":
        members = on_provider(create_provider(aws, "tenancy-pool"))
    request = {
        "FunctionName": "tenancy-unfit",
        "Runtime": "python3.13",
        "Role": "arn:aws:iam::000000000000:role/r",
        "Handler": "app.handler",
        "Code": {"ZipFile": package(SOURCE)},
        "TenancyConfig": PER_TENANT,
        **members,
    }
    hold(aws, [Step("create_function", request, unfit(feature), OURS)], {})


def test_a_function_on_a_capacity_provider_takes_no_tenant(aws: "LambdaClient") -> None:
    name = "tenancy-managed"
    create_function(aws, name, SOURCE, **on_provider(create_provider(aws, "tenancy-pool-2"), slots=1), Publish=True)
    wait_active(aws, name, "1")
    call = {"FunctionName": name, "Qualifier": "1", "TenantId": "blue"}
    hold(aws, [Step("invoke", call, invalid(NEEDLESS), DOCUMENTATION)], {})
