"""Resource-based policies: what AWS answers to changes by statement and by document."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import create_provider, publish_managed
from tests.parity.steps import (
    REALM,
    SOURCE,
    UUID,
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

STALE = (
    "The Revision Id provided does not match the latest Revision Id. Call the {} API to retrieve the latest Revision Id"
)
ABSENT = "The resource you requested does not exist."
LATEST_REFUSED = "We currently do not support adding policies for $LATEST."


def grant(sid: str = "s3", principal: str = "s3.amazonaws.com", **members: Any) -> dict[str, Any]:
    return {
        "FunctionName": "{F}",
        "StatementId": sid,
        "Action": "lambda:InvokeFunction",
        "Principal": principal,
        **members,
    }


def text(
    sid: str = "s3",
    principal: Any = None,
    resource: str = "{A}",
    action: str = "lambda:InvokeFunction",
    **condition: Any,
) -> str:
    """A statement as AWS writes it: members in this order, no blanks."""
    statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": principal or {"Service": "s3.amazonaws.com"},
        "Action": action,
        "Resource": resource,
        **({"Condition": condition} if condition else {}),
    }
    return json.dumps(statement, separators=(",", ":"))


def granted(statement: str) -> Answers:
    return Answers(201, {"Statement": statement})


def policy(*statements: str, keep: str = "revision") -> Answers:
    document = '{"Version":"2012-10-17","Id":"default","Statement":[' + ",".join(statements) + "]}"
    return Answers(200, {"Policy": document, "RevisionId": UUID}, {keep: "RevisionId"})


RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS
ORGANIZATION = "o-1234567890"
BUCKET = "arn:aws:s3:::bucket"

PRINCIPALS = [
    Step("add_permission", grant("any", "*"), granted(text("any", "*")), RECORDED),
    Step("add_permission", grant("service"), granted(text("service")), RECORDED),
    Step(
        "add_permission",
        grant("account", "111111111111"),
        granted(text("account", {"AWS": "arn:aws:iam::111111111111:root"})),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant("user", "arn:aws:iam::111111111111:user/somebody"),
        granted(text("user", {"AWS": "arn:aws:iam::111111111111:user/somebody"})),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant("skill", "alexa-appkit.amazon.com"),
        granted(text("skill", {"Service": "alexa-appkit.amazon.com"})),
        DOCUMENTATION,
    ),
    *(
        Step(
            "add_permission",
            grant("wrong", principal),
            invalid("The provided principal was invalid. Please check the principal and try again."),
            RECORDED,
        )
        for principal in ("invalid.nonaws.com", "somebody", "12345678901", "arn:aws:s3:::bucket")
    ),
]

CONDITIONS = [
    Step(
        "add_permission",
        grant("arn", SourceArn=BUCKET),
        granted(text("arn", ArnLike={"AWS:SourceArn": BUCKET})),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant("owner", SourceAccount="111111111111"),
        granted(text("owner", StringEquals={"AWS:SourceAccount": "111111111111"})),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant("token", "*", EventSourceToken="amzn1.ask.skill.x"),
        granted(text("token", "*", StringEquals={"lambda:EventSourceToken": "amzn1.ask.skill.x"})),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant(
            "url",
            "*",
            Action="lambda:InvokeFunctionUrl",
            SourceAccount="111111111111",
            SourceArn=BUCKET,
            FunctionUrlAuthType="NONE",
            PrincipalOrgID=ORGANIZATION,
        ),
        granted(
            text(
                "url",
                "*",
                action="lambda:InvokeFunctionUrl",
                StringEquals={
                    "AWS:SourceAccount": "111111111111",
                    "lambda:FunctionUrlAuthType": "NONE",
                    "aws:PrincipalOrgID": ORGANIZATION,
                },
                ArnLike={"AWS:SourceArn": BUCKET},
            )
        ),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant("via", "*", InvokedViaFunctionUrl=True),
        granted(text("via", "*", Bool={"lambda:InvokedViaFunctionUrl": "true"})),
        DOCUMENTATION,
    ),
]

LIFE = [
    Step("get_policy", {"FunctionName": "{F}"}, not_found(ABSENT), RECORDED),
    Step(
        "remove_permission",
        {"FunctionName": "{F}", "StatementId": "s3"},
        not_found("No policy is associated with the given resource."),
        RECORDED,
    ),
    Step("add_permission", grant(), granted(text()), RECORDED),
    Step("get_policy", {"FunctionName": "{F}"}, policy(text()), RECORDED),
    Step(
        "add_permission",
        grant(),
        conflict(
            "The statement id (s3) provided already exists. Please provide a new statement id, or remove the existing statement."
        ),
        RECORDED,
    ),
    Step("add_permission", grant("sqs", RevisionId="{revision}"), granted(text("sqs")), RECORDED),
    Step(
        "add_permission",
        grant("late", RevisionId="{revision}"),
        Refuses(412, "PreconditionFailedException", STALE.format("GetPolicy")),
        RECORDED,
    ),
    Step("get_policy", {"FunctionName": "{F}"}, policy(text(), text("sqs"), keep="second"), RECORDED),
    Step(
        "remove_permission",
        {"FunctionName": "{F}", "StatementId": "non-existent"},
        not_found("Statement non-existent is not found in resource policy."),
        RECORDED,
    ),
    Step(
        "remove_permission",
        {"FunctionName": "{F}", "StatementId": "s3", "RevisionId": "{revision}"},
        Refuses(412, "PreconditionFailedException", STALE.format("GetPolicy")),
        OURS,
    ),
    Step(
        "remove_permission", {"FunctionName": "{F}", "StatementId": "s3", "RevisionId": "{second}"}, Answers(204), MODEL
    ),
    Step("get_policy", {"FunctionName": "{F}"}, policy(text("sqs")), RECORDED),
    Step("remove_permission", {"FunctionName": "{F}", "StatementId": "sqs"}, Answers(204), RECORDED),
    Step("get_policy", {"FunctionName": "{F}"}, not_found(ABSENT), RECORDED),
]

PUBLISHED = {"FunctionName": "{F}", "Name": "live", "FunctionVersion": "1"}
ALIAS = {
    "AliasArn": "{A}:live",
    "Name": "live",
    "FunctionVersion": "1",
    "Description": "",
    "RevisionId": UUID,
}


QUALIFIERS = [
    Step("publish_version", {"FunctionName": "{F}"}, Answers(201, None), RECORDED),
    Step("add_permission", grant(), granted(text()), RECORDED),
    Step("get_policy", {"FunctionName": "{F}"}, policy(text()), RECORDED),
    Step("get_policy", {"FunctionName": "{F}", "Qualifier": "1"}, not_found(ABSENT), RECORDED),
    Step("add_permission", grant(FunctionName="{F}:1", Qualifier="1"), granted(text(resource="{A}:1")), RECORDED),
    Step("get_policy", {"FunctionName": "{F}", "Qualifier": "1"}, policy(text(resource="{A}:1"), keep="one"), RECORDED),
    Step("create_alias", PUBLISHED, Answers(201, ALIAS, {"alias": "RevisionId"}), RECORDED),
    Step(
        "add_permission",
        grant(Qualifier="live", RevisionId="wrong"),
        Refuses(412, "PreconditionFailedException", STALE.format("GetPolicy")),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant(FunctionName="{F}:live", RevisionId="{alias}"),
        granted(text(resource="{A}:live")),
        RECORDED,
    ),
    # Publishing and policies of other qualifiers leave this policy's revision alone: it is still the one kept above.
    Step("add_permission", grant("s3_2", RevisionId="{revision}"), granted(text("s3_2")), RECORDED),
    Step("delete_alias", {"FunctionName": "{F}", "Name": "live"}, Answers(204), MODEL),
    Step("create_alias", PUBLISHED, Answers(201, ALIAS), MODEL),
    Step("get_policy", {"FunctionName": "{F}:live"}, not_found(ABSENT), OURS),
]

MISTAKES = [
    Step(
        "add_permission",
        grant("example.com"),
        constraint("example.com", "statementId", "Member must satisfy regular expression pattern: ([a-zA-Z0-9-_]+)"),
        RECORDED,
    ),
    Step(
        "add_permission",
        grant(FunctionName="{F}:alias-not-42", Qualifier="42"),
        invalid("The derived qualifier from the function name does not match the specified qualifier."),
        RECORDED,
    ),
    Step("add_permission", grant(Qualifier="$LATEST"), invalid(LATEST_REFUSED), RECORDED),
    Step("get_policy", {"FunctionName": "doesnotexist"}, not_found(ABSENT), RECORDED),
    Step(
        "add_permission",
        grant(FunctionName="doesnotexist"),
        not_found("Function not found: arn:aws:lambda:us-east-1:000000000000:function:doesnotexist"),
        RECORDED,
    ),
    Step("add_permission", grant(Qualifier="nobody"), not_found("Cannot find alias arn: {A}:nobody"), RECORDED),
    Step("add_permission", grant(Qualifier="42"), not_found("Function not found: {A}:42"), RECORDED),
    Step("add_permission", grant(Qualifier="a-$-b"), not_found("Function not found: {A}:a-$-b"), RECORDED),
    Step(
        "remove_permission",
        {"FunctionName": "doesnotexist", "StatementId": "s3"},
        not_found("No policy found for: arn:aws:lambda:us-east-1:000000000000:function:doesnotexist"),
        RECORDED,
    ),
    Step(
        "remove_permission",
        {"FunctionName": "{F}", "Qualifier": "nobody", "StatementId": "s3"},
        not_found("Cannot find alias arn: {A}:nobody"),
        RECORDED,
    ),
]


def document(resource: str = "{A}", **members: Any) -> str:
    statement = {
        "Sid": "one",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": resource,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [{**statement, **members}]}, separators=(",", ":"))


def put(**members: Any) -> dict[str, Any]:
    return {"ResourceArn": "{A}", "Policy": document(), **members}


DOCUMENTS = [
    Step("get_resource_policy", {"ResourceArn": "{A}"}, not_found(ABSENT), OURS),
    Step("delete_resource_policy", {"ResourceArn": "{A}"}, not_found(ABSENT), OURS),
    Step("add_permission", grant(), granted(text()), RECORDED),
    Step("get_resource_policy", {"ResourceArn": "{A}"}, policy(text()), MODEL),
    # "This operation replaces any existing policy", those made of permissions included.
    Step(
        "put_resource_policy",
        put(RevisionId="{revision}"),
        Answers(200, {"Policy": document(), "RevisionId": UUID}, {"new": "RevisionId"}),
        MODEL,
    ),
    Step(
        "put_resource_policy",
        put(RevisionId="{revision}"),
        Refuses(412, "PreconditionFailedException", STALE.format("GetResourcePolicy")),
        MODEL,
    ),
    Step("get_policy", {"FunctionName": "{F}"}, Answers(200, {"Policy": document(), "RevisionId": UUID}), MODEL),
    Step("add_permission", grant("two", RevisionId="{new}"), granted(text("two")), MODEL),
    Step(
        "delete_resource_policy",
        {"ResourceArn": "{A}", "RevisionId": "{new}"},
        Refuses(412, "PreconditionFailedException", STALE.format("GetResourcePolicy")),
        MODEL,
    ),
    Step("delete_resource_policy", {"ResourceArn": "{A}"}, Answers(204), MODEL),
    Step("get_policy", {"FunctionName": "{F}"}, not_found(ABSENT), MODEL),
    Step("put_resource_policy", put(ResourceArn="{A}:$LATEST"), invalid(LATEST_REFUSED), OURS),
    Step("put_resource_policy", put(ResourceArn="{A}x", Policy=document("{A}x")), not_found(ABSENT), OURS),
    Step(
        "put_resource_policy",
        put(ResourceArn="arn:aws:lambda:us-east-1:000000000000:runtime/mine"),
        not_found(ABSENT),
        OURS,
    ),
    *(
        Step("put_resource_policy", put(Policy=bad), invalid(f"The policy document is not valid: {because}."), OURS)
        for bad, because in (
            ("[]", "it is not a JSON object"),
            ('{"Version":"2012-10-17","Statement":[]}', "it has no Statement"),
            ('{"Statement":[],"Extra":1}', "it has an element Extra"),
            ('{"Version":"2020-01-01","Statement":[{}]}', "Version is not 2012-10-17 or 2008-10-17"),
            (document(Effect="Maybe"), "the Effect of a statement is neither Allow nor Deny"),
            (document(Action="s3:GetObject"), "the Action s3:GetObject is none of Lambda's"),
            (document(Action=[]), "Action is missing, or neither a string nor a list of strings"),
            (document("{A}:1"), "the Resource {A}:1 is not the resource of the policy, {A}"),
            (document(Principal="me"), "a statement has no Principal, or one of an unknown kind"),
            (document(NotAction="x"), "a statement has an element NotAction"),
            (document(Condition="x"), "a Condition is not a map of operators to maps of keys"),
        )
    ),
    Step("get_policy", {"FunctionName": "{F}"}, not_found(ABSENT), OURS),
]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("principals", PRINCIPALS),
        ("conditions", CONDITIONS),
        ("life", LIFE),
        ("qualifiers", QUALIFIERS),
        ("mistakes", MISTAKES),
        ("documents", DOCUMENTS),
    ],
)
def test_policies(aws: "LambdaClient", name: str, steps: list[Step]) -> None:
    converse(aws, f"policies-{name}", steps)


def test_a_policy_above_20_kb_is_refused_with_its_size(aws: "LambdaClient") -> None:
    arn = f"arn:aws:s3:::{'b' * 9000}"
    statements = [text(f"s{number}", ArnLike={"AWS:SourceArn": arn}) for number in range(3)]
    whole = '{"Version":"2012-10-17","Id":"default","Statement":[' + ",".join(statements) + "]}"
    size = len(whole.replace("{A}", f"{REALM}:function:policies-size"))
    refusal = f"The final policy size ({size}) is bigger than the limit (20480)."
    expected: list[Answers | Refuses] = [
        granted(statements[0]),
        granted(statements[1]),
        Refuses(400, "PolicyLengthExceededException", refusal),
    ]
    steps = [
        Step("add_permission", grant(f"s{number}", SourceArn=arn), answer, DOCUMENTATION)
        for number, answer in enumerate(expected)
    ]
    converse(aws, "policies-size", steps)


def test_published_on_a_provider_can_have_a_policy_and_takes_it_along(aws: "LambdaClient") -> None:
    publish_managed(aws, "policies-managed", SOURCE, create_provider(aws, "policies"), slots=1)
    request: dict[str, Any] = {**grant(), "FunctionName": "policies-managed", "Qualifier": "$LATEST.PUBLISHED"}
    added = json.loads(aws.add_permission(**request)["Statement"])
    assert added["Resource"].endswith(":function:policies-managed:$LATEST.PUBLISHED")
    assert aws.get_policy(FunctionName="policies-managed", Qualifier="$LATEST.PUBLISHED")["RevisionId"] == UUID


def test_a_policy_goes_with_its_function(aws: "LambdaClient") -> None:
    converse(
        aws,
        "policies-gone",
        [
            Step("add_permission", grant(), granted(text()), RECORDED),
            Step("delete_function", {"FunctionName": "{F}"}, Answers(204, {"StatusCode": 204}), RECORDED),
            Step("get_policy", {"FunctionName": "{F}"}, not_found(ABSENT), RECORDED),
        ],
    )
    converse(aws, "policies-gone-2", [Step("get_policy", {"FunctionName": "{F}"}, not_found(ABSENT), RECORDED)])
