"""Code signing configs: what AWS answers, and that Enforce refuses packages, none of which can be verified here."""

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.harness import create_function, package, wait_updated
from tests.parity.steps import REALM, SOURCE, STAMP, Answers, Like, Refuses, Source, Step, conflict, converse, not_found

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS
PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/test"
PUBLISHERS = {"SigningProfileVersionArns": [PROFILE]}
UNKNOWN = f"{REALM}:code-signing-config:csc-0123456789abcdefg"
NO_CONFIG = not_found(f"The Lambda code signing configuration {UNKNOWN} can not be found.", None)
NO_CONFIG_FOR_FUNCTION = Refuses(
    404,
    "CodeSigningConfigNotFoundException",
    f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {UNKNOWN}.",
)
NO_FUNCTION = not_found(f"Function not found: {REALM}:function:doesnotexist")
UNSIGNED = Refuses(
    400,
    "CodeVerificationFailedException",
    "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not "
    "configured to accept. Check the provided signature for unsigned.",
)
F = {"FunctionName": "{F}"}


def make(aws: "LambdaClient", policy: str = "Enforce", **members: Any) -> str:
    """A code signing config; its ARN."""
    created = aws.create_code_signing_config(
        AllowedPublishers={"SigningProfileVersionArns": [PROFILE]},
        CodeSigningPolicies={"UntrustedArtifactOnDeployment": policy},  # type: ignore[typeddict-item]  # a parameter
        **members,
    )
    return created["CodeSigningConfig"]["CodeSigningConfigArn"]


def config(arn: str, policy: str, description: str = "Testing") -> dict[str, Any]:
    return {
        "CodeSigningConfig": {
            "CodeSigningConfigId": arn.rpartition(":")[2],
            "CodeSigningConfigArn": arn,
            "Description": description,
            "AllowedPublishers": PUBLISHERS,
            "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": policy},
            "LastModified": STAMP,
        }
    }


def test_the_life_of_a_config(aws: "LambdaClient") -> None:
    arn = make(aws, Description="Testing")
    assert arn == Like(rf"{REALM}:code-signing-config:csc-[a-z0-9]{{17}}")
    this, on_function = {"CodeSigningConfigArn": arn}, {"CodeSigningConfigArn": arn, **F}
    warn = {"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"}}
    converse(
        aws,
        "signing-life",
        [
            Step("update_code_signing_config", this, Answers(200, config(arn, "Enforce")), RECORDED),
            Step("update_code_signing_config", {**this, **warn}, Answers(200, config(arn, "Warn")), RECORDED),
            Step("get_code_signing_config", this, Answers(200, config(arn, "Warn")), RECORDED),
            Step("get_function_code_signing_config", F, Answers(200), RECORDED),
            Step("list_functions_by_code_signing_config", this, Answers(200, {"FunctionArns": []}), RECORDED),
            Step("put_function_code_signing_config", on_function, Answers(200, on_function), RECORDED),
            Step("get_function_code_signing_config", F, Answers(200, on_function), RECORDED),
            Step("list_functions_by_code_signing_config", this, Answers(200, {"FunctionArns": ["{A}"]}), RECORDED),
            Step(
                "delete_code_signing_config",
                this,
                conflict(
                    f"The code signing configuration {arn} is in use, for example by function {{F}}. "
                    "Remove it from every function first; ListFunctionsByCodeSigningConfig names them."
                ),
                OURS,
            ),
            Step("delete_function_code_signing_config", F, Answers(204), RECORDED),
            Step("delete_function_code_signing_config", F, Answers(204), RECORDED),
            Step("get_function_code_signing_config", F, Answers(200), RECORDED),
            Step("delete_code_signing_config", this, Answers(204), RECORDED),
            Step(
                "get_code_signing_config",
                this,
                not_found(f"The Lambda code signing configuration {arn} can not be found.", None),
                RECORDED,
            ),
        ],
    )


