"""What a function's configuration may say, and how it is shown: the members that deploy tools send."""

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from botocore.exceptions import ClientError
from tests.harness import ROLE, create_provider, package, wait_active
from tests.parity.steps import REALM, SOURCE, Answers, Refuses, Source, Step, constraint, converse, hold, invalid

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

DOCUMENTED, MODEL, OURS, RECORDED = Source.DOCUMENTATION, Source.MODEL, Source.OURS, Source.RECORDED
F = {"FunctionName": "{F}"}
VPC = {"SubnetIds": ["subnet-1a", "subnet-2b"], "SecurityGroupIds": ["sg-1"]}
DETACHED = {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", "Ipv6AllowedForDualStack": False}
ACCESS_POINT = "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-0123456789abcdef0"
FILES = [{"Arn": ACCESS_POINT, "LocalMountPath": "/mnt/data"}]
KEY = "arn:aws:kms:us-east-1:000000000000:key/1234"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:dead"
CREATE: dict[str, Any] = {  # a request
    "FunctionName": "parity-refused",
    "Runtime": "python3.13",
    "Handler": "app.handler",
    "Role": ROLE,
    "Code": {"ZipFile": package(SOURCE)},
}
NOTHING_THERE = Step(
    "get_function",
    {"FunctionName": "parity-refused"},
    Refuses(404, "ResourceNotFoundException", f"Function not found: {REALM}:function:parity-refused"),
    RECORDED,
)


def deploy(aws: "LambdaClient", name: str, **members: Any) -> Any:  # members of request and answer
    made = aws.create_function(**{**CREATE, "FunctionName": name, **members})
    wait_active(aws, name, "$LATEST")
    return made


def update(aws: "LambdaClient", name: str, **members: Any) -> Any:  # members of request and answer
    changed = aws.update_function_configuration(FunctionName=name, **members)
    wait_active(aws, name, "$LATEST")
    shown = aws.get_function_configuration(FunctionName=name)
    for member in members:
        assert shown.get(member) == changed.get(member)
    return changed


# --- networks and file systems ---------------------------------------------------------------------------------------------


def test_a_vpc_is_kept_shown_and_detached(aws: "LambdaClient") -> None:
    """Recorded: VpcId and Ipv6AllowedForDualStack are added, and empty lists stay after detaching."""
    made = deploy(aws, "parity-vpc", VpcConfig=VPC)
    shown = dict(made["VpcConfig"])
    assert shown.pop("VpcId").startswith("vpc-")
    assert shown == {**VPC, "Ipv6AllowedForDualStack": False}
    assert deploy(aws, "parity-vpc-too", VpcConfig=VPC)["VpcConfig"] == made["VpcConfig"]
    dual = update(aws, "parity-vpc", VpcConfig={**VPC, "Ipv6AllowedForDualStack": True})
    assert dual["VpcConfig"]["Ipv6AllowedForDualStack"] is True
    assert update(aws, "parity-vpc", Description="x")["VpcConfig"] == dual["VpcConfig"]
    empty: dict[str, list[str]] = {"SubnetIds": [], "SecurityGroupIds": []}
    assert update(aws, "parity-vpc", VpcConfig=empty)["VpcConfig"] == DETACHED
    assert "VpcConfig" not in deploy(aws, "parity-no-vpc")


def test_a_version_keeps_the_vpc_that_it_was_published_with(aws: "LambdaClient") -> None:
    deploy(aws, "parity-vpc-version", VpcConfig=VPC)
    published = aws.publish_version(FunctionName="parity-vpc-version")
    update(aws, "parity-vpc-version", VpcConfig={"SubnetIds": [], "SecurityGroupIds": []})
    shown = aws.get_function_configuration(FunctionName="parity-vpc-version", Qualifier="1")
    assert shown["VpcConfig"] == published["VpcConfig"]
    assert shown["VpcConfig"]["SubnetIds"] == VPC["SubnetIds"]


COEXIST = invalid("SubnetIds and SecurityIds must coexist or be both empty list.")
NETWORKS = [
    Step("create_function", {**CREATE, "VpcConfig": {"SubnetIds": ["subnet-1"]}}, COEXIST, RECORDED),
    Step("create_function", {**CREATE, "VpcConfig": {"SecurityGroupIds": ["sg-1"]}}, COEXIST, RECORDED),
    Step("update_function_configuration", {**F, "VpcConfig": {"SubnetIds": ["subnet-1"]}}, COEXIST, RECORDED),
    Step(
        "create_function",
        {**CREATE, "VpcConfig": {"SubnetIds": [""], "SecurityGroupIds": ["sg-1"]}},
        constraint(
            "[]",
            "vpcConfig.subnetIds",
            "Member must satisfy constraint: [Member must have length less than or equal to 1024, "
            "Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: subnet-[0-9a-z]*]",
        ),
        RECORDED,
    ),
    Step(
        "create_function",
        {**CREATE, "FileSystemConfigs": FILES},
        invalid(f"Function must be configured to execute in a VPC to reference access point {ACCESS_POINT}."),
        RECORDED,
    ),
    NOTHING_THERE,
]


def test_networks_are_refused_in_aws_words(aws: "LambdaClient") -> None:
    converse(aws, "parity-networks", NETWORKS)


def test_file_systems_are_kept_as_long_as_the_function_has_a_vpc(aws: "LambdaClient") -> None:
    assert deploy(aws, "parity-files", VpcConfig=VPC, FileSystemConfigs=FILES)["FileSystemConfigs"] == FILES
    with pytest.raises(ClientError, match="must be configured to execute in a VPC"):
        aws.update_function_configuration(
            FunctionName="parity-files", VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}
        )
    assert "FileSystemConfigs" not in update(aws, "parity-files", FileSystemConfigs=[])


