"""A managed function's life through AWS's client: states, versions, qualifiers, scaling, deletion."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    PUBLISHED,
    Server,
    create_function,
    create_provider,
    invoke,
    on_provider,
    package,
    publish_managed,
    wait_active,
    wait_for,
    wait_updated,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

ECHO = "def handler(event, context):\n    return {'event': event, 'version': context.function_version, 'arn': context.invoked_function_arn}\n"


def answering(value: str) -> str:
    return f"def handler(event, context):\n    return {value!r}\n"


@pytest.fixture(scope="module")
def provider(aws: "LambdaClient") -> str:
    return create_provider(aws)


def refused(call: Any, code: str, text: str) -> None:
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.response["Error"]["Code"] == code
    assert text in caught.value.response["Error"]["Message"]


def test_latest_is_never_invocable_and_unqualified_means_latest_published(aws: "LambdaClient", provider: str) -> None:
    created = create_function(aws, "life", ECHO, **on_provider(provider, 4))
    assert (created["State"], created["StateReasonCode"]) == ("Pending", "Creating")
    assert created["MemorySize"] == 2048
    assert created["LoggingConfig"] == {
        "LogFormat": "JSON",
        "ApplicationLogLevel": "INFO",
        "SystemLogLevel": "INFO",
        "LogGroup": "/aws/lambda/life",
    }
    wait_for(
        lambda: aws.get_function_configuration(FunctionName="life")["State"] == "ActiveNonInvocable", "$LATEST settles"
    )
    refused(lambda: aws.invoke(FunctionName="life"), "NoPublishedVersionException", "no published version exists")
    published = aws.publish_version(FunctionName="life", PublishTo="LATEST_PUBLISHED")
    assert published["FunctionArn"].endswith(":function:life:$LATEST.PUBLISHED")
    assert published["State"] == "Pending"
    wait_active(aws, "life")
    answer = invoke(aws, "life", {"a": 1})
    assert answer.payload["event"] == {"a": 1}
    assert answer.payload["version"] == answer.version == PUBLISHED
    assert answer.payload["arn"].endswith(":life:$LATEST.PUBLISHED")
    refused(
        lambda: aws.invoke(FunctionName="life", Qualifier="$LATEST"),
        "InvalidParameterValueException",
        "can't be invoked with $LATEST qualifier",
    )


def test_numbers_are_immutable_and_republish_replaces_in_place(aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "numbers", answering("one"), provider)
    first = aws.publish_version(FunctionName="numbers", Description="the first")
    assert (first["Version"], first["State"]) == ("1", "Pending")
    wait_active(aws, "numbers", "1")
    aws.update_function_code(FunctionName="numbers", ZipFile=package(answering("two")))
    wait_updated(aws, "numbers")
    assert invoke(aws, "numbers").payload == "one", "an update has no effect until it is published"
    again = aws.publish_version(FunctionName="numbers", PublishTo="LATEST_PUBLISHED")
    assert (again["State"], again["LastUpdateStatus"], again["LastUpdateStatusReasonCode"]) == (
        "Active",
        "InProgress",
        "Updating",
    )
    wait_active(aws, "numbers")
    assert invoke(aws, "numbers").payload == "two"
    assert invoke(aws, "numbers", Qualifier="1").payload == "one"
    unchanged = aws.publish_version(FunctionName="numbers", PublishTo="LATEST_PUBLISHED")
    assert unchanged["LastUpdateStatus"] == "Successful"
    versions = [v["Version"] for v in aws.list_versions_by_function(FunctionName="numbers")["Versions"]]
    assert versions == ["$LATEST", PUBLISHED, "1"]


def test_a_republish_under_load_drops_nothing(server: Server, aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "rolling", answering("old"), provider)
    aws.update_function_code(FunctionName="rolling", ZipFile=package(answering("new")))
    wait_updated(aws, "rolling")
    aws.publish_version(FunctionName="rolling", PublishTo="LATEST_PUBLISHED")
    answers = [invoke(aws, "rolling").payload]
    while answers[-1] != "new":
        answers += [f.result().payload for f in [server.clients.submit(invoke, aws, "rolling") for _ in range(4)]]
    assert set(answers) <= {"old", "new"}
    wait_for(lambda: len(server.environments("rolling")) == 1, "the old environment is gone")


def test_aliases_run_their_versions_by_weight(aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "weighted", answering("published"), provider)
    aws.publish_version(FunctionName="weighted")
    wait_active(aws, "weighted", "1")
    aws.create_alias(FunctionName="weighted", Name="live", FunctionVersion="1")
    assert invoke(aws, "weighted:live").version == "1"
    aws.create_alias(FunctionName="weighted", Name="newest", FunctionVersion=PUBLISHED)
    assert invoke(aws, "weighted", Qualifier="newest").version == PUBLISHED
    refused(lambda: aws.delete_function(FunctionName="weighted", Qualifier="1"), "ResourceConflictException", "[live]")


def test_a_failing_init_fails_the_version_and_says_why(aws: "LambdaClient", provider: str) -> None:
    create_function(
        aws, "broken", "import missing_module\n", **on_provider(provider, 2, Publish=True, PublishTo="LATEST_PUBLISHED")
    )
    failed = wait_for(
        lambda: (
            (c := aws.get_function_configuration(FunctionName="broken", Qualifier=PUBLISHED))["State"] == "Failed" and c
        ),
        "the version fails",
    )
    assert failed["StateReasonCode"] == "FunctionError.RuntimeInitError"
    assert "No module named 'missing_module'" in failed["StateReason"]
    refused(lambda: aws.invoke(FunctionName="broken"), "ResourceConflictException", "following state: Failed")
    aws.update_function_code(FunctionName="broken", ZipFile=package(answering("mended")))
    wait_updated(aws, "broken")
    aws.publish_version(FunctionName="broken", PublishTo="LATEST_PUBLISHED")
    wait_active(aws, "broken")
    assert invoke(aws, "broken").payload == "mended"


def test_a_failing_republish_leaves_the_old_publication_serving(aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "steady", answering("steady"), provider)
    aws.update_function_code(FunctionName="steady", ZipFile=package("raise RuntimeError('at import')\n"))
    wait_updated(aws, "steady")
    aws.publish_version(FunctionName="steady", PublishTo="LATEST_PUBLISHED")
    failed = wait_for(
        lambda: (
            (c := aws.get_function_configuration(FunctionName="steady", Qualifier=PUBLISHED))["LastUpdateStatus"]
            == "Failed"
            and c
        ),
        "the update fails",
    )
    assert failed["State"] == "Active"
    assert "at import" in failed["LastUpdateStatusReason"]
    assert invoke(aws, "steady").payload == "steady"


def test_scaling_to_zero_deactivates_and_back_reactivates(server: Server, aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "sleeper", answering("awake"), provider)
    put = {"FunctionName": "sleeper", "Qualifier": PUBLISHED}
    off = aws.put_function_scaling_config(
        **put, FunctionScalingConfig={"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0}
    )
    assert off["FunctionState"] == "Deactivating"
    wait_for(lambda: aws.get_function_configuration(**put)["State"] == "Deactivated", "the version is deactivated")
    assert not server.environments("sleeper")
    refused(lambda: aws.invoke(FunctionName="sleeper"), "ResourceConflictException", "following state: Deactivated")
    aws.put_function_scaling_config(
        **put, FunctionScalingConfig={"MinExecutionEnvironments": 2, "MaxExecutionEnvironments": 3}
    )
    wait_active(aws, "sleeper")
    assert invoke(aws, "sleeper").payload == "awake"
    assert len(server.environments("sleeper")) == 2
    wait_for(
        lambda: (
            "RequestedFunctionScalingConfig" not in (config := aws.get_function_scaling_config(**put))
            and config["AppliedFunctionScalingConfig"] == {"MinExecutionEnvironments": 2, "MaxExecutionEnvironments": 3}
        ),
        "the scaling config is applied",
    )


def test_capacity_beyond_the_vcpu_limit_fails_the_version_with_awss_reason(aws: "LambdaClient") -> None:
    small = create_provider(aws, "small", CapacityProviderScalingConfig={"MaxVCpuCount": 2})
    create_function(
        aws,
        "greedy",
        answering("x"),
        MemorySize=8192,
        **on_provider(small, 2, Publish=True, PublishTo="LATEST_PUBLISHED"),
    )
    failed = wait_for(
        lambda: (
            (c := aws.get_function_configuration(FunctionName="greedy", Qualifier=PUBLISHED))["State"] == "Failed" and c
        ),
        "the version fails",
    )
    assert failed["StateReasonCode"] == "CapacityProviderScalingLimitExceeded"
    assert "Increase maxVCpuCount" in failed["StateReason"]


def test_a_function_is_deleted_after_its_environments_and_then_its_provider(
    server: Server, aws: "LambdaClient"
) -> None:
    arn = create_provider(aws, "doomed")
    publish_managed(aws, "leaver", answering("bye"), arn)
    listed = aws.list_function_versions_by_capacity_provider(CapacityProviderName="doomed")["FunctionVersions"]
    assert {v["FunctionArn"].rsplit(":", 1)[1]: v["State"] for v in listed} == {
        "$LATEST": "ActiveNonInvocable",
        PUBLISHED: "Active",
    }
    refused(
        lambda: aws.delete_capacity_provider(CapacityProviderName="doomed"),
        "ResourceConflictException",
        "is currently in use by 1 functions",
    )
    deleted = aws.delete_function(FunctionName="leaver")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 202

    def gone(call: Any) -> bool:
        try:
            call()
        except ClientError as error:
            return error.response["Error"]["Code"] == "ResourceNotFoundException"
        return False

    wait_for(lambda: gone(lambda: aws.get_function(FunctionName="leaver")), "the function is gone")
    assert not server.environments("leaver")
    aws.delete_capacity_provider(CapacityProviderName="doomed")
    wait_for(lambda: gone(lambda: aws.get_capacity_provider(CapacityProviderName="doomed")), "the provider is gone")
    assert "doomed" not in {p["name"] for p in server.status()["providers"]}


def test_tags_follow_functions_and_providers(aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "tagged", answering("x"), provider, Tags={"team": "a"})
    arn = aws.get_function(FunctionName="tagged")["Configuration"]["FunctionArn"]
    aws.tag_resource(Resource=arn, Tags={"stage": "dev"})
    assert aws.list_tags(Resource=arn)["Tags"] == {"stage": "dev", "team": "a"}
    aws.untag_resource(Resource=arn, TagKeys=["team", "unknown"])
    assert aws.get_function(FunctionName="tagged")["Tags"] == {"stage": "dev"}
    aws.tag_resource(Resource=provider, Tags={"cost": "42"})
    assert aws.list_tags(Resource=provider)["Tags"] == {"cost": "42"}
    missing = provider.replace("pool", "nobody")
    refused(
        lambda: aws.list_tags(Resource=missing), "ResourceNotFoundException", f"Capacity provider not found: {missing}"
    )


def test_the_code_can_be_downloaded_from_the_location_that_get_function_gives(aws: "LambdaClient") -> None:
    import urllib.request

    archive = package(answering("x"))
    create_function(aws, "download", answering("x"), Code={"ZipFile": archive})
    location = aws.get_function(FunctionName="download")["Code"]["Location"]
    with urllib.request.urlopen(location, timeout=10) as answer:
        assert answer.read() == archive


def test_every_environment_of_three_stands_in_its_own_zone(server: Server, aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "spread", answering("x"), provider)
    aws.put_function_scaling_config(
        FunctionName="spread",
        Qualifier=PUBLISHED,
        FunctionScalingConfig={"MinExecutionEnvironments": 3, "MaxExecutionEnvironments": 3},
    )
    wait_for(lambda: len(server.environments("spread")) == 3, "three environments are ready")
    zones = [
        instance["zone"]
        for p in server.status()["providers"]
        for instance in p["instances"]
        for environment in instance["environments"]
        if environment["function"] == "spread"
    ]
    assert sorted(zones) == ["us-east-1a", "us-east-1b", "us-east-1c"]


def test_answers_survive_json_of_every_kind(aws: "LambdaClient", provider: str) -> None:
    publish_managed(aws, "echo", ECHO, provider)
    events: list[Any] = [None, 0, -1.5e300, "", "snow ☃ and 🐑", [], {}, {"nested": [{"ключ": None}]}, "x" * 100_000]
    for event in events:
        assert invoke(aws, "echo", event).payload["event"] == event, json.dumps(event)[:80]
