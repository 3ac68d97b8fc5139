"""Publishing, aliases and tags: what AWS answers where its service model says nothing."""

from typing import TYPE_CHECKING

from tests.harness import ROLE, package, wait_active
from tests.parity.steps import REALM, SOURCE, Answers, Refuses, Source, Step, constraint, converse, invalid, not_found

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED = Source.RECORDED
F = {"FunctionName": "{F}"}
TOO_MANY_TAGS = invalid("Number of tags exceeds resource tag limit.")


def alias(version: str, weights: dict[str, float], refuses: Refuses, function: str = "{F}") -> Step:
    routing = {"AdditionalVersionWeights": weights}
    request = {"FunctionName": function, "Name": "live", "FunctionVersion": version, "RoutingConfig": routing}
    return Step("create_alias", request, refuses, RECORDED)


REFUSED_ALIASES = [
    Step("publish_version", F, Answers(201, None), RECORDED),
    alias(
        "$LATEST",
        {"1": 0.5},
        invalid("$LATEST is not supported for an alias pointing to more than 1 version", type=None),
    ),
    alias(
        "1",
        {"$LATEST": 0.5},
        constraint(
            "{$LATEST=0.5}",
            "routingConfig.additionalVersionWeights",
            "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, "
            "Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]",
        ),
    ),
    alias(
        "1",
        {"1": 0.5},
        invalid(
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
        ),
    ),
    alias("1", {"10": 0.5}, not_found("Function not found: {A}:10")),
    alias("1", {"2": 0.5}, not_found(f"Function not found: {REALM}:function:doesnotexist:1"), "doesnotexist"),
]


def test_aliases_are_refused_in_aws_words(aws: "LambdaClient") -> None:
    converse(aws, "parity-aliases", REFUSED_ALIASES)


def deploy(aws: "LambdaClient", name: str, **members: str) -> None:
    aws.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="app.handler",
        Role=ROLE,
        Code={"ZipFile": package(SOURCE)},
        **members,  # type: ignore[arg-type]  # plain members of the request
    )
    wait_active(aws, name, "$LATEST")


def test_a_new_description_is_worth_a_version_and_publishing_under_another_one_is_not(aws: "LambdaClient") -> None:
    """Recorded by others: the description that counts is that of `$LATEST`, not the one that a publish brings along."""
    deploy(aws, "parity-described", Description="as created")
    first = aws.publish_version(FunctionName="parity-described", Description="the first")
    again = aws.publish_version(FunctionName="parity-described", Description="the second")
    assert (again["Version"], again["Description"]) == ("1", "the first")
    assert again["RevisionId"] == first["RevisionId"]
    aws.update_function_configuration(FunctionName="parity-described", Description="as updated")
    wait_active(aws, "parity-described", "$LATEST")
    second = aws.publish_version(FunctionName="parity-described")
    assert (second["Version"], second["Description"]) == ("2", "as updated")
    third = aws.publish_version(FunctionName="parity-described", Description="the third")
    assert (third["Version"], third["Description"]) == ("2", "as updated")


def test_every_change_of_tags_gives_the_function_a_new_revision(aws: "LambdaClient") -> None:
    """Recorded by others: adding, overwriting and removing; reading changes nothing."""
    deploy(aws, "parity-tags")
    arn = f"{REALM}:function:parity-tags"

    def revision() -> str:
        return aws.get_function_configuration(FunctionName=arn)["RevisionId"]

    revisions = [revision()]
    for tags in ({"a": "1", "b": "2"}, {"a": "3"}):
        aws.tag_resource(Resource=arn, Tags=tags)
        revisions.append(revision())
    aws.untag_resource(Resource=arn, TagKeys=["a", "b"])
    revisions.append(revision())
    assert len(set(revisions)) == 4
    assert aws.list_tags(Resource=arn)["Tags"] == {}
    assert revision() == revisions[-1]


def test_a_function_is_not_created_with_more_tags_than_it_may_have(aws: "LambdaClient") -> None:
    tags = {f"key-{number}": "value" for number in range(51)}
    create = {
        "FunctionName": "parity-tagged",
        "Runtime": "python3.13",
        "Handler": "app.handler",
        "Role": ROLE,
        "Code": {"ZipFile": package(SOURCE)},
    }
    gone = not_found(f"Function not found: {REALM}:function:parity-tagged")
    converse(
        aws,
        "parity-limits",
        [
            Step("create_function", {**create, "Tags": tags}, TOO_MANY_TAGS, RECORDED),
            Step("get_function", {"FunctionName": "parity-tagged"}, gone, RECORDED),
            Step("tag_resource", {"Resource": "{A}", "Tags": tags}, TOO_MANY_TAGS, RECORDED),
            Step("create_function", {**create, "Tags": dict(list(tags.items())[:50])}, Answers(201, None), RECORDED),
        ],
    )