def test_a_managed_function_is_in_the_vpc_of_its_provider(aws: "LambdaClient") -> None:
    create_provider(aws, "networks")
    arn = f"{REALM}:capacity-provider:networks"
    managed = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": arn}}
    hold(
        aws,
        [
            Step(
                "create_function",
                {**CREATE, "CapacityProviderConfig": managed, "VpcConfig": VPC},
                invalid(
                    "VpcConfig is not supported for functions with a capacity provider configuration: "
                    "they are in the VPC of their capacity provider."
                ),
                OURS,
            ),
            Step(
                "create_function",
                {**CREATE, "CapacityProviderConfig": managed, "SnapStart": {"ApplyOn": "PublishedVersions"}},
                invalid("SnapStart is not supported for functions with a capacity provider configuration."),
                OURS,
            ),
            NOTHING_THERE,
        ],
        {},
    )
    empty = {"SubnetIds": list[str](), "SecurityGroupIds": list[str]()}
    made = aws.create_function(
        **{**CREATE, "FunctionName": "in-it", "CapacityProviderConfig": managed, "VpcConfig": empty}
    )
    assert not {"VpcConfig", "SnapStart"} & set(made)


# --- what is recorded -----------------------------------------------------------------------------------------------------------


def test_keys_queues_and_traces_are_kept_and_taken_away(aws: "LambdaClient") -> None:
    """Documented: an empty ARN takes a key or a queue away. Recorded: absent unless given, tracing PassThrough."""
    given = {"KMSKeyArn": KEY, "DeadLetterConfig": {"TargetArn": QUEUE}, "TracingConfig": {"Mode": "Active"}}
    made = deploy(aws, "parity-recorded", **given)
    assert {member: made[member] for member in given} == given
    assert {member: update(aws, "parity-recorded", Timeout=4)[member] for member in given} == given
    taken = {"KMSKeyArn": "", "DeadLetterConfig": {"TargetArn": ""}, "TracingConfig": {"Mode": "PassThrough"}}
    changed = update(aws, "parity-recorded", **taken)
    assert not {"KMSKeyArn", "DeadLetterConfig"} & set(changed)
    assert changed["TracingConfig"] == {"Mode": "PassThrough"}


def test_the_key_of_a_package_is_shown_with_it_and_goes_with_it(aws: "LambdaClient") -> None:
    deploy(aws, "parity-key", Code={"ZipFile": package(SOURCE), "SourceKMSKeyArn": KEY})
    assert aws.get_function(FunctionName="parity-key")["Code"]["SourceKMSKeyArn"] == KEY
    aws.update_function_code(FunctionName="parity-key", ZipFile=package(SOURCE))
    assert "SourceKMSKeyArn" not in aws.get_function(FunctionName="parity-key")["Code"]


