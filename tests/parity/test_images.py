"""Functions made of container images: recorded and shown as AWS does, and not run."""

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.harness import ROLE, create_provider, package, wait_active, wait_for
from tests.parity.steps import REALM, SOURCE, Answers, Refuses, Source, Step, converse, hold, invalid

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app"
TAGGED = f"{REPOSITORY}:1.0"
DIGEST = "0123456789abcdef" * 4
PINNED = f"{REPOSITORY}@sha256:{DIGEST}"
IMAGE_CONFIG = {"EntryPoint": ["/entry", "-x"], "Command": ["app.handler"], "WorkingDirectory": "/work"}
REPORTED = Source.RECORDED
"""Texts as users report them."""


def create(aws: "LambdaClient", name: str, uri: str = PINNED, **members: Any) -> Any:  # members of the request
    request = {"FunctionName": name, "Role": ROLE, "PackageType": "Image", "Code": {"ImageUri": uri}, **members}
    return aws.create_function(**request)


def test_an_image_is_recorded_published_and_listed(aws: "LambdaClient") -> None:
    made = create(aws, "parity-image", ImageConfig=IMAGE_CONFIG, Architectures=["arm64"], Publish=True)
    assert (made["PackageType"], made["CodeSha256"], made["CodeSize"]) == ("Image", DIGEST, 0)
    assert made["ImageConfigResponse"] == {"ImageConfig": IMAGE_CONFIG}
    assert not {"Runtime", "Handler", "Layers", "RuntimeVersionConfig", "ImageConfig"} & set(made)
    wait_active(aws, "parity-image", "$LATEST")
    shown = aws.get_function(FunctionName="parity-image", Qualifier="1")
    assert shown["Configuration"]["State"] == "Active"
    assert shown["Configuration"]["ImageConfigResponse"] == {"ImageConfig": IMAGE_CONFIG}
    assert shown["Code"] == {"RepositoryType": "ECR", "ImageUri": PINNED, "ResolvedImageUri": PINNED}
    [listed] = [f for f in aws.list_functions()["Functions"] if f["FunctionName"] == "parity-image"]
    assert listed["PackageType"] == "Image"
    versions = aws.list_versions_by_function(FunctionName="parity-image")["Versions"]
    assert [(v["Version"], v["CodeSha256"]) for v in versions] == [("$LATEST", DIGEST), ("1", DIGEST)]


def test_another_image_is_another_version_and_the_same_is_not(aws: "LambdaClient") -> None:
    create(aws, "parity-images", Publish=True)
    wait_active(aws, "parity-images", "$LATEST")
    same = aws.update_function_code(FunctionName="parity-images", ImageUri=PINNED, Publish=True)
    assert same["Version"] == "1"
    wait_active(aws, "parity-images", "$LATEST")
    dry = aws.update_function_code(FunctionName="parity-images", ImageUri=TAGGED, DryRun=True)
    digest = hashlib.sha256(TAGGED.encode()).hexdigest()
    assert (dry["CodeSha256"], dry["Version"]) == (digest, "$LATEST")
    assert aws.get_function(FunctionName="parity-images")["Code"]["ImageUri"] == PINNED
    other = aws.update_function_code(FunctionName="parity-images", ImageUri=TAGGED, Publish=True)
    assert (other["Version"], other["CodeSha256"]) == ("2", digest)
    code = aws.get_function(FunctionName="parity-images", Qualifier="2")["Code"]
    resolved = f"{REPOSITORY}@sha256:{digest}"
    assert code == {"RepositoryType": "ECR", "ImageUri": TAGGED, "ResolvedImageUri": resolved}
    assert aws.get_function(FunctionName="parity-images", Qualifier="1")["Code"]["ImageUri"] == PINNED


def test_the_configuration_can_be_changed_and_taken_away(aws: "LambdaClient") -> None:
    create(aws, "parity-image-config")
    wait_active(aws, "parity-image-config", "$LATEST")
    changed = aws.update_function_configuration(FunctionName="parity-image-config", ImageConfig={"Command": ["b"]})
    assert changed["ImageConfigResponse"] == {"ImageConfig": {"Command": ["b"]}}
    wait_active(aws, "parity-image-config", "$LATEST")
    assert "ImageConfigResponse" not in aws.update_function_configuration(
        FunctionName="parity-image-config", ImageConfig={}
    )


