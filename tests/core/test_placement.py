"""Where environments go and on which machines: placement, the catalogue, and the sizes of environments and providers."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.samples import AT, provider

from lambstead.core.capacity import (
    CapacityProvider,
    InstanceRequirements,
    ProviderChecked,
    ProviderDeletionRequested,
    ProviderScaling,
    ProviderState,
    ProviderUpdated,
    Sizing,
    apply,
    default_slots_per_vcpu,
)
from lambstead.core.catalogue import all_types, choose, unknown_patterns
from lambstead.core.draft import Draft
from lambstead.core.errors import IllegalTransition, InvalidParameterValue, ResourceConflict
from lambstead.core.fleet import Environment, Fleet, Instance, InstancePhase, Phase, PublicationKey
from lambstead.core.placement import LIMIT_REACHED, Demand, Nowhere, OnInstance, OnNewInstance, has_room, place
from lambstead.core.scaling import ScalingBounds

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEY = PublicationKey("f", "1", 1)
ZONES = provider().zones("us-east-1")
OTHER = PublicationKey("g", "1", 1)
TYPES = {t.name: t for t in all_types()}
SMALL = Demand(KEY, 1.0, 2048, 16)


def fleet(*machines: tuple[str, str, int], **phases: InstancePhase) -> Fleet:
    """Machines by id, zone letter and environments of KEY on each; every one a c7i.xlarge with 3 vCPU and 7 GiB for use."""
    made = Fleet()
    for name, letter, count in machines:
        phase = phases.get(name, InstancePhase.RUNNING)
        made = made.with_instance(Instance(name, "cp", TYPES["c7i.xlarge"], f"us-east-1{letter}", NOW, phase))
        for number in range(count):
            made = made.with_environment(environment(f"{name}-{number}", name))
    return made


def environment(name: str, on: str, key: PublicationKey = KEY, **changes: Any) -> Environment:  # Any: members by name
    return replace(Environment(name, on, key, 16, 1.0, 2048, NOW, timedelta(seconds=3), Phase.READY), **changes)


def chosen(
    existing: Fleet, demand: Demand = SMALL, cp: CapacityProvider | None = None
) -> tuple[str, str] | tuple[str, str, str]:
    """The placement in short: `on` an instance, a `new` type in a zone, or `nowhere` with the code."""
    match place(demand, cp or provider(), ZONES, Draft(existing)):
        case OnInstance(instance, _):
            return "on", instance.id
        case OnNewInstance(kind, zone, _):
            return "new", kind.name, zone
        case Nowhere(code, _):
            return "nowhere", code


@pytest.mark.parametrize(
    ("existing", "where"),
    [
        pytest.param(Fleet(), ("new", "c7i.xlarge", "us-east-1a"), id="first-zone-first"),
        pytest.param(fleet(("i1", "a", 1)), ("new", "c7i.xlarge", "us-east-1b"), id="the-zone-with-fewest"),
        pytest.param(fleet(("i1", "a", 1), ("i2", "b", 0)), ("on", "i2"), id="room-in-the-zone-with-fewest"),
        pytest.param(fleet(("i1", "a", 1), ("i2", "b", 1), ("i3", "c", 1)), ("on", "i1"), id="round-again"),
        pytest.param(fleet(("i1", "a", 0), ("i2", "a", 0), ("i3", "b", 1)), ("on", "i2"), id="either-of-two-empty"),
        pytest.param(
            fleet(("i1", "a", 3), ("i2", "b", 3), ("i3", "c", 3)), ("new", "c7i.xlarge", "us-east-1a"), id="all-full"
        ),
        pytest.param(
            fleet(("i1", "a", 0), i1=InstancePhase.TERMINATING),
            ("new", "c7i.xlarge", "us-east-1a"),
            id="not-on-what-is-terminating",
        ),
        pytest.param(fleet(("i1", "a", 0), i1=InstancePhase.LAUNCHING), ("on", "i1"), id="on-what-is-launching"),
    ],
)
def test_zones_first_then_room(existing: Fleet, where: tuple[str, ...]) -> None:
    assert chosen(existing) == where


def test_within_a_zone_the_fullest_instance_is_filled() -> None:
    existing = fleet(("i1", "a", 0), ("i2", "a", 0)).with_environment(environment("x", "i1", OTHER))
    assert chosen(existing) == ("on", "i1")


@pytest.mark.parametrize("changes", [{"phase": Phase.DRAINING}, {"phase": Phase.STOPPING}, {"slots_lost": 1}])
def test_what_drains_or_is_damaged_does_not_count_for_its_zone_but_takes_room(changes: Mapping[str, Any]) -> None:
    existing = fleet(("i1", "a", 0), ("i2", "b", 1))
    for number in range(2):
        existing = existing.with_environment(environment(f"x{number}", "i1", **changes))
    assert chosen(existing) == ("on", "i1")
    full = existing.with_environment(environment("x2", "i1", **changes))
    assert chosen(full) == ("new", "c7i.xlarge", "us-east-1a")


@pytest.mark.parametrize(
    ("existing", "most", "where"),
    [
        pytest.param(fleet(("i1", "a", 1)), 8, ("new", "c7i.xlarge", "us-east-1b"), id="within-the-limit"),
        pytest.param(fleet(("i1", "a", 1)), 7, ("new", "c7i.large", "us-east-1b"), id="smaller-if-need-be"),
        pytest.param(fleet(("i1", "a", 1)), 4, ("on", "i1"), id="another-zone-rather-than-nowhere"),
        pytest.param(fleet(("i1", "a", 3)), 4, ("nowhere", "CapacityProviderScalingLimitExceeded"), id="at-the-limit"),
        pytest.param(
            fleet(("i1", "a", 0), i1=InstancePhase.TERMINATING),
            4,
            ("nowhere", "CapacityProviderScalingLimitExceeded"),
            id="what-terminates-counts-until-it-is-gone",
        ),
    ],
)
def test_the_providers_limit_counts_every_vcpu(existing: Fleet, most: int, where: tuple[str, ...]) -> None:
    assert chosen(existing, cp=provider(max_vcpus=most)) == where


def test_instances_of_others_are_no_room() -> None:
    theirs = {key: replace(i, provider="other") for key, i in fleet(("i1", "a", 0)).instances.items()}
    assert chosen(Fleet(theirs)) == ("new", "c7i.xlarge", "us-east-1a")


def test_the_reasons_are_sentences() -> None:
    at_limit = place(SMALL, provider(max_vcpus=4), ZONES, Draft(fleet(("i1", "a", 3))))
    assert at_limit == Nowhere("CapacityProviderScalingLimitExceeded", LIMIT_REACHED)
    assert LIMIT_REACHED == (
        "MinimumExecutionEnvironments can't be provisioned because CapacityProvider has reached maxVCpuCount limit. "
        "Increase maxVCpuCount in the CapacityProvider configuration and try again."
    )
    tiny = provider(requirements=InstanceRequirements(allowed=("c7i.large",)))
    impossible = place(replace(SMALL, vcpus=2.0), tiny, ZONES, Draft(Fleet()))
    assert impossible == Nowhere(
        "InsufficientCapacity",
        "No instance type that capacity provider cp allows has room for an execution environment of 2 vCPU and 2048 MB.",
    )


@pytest.mark.parametrize(
    ("vcpus", "memory_mb", "fits"),
    [(3.0, 7168, True), (3.1, 2048, False), (1.0, 7169, False), (2.0, 2048, True)],
)
def test_one_vcpu_and_one_gib_are_the_hosts(vcpus: float, memory_mb: int, fits: bool) -> None:
    empty = fleet(("i1", "a", 0))
    assert has_room(empty.instances["i1"], Demand(KEY, vcpus, memory_mb, 1), Draft(empty)) is fits


def test_room_is_what_others_leave() -> None:
    used = fleet(("i1", "a", 2))
    assert has_room(used.instances["i1"], Demand(KEY, 1.0, 3072, 1), Draft(used))
    assert not has_room(used.instances["i1"], Demand(KEY, 1.1, 3072, 1), Draft(used))
    assert not has_room(used.instances["i1"], Demand(KEY, 1.0, 3073, 1), Draft(used))


# --- the catalogue ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requirements", "vcpus", "memory_mb", "headroom", "name"),
    [
        ((), 1.0, 2048, 400, "c7i.xlarge"),
        ((), 1.0, 8192, 400, "m7i.xlarge"),
        ((), 1.0, 16384, 400, "r7i.xlarge"),
        ((), 3.0, 24576, 400, "r7i.xlarge"),
        ((), 4.0, 8192, 400, "c7i.2xlarge"),
        ((), 8.0, 16384, 400, "c7i.4xlarge"),
        ((), 16.0, 32768, 400, "c7i.8xlarge"),
        ((), 1.0, 2048, 3, "c7i.large"),
        ((), 1.0, 2048, 2, "c7i.large"),
        ((), 1.0, 2048, 1, None),
        ((), 2.0, 4096, 3, None),
        ((), 192.0, 2048, 15_000, None),
        (("arm64",), 1.0, 2048, 400, "c8g.xlarge"),
        (("x86_64", ("m7i.*",)), 1.0, 2048, 400, "m7i.xlarge"),
        (("x86_64", ("c5.4xlarge", "r5.large")), 1.0, 2048, 400, "c5.4xlarge"),
        (("x86_64", ("r5.large",)), 1.0, 2048, 400, "r5.large"),
        (("x86_64", ("r5.large",)), 2.0, 2048, 400, None),
        (("x86_64", (), ("c7i.*", "c6i.*")), 1.0, 2048, 400, "c5.xlarge"),
        (("x86_64", (), ("*.xlarge",)), 1.0, 2048, 400, "c7i.2xlarge"),
        (("x86_64", (), ("*",)), 1.0, 2048, 400, None),
        (("arm64", ("c7i.*",)), 1.0, 2048, 400, None),
    ],
)
def test_the_smallest_comfortable_type_that_fits_is_chosen(
    requirements: tuple[Any, ...], vcpus: float, memory_mb: int, headroom: int, name: str | None
) -> None:
    found = choose(InstanceRequirements(*requirements), vcpus, memory_mb, headroom)
    assert (found.name if found else None) == name


def test_the_catalogue_has_every_type_once_with_its_familys_memory() -> None:
    assert len(TYPES) == len(all_types()) == 147
    assert [(TYPES[n].vcpus, TYPES[n].memory_mb) for n in ("c5.large", "m6g.2xlarge", "r7i.24xlarge")] == [
        (2, 4096),
        (8, 32768),
        (96, 786432),
    ]


@pytest.mark.parametrize(
    ("name", "usd"), [("c7i.8xlarge", 1.428), ("c8g.16xlarge", 2.552), ("m7g.xlarge", 0.1632), ("r5.4xlarge", 1.008)]
)
def test_prices_are_those_of_the_tables(name: str, usd: float) -> None:
    assert round(TYPES[name].usd_per_hour, 4) == usd


@pytest.mark.parametrize("name", ["c5.8xlarge", "m7g.24xlarge", "c6i.48xlarge", "m5.medium"])
def test_types_that_ec2_does_not_have_are_not_in_the_catalogue(name: str) -> None:
    assert name not in TYPES


@pytest.mark.parametrize(
    ("requirements", "unknown"),
    [
        (InstanceRequirements(), []),
        (InstanceRequirements(allowed=("m7i.*", "c5.large")), []),
        (InstanceRequirements(allowed=("t2.micro", "c5.large")), ["t2.micro"]),
        (InstanceRequirements("arm64", excluded=("c5.*", "c8g.*")), ["c5.*"]),
    ],
)
def test_patterns_that_match_nothing_are_named(requirements: InstanceRequirements, unknown: list[str]) -> None:
    assert unknown_patterns(requirements) == unknown


# --- sizes of environments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory_gib", "ratio", "vcpus"),
    [
        (2, 2.0, 1),
        (4, 2.0, 2),
        (8, 2.0, 4),
        (16, 2.0, 8),
        (32, 2.0, 16),
        (4, 4.0, 1),
        (32, 4.0, 8),
        (8, 8.0, 1),
        (32, 8.0, 4),
        (3, 2.0, 1.5),
    ],
)
def test_vcpus_are_memory_by_ratio(memory_gib: int, ratio: float, vcpus: float) -> None:
    assert Sizing(1, ratio).vcpus(memory_gib * 1024) == vcpus


@pytest.mark.parametrize(
    ("runtime", "memory_mb", "slots", "ratio", "sizing"),
    [
        ("python3.13", 2048, None, None, Sizing(16, 2.0)),
        ("python3.13", 4096, None, None, Sizing(32, 2.0)),
        ("python3.13", 4096, None, 4.0, Sizing(16, 4.0)),
        ("nodejs22.x", 2048, None, None, Sizing(64, 2.0)),
        ("java21", 2048, None, None, Sizing(32, 2.0)),
        ("dotnet8", 8192, None, 8.0, Sizing(32, 8.0)),
        ("provided.al2023", 2048, None, None, Sizing(8, 2.0)),
        ("python3.13", 2048, 1, None, Sizing(1, 2.0)),
        ("python3.13", 2048, 64, None, Sizing(64, 2.0)),
        ("python3.13", 32768, 1024, None, Sizing(1024, 2.0)),
    ],
)
def test_sizing_fills_in_the_defaults_of_the_runtime(
    runtime: str, memory_mb: int, slots: int | None, ratio: float | None, sizing: Sizing
) -> None:
    assert Sizing.from_request(runtime, memory_mb, slots, ratio) == sizing


@pytest.mark.parametrize(
    ("memory_mb", "slots", "ratio", "text"),
    [
        (2047, None, None, "Lambda Managed Instance functions must have memory size greater than or equal to 2048"),
        (
            2048,
            None,
            4.0,
            "2048 MB at 4 GiB per vCPU gives 0.50 vCPU; an execution environment needs at least one. "
            "Raise MemorySize or lower ExecutionEnvironmentMemoryGiBPerVCpu.",
        ),
        (
            2048,
            65,
            None,
            "PerExecutionEnvironmentMaxConcurrency 65 is above 64, which is 64 for each of the environment's 1 vCPUs.",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(memory_mb: int, slots: int | None, ratio: float | None, text: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        Sizing.from_request("python3.13", memory_mb, slots, ratio)
    assert str(refusal.value) == text


def test_an_unknown_runtime_family_gets_the_most_careful_default() -> None:
    assert default_slots_per_vcpu("cobol85") == 8


# --- scaling bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minimum", "maximum", "bounds"),
    [
        (None, None, ScalingBounds(3)),
        (1, None, ScalingBounds(1)),
        (5, 10, ScalingBounds(5, 10)),
        (4, 4, ScalingBounds(4, 4)),
        (None, 10, ScalingBounds(3, 10)),
        (None, 2, ScalingBounds(2, 2)),
        (0, 0, ScalingBounds(0, 0)),
        (None, 0, ScalingBounds(0, 0)),
    ],
)
def test_a_bound_that_is_not_given_takes_its_default(
    minimum: int | None, maximum: int | None, bounds: ScalingBounds
) -> None:
    found = ScalingBounds.from_request(minimum, maximum, default_minimum=3)
    assert found == bounds
    assert found.is_off is (maximum == 0)


@pytest.mark.parametrize(
    ("minimum", "maximum", "text"),
    [
        (5, 4, "MinExecutionEnvironments 5 must not be greater than MaxExecutionEnvironments 4."),
        (3, 0, "MinExecutionEnvironments 3 must not be greater than MaxExecutionEnvironments 0."),
        *(
            (
                0,
                maximum,
                "MinExecutionEnvironments can be 0 only if MaxExecutionEnvironments is 0 as well, which deactivates the version.",
            )
            for maximum in (None, 5)
        ),
    ],
)
def test_bounds_that_contradict_themselves_are_refused(minimum: int, maximum: int | None, text: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        ScalingBounds.from_request(minimum, maximum, default_minimum=3)
    assert str(refusal.value) == text


# --- capacity providers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subnets", "letters"), [(1, "a"), (2, "ab"), (3, "abc"), (5, "abc")])
def test_subnets_stand_in_the_zones_of_the_region_by_turns(subnets: int, letters: str) -> None:
    assert provider(subnets=subnets).zones("eu-west-1") == tuple(f"eu-west-1{letter}" for letter in letters)


POLICY = {"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 50.0}
MANUAL = ProviderScaling(400, "Manual", (POLICY,))


@pytest.mark.parametrize(
    ("request_", "current", "after"),
    [
        ({}, None, ProviderScaling(400, "Auto", ())),
        ({"MaxVCpuCount": 30}, None, ProviderScaling(30)),
        ({"ScalingMode": "Manual", "ScalingPolicies": [POLICY]}, None, MANUAL),
        ({"MaxVCpuCount": 12}, MANUAL, ProviderScaling(12, "Manual", (POLICY,))),
        ({"ScalingMode": "Auto"}, MANUAL, ProviderScaling(400, "Auto", ())),
        ({"ScalingMode": "Auto", "ScalingPolicies": []}, None, ProviderScaling()),
    ],
)
def test_scaling_of_a_provider_is_laid_over_what_it_was(
    request_: Mapping[str, Any], current: ProviderScaling | None, after: ProviderScaling
) -> None:
    assert ProviderScaling.from_request(request_, current) == after


@pytest.mark.parametrize(
    "request_", [{"ScalingPolicies": [POLICY]}, {"ScalingMode": "Auto", "ScalingPolicies": [POLICY]}]
)
def test_auto_mode_takes_no_policies(request_: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        ProviderScaling.from_request(request_)
    assert str(refusal.value) == "A scaling policy can't be specified when the scalingMode is set to Auto"


def test_a_provider_becomes_active_once() -> None:
    pending = provider(state=ProviderState.PENDING)
    active = apply(pending, ProviderChecked())
    assert active.state is ProviderState.ACTIVE
    with pytest.raises(IllegalTransition):
        apply(active, ProviderChecked())


def test_only_given_members_of_a_provider_change() -> None:
    before = provider(telemetry={"a": 1}, propagated_tags={"Mode": "None"})
    after = apply(before, ProviderUpdated("later", ProviderScaling(12)))
    assert after == replace(before, last_modified="later", scaling=ProviderScaling(12))
    assert apply(before, ProviderUpdated(AT, telemetry={})).telemetry == {}


@pytest.mark.parametrize("state", [ProviderState.PENDING, ProviderState.FAILED, ProviderState.DELETING])
def test_a_provider_that_is_not_active_is_not_updated(state: ProviderState) -> None:
    with pytest.raises(ResourceConflict) as refusal:
        apply(provider(state=state), ProviderUpdated(AT))
    assert str(refusal.value) == (
        "The operation cannot be performed at this time. "
        f"The capacity provider is currently in the following state: {state}"
    )


def test_a_provider_in_use_is_not_deleted() -> None:
    with pytest.raises(ResourceConflict) as refusal:
        apply(provider(), ProviderDeletionRequested("ARN-CP", ("ARN-F", "ARN-G")))
    assert str(refusal.value) == (
        "The capacity provider is currently in use by 2 functions. "
        "To delete this capacity provider, first remove its association with ARN-F."
    )
    assert apply(provider(), ProviderDeletionRequested("ARN-CP", ())).state is ProviderState.DELETING


def test_zones_are_those_of_the_subnets_where_somebody_knows_them() -> None:
    known = {"subnet-0": "eu-west-1c", "subnet-2": "eu-west-1c"}
    there = provider(subnets=3, state=ProviderState.PENDING)
    checked = apply(there, ProviderChecked(known))
    assert checked.subnets_by_zone("eu-west-1") == [
        ("eu-west-1c", "subnet-0"),
        ("eu-west-1b", "subnet-1"),
        ("eu-west-1c", "subnet-2"),
    ]
    assert checked.zones("eu-west-1") == ("eu-west-1c", "eu-west-1b"), "two subnets of a zone are one place"