def test_snap_start_is_on_for_versions_that_are_published_with_it(aws: "LambdaClient") -> None:
    """Recorded: `$LATEST` says Off whatever was asked for."""
    off, wanted = {"ApplyOn": "None", "OptimizationStatus": "Off"}, {"ApplyOn": "PublishedVersions"}
    assert deploy(aws, "parity-snap")["SnapStart"] == off
    first = aws.publish_version(FunctionName="parity-snap")
    assert first["SnapStart"] == off
    latest = update(aws, "parity-snap", SnapStart=wanted)
    assert latest["SnapStart"] == {**wanted, "OptimizationStatus": "Off"}
    second = aws.publish_version(FunctionName="parity-snap")
    assert (second["Version"], second["SnapStart"]) == ("2", {**wanted, "OptimizationStatus": "On"})
    shown = {
        v["Version"]: v["SnapStart"] for v in aws.list_versions_by_function(FunctionName="parity-snap")["Versions"]
    }
    assert shown == {"$LATEST": latest["SnapStart"], "1": off, "2": second["SnapStart"]}
    with pytest.raises(ClientError, match="not supported for SnapStart enabled functions"):
        aws.put_provisioned_concurrency_config(
            FunctionName="parity-snap", Qualifier="2", ProvisionedConcurrentExecutions=1
        )
    assert update(aws, "parity-snap", SnapStart={"ApplyOn": "None"})["SnapStart"] == off


SNAP = {"SnapStart": {"ApplyOn": "PublishedVersions"}}
SIZES = [
    Step(
        "create_function",
        {**CREATE, **SNAP, "EphemeralStorage": {"Size": 513}},
        invalid("EphemeralStorage greater than 512 MB is not supported for SnapStart enabled functions."),
        DOCUMENTED,
    ),
    Step(
        "create_function",
        {**CREATE, **SNAP, "VpcConfig": VPC, "FileSystemConfigs": FILES},
        invalid("FileSystemConfigs is not supported for SnapStart enabled functions."),
        DOCUMENTED,
    ),
    Step(
        "create_function",
        {**CREATE, "EphemeralStorage": {"Size": 10241}},
        Refuses(
            400,
            "ValidationException",
            "'EphemeralStorage.Size' value failed to satisfy constraint: Member must have value less than or equal to 10240",
            None,
        ),
        DOCUMENTED,
    ),
    Step("update_function_configuration", {**F, "EphemeralStorage": {"Size": 10240}}, Answers(200, None), DOCUMENTED),
    NOTHING_THERE,
]


def test_sizes_are_between_aws_bounds(aws: "LambdaClient") -> None:
    converse(aws, "parity-sizes", SIZES)


# --- code, runtime, variables ------------------------------------------------------------------------------------------------------

LONG = {"VAR": "x" * 4090}
UNABLE = (
    "Lambda was unable to configure your environment variables because the environment variables you have provided "
)
RESERVED = (
    UNABLE
    + "contains reserved keys that are currently not supported for modification. Reserved keys used in this request: "
)
MANDATORY = invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")


def without(member: str) -> dict[str, Any]:  # a request
    return {name: value for name, value in CREATE.items() if name != member}