ONE_TOO_MANY = "Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image."
LAYER = f"{REALM}:layer:any:1"
CREATE = {"FunctionName": "parity-no-image", "Role": ROLE, "PackageType": "Image", "Code": {"ImageUri": TAGGED}}
NO_CREATES = [
    Step("create_function", {**CREATE, "Runtime": "python3.13"}, invalid(ONE_TOO_MANY), REPORTED),
    Step("create_function", {**CREATE, "Handler": "a.b"}, invalid(ONE_TOO_MANY), REPORTED),
    Step("create_function", {**CREATE, "Layers": [LAYER]}, invalid(ONE_TOO_MANY), REPORTED),
    *(
        Step(
            "create_function",
            {**CREATE, "Code": {"ImageUri": uri}},
            invalid(f"Source image {uri} is not valid. Provide a valid source image."),
            REPORTED,
        )
        for uri in (REPOSITORY, "docker.io/library/python:3.13", "app:latest", f"{REPOSITORY}:a b")
    ),
    Step(
        "create_function",
        {**CREATE, "Code": {"ZipFile": b"x"}},
        invalid("Please provide ImageUri, and nothing else, when the function PackageType is Image."),
        Source.OURS,
    ),
    Step(
        "create_function",
        {**CREATE, "PackageType": "Zip"},
        invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages."),
        REPORTED,
    ),
    Step(
        "create_function",
        {**CREATE, "PackageType": "Zip", "Runtime": "python3.13", "Handler": "a.b"},
        invalid("Please provide a source for function code."),
        REPORTED,
    ),
    Step(
        "get_function",
        {"FunctionName": "parity-no-image"},
        Refuses(404, "ResourceNotFoundException", f"Function not found: {REALM}:function:parity-no-image"),
        REPORTED,
    ),
]


def test_what_is_no_image_is_refused_and_leaves_nothing(aws: "LambdaClient") -> None:
    hold(aws, NO_CREATES, {})


CONTAINERS = "not supported for functions created with container images."
I = {"FunctionName": "parity-image-rules"}  # noqa: E741  # the image's function, as F is in other tables
IMAGE_RULES = [
    Step(
        "update_function_configuration", {**I, "Layers": [LAYER]}, invalid(f"Lambda layers are {CONTAINERS}"), REPORTED
    ),
    Step(
        "update_function_configuration",
        {**I, "Handler": "a.b"},
        invalid(f"The Handler parameter is {CONTAINERS}"),
        Source.DOCUMENTATION,
    ),
    Step(
        "update_function_configuration",
        {**I, "Runtime": "python3.13"},
        invalid(f"The Runtime parameter is {CONTAINERS}"),
        Source.DOCUMENTATION,
    ),
    Step(
        "update_function_code",
        {**I, "ZipFile": package(SOURCE)},
        invalid("Please provide ImageUri when updating a function with packageType Image."),
        REPORTED,
    ),
    Step("get_function_code_signing_config", I, invalid(f"Code signing is {CONTAINERS}"), REPORTED),
    Step("get_runtime_management_config", I, invalid(f"Runtime management is {CONTAINERS}"), Source.OURS),
    *(
        Step(
            "invoke",
            {**I, **how},
            invalid(
                f"The function {REALM}:function:parity-image-rules is a container image, which this Lambstead records but "
                "does not run yet: deploy it as a zip package to invoke it here."
            ),
            Source.OURS,
        )
        for how in ({}, {"InvocationType": "Event"})
    ),
]
ZIP_RULES = [
    Step(
        "update_function_code",
        {"FunctionName": "{F}", "ImageUri": TAGGED},
        invalid("Please don't provide ImageUri when updating a function with packageType Zip."),
        REPORTED,
    ),
    Step(
        "update_function_configuration",
        {"FunctionName": "{F}", "ImageConfig": IMAGE_CONFIG},
        invalid("ImageConfig is supported only for functions with packageType Image."),
        Source.OURS,
    ),
    Step("update_function_configuration", {"FunctionName": "{F}", "ImageConfig": {}}, Answers(200, None), Source.OURS),
]


def test_images_have_no_layers_handler_runtime_or_signature_and_do_not_run(aws: "LambdaClient") -> None:
    create(aws, "parity-image-rules")
    wait_active(aws, "parity-image-rules", "$LATEST")
    hold(aws, IMAGE_RULES, {})


def test_zips_have_no_image(aws: "LambdaClient") -> None:
    converse(aws, "parity-zip", ZIP_RULES)


def test_on_a_capacity_provider_a_published_image_fails_with_the_reason(aws: "LambdaClient") -> None:
    """An image is not run, so what needs running environments to become active cannot."""
    create_provider(aws, "images")
    arn = f"{REALM}:capacity-provider:images"
    managed = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": arn}}
    create(aws, "managed-image", CapacityProviderConfig=managed)

    def state(qualifier: str) -> Any:
        return aws.get_function_configuration(FunctionName="managed-image", Qualifier=qualifier)

    wait_for(lambda: state("$LATEST")["State"] == "ActiveNonInvocable", "the image is recorded")
    aws.publish_version(FunctionName="managed-image")
    wait_for(lambda: state("1")["State"] == "Failed", "the publish failed")
    assert state("1")["StateReasonCode"] == "InvalidImage"
    assert "container image, which this Lambstead records but does not run yet" in state("1")["StateReason"]
    with pytest.raises(ClientError, match="Failed"):
        aws.invoke(FunctionName="managed-image", Qualifier="1")
    aws.delete_function(FunctionName="managed-image")
