"""Layers: what AWS answers to their publication, reading, deletion, permissions and to functions that reference them."""

from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import ROLE, package
from tests.parity.steps import REALM, STAMP, UUID, Answers, Like, Refuses, Source, Step, converse, invalid, not_found

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS
PUBLISH, GET, LIST = "publish_layer_version", "get_layer_version", "list_layer_versions"
ADD, REMOVE, POLICY = (
    "add_layer_version_permission",
    "remove_layer_version_permission",
    "get_layer_version_policy",
)
ZIP = package("A = 1\n", "python/thing")
CONTENT = {"Content": {"ZipFile": ZIP}}
L = {"LayerName": "{F}-layer"}
ARN = f"{REALM}:layer:{{F}}-layer"
V1 = {**L, "VersionNumber": 1}
GONE = not_found("The resource you requested does not exist.")
BELOW_ONE = invalid("Layer Version Cannot be less than 1")
ARN_PATTERN = (
    # The model of 2026 has a pair of parentheses more than the recordings of 2025.
    r"((arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)"
    r"|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+))"
)


class CodeSize:
    """The size of the zip."""

    def __eq__(self, other: object) -> bool:
        return other == len(ZIP)

    def __hash__(self) -> int:
        return 0


def listed(number: int, arn: str = ARN, **members: Any) -> dict[str, Any]:
    return {
        "LayerVersionArn": f"{arn}:{number}",
        "Version": number,
        "Description": "",
        "CreatedDate": STAMP,
        **members,
    }


def described(number: int, **members: Any) -> dict[str, Any]:
    content = {
        "Location": Like(r"http://\S+/_lambstead/code/[0-9a-f]{64}\.zip"),
        "CodeSha256": Like(r"[A-Za-z0-9+/]{43}="),
        "CodeSize": CodeSize(),
    }
    return {**listed(number, **members), "LayerArn": ARN, "Content": content}


def published(number: int, **members: Any) -> Answers:
    return Answers(201, described(number, **members))


def constraint(value: str, path: str, what: str) -> Refuses:
    text = f"1 validation error detected: Value {value} at '{path}' failed to satisfy constraint: {what}"
    return Refuses(400, "ValidationException", text, None)


LIFE = [
    Step(LIST, L, Answers(200, {"LayerVersions": []}), RECORDED),
    Step(PUBLISH, {**L, **CONTENT}, published(1), RECORDED),
    Step(
        PUBLISH,
        {
            **L,
            **CONTENT,
            "CompatibleRuntimes": ["python3.13"],
            "CompatibleArchitectures": ["x86_64"],
            "LicenseInfo": "MIT",
            "Description": "second",
        },
        published(
            2,
            CompatibleRuntimes=["python3.13"],
            CompatibleArchitectures=["x86_64"],
            LicenseInfo="MIT",
            Description="second",
        ),
        RECORDED,
    ),
    Step(
        PUBLISH,
        {**L, **CONTENT, "CompatibleRuntimes": [], "CompatibleArchitectures": []},
        published(3, CompatibleRuntimes=[], CompatibleArchitectures=[]),
        RECORDED,
    ),
    Step(
        PUBLISH,
        {**L, **CONTENT, "CompatibleRuntimes": ["provided", "java8", "python3.6"]},
        published(4, CompatibleRuntimes=["provided", "java8", "python3.6"]),
        RECORDED,
    ),
    Step(GET, V1, Answers(200, described(1)), RECORDED),
    Step("get_layer_version_by_arn", {"Arn": f"{ARN}:1"}, Answers(200, described(1)), RECORDED),
    Step(GET, {"LayerName": ARN, "VersionNumber": 1}, Answers(200, described(1)), MODEL),
    Step(
        LIST,
        {**L, "CompatibleRuntime": "python3.13"},
        Answers(
            200,
            {
                "LayerVersions": [
                    listed(
                        2,
                        CompatibleRuntimes=["python3.13"],
                        CompatibleArchitectures=["x86_64"],
                        LicenseInfo="MIT",
                        Description="second",
                    )
                ]
            },
        ),
        MODEL,
    ),
    Step(LIST, {**L, "CompatibleArchitecture": "arm64"}, Answers(200, {"LayerVersions": []}), MODEL),
    Step("delete_layer_version", {**L, "VersionNumber": 4}, Answers(204), RECORDED),
    Step("delete_layer_version", {**L, "VersionNumber": 4}, Answers(204), RECORDED),
    Step("delete_layer_version", {"LayerName": "{F}-none", "VersionNumber": 4}, Answers(204), RECORDED),
    Step(GET, {**L, "VersionNumber": 4}, GONE, RECORDED),
    # Numbers are never given out again.
    Step(PUBLISH, {**L, **CONTENT}, published(5), RECORDED),
    Step(LIST, {**L, "MaxItems": 1}, Answers(200, {"LayerVersions": [listed(5)], "NextMarker": Like(".+")}), MODEL),
]