VALUES = [
    Step(
        "create_function",
        {**CREATE, "Environment": {"Variables": LONG}},
        invalid(UNABLE + f"exceeded the 4KB limit. String measured: {json.dumps(LONG, separators=(',', ':'))}"),
        RECORDED,
    ),
    Step(
        "create_function",
        {**CREATE, "Environment": {"Variables": {"AWS_REGION": "here", "AWS_LAMBDA_FUNCTION_NAME": "me", "FINE": ""}}},
        invalid(RESERVED + "AWS_LAMBDA_FUNCTION_NAME, AWS_REGION"),
        DOCUMENTED,
    ),
    Step(
        "update_function_configuration",
        {**F, "Environment": {"Variables": {"AWS_LAMBDA_RUNTIME_API": "x"}}},
        invalid(RESERVED + "AWS_LAMBDA_RUNTIME_API"),
        DOCUMENTED,
    ),
    Step("create_function", without("Runtime"), MANDATORY, RECORDED),
    Step("create_function", without("Handler"), MANDATORY, RECORDED),
    Step(
        "create_function",
        {**CREATE, "Handler": "a b"},
        constraint("a b", "handler", r"Member must satisfy regular expression pattern: [^\s]+"),
        MODEL,
    ),
    Step(
        "create_function",
        {**CREATE, "Runtime": "python2.7"},
        invalid(
            "The runtime parameter of python2.7 is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        ),
        RECORDED,
    ),
    Step(
        "create_function",
        {**CREATE, "Architectures": ["x86_64", "arm64"]},
        constraint("[x86_64, arm64]", "architectures", "Member must have length less than or equal to 1"),
        RECORDED,
    ),
    Step(
        "create_function",
        {**CREATE, "Architectures": ["riscv"]},
        constraint(
            "[riscv]",
            "architectures",
            "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
        ),
        RECORDED,
    ),
    Step(
        "create_function",
        {**CREATE, "Code": {"ZipFile": b"no zip"}},
        invalid("Could not unzip uploaded file. Please check your file, then try to upload again."),
        RECORDED,
    ),
    Step(
        "create_function",
        {**CREATE, "PublishTo": "LATEST_PUBLISHED"},
        invalid("PublishTo needs Publish: set Publish to true, or leave PublishTo out."),
        OURS,
    ),
    *(
        Step(
            operation,
            {**request, "Publish": True, "PublishTo": "LATEST_PUBLISHED"},
            invalid("PublishTo is supported only for functions with a capacity provider configuration."),
            OURS,
        )
        for operation, request in (
            ("create_function", CREATE),
            ("update_function_code", {**F, "ZipFile": package(SOURCE)}),
        )
    ),
    Step(
        "publish_version",
        {**F, "PublishTo": "LATEST_PUBLISHED"},
        invalid("PublishTo is supported only for functions with a capacity provider configuration."),
        OURS,
    ),
    Step(
        "update_function_code",
        {**F, "ZipFile": package(SOURCE), "PublishTo": "LATEST_PUBLISHED"},
        invalid("PublishTo needs Publish: set Publish to true, or leave PublishTo out."),
        OURS,
    ),
    Step(
        "get_function_configuration",
        {**F, "Qualifier": "1"},
        Refuses(404, "ResourceNotFoundException", "Function not found: {A}:1"),
        RECORDED,
    ),
    NOTHING_THERE,
]


def test_values_are_refused_in_aws_words_and_leave_nothing(aws: "LambdaClient") -> None:
    converse(aws, "parity-values", VALUES)


def test_variables_of_4_kb_fit(aws: "LambdaClient") -> None:
    """Recorded: measured over the compact JSON of the variables."""
    fits = {"VAR": "x" * (4096 - len('{"VAR":""}'))}
    assert deploy(aws, "parity-4kb", Environment={"Variables": fits})["Environment"]["Variables"] == fits


def test_a_dry_run_answers_as_the_update_would_and_changes_nothing(aws: "LambdaClient") -> None:
    deploy(aws, "parity-dry")
    before = aws.get_function_configuration(FunctionName="parity-dry")
    other = package("def handler(event, context):\n    return 2\n")
    dry = aws.update_function_code(
        FunctionName="parity-dry", ZipFile=other, Architectures=["arm64"], DryRun=True, Publish=True
    )
    assert dry["CodeSha256"] != before["CodeSha256"]
    assert (dry["Architectures"], dry["Version"]) == (["arm64"], "$LATEST")
    after = aws.get_function_configuration(FunctionName="parity-dry")
    after.pop("ResponseMetadata", None)  # type: ignore[misc]  # not of the answer
    before.pop("ResponseMetadata", None)  # type: ignore[misc]  # not of the answer
    assert after == before
    assert [v["Version"] for v in aws.list_versions_by_function(FunctionName="parity-dry")["Versions"]] == ["$LATEST"]
    with pytest.raises(ClientError, match="Revision Id"):
        aws.update_function_code(FunctionName="parity-dry", ZipFile=other, DryRun=True, RevisionId="stale")
    with pytest.raises(ClientError, match="Could not unzip"):
        aws.update_function_code(FunctionName="parity-dry", ZipFile=b"no zip", DryRun=True)


def test_code_of_functions_versions_and_layers_can_be_downloaded(aws: "LambdaClient") -> None:
    def downloaded(url: str) -> bytes:
        answer = urllib3.request("GET", url)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
        return answer.data

    first, second, layer = (package(f"def handler(e, c):\n    return {n}\n") for n in range(3))
    deploy(aws, "parity-download", Code={"ZipFile": first}, Publish=True)
    aws.update_function_code(FunctionName="parity-download", ZipFile=second)

    def code(qualifier: str) -> bytes:
        shown = aws.get_function(FunctionName="parity-download", Qualifier=qualifier)["Code"]
        assert shown["RepositoryType"] == "S3"
        return downloaded(shown["Location"])

    assert code("$LATEST") == second
    assert code("1") == first
    published = aws.publish_layer_version(LayerName="parity-download", Content={"ZipFile": layer})
    assert downloaded(published["Content"]["Location"]) == layer
    shown = aws.get_layer_version(LayerName="parity-download", VersionNumber=1)
    assert zipfile.ZipFile(io.BytesIO(downloaded(shown["Content"]["Location"]))).namelist() == ["app.py"]
    gone = urllib3.request("GET", published["Content"]["Location"].replace("/code/", "/code/0"))
    assert gone.status == 404
