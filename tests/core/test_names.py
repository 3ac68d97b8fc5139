"""Names that callers use, and what an invocation of one of them runs: ARNs, aliases, qualifiers, trace headers."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.samples import AT, created, latest, managed, published, serving, standard

from lambstead.core.aliases import Alias, second_version
from lambstead.core.arn import LATEST, LATEST_PUBLISHED, FunctionRef, Realm, TaggedResource, capacity_provider_name
from lambstead.core.configurations import Publication
from lambstead.core.errors import (
    AccessDenied,
    DomainError,
    InvalidParameterValue,
    NoPublishedVersion,
    ResourceConflict,
    ResourceNotFound,
    ValidationError,
)
from lambstead.core.functions import (
    BoundsRequested,
    CapacityFailed,
    DeletionRequested,
    FunctionVersion,
    Reason,
    Updated,
    apply,
)
from lambstead.core.invocations import FunctionSnapshot, Target, resolve
from lambstead.core.scaling import ScalingBounds
from lambstead.core.traces import trace_header

REALM = Realm("eu-west-1", "123456789012")
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"


# --- function references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["", "function:", "123456789012:function:", "123456789012:", "eu-west-1:123456789012:function:", ARN]
)
@pytest.mark.parametrize(
    ("suffix", "qualifier"),
    [
        ("", None),
        (":1", "1"),
        (":live", "live"),
        (f":{LATEST}", LATEST),
        (f":{LATEST_PUBLISHED}", LATEST_PUBLISHED),
        (":latest", "latest"),
        (":2024-01-02", "2024-01-02"),
    ],
)
def test_every_form_of_a_name_means_the_same_function(prefix: str, suffix: str, qualifier: str | None) -> None:
    ref = FunctionRef.parse(f"{prefix}my_fn-1{suffix}", REALM)
    assert ref == FunctionRef("my_fn-1", qualifier)
    assert ref.arn(REALM) == f"{ARN}my_fn-1{suffix}"


def test_an_arn_that_ends_with_function_names_a_function_called_function() -> None:
    assert FunctionRef.parse(ARN.removesuffix(":"), REALM) == FunctionRef("function")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f:",
        "f:a:b",
        "f g",
        "f/g",
        "f\n",
        "arn:aws:s3:::bucket",
        "arn:aws:lambda:eu-west-1:12:function:f",
        "f:$LATE",
        "f:$LATEST.PUBLISHED.X",
        "fé",
        "arn:aws:lambda:Europe:123456789012:function:f",
    ],
)
def test_what_is_no_name_is_a_validation_error(text: str) -> None:
    with pytest.raises(ValidationError):
        FunctionRef.parse(text, REALM)


@pytest.mark.parametrize(
    ("region", "here"),
    [
        ("us-east-1", False),
        ("us-gov-west-1", False),
        ("us-isob-east-1", False),
        ("eu-west-1", True),
        ("eusc-de-east-1", False),
    ],
)
def test_functions_of_another_region_are_not_reachable(region: str, here: bool) -> None:
    text = f"arn:aws:lambda:{region}:123456789012:function:f"
    if here:
        assert FunctionRef.parse(text, REALM) == FunctionRef("f")
        return
    with pytest.raises(ResourceNotFound) as refusal:
        FunctionRef.parse(text, REALM)
    assert str(refusal.value) == f"Functions from '{region}' are not reachable in this region ('eu-west-1')"


def test_functions_of_another_account_are_denied() -> None:
    with pytest.raises(AccessDenied):
        FunctionRef.parse("999999999999:function:f", REALM)


def test_a_qualifier_given_twice_must_be_the_same() -> None:
    assert FunctionRef.parse("f:1", REALM, "1") == FunctionRef.parse("f", REALM, "1") == FunctionRef("f", "1")
    with pytest.raises(InvalidParameterValue) as refusal:
        FunctionRef.parse("f:1", REALM, "2")
    assert str(refusal.value) == "The derived qualifier from the function name does not match the specified qualifier."


@given(st.text(max_size=40))
def test_a_name_is_understood_or_refused_in_the_domains_words(text: str) -> None:
    try:
        ref = FunctionRef.parse(text, REALM)
    except DomainError:
        return
    assert FunctionRef.parse(ref.arn(REALM), REALM) == ref


# --- capacity providers and tagged resources ------------------------------------------------------------------------------------

CP_ARN = "arn:aws:lambda:eu-west-1:123456789012:capacity-provider:cp-1"


@pytest.mark.parametrize("text", ["cp-1", CP_ARN, CP_ARN.replace("aws:", "aws-cn:", 1)])
def test_a_capacity_provider_is_named_by_name_or_arn(text: str) -> None:
    assert capacity_provider_name(text, REALM) == "cp-1"
    assert REALM.capacity_provider_arn("cp-1") == CP_ARN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "cp:1",
        CP_ARN.replace("eu-west-1", "us-east-1"),
        CP_ARN.replace("1234", "9999"),
        f"{CP_ARN}:x",
        f"{ARN}f",
    ],
)
def test_other_capacity_providers_are_not_found(text: str) -> None:
    with pytest.raises(ResourceNotFound) as refusal:
        capacity_provider_name(text, REALM)
    assert str(refusal.value) == f"Capacity provider not found: {text}"


@pytest.mark.parametrize(("arn", "kind", "name"), [(f"{ARN}f", "function", "f"), (CP_ARN, "capacity-provider", "cp-1")])
def test_tagged_resources(arn: str, kind: str, name: str) -> None:
    assert TaggedResource.parse(arn, REALM) == TaggedResource(kind, name, arn)


@pytest.mark.parametrize("suffix", ["1", "live", LATEST])
def test_versions_and_aliases_carry_no_tags(suffix: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        TaggedResource.parse(f"{ARN}f:{suffix}", REALM)
    assert (
        str(refusal.value) == "Tags on function aliases and versions are not supported. Please specify a function ARN."
    )


@pytest.mark.parametrize("arn", ["f", f"{ARN}f".replace("eu-", "us-"), CP_ARN.replace("1234", "9999"), f"{CP_ARN}:x"])
def test_resources_elsewhere_are_not_found(arn: str) -> None:
    with pytest.raises(ResourceNotFound):
        TaggedResource.parse(arn, REALM)


# --- aliases ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, {}])
def test_an_alias_without_weights_has_one_version(weights: dict[str, float] | None) -> None:
    assert second_version("1", weights) == (None, 0.0)
    assert second_version(LATEST, weights) == (None, 0.0)


def test_an_alias_may_have_a_second_version() -> None:
    assert second_version("1", {"2": 0.25}) == ("2", 0.25)
    assert second_version(LATEST_PUBLISHED, {"2": 0.25}) == ("2", 0.25)


@pytest.mark.parametrize(
    ("version", "weights", "text"),
    [
        ("1", {"2": 0.1, "3": 0.1}, "Number of items in AdditionalVersionWeights cannot be greater than 1"),
        (LATEST, {"1": 0.1}, "$LATEST is not supported for an alias pointing to more than 1 version"),
        (
            "1",
            {"1": 0.5},
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
        ),
    ],
)
def test_routing_that_makes_no_sense_is_refused(version: str, weights: dict[str, float], text: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        second_version(version, weights)
    assert str(refusal.value) == text


@pytest.mark.parametrize(
    ("weight", "draw", "version"),
    [(0.25, 0.0, "2"), (0.25, 0.249, "2"), (0.25, 0.25, "1"), (0.0, 0.0, "1"), (1.0, 0.999, "2")],
)
def test_the_second_version_takes_its_share(weight: float, draw: float, version: str) -> None:
    alias = Alias("f", "live", "1", "r", second="2", second_weight=weight)
    assert alias.pick(draw) == version
    assert alias.versions == ("1", "2")


def test_an_alias_with_one_version_always_picks_it() -> None:
    alias = Alias("f", "live", "1", "r")
    assert alias.pick(0.0) == alias.pick(0.999) == "1"
    assert alias.versions == ("1",)


# --- what an invocation runs ------------------------------------------------------------------------------------------------------

NO_VERSION = (
    "The function can't be invoked because no published version exists. For functions with capacity provider "
    "configuration, either publish a version to $LATEST.PUBLISHED, or specify a published version qualifier."
)
NOT_LATEST = (
    "Functions configured with capacity provider configuration can't be invoked with $LATEST qualifier. "
    "To invoke this function, specify a published version qualifier or $LATEST.PUBLISHED."
)
LIVE = Alias("f", "live", "1", "r", second="2", second_weight=0.5)
NEWEST = Alias("f", "newest", LATEST_PUBLISHED, "r")


def snapshot(*versions: FunctionVersion, aliases: tuple[Alias, ...] = (LIVE, NEWEST)) -> FunctionSnapshot:
    return FunctionSnapshot("f", {v.version: v for v in versions}, {a.name: a for a in aliases})


UNPUBLISHED = snapshot(latest(managed()))
MANAGED = snapshot(latest(managed()), serving(managed()), serving(managed(), "1"), serving(managed(), "2"))
STANDARD = snapshot(latest(standard()), published(standard(), "1"), published(standard(), "2"))


@pytest.mark.parametrize(
    ("function", "qualifier", "draw", "version", "invoked_as"),
    [
        (MANAGED, None, 0.0, LATEST_PUBLISHED, LATEST_PUBLISHED),
        (MANAGED, LATEST_PUBLISHED, 0.0, LATEST_PUBLISHED, LATEST_PUBLISHED),
        (MANAGED, "1", 0.0, "1", "1"),
        (MANAGED, "live", 0.9, "1", "live"),
        (MANAGED, "live", 0.1, "2", "live"),
        (MANAGED, "newest", 0.0, LATEST_PUBLISHED, "newest"),
        (STANDARD, None, 0.0, LATEST, None),
        (STANDARD, LATEST, 0.0, LATEST, LATEST),
        (STANDARD, "2", 0.0, "2", "2"),
        (STANDARD, "live", 0.9, "1", "live"),
    ],
)
def test_which_qualifier_runs_what(
    function: FunctionSnapshot, qualifier: str | None, draw: float, version: str, invoked_as: str | None
) -> None:
    publication = function.versions[version].serving
    assert publication is not None
    target = resolve(function, FunctionRef("f", qualifier), REALM, draw)
    assert target == Target("f", version, publication, REALM.function_arn("f", invoked_as))


@pytest.mark.parametrize(
    ("function", "qualifier", "error", "text"),
    [
        (UNPUBLISHED, None, NoPublishedVersion, NO_VERSION),
        (UNPUBLISHED, LATEST, NoPublishedVersion, NO_VERSION),
        (MANAGED, LATEST, InvalidParameterValue, NOT_LATEST),
        (UNPUBLISHED, LATEST_PUBLISHED, ResourceNotFound, f"Function not found: {ARN}f:{LATEST_PUBLISHED}"),
        (MANAGED, "9", ResourceNotFound, f"Function not found: {ARN}f:9"),
        (MANAGED, "nobody", ResourceNotFound, f"Function not found: {ARN}f:nobody"),
        (STANDARD, "$latest", ResourceNotFound, f"Function not found: {ARN}f:$latest"),
        (STANDARD, LATEST_PUBLISHED, ResourceNotFound, f"Function not found: {ARN}f:{LATEST_PUBLISHED}"),
        (None, None, ResourceNotFound, f"Function not found: {ARN}f:$LATEST"),
        (None, "1", ResourceNotFound, f"Function not found: {ARN}f:1"),
    ],
)
def test_what_cannot_be_invoked_is_refused_in_awss_words(
    function: FunctionSnapshot | None, qualifier: str | None, error: type[DomainError], text: str
) -> None:
    with pytest.raises(error) as refusal:
        resolve(function, FunctionRef("f", qualifier), REALM, 0.9)
    assert str(refusal.value) == text


@pytest.mark.parametrize(
    "version",
    [
        published(managed(), "1"),
        apply(published(managed(), "1"), CapacityFailed(1, Reason("a", "b"), "r")),
        apply(serving(managed(), "1"), BoundsRequested(ScalingBounds(0, 0))),
        apply(serving(managed(), "1"), DeletionRequested()),
    ],
)
@pytest.mark.parametrize("qualifier", ["1", "live"])
def test_versions_that_are_not_active_conflict(version: FunctionVersion, qualifier: str) -> None:
    with pytest.raises(ResourceConflict) as refusal:
        resolve(snapshot(latest(managed()), version), FunctionRef("f", qualifier), REALM, 0.9)
    assert str(refusal.value) == (
        "The operation cannot be performed at this time. "
        f"The function is currently in the following state: {version.state}"
    )


def test_a_function_being_created_conflicts() -> None:
    with pytest.raises(ResourceConflict, match=r"Pending$"):
        resolve(snapshot(created(standard())), FunctionRef("f"), REALM, 0.0)


def test_the_old_code_runs_while_an_update_is_settled() -> None:
    updating = apply(latest(standard()), Updated(standard(timeout_s=9), AT, "r"))
    assert resolve(snapshot(updating), FunctionRef("f"), REALM, 0.0).publication == Publication(1, standard())


@pytest.mark.parametrize(("timeout_s", "timeout_ms"), [(3, 3000), (900, 900_000), (5400, 900_000)])
def test_a_waiting_caller_waits_for_fifteen_minutes_at_most(timeout_s: int, timeout_ms: int) -> None:
    version = replace(serving(managed(timeout_s=timeout_s)))
    assert resolve(snapshot(latest(managed()), version), FunctionRef("f"), REALM, 0.0).timeout_ms == timeout_ms


# --- documents of the platform ------------------------------------------------------------------------------------------------------


# --- traces -------------------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
SEED = "12345678-9abc-4def-8123-456789abcdef"
ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793"


@pytest.mark.parametrize("header", [ROOT, f"{ROOT};Parent=53995c3f42cd8ad8;Sampled=1", f"{ROOT};Sampled=?;Lineage=a:0"])
def test_a_callers_trace_is_continued(header: str) -> None:
    assert trace_header(header, NOW, SEED) == header


@pytest.mark.parametrize("header", ["", "junk", f"{ROOT}\r\nX: y", ROOT.upper(), f"{ROOT};", f"{ROOT};A={'x' * 200}"])
def test_what_is_no_trace_is_replaced_by_a_new_unsampled_one(header: str) -> None:
    made = trace_header(header, NOW, SEED)
    assert made == f"Root=1-{int(NOW.timestamp()):08x}-123456789abc4def81234567;Parent=8123456789abcdef;Sampled=0"
    assert trace_header(made, NOW, "another") == made