READING_ERRORS = [
    Step(PUBLISH, {**L, **CONTENT}, published(1), RECORDED),
    Step(GET, {"LayerName": "{F}-none", "VersionNumber": 1}, GONE, RECORDED),
    Step(GET, {**L, "VersionNumber": 2}, GONE, RECORDED),
    Step(GET, {**L, "VersionNumber": 0}, BELOW_ONE, RECORDED),
    Step(GET, {**L, "VersionNumber": -1}, BELOW_ONE, RECORDED),
    Step("delete_layer_version", {**L, "VersionNumber": -1}, BELOW_ONE, RECORDED),
    Step("get_layer_version_by_arn", {"Arn": f"{ARN}:2"}, GONE, RECORDED),
    Step(
        "get_layer_version_by_arn",
        {"Arn": ARN},
        constraint(f"'{ARN}'", "arn", f"Member must satisfy regular expression pattern: {ARN_PATTERN}"),
        RECORDED,
    ),
    Step(
        "list_layers",
        {"CompatibleArchitecture": "vax"},
        constraint("'vax'", "compatibleArchitecture", "Member must satisfy enum value set: [x86_64, arm64]"),
        RECORDED,
    ),
    Step(
        PUBLISH,
        {**L, "Content": {"ZipFile": b"no zip"}},
        invalid("Could not unzip uploaded file. Please check your file, then try to upload again."),
        OURS,
    ),
    Step(
        "get_layer_version_by_arn",
        {"Arn": "arn:aws:lambda:us-east-1:123456789012:layer:l:1"},
        Refuses(
            403,
            "AccessDeniedException",
            "The layer belongs to account 123456789012; this endpoint serves 000000000000",
            None,
        ),
        OURS,
    ),
]


def statement(sid: str, principal: str = '"*"', condition: str = "") -> str:
    return (
        f'{{"Sid":"{sid}","Effect":"Allow","Principal":{principal},"Action":"lambda:GetLayerVersion",'
        f'"Resource":"{ARN}:1"{condition}}}'
    )


def permission(sid: str, **members: Any) -> dict[str, Any]:
    return {**V1, "StatementId": sid, "Action": "lambda:GetLayerVersion", "Principal": "*", **members}


def policy(*statements: str) -> str:
    return '{"Version":"2012-10-17","Id":"default","Statement":[' + ",".join(statements) + "]}"


NO_POLICY = not_found("No policy is associated with the given resource.")
STALE = Refuses(
    412,
    "PreconditionFailedException",
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetLayerPolicy API to retrieve the latest Revision Id",
)
ORGANIZATION = ',"Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-abcdefghij"}}'
PERMISSIONS = [
    Step(PUBLISH, {**L, **CONTENT}, published(1), RECORDED),
    Step(POLICY, V1, NO_POLICY, RECORDED),
    Step(REMOVE, {**V1, "StatementId": "s1"}, NO_POLICY, OURS),
    Step(
        ADD,
        permission("s1"),
        Answers(201, {"Statement": statement("s1"), "RevisionId": UUID}, {"R": "RevisionId"}),
        RECORDED,
    ),
    Step(POLICY, V1, Answers(200, {"Policy": policy(statement("s1")), "RevisionId": "{R}"}), RECORDED),
    Step(
        ADD,
        permission("s1"),
        Refuses(
            409,
            "ResourceConflictException",
            "The statement id (s1) provided already exists. Please provide a new statement id, or remove the existing statement.",
        ),
        RECORDED,
    ),
    Step(ADD, permission("s2", RevisionId="wrong"), STALE, RECORDED),
    Step(
        ADD,
        permission("s2", Principal="123456789012", RevisionId="{R}"),
        Answers(
            201,
            {"Statement": statement("s2", '{"AWS":"arn:aws:iam::123456789012:root"}'), "RevisionId": UUID},
            {"R2": "RevisionId"},
        ),
        RECORDED,
    ),
    Step(
        ADD,
        permission("s3", OrganizationId="o-abcdefghij"),
        Answers(201, {"Statement": statement("s3", condition=ORGANIZATION), "RevisionId": UUID}),
        DOCUMENTATION,
    ),
    Step(REMOVE, {**V1, "StatementId": "s9"}, not_found("Statement s9 is not found in resource policy."), RECORDED),
    Step(REMOVE, {**V1, "StatementId": "s2", "RevisionId": "{R}"}, STALE, RECORDED),
    Step(REMOVE, {**V1, "StatementId": "s2"}, Answers(204), RECORDED),
    Step(
        POLICY,
        V1,
        Answers(200, {"Policy": policy(statement("s1"), statement("s3", condition=ORGANIZATION)), "RevisionId": UUID}),
        RECORDED,
    ),
    Step(REMOVE, {**V1, "StatementId": "s1"}, Answers(204), RECORDED),
    Step(REMOVE, {**V1, "StatementId": "s3"}, Answers(204), RECORDED),
    Step(POLICY, V1, NO_POLICY, RECORDED),
    Step(
        ADD,
        permission("s1", Action="*"),
        constraint("'*'", "action", "Member must satisfy regular expression pattern: lambda:GetLayerVersion"),
        RECORDED,
    ),
    *(
        Step(
            operation,
            {**request, "VersionNumber": 2},
            not_found(f"Layer version {ARN}:2 does not exist."),
            RECORDED,
        )
        for operation, request in (
            (ADD, permission("s1")),
            (POLICY, V1),
            (REMOVE, {**V1, "StatementId": "s1"}),
        )
    ),
]