def test_what_is_missing_is_named(aws: "LambdaClient") -> None:
    unknown = {"CodeSigningConfigArn": UNKNOWN}
    nobody = {"FunctionName": "doesnotexist"}
    known = {"CodeSigningConfigArn": make(aws)}
    # An ARN of another region or account is as unknown as one that nobody made.
    elsewhere = known["CodeSigningConfigArn"].replace("us-east-1", "eu-west-1")
    converse(
        aws,
        "signing-missing",
        [
            Step("get_code_signing_config", unknown, NO_CONFIG, RECORDED),
            Step("update_code_signing_config", {**unknown, "Description": "x"}, NO_CONFIG, RECORDED),
            Step("update_code_signing_config", unknown, NO_CONFIG, RECORDED),
            Step("delete_code_signing_config", unknown, NO_CONFIG, RECORDED),
            Step("list_functions_by_code_signing_config", unknown, NO_CONFIG, RECORDED),
            Step(
                "get_code_signing_config",
                {"CodeSigningConfigArn": elsewhere},
                not_found(f"The Lambda code signing configuration {elsewhere} can not be found.", None),
                OURS,
            ),
            Step("put_function_code_signing_config", {**known, **nobody}, NO_FUNCTION, RECORDED),
            Step("put_function_code_signing_config", {**unknown, **F}, NO_CONFIG_FOR_FUNCTION, RECORDED),
            Step("put_function_code_signing_config", {**unknown, **nobody}, NO_CONFIG_FOR_FUNCTION, RECORDED),
            Step("get_function_code_signing_config", nobody, NO_FUNCTION, RECORDED),
            Step("delete_function_code_signing_config", nobody, NO_FUNCTION, RECORDED),
        ],
    )


def test_enforce_refuses_packages_and_warn_lets_them_pass(aws: "LambdaClient") -> None:
    arn = make(aws)
    code = {"ZipFile": package(SOURCE)}
    attach = {"CodeSigningConfigArn": arn, **F}
    warn = {"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"}}
    converse(
        aws,
        "signing-enforced",
        [
            # Putting the config on a function says nothing about the package that is there: "the next time a user tries to deploy".
            Step("put_function_code_signing_config", attach, Answers(200, attach), MODEL),
            Step("update_function_code", {**F, **code}, UNSIGNED, DOCUMENTATION),
            Step("update_function_code", {**F, **code, "DryRun": True}, UNSIGNED, OURS),
            Step("update_function_configuration", {**F, "Timeout": 5}, Answers(200, None), MODEL),
            Step("update_code_signing_config", {"CodeSigningConfigArn": arn, **warn}, Answers(200, None), MODEL),
        ],
    )
    wait_updated(aws, "signing-enforced")
    assert aws.update_function_code(FunctionName="signing-enforced", ZipFile=package(SOURCE))["CodeSha256"]


@pytest.mark.parametrize(
    ("policy", "code"), [("Enforce", "CodeVerificationFailedException"), (None, NO_CONFIG_FOR_FUNCTION.code)]
)
def test_a_refused_create_leaves_nothing(aws: "LambdaClient", policy: str | None, code: str) -> None:
    arn = make(aws, policy) if policy else UNKNOWN
    with pytest.raises(ClientError) as caught:
        create_function(aws, "signing-refused", SOURCE, CodeSigningConfigArn=arn)
    assert caught.value.response["Error"]["Code"] == code
    assert "signing-refused" not in [f["FunctionName"] for f in aws.list_functions()["Functions"]]


def test_a_function_can_be_created_with_a_config(aws: "LambdaClient") -> None:
    arn = make(aws, "Warn", Tags={"team": "a"})
    create_function(aws, "signing-created", SOURCE, CodeSigningConfigArn=arn)
    assert aws.get_function_code_signing_config(FunctionName="signing-created")["CodeSigningConfigArn"] == arn
    assert aws.list_tags(Resource=arn)["Tags"] == {"team": "a"}
    aws.tag_resource(Resource=arn, Tags={"stage": "test"})
    assert aws.list_tags(Resource=arn)["Tags"] == {"team": "a", "stage": "test"}


def test_configs_and_their_functions_are_listed_in_pages(aws: "LambdaClient") -> None:
    made = sorted(make(aws, "Warn") for _ in range(3))
    every: list[str] = []
    for page in aws.get_paginator("list_code_signing_configs").paginate(PaginationConfig={"PageSize": 2}):
        assert len(page["CodeSigningConfigs"]) <= 2
        every += [found["CodeSigningConfigArn"] for found in page["CodeSigningConfigs"]]
    assert every == sorted(set(every))
    assert set(made) <= set(every)
    names = [f"signing-listed-{number}" for number in range(3)]
    for name in reversed(names):
        create_function(aws, name, SOURCE, CodeSigningConfigArn=made[0])
    paginator = aws.get_paginator("list_functions_by_code_signing_config")
    pages = paginator.paginate(CodeSigningConfigArn=made[0], PaginationConfig={"PageSize": 2})
    assert [[a.rpartition(":")[2] for a in page["FunctionArns"]] for page in pages] == [names[:2], names[2:]]
    aws.delete_function(FunctionName=names[0])
    assert len(aws.list_functions_by_code_signing_config(CodeSigningConfigArn=made[0])["FunctionArns"]) == 2