def reference(*arns: str) -> dict[str, Any]:
    return {"FunctionName": "{F}", "Layers": list(arns)}


UPDATE = "update_function_configuration"
FUNCTIONS = [
    Step(PUBLISH, {**L, **CONTENT}, published(1), RECORDED),
    Step(PUBLISH, {**L, **CONTENT}, published(2), RECORDED),
    Step(
        UPDATE,
        reference(f"{ARN}:1", f"{ARN}:2"),
        invalid(
            "Two different versions of the same layer are not allowed to be referenced in the same function. "
            f"{ARN}:1 and {ARN}:2 are versions of the same layer."
        ),
        RECORDED,
    ),
    Step(
        UPDATE,
        reference(f"{ARN}:1", f"{ARN}:1"),
        invalid(
            "Two different versions of the same layer are not allowed to be referenced in the same function. "
            f"{ARN}:1 and {ARN}:1 are versions of the same layer."
        ),
        RECORDED,
    ),
    Step(UPDATE, reference(f"{ARN}:9"), invalid(f"Layer version {ARN}:9 does not exist."), RECORDED),
    Step(UPDATE, reference(f"{ARN}-no:1"), invalid(f"Layer version {ARN}-no:1 does not exist."), RECORDED),
    Step(
        UPDATE,
        reference(*(f"{REALM}:layer:many-{number}:1" for number in range(6))),
        invalid("Cannot reference more than 5 layers."),
        RECORDED,
    ),
    Step(
        UPDATE,
        reference(ARN),
        constraint(
            f"'[{ARN}]'",
            "layers",
            "Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length "
            f"greater than or equal to 1, Member must satisfy regular expression pattern: {ARN_PATTERN}, Member must not be null]",
        ),
        RECORDED,
    ),
    Step(
        UPDATE,
        reference("arn:aws:lambda:eu-west-1:000000000000:layer:l:1"),
        invalid("Layers are not in the same region as the function. Layers are expected to be in region us-east-1."),
        RECORDED,
    ),
    Step(
        UPDATE,
        reference("arn:aws:lambda:us-east-1:123456789012:layer:l:1"),
        Refuses(
            403,
            "AccessDeniedException",
            "User: arn:aws:iam::000000000000:root is not authorized to perform: lambda:GetLayerVersion on resource: "
            "arn:aws:lambda:us-east-1:123456789012:layer:l:1 because no resource-based policy allows the "
            "lambda:GetLayerVersion action",
            None,
        ),
        DOCUMENTATION,
    ),
    Step(
        "create_function",
        {
            "FunctionName": "{F}-new",
            "Runtime": "python3.13",
            "Handler": "a.b",
            "Role": ROLE,
            "Code": {"ZipFile": ZIP},
            "Layers": [f"{ARN}:9"],
        },
        invalid(f"Layer version {ARN}:9 does not exist."),
        RECORDED,
    ),
]


@pytest.mark.parametrize(
    ("function", "steps"),
    [
        ("layer-life", LIFE),
        ("layer-reading", READING_ERRORS),
        ("layer-permissions", PERMISSIONS),
        ("layer-functions", FUNCTIONS),
    ],
)
def test_layers_are_answered_as_aws_does(aws: "LambdaClient", function: str, steps: list[Step]) -> None:
    converse(aws, function, steps)


def test_lists_of_layers_show_the_latest_version_that_matches(aws: "LambdaClient") -> None:
    """Model: LatestMatchingVersion; layers without a matching version are left out."""
    for name, runtime in (("list-a", "python3.12"), ("list-a", "python3.13"), ("list-b", "nodejs22.x")):
        aws.publish_layer_version(LayerName=name, CompatibleRuntimes=[runtime], **CONTENT)  # type: ignore[list-item, arg-type]  # names of runtimes as plain text
    names = [f"page-{number:02}" for number in range(7)]
    for name in names:
        aws.publish_layer_version(LayerName=name, **CONTENT)  # type: ignore[arg-type]  # see above
    matching = aws.list_layers(CompatibleRuntime="python3.12")["Layers"]
    assert [(layer["LayerName"], layer["LatestMatchingVersion"]["Version"]) for layer in matching] == [("list-a", 1)]
    pages = list(aws.get_paginator("list_layers").paginate(PaginationConfig={"PageSize": 3}))
    found = [layer["LayerName"] for page in pages for layer in page["Layers"]]
    assert found == sorted(found)
    assert {"list-a", "list-b", *names} <= set(found)
    assert all(len(page["Layers"]) == 3 for page in pages[:-1])
