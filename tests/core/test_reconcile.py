"""`plan` against a small world that carries its orders out: what runs becomes what is wanted, whatever dies on the way.

The world has virtual time, instances that come up or die, environments that become ready, fail, lose workers and get busy, and the stored
versions, which notes change as provisioning changes them. While it is stirred, safety must hold after every plan; left alone, it must come to rest,
and to rest at what was asked for.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar, assert_never

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.samples import AT, latest, managed, provider, published, serving, standard

from lambstead.core.aliases import Alias
from lambstead.core.arn import LATEST, LATEST_PUBLISHED
from lambstead.core.capacity import CapacityProvider, InstanceRequirements
from lambstead.core.catalogue import LAMBDA_OWNED, InstanceType, all_types
from lambstead.core.concurrency import Allocation, AllocationStatus, ProvisionedConcurrency
from lambstead.core.desired import Desired, Policy, Provision, key_of
from lambstead.core.draft import Draft
from lambstead.core.errors import IllegalTransition
from lambstead.core.fleet import Environment, Failure, Fleet, Instance, InstancePhase, Phase, PublicationKey, Refusal
from lambstead.core.functions import (
    BoundsRequested,
    CapacityFailed,
    CapacityFound,
    CapacityReady,
    DeletionRequested,
    Drained,
    FunctionVersion,
    Reason,
    Republished,
    State,
    UpdateStatus,
    apply,
)
from lambstead.core.orders import (
    DrainEnvironment,
    LaunchInstance,
    NoteAllocation,
    NoteDrained,
    NoteFailed,
    NoteObstacle,
    NoteReady,
    NoteRemoved,
    NoteRetry,
    Order,
    StartEnvironment,
    StopEnvironment,
    TerminateInstance,
)
from lambstead.core.placement import MOST_TYPES_REFUSED, Demand, Nowhere, place
from lambstead.core.reconcile import LAUNCH_LIMIT, next_look, plan
from lambstead.core.scaling import ScalingBounds

T = TypeVar("T")
START = datetime(2026, 11, 21, 10, tzinfo=UTC)
POLICY = Policy(
    default_minimum=3,
    standard_limit=4,
    idle_environment=timedelta(minutes=5),
    idle_instance=timedelta(minutes=2),
    drain_grace=timedelta(seconds=30),
)
ROTATION = timedelta(days=1)
"""What is due later than this is the age of instances."""
MOST_ROUNDS = 300
"""Far more looks than any stirring needs to come to rest; a loop of orders shows by passing it."""
INIT_FAILED = Reason("FunctionError.RuntimeInitError", "the handler is not there")


class World:
    """Everything outside `plan`: it carries orders out and lets things happen."""

    def __init__(self, *versions: FunctionVersion, providers: tuple[CapacityProvider, ...] = ()) -> None:
        self.now = START
        self.fleet = Fleet()
        self.providers = {p.name: p for p in providers}
        self.versions = {(v.function, v.version): v for v in versions}
        self.demand: dict[PublicationKey, int] = {}
        self.provisioned: dict[str, ProvisionedConcurrency] = {}
        """Of the standard function `s`, by qualifier."""
        self.alias: Alias | None = None
        self.scaled: dict[tuple[str, str], int] = {}
        self.obstacles: dict[tuple[str, str], Reason] = {}
        self.busy: dict[str, int] = {}
        self.crowded = False
        """True while an invocation arrives at an environment in the moment before it is drained."""
        self.orders: list[Order] = []
        self._ids = (str(number) for number in itertools.count(1))
        self._revisions = itertools.count(1)

    # --- planning --------------------------------------------------------------------------------------------------------

    def plan(self) -> list[Order]:
        """One reconcile: look, plan, carry out."""
        self.fleet = replace(
            self.fleet,
            environments={
                key: replace(e, busy=self.busy.get(key, 0), used_at=self.now if self.busy.get(key) else e.used_at)
                for key, e in self.fleet.environments.items()
            },
        )
        desired = Desired(
            tuple(self.versions.values()),
            self.providers,
            "us-east-1",
            dict(self.demand),
            self.provisions(),
            dict(self.scaled),
            dict(self.obstacles),
        )
        orders = plan(desired, self.fleet, POLICY, self._ids, self.now)
        for order in orders:
            self._carry_out(order)
        self.orders += orders
        return orders

    def provisions(self) -> tuple[Provision, ...]:
        aliases = {self.alias.name: self.alias} if self.alias else {}
        return tuple(Provision(config, config.shares(aliases.get(q))) for q, config in self.provisioned.items())

    def provision(self, qualifier: str, count: int) -> None:
        """PutProvisionedConcurrencyConfig, or its deletion for 0."""
        if count:
            self.provisioned[qualifier] = ProvisionedConcurrency("s", qualifier, count, AT)
        else:
            self.provisioned.pop(qualifier, None)

    def _carry_out(self, order: Order) -> None:
        match order:
            case LaunchInstance(instance, _):
                assert instance.id not in self.fleet.instances
                self.fleet = self.fleet.with_instance(instance)
            case StartEnvironment(environment, _, _):
                assert environment.id not in self.fleet.environments
                assert self.fleet.instances[environment.instance_id].takes_environments
                self.fleet = self.fleet.placed(environment)
            case DrainEnvironment(environment_id, _):
                if self.crowded:
                    self.busy[environment_id] = 1
                self.fleet = self.fleet.draining(environment_id, self.now)
            case StopEnvironment(environment_id, _):
                environment = self.fleet.environments[environment_id]
                late = self.now - (environment.draining_since or self.now) >= environment.timeout + POLICY.drain_grace
                assert not self.busy.get(environment_id) or late, "stopped while an invocation ran and had time left"
                assert environment.phase is not Phase.READY, "stopped without being drained"
                self.fleet = self.fleet.phase(environment_id, Phase.STOPPING)
            case TerminateInstance(instance_id, _):
                never_up = self.fleet.instances[instance_id].phase is InstancePhase.LAUNCHING
                assert never_up or not any(self.fleet.on(instance_id))
                self.fleet = self.fleet.terminating(instance_id)
            case NoteReady(key, bounds, asked):
                before = self.versions[key.function, key.version]
                after = apply(before, CapacityReady(key.number, bounds, self._revision(), asked))
                assert after != before, "a note that changes nothing would be written for ever"
                self.save(after)
            case NoteFailed(key, reason):
                before = self.versions[key.function, key.version]
                after = apply(before, CapacityFailed(key.number, reason, self._revision()))
                assert after != before, "a note that changes nothing would be written for ever"
                self.save(after)
            case NoteRetry(key):
                before = self.versions[key.function, key.version]
                after = apply(before, CapacityFound(key.number, self._revision()))
                assert after.state is State.PENDING
                self.save(after)
            case NoteObstacle(function, version, reason):
                assert self.obstacles.get((function, version)) != reason, "noted before"
                if reason is None:
                    del self.obstacles[function, version]
                else:
                    self.obstacles[function, version] = reason
            case NoteDrained(function, version):
                assert not self.of_version(function, version)
                self.save(apply(self.versions[function, version], Drained()))
            case NoteRemoved(function, version):
                assert not self.of_version(function, version)
                del self.versions[function, version]
            case NoteAllocation(config, allocation):
                assert self.provisioned[config.qualifier] == config
                assert allocation != config.allocation, "a note that changes nothing would be written for ever"
                self.provisioned[config.qualifier] = replace(config, allocation=allocation)
            case _:
                assert_never(order)

    def save(self, version: FunctionVersion) -> None:
        self.versions[version.function, version.version] = version

    def _revision(self) -> str:
        return f"revision {next(self._revisions)}"

    # --- what happens ------------------------------------------------------------------------------------------------------

    def instance_comes_up(self, instance_id: str) -> None:
        self.fleet = self.fleet.instance_running(instance_id)

    def instance_dies(self, instance_id: str) -> None:
        lost = [e.id for e in self.fleet.on(instance_id)]
        self.fleet = self.fleet.instance_gone(instance_id, self.now)
        self._forget(lost)

    def instance_is_refused(self, instance_id: str, *, whole_zone: bool = False) -> None:
        instance = self.fleet.instances[instance_id]
        lost = [e.id for e in self.fleet.on(instance_id)]
        reason = Reason("InsufficientCapacity", f"No {instance.type.name} in {instance.zone}.")
        self.fleet = self.fleet.instance_gone(instance_id, self.now, Refusal(reason, whole_zone))
        self._forget(lost)

    def environment_is_ready(self, environment_id: str) -> None:
        self.fleet = self.fleet.environment_ready(environment_id, self.now)

    def environment_ends(self, environment_id: str, *, failed: bool) -> None:
        environment = self.fleet.environments[environment_id]
        self.fleet = self.fleet.environment_gone(environment_id, self.now, failed)
        self._forget([environment_id])
        version = self.versions.get((environment.key.function, environment.key.version))
        if failed and environment.phase is Phase.STARTING and version is not None and version.is_managed:
            self.save(apply(version, CapacityFailed(environment.key.number, INIT_FAILED, self._revision())))

    def _forget(self, environment_ids: list[str]) -> None:
        for environment_id in environment_ids:
            self.busy.pop(environment_id, None)

    # --- coming to rest ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything under way succeeds, every invocation ends; time passes as far as the plan wants to look again."""
        for _ in range(MOST_ROUNDS):
            self.busy.clear()
            if self.plan() or self._succeed():
                continue
            wait = next_look(self.fleet, POLICY, self.now)
            if wait is None or wait > ROTATION:
                return  # rotation by age goes on for ever
            assert wait > timedelta(0)
            self.now += wait
        raise AssertionError(f"no rest after {MOST_ROUNDS} rounds; last orders: {self.orders[-6:]}")

    def follow_orders(self) -> None:
        """Everything under way succeeds, invocations go on, and no time passes."""
        for _ in range(MOST_ROUNDS):
            if not self.plan() and not self._succeed():
                return
        raise AssertionError(f"no rest after {MOST_ROUNDS} rounds; last orders: {self.orders[-6:]}")

    def _succeed(self) -> bool:
        instances = [i for i in self.fleet.instances.values() if i.phase is not InstancePhase.RUNNING]
        for instance in instances:
            if instance.phase is InstancePhase.LAUNCHING:
                self.instance_comes_up(instance.id)
            else:
                self.instance_dies(instance.id)
        moving = [e for e in self.fleet.environments.values() if e.phase in (Phase.STARTING, Phase.STOPPING)]
        for environment in moving:
            if environment.phase is Phase.STARTING:
                self.environment_is_ready(environment.id)
            else:
                self.environment_ends(environment.id, failed=False)
        return bool(instances or moving)

    # --- what can be asked ---------------------------------------------------------------------------------------------------

    def version(self, function: str = "f", version: str = LATEST_PUBLISHED) -> FunctionVersion:
        return self.versions[function, version]

    def of_version(self, function: str = "f", version: str = LATEST_PUBLISHED) -> list[Environment]:
        environments = self.fleet.environments.values()
        return [e for e in environments if (e.key.function, e.key.version) == (function, version)]

    def ready(self, function: str = "f", version: str = LATEST_PUBLISHED) -> list[Environment]:
        return [e for e in self.of_version(function, version) if e.is_ready]

    def zones(self, function: str = "f", version: str = LATEST_PUBLISHED) -> Counter[str]:
        return Counter(self.fleet.instances[e.instance_id].zone for e in self.ready(function, version))

    def vcpus(self, provider_name: str = "cp") -> int:
        return sum(i.type.vcpus for i in self.fleet.of_provider(provider_name))

    def only(self, kind: type[T]) -> Iterator[T]:
        return (order for order in self.orders if isinstance(order, kind))


def check_safety(world: World) -> None:
    """What holds at every moment, however things go wrong."""
    for instance in world.fleet.instances.values():
        on_it = list(world.fleet.on(instance.id))
        assert sum(e.vcpus for e in on_it) <= instance.type.usable_vcpus, "vCPUs over-committed"
        assert sum(e.memory_mb for e in on_it) <= instance.type.usable_memory_mb, "memory over-committed"
    for name, cp in world.providers.items():
        assert world.vcpus(name) <= cp.scaling.max_vcpus, "more vCPUs than the provider may have"
    owned = [e for e in world.fleet.environments.values() if world.fleet.instances[e.instance_id].provider is None]
    assert len(owned) <= POLICY.standard_limit


# --- stories ------------------------------------------------------------------------------------------------------------------


def test_a_first_publish_gets_three_environments_over_three_zones() -> None:
    world = World(published(managed()), providers=(provider(),))
    world.settle()
    assert world.version().state is State.ACTIVE
    assert world.zones() == {"us-east-1a": 1, "us-east-1b": 1, "us-east-1c": 1}
    assert world.plan() == []


def test_without_subnets_in_three_zones_the_environments_share_what_there_is() -> None:
    world = World(published(managed()), providers=(provider(subnets=1),))
    world.settle()
    assert world.zones() == {"us-east-1a": 3}
    assert len(world.fleet.instances) == 1, "three environments of one vCPU fit one instance"


def test_functions_share_instances() -> None:
    world = World(published(managed()), published(managed(), "1", function="g"), providers=(provider(),))
    world.settle()
    assert len(world.fleet.instances) == 3
    assert world.zones("g", "1") == {"us-east-1a": 1, "us-east-1b": 1, "us-east-1c": 1}


def test_a_version_that_cannot_have_its_minimum_fails_with_the_limit_as_its_reason() -> None:
    world = World(published(managed(slots=1, ratio=2.0, memory_mb=8192)), providers=(provider(max_vcpus=4),))
    world.settle()
    version = world.version()
    assert version.state is State.FAILED
    assert version.state_reason is not None
    assert version.state_reason.code == "CapacityProviderScalingLimitExceeded"
    assert not world.fleet.environments
    assert not world.fleet.instances, "an instance that nobody uses is terminated"


def test_bounds_that_cannot_be_met_leave_an_active_version_as_it_is_and_are_not_tried_for_ever() -> None:
    world = World(published(managed()), providers=(provider(max_vcpus=12),))
    world.settle()
    before = world.version()
    world.save(apply(before, BoundsRequested(ScalingBounds(50))))
    world.settle()
    version = world.version()
    assert (version.state, version.update_status) == (State.ACTIVE, UpdateStatus.SUCCESSFUL)
    assert version.bounds_requested, "still asked for, as the API shows"
    assert world.plan() == []
    assert world.vcpus() == 12
    world.providers["cp"] = provider(max_vcpus=400)
    world.settle()
    assert not world.version().bounds_requested
    assert len(world.ready()) == 50


def test_a_republish_keeps_the_old_environments_until_the_new_publication_is_ready() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.settle()
    world.save(apply(world.version(), Republished(managed(timeout_s=9), AT, "r")))
    world.plan()
    old = world.ready()
    assert len(old) == 3
    assert {e.key.number for e in old} == {1}
    new = [e for e in world.fleet.environments.values() if e.key.number == 2]
    assert len(new) == 3
    for environment in new[:2]:
        world.environment_is_ready(environment.id)
    world.plan()
    assert [e for e in world.ready() if e.key.number == 1] == old, "old ones went before the new ones were ready"
    assert world.version().update_status is UpdateStatus.IN_PROGRESS
    world.settle()
    assert {e.key.number for e in world.fleet.environments.values()} == {2}
    assert world.version().update_status is UpdateStatus.SUCCESSFUL


def test_a_failed_republish_leaves_the_old_publication_serving_and_nothing_of_the_new_one() -> None:
    world = World(serving(managed()), providers=(provider(max_vcpus=12),))
    world.settle()
    world.save(apply(world.version(), Republished(managed(memory_mb=8192), AT, "r")))
    world.settle()
    version = world.version()
    assert (version.state, version.update_status) == (State.ACTIVE, UpdateStatus.FAILED)
    assert {e.key.number for e in world.fleet.environments.values()} == {1}
    world.save(apply(version, BoundsRequested(ScalingBounds(2))))
    world.settle()
    assert not world.version().bounds_requested
    assert len(world.ready()) == 2


def test_a_version_gets_what_scaling_wants_within_its_bounds_and_spread_over_the_zones() -> None:
    world = World(serving(managed(), bounds=ScalingBounds(3, 7)), providers=(provider(),))
    world.scaled["f", LATEST_PUBLISHED] = 6
    world.settle()
    assert world.zones() == {"us-east-1a": 2, "us-east-1b": 2, "us-east-1c": 2}
    world.scaled["f", LATEST_PUBLISHED] = 100
    world.settle()
    assert len(world.ready()) == 7
    world.scaled.clear()
    world.settle()
    assert world.zones() == {"us-east-1a": 1, "us-east-1b": 1, "us-east-1c": 1}


def test_a_version_becomes_active_with_its_minimum_whatever_scaling_wants() -> None:
    world = World(published(managed()), providers=(provider(max_vcpus=12),))
    world.scaled["f", LATEST_PUBLISHED] = 50
    world.settle()
    assert world.version().state is State.ACTIVE
    assert world.obstacles["f", LATEST_PUBLISHED].code == "CapacityProviderScalingLimitExceeded"
    world.scaled.clear()
    world.settle()
    assert not world.obstacles, "nothing is in the way of what is not wanted"


def test_what_replaces_a_publication_under_load_starts_as_large_as_that_is() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.scaled["f", LATEST_PUBLISHED] = 8
    world.settle()
    world.save(apply(world.version(), Republished(managed(timeout_s=9), AT, "r")))
    world.plan()
    new = [e for e in world.fleet.environments.values() if e.key.number == 2]
    assert len(new) == 8
    for environment in new[:-1]:
        world.environment_is_ready(environment.id)
    world.plan()
    assert world.version().update_status is UpdateStatus.IN_PROGRESS
    world.settle()
    assert len(world.ready()) == 8
    assert {e.key.number for e in world.ready()} == {2}


def test_a_publication_under_load_is_replaced_by_a_smaller_one_where_there_is_no_room_for_both() -> None:
    world = World(serving(managed()), providers=(provider(max_vcpus=16),))
    world.scaled["f", LATEST_PUBLISHED] = 8
    world.settle()
    world.save(apply(world.version(), Republished(managed(timeout_s=9), AT, "r")))
    world.settle()
    assert world.version().update_status is UpdateStatus.SUCCESSFUL
    assert len(world.ready()) == 8, "and grows once the old one is gone"


def test_a_version_that_failed_for_lack_of_capacity_comes_back_when_there_is_some() -> None:
    world = World(published(managed(memory_mb=8192)), providers=(provider(max_vcpus=8),))
    world.settle()
    assert world.version().state is State.FAILED
    world.providers["cp"] = provider(max_vcpus=400)
    world.settle()
    assert world.version().state is State.ACTIVE
    assert len(world.ready()) == 3


def test_a_version_that_failed_by_its_own_fault_stays_failed() -> None:
    world = World(published(managed()), providers=(provider(),))
    world.plan()
    world.environment_ends(next(iter(world.fleet.environments)), failed=True)
    world.settle()
    assert world.version().state is State.FAILED


def test_zones_that_lost_more_than_others_are_balanced_again() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.scaled["f", LATEST_PUBLISHED] = 6
    world.settle()
    for environment in world.ready():
        if world.fleet.instances[environment.instance_id].zone == "us-east-1a":
            world.environment_ends(environment.id, failed=False)
    world.scaled["f", LATEST_PUBLISHED] = 4
    world.settle()
    assert max(world.zones().values()) - min(world.zones()[f"us-east-1{letter}"] for letter in "abc") <= 1


def test_a_lost_zone_is_made_up_for_by_the_others_and_filled_again_when_it_is_back() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.scaled["f", LATEST_PUBLISHED] = 6
    world.settle()
    began = world.now

    def in_lost_zone() -> list[str]:
        return [i.id for i in world.fleet.instances.values() if i.zone == "us-east-1b"]

    for _ in range(12):
        for instance_id in in_lost_zone():
            world.instance_dies(instance_id)
        world.plan()
        for instance_id in set(world.fleet.instances) - set(in_lost_zone()):
            world.instance_comes_up(instance_id)
        for environment in world.of_version():
            if environment.instance_id not in in_lost_zone():
                world.environment_is_ready(environment.id)
        world.now += timedelta(seconds=1)
    assert world.zones() == {"us-east-1a": 3, "us-east-1c": 3}
    assert world.now - began < timedelta(seconds=30)
    world.settle()
    world.now += timedelta(minutes=2)
    world.settle()
    assert world.zones() == {"us-east-1a": 2, "us-east-1b": 2, "us-east-1c": 2}


def refuse(world: World, *types: str, zones: str = "abc", rounds: int = 40) -> None:
    """Plan so many rounds in which these types cannot be had in these zones, and everything else succeeds."""
    for _ in range(rounds):
        world.plan()
        for instance in list(world.fleet.instances.values()):
            launching = instance.phase is InstancePhase.LAUNCHING
            if launching and instance.type.name in types and instance.zone[-1] in zones:
                world.instance_is_refused(instance.id)
        world._succeed()


def kinds(world: World) -> Counter[tuple[str, str]]:
    return Counter((i.zone[-1], i.type.name) for i in world.fleet.instances.values())


def test_where_a_type_cannot_be_had_another_allowed_one_is_launched_in_the_same_zone() -> None:
    world = World(published(managed()), providers=(provider(),))
    refuse(world, "c7i.xlarge", zones="b")
    assert world.version().state is State.ACTIVE
    assert kinds(world) == {("a", "c7i.xlarge"): 1, ("b", "c6i.xlarge"): 1, ("c", "c7i.xlarge"): 1}
    (instead,) = [o for o in world.only(LaunchInstance) if o.instance.type.name == "c6i.xlarge"]
    assert instead.because.endswith("instead of c7i.xlarge: No c7i.xlarge in us-east-1b.")
    assert len(list(world.only(LaunchInstance))) == 4, "nothing is asked for twice while it is known to be refused"


def test_the_types_of_a_provider_are_tried_in_their_order_until_one_can_be_had() -> None:
    names = ("c7i.xlarge", "c6i.xlarge", "c5.xlarge", "m7i.xlarge")
    world = World(published(managed()), providers=(provider(subnets=1),))
    refuse(world, *names)
    assert [o.instance.type.name for o in world.only(LaunchInstance)] == [*names, "m6i.xlarge"]
    assert world.version().state is State.ACTIVE


def test_types_that_the_provider_does_not_allow_are_not_tried() -> None:
    requirements = InstanceRequirements(allowed=("c7i.xlarge", "c6i.xlarge"))
    world = World(published(managed()), providers=(provider(requirements=requirements),))
    refuse(world, "c7i.xlarge", "c6i.xlarge")
    version = world.version()
    assert version.state is State.FAILED
    assert version.state_reason == Reason("InsufficientCapacity", "No c7i.xlarge in us-east-1a.")
    assert {o.instance.type.name for o in world.only(LaunchInstance)} == {"c7i.xlarge", "c6i.xlarge"}
    world.settle()
    assert world.version().state is State.ACTIVE, "it comes back when there is capacity"


def test_a_zone_that_has_no_type_to_give_is_made_up_for_by_the_others() -> None:
    requirements = InstanceRequirements(allowed=("c7i.xlarge",))
    world = World(published(managed()), providers=(provider(requirements=requirements),))
    refuse(world, "c7i.xlarge", zones="a")
    assert world.version().state is State.ACTIVE
    assert set(kinds(world)) == {("b", "c7i.xlarge"), ("c", "c7i.xlarge")}


def test_a_larger_type_is_no_way_round_the_limit_of_vcpus() -> None:
    requirements = InstanceRequirements(allowed=("c7i.xlarge", "c7i.4xlarge"))
    world = World(published(managed()), providers=(provider(max_vcpus=12, requirements=requirements),))
    refuse(world, "c7i.xlarge", zones="a")
    assert set(kinds(world)) == {("b", "c7i.xlarge"), ("c", "c7i.xlarge")}
    assert world.version().state is State.ACTIVE


def test_the_preferred_type_is_asked_for_again_after_a_while_and_for_longer_every_time() -> None:
    world = World(serving(managed()), providers=(provider(subnets=1),))
    name = ("f", LATEST_PUBLISHED)

    def launched_for(count: int) -> list[str]:
        before = len(list(world.only(LaunchInstance)))
        world.scaled[name] = count
        refuse(world, "c7i.xlarge", rounds=4)
        return [o.instance.type.name for o in world.only(LaunchInstance)][before:]

    assert launched_for(3) == ["c7i.xlarge", "c6i.xlarge"]
    assert launched_for(6) == ["c6i.xlarge"]
    world.now += timedelta(seconds=1)
    assert launched_for(9) == ["c7i.xlarge", "c6i.xlarge"]
    world.now += timedelta(seconds=1)
    assert launched_for(12) == ["c6i.xlarge"]
    world.now += timedelta(seconds=1)
    assert launched_for(15) == ["c7i.xlarge", "c6i.xlarge"]
    world.fleet = world.fleet.launches_may_succeed()
    world.scaled[name] = 18
    world.settle()
    assert not world.fleet.refused_types
    assert list(world.only(LaunchInstance))[-1].instance.type.name == "c7i.xlarge"


def test_a_zone_that_refused_ten_types_is_left_alone_for_a_while() -> None:
    world = World(published(managed()), providers=(provider(),))
    refuse(world, *(t.name for t in all_types()), zones="a")
    asked = [o.instance.type.name for o in world.only(LaunchInstance) if o.instance.zone == "us-east-1a"]
    assert len(asked) == MOST_TYPES_REFUSED
    assert {zone for zone, _ in kinds(world)} == {"b", "c"}
    assert world.version().state is State.ACTIVE


def test_a_refusal_for_the_whole_zone_tries_no_other_type_there() -> None:
    world = World(published(managed()), providers=(provider(),))
    for _ in range(10):
        world.plan()
        for instance in list(world.fleet.instances.values()):
            if instance.phase is InstancePhase.LAUNCHING and instance.zone == "us-east-1a":
                world.instance_is_refused(instance.id, whole_zone=True)
        world._succeed()
    assert {o.instance.type.name for o in world.only(LaunchInstance)} == {"c7i.xlarge"}
    assert {zone for zone, _ in kinds(world)} == {"b", "c"}


def test_an_instance_that_is_too_old_is_replaced_before_it_is_emptied() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.settle()
    old = set(world.fleet.instances)
    world.now += POLICY.instance_lifetime
    fewest = len(world.ready())
    for _ in range(60):
        world.plan()
        world._succeed()
        fewest = min(fewest, len(world.ready()))
    assert fewest == 3, "make before break"
    assert not old & set(world.fleet.instances)
    assert world.zones() == {"us-east-1a": 1, "us-east-1b": 1, "us-east-1c": 1}
    together = [type(order) for order in world.only(TerminateInstance)]
    assert len(together) == 3


def test_an_old_instance_stays_where_there_is_no_room_for_its_successor() -> None:
    world = World(serving(managed(memory_mb=6144)), providers=(provider(max_vcpus=12),))
    world.settle()
    world.now += POLICY.instance_lifetime
    world.settle()
    assert len(world.ready()) == 3
    assert not world.obstacles


def test_a_lost_fleet_is_ordered_anew() -> None:
    world = World(serving(managed()), serving(managed(), "2"), providers=(provider(),))
    world.settle()
    world.fleet, world.busy = Fleet(), {}
    world.settle()
    assert len(world.ready()) == len(world.ready(version="2")) == 3


def test_an_environment_that_lost_workers_serves_until_its_replacement_is_ready() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.settle()
    hurt = world.ready()[0]
    world.fleet = world.fleet.environment_degraded(hurt.id, 3)
    world.plan()
    assert hurt.id in {e.id for e in world.ready()}
    world.settle()
    assert hurt.id not in world.fleet.environments
    assert world.zones() == {"us-east-1a": 1, "us-east-1b": 1, "us-east-1c": 1}
    assert all(e.is_whole for e in world.ready())


def test_a_replacement_does_not_exceed_the_providers_limit() -> None:
    # Every instance is full: the damaged environment is the only room there could be.
    world = World(serving(managed(memory_mb=6144)), providers=(provider(max_vcpus=12),))
    world.settle()
    world.fleet = world.fleet.environment_degraded(world.ready()[0].id, 1)
    world.settle()
    assert world.vcpus() == 12
    assert len(world.ready()) == 3, "the damaged one stays: it is better than none"


def test_a_draining_environment_is_stopped_when_its_last_invocation_ended() -> None:
    world = World(serving(managed(timeout_s=10)), providers=(provider(),))
    world.settle()
    busy = world.ready()[0].id
    world.busy[busy] = 1
    world.save(apply(world.version(), DeletionRequested()))
    world.plan()
    world.plan()
    assert {key: e.phase for key, e in world.fleet.environments.items()}[busy] is Phase.DRAINING
    world.busy[busy] = 0
    world.plan()
    assert world.fleet.environments[busy].phase is Phase.STOPPING
    world.settle()
    assert not world.versions


def test_a_draining_environment_that_stays_busy_is_stopped_after_timeout_and_grace() -> None:
    world = World(serving(managed(timeout_s=10)), providers=(provider(),))
    world.settle()
    busy = world.ready()[0].id
    world.busy[busy] = 1
    world.save(apply(world.version(), DeletionRequested()))
    world.plan()
    wait = next_look(world.fleet, POLICY, world.now)
    assert wait == timedelta(seconds=40)
    world.now += wait
    world.plan()
    assert world.fleet.environments[busy].phase is Phase.STOPPING


def test_nothing_is_stopped_in_the_plan_that_drains_it() -> None:
    """Until the drain is carried out, an invocation may still be given to it."""
    world = World(serving(managed()), providers=(provider(),))
    world.settle()
    world.save(apply(world.version(), BoundsRequested(ScalingBounds(1))))
    orders = world.plan()
    assert [type(order) for order in orders if not isinstance(order, NoteReady)] == [DrainEnvironment] * 2


def test_scaling_in_keeps_the_zones_balanced() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.save(apply(world.version(), BoundsRequested(ScalingBounds(6))))
    world.settle()
    by_age = world.fleet.running(PublicationKey("f", LATEST_PUBLISHED, 1))
    for old in by_age[:3]:
        if world.fleet.instances[old.instance_id].zone == "us-east-1a":
            world.environment_ends(old.id, failed=False)
    world.settle()
    world.save(apply(world.version(), BoundsRequested(ScalingBounds(3))))
    world.settle()
    assert world.zones() == {"us-east-1a": 1, "us-east-1b": 1, "us-east-1c": 1}


def test_a_version_is_switched_off_and_on() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.settle()
    world.save(apply(world.version(), BoundsRequested(ScalingBounds(0, 0))))
    world.settle()
    assert world.version().state is State.DEACTIVATED
    assert not world.fleet.environments
    assert not world.fleet.instances
    world.save(apply(world.version(), BoundsRequested(ScalingBounds(1))))
    world.settle()
    assert world.version().state is State.ACTIVE
    assert len(world.ready()) == 1


def test_environments_that_start_for_a_version_that_goes_are_stopped_at_once() -> None:
    world = World(published(managed()), providers=(provider(),))
    world.plan()
    world.save(apply(world.version(), DeletionRequested()))
    assert [type(order) for order in world.plan()] == [StopEnvironment] * 3
    world.settle()
    assert not world.versions


def test_a_version_comes_back_after_a_failed_republish_and_a_pause() -> None:
    world = World(serving(managed()), providers=(provider(max_vcpus=12),))
    world.settle()
    world.save(apply(world.version(), Republished(managed(memory_mb=8192), AT, "r")))
    world.settle()
    world.save(apply(world.version(), BoundsRequested(ScalingBounds(0, 0))))
    world.settle()
    world.save(apply(world.version(), BoundsRequested(ScalingBounds(1))))
    world.settle()
    assert world.version().serving is not None
    assert world.version().serving == world.version().publication
    assert len(world.ready()) == 1


def test_a_failed_init_fails_a_pending_version_and_ends_its_other_environments() -> None:
    world = World(published(managed()), providers=(provider(),))
    world.plan()
    world.environment_ends(next(iter(world.fleet.environments)), failed=True)
    assert world.version().state_reason == INIT_FAILED
    world.settle()
    assert world.version().state is State.FAILED
    assert not world.fleet.environments


def test_warm_environments_that_nobody_uses_make_way_for_invocations_that_wait() -> None:
    names = [f"f{number}" for number in range(POLICY.standard_limit + 2)]
    world = World(*(replace(latest(standard()), function=name) for name in names))
    *old, newer, newest = (PublicationKey(name, LATEST, 1) for name in names)
    for key in old:
        world.demand = {key: 1}
        world.follow_orders()
        world.busy = {e.id: 1 for e in world.fleet.running(key)}
        world.plan()
        world.now += timedelta(seconds=1)
    (in_use,) = world.fleet.running(old[-1])
    assert len(world.fleet.environments) == POLICY.standard_limit

    world.demand = {old[-1]: 1, newer: 1}
    world.plan()
    world.plan()
    (drained,) = (order.environment_id for order in world.orders if isinstance(order, DrainEnvironment))
    assert world.fleet.environments[drained].key == old[0], "the one that was longest unused, and only as many as wait"
    world.follow_orders()
    assert len(world.fleet.running(newer)) == 1

    world.demand = {old[-1]: 1, newer: 1, newest: 100}
    world.follow_orders()
    assert len(world.fleet.running(newest)) == POLICY.standard_limit - 2
    assert in_use.id in world.fleet.environments, "what is in use stays"
    assert len(world.fleet.running(newer)) == 1, "and what is waited for"


def test_tenants_have_environments_of_their_own_which_make_way_for_another_tenants_at_the_limit() -> None:
    world = World(latest(standard(tenant_isolation_mode="PER_TENANT")))
    blue, green, red = (PublicationKey("f", LATEST, 1, tenant) for tenant in ("blue", "green", "red"))
    world.demand = {blue: POLICY.standard_limit - 1, green: 1}
    world.follow_orders()
    assert Counter(e.key for e in world.fleet.environments.values()) == world.demand
    world.demand = {red: 1, green: 1}
    world.follow_orders()
    assert Counter(e.key for e in world.fleet.environments.values()) == {
        blue: POLICY.standard_limit - 2,
        **world.demand,
    }
    world.save(apply(world.version("f", LATEST), DeletionRequested()))
    world.demand.clear()
    world.settle()
    assert not world.fleet.environments


def test_failures_are_kept_of_a_publication_not_of_each_of_its_tenants() -> None:
    world = World(latest(standard(tenant_isolation_mode="PER_TENANT")))
    for number in range(20):
        world.demand = {PublicationKey("f", LATEST, 1, f"tenant-{number}"): 1}
        world.plan()
        (environment_id,) = world.fleet.environments
        world.environment_ends(environment_id, failed=True)
    assert world.fleet.failures == {PublicationKey("f", LATEST, 1): Failure(20, world.now)}


def test_a_standard_function_gets_one_environment_per_invocation_within_the_limit() -> None:
    world = World(latest(standard()))
    key = PublicationKey("f", LATEST, 1)
    world.demand[key] = 2
    world.plan()
    assert len(world.fleet.environments) == 2
    assert world.plan() == []
    world.demand[key] = 100
    world.plan()
    assert len(world.fleet.environments) == POLICY.standard_limit
    world.demand.clear()
    world.settle()
    assert not world.fleet.environments, "idle environments end after a while"
    assert not world.fleet.instances
    assert world.now - START >= POLICY.idle_environment


def test_an_idle_standard_environment_is_kept_for_a_while() -> None:
    world = World(latest(standard()))
    key = PublicationKey("f", LATEST, 1)
    world.demand[key] = 1
    world.plan()
    (environment_id,) = world.fleet.environments
    world.instance_comes_up(next(iter(world.fleet.instances)))
    world.environment_is_ready(environment_id)
    world.demand.clear()
    world.now += POLICY.idle_environment - timedelta(seconds=1)
    assert world.plan() == []
    assert next_look(world.fleet, POLICY, world.now) == timedelta(seconds=1)
    world.now += timedelta(seconds=1)
    assert [type(order) for order in world.plan()] == [DrainEnvironment]


def _provisioning(count: int, qualifier: str = "1") -> World:
    world = World(serving(standard(), "1", function="s"), serving(standard(), "2", function="s"))
    world.provision(qualifier, count)
    return world


def test_provisioned_environments_are_kept_however_long_nobody_uses_them() -> None:
    world = _provisioning(2)
    world.settle()
    assert world.provisioned["1"].allocation == Allocation(AllocationStatus.READY, 2)
    world.now += 10 * POLICY.idle_environment
    assert world.plan() == []
    assert len(world.ready("s", "1")) == 2
    world.provision("1", 1)
    world.settle()
    assert len(world.ready("s", "1")) == 1
    world.provision("1", 0)
    world.settle()
    assert not world.fleet.instances


def test_invocations_beyond_the_provisioned_ones_get_environments_on_demand_which_end_again() -> None:
    world = _provisioning(1)
    world.settle()
    world.demand[PublicationKey("s", "1", 1)] = 3
    world.plan()
    assert Counter(e.provisioned for e in world.of_version("s", "1")) == {True: 1, False: 2}
    world.demand.clear()
    world.settle()
    assert [e.provisioned for e in world.of_version("s", "1")] == [True]


def test_an_invocation_does_not_wait_for_an_environment_that_is_only_being_provisioned() -> None:
    world = _provisioning(1)
    world.demand[PublicationKey("s", "1", 1)] = 1
    world.plan()
    assert Counter(e.provisioned for e in world.of_version("s", "1")) == {True: 1, False: 1}


def test_an_alias_spreads_its_provisioned_concurrency_by_weight_and_takes_it_along() -> None:
    world = _provisioning(4, "live")
    world.alias = Alias("s", "live", "1", "r", second="2", second_weight=0.25)
    world.settle()
    assert (len(world.ready("s", "1")), len(world.ready("s", "2"))) == (3, 1)
    world.alias = Alias("s", "live", "2", "r")
    world.settle()
    assert (len(world.ready("s", "1")), len(world.ready("s", "2"))) == (0, 4)
    assert world.provisioned["live"].allocation == Allocation(AllocationStatus.READY, 4)


def test_a_failing_init_fails_the_allocation_until_an_environment_is_ready() -> None:
    world = _provisioning(2)
    world.plan()
    world.environment_ends(next(iter(world.fleet.environments)), failed=True)
    world.plan()
    failed = world.provisioned["1"].allocation
    assert (failed.status, failed.reason) == (AllocationStatus.FAILED, "FUNCTION_ERROR_INIT_FAILURE")
    world.settle()
    assert world.provisioned["1"].allocation == Allocation(AllocationStatus.READY, 2)


def test_more_than_there_is_room_for_fails_with_the_limit_and_heals_when_room_comes() -> None:
    world = _provisioning(POLICY.standard_limit)
    world.plan()
    assert world.provisioned["1"].allocation == Allocation(), "all of them are on their way"
    world.settle()
    world.provision("2", 1)
    world.settle()
    allocation = world.provisioned["2"].allocation
    assert (allocation.status, allocation.available) == (AllocationStatus.FAILED, 0)
    assert f"at most {POLICY.standard_limit}" in allocation.reason
    world.provision("1", 1)
    world.settle()
    assert world.provisioned["2"].allocation == Allocation(AllocationStatus.READY, 1)


@pytest.mark.parametrize("version", [latest(standard()), published(managed())])
def test_instances_that_do_not_come_up_are_not_launched_without_pause(version: FunctionVersion) -> None:
    world = World(version, providers=(provider(subnets=1),))
    if not version.is_managed:
        world.demand[PublicationKey("f", LATEST, 1)] = 1
    moments = []
    for _ in range(12):
        while not world.plan():
            wait = next_look(world.fleet, POLICY, world.now)
            assert wait is not None
            world.now += wait
        moments.append((world.now - START).total_seconds())
        for instance_id in list(world.fleet.instances):
            world.instance_dies(instance_id)
    waits = [after - before for before, after in itertools.pairwise(moments)]
    assert waits == [0, 1, 3, 7, 15, 31, 60, 60, 60, 60, 60]


def test_instances_that_stand_idle_make_room_for_what_needs_their_vcpus() -> None:
    world = World(published(managed()), providers=(provider(max_vcpus=12),))
    world.settle()
    assert world.vcpus() == 12
    world.versions.clear()
    for _ in range(3):
        world.plan()
        world._succeed()
    assert len(world.fleet.instances) == 3, "nothing runs, but the instances are kept for a while"
    world.save(published(managed(memory_mb=16384), function="g"))
    before = world.now
    world.versions["g", LATEST_PUBLISHED] = replace(world.version("g"), bounds=ScalingBounds(1))
    while world.version("g").state is State.PENDING:
        world.plan()
        world._succeed()
    assert world.version("g").state is State.FAILED, "16 vCPUs of one instance are above the limit, and that is said"
    assert world.now == before


def test_a_smaller_instance_makes_room_for_a_larger_one_before_its_time() -> None:
    world = World(published(managed(), bounds=ScalingBounds(1)), providers=(provider(max_vcpus=8),))
    world.settle()
    world.versions.clear()
    for _ in range(3):
        world.plan()
        world._succeed()
    assert world.vcpus() == 4
    world.save(replace(published(managed(memory_mb=8192), function="g"), bounds=ScalingBounds(1)))
    for _ in range(6):
        world.plan()
        world._succeed()
    assert world.version("g").state is State.ACTIVE
    assert world.now == START


def test_an_instance_whose_agent_never_reports_is_given_up() -> None:
    world = World(published(managed(), bounds=ScalingBounds(1)), providers=(provider(subnets=1),))
    world.plan()
    (instance,) = world.fleet.instances.values()
    assert next_look(world.fleet, POLICY, world.now) == LAUNCH_LIMIT
    world.now += LAUNCH_LIMIT
    world.plan()
    assert world.fleet.instances[instance.id].phase is InstancePhase.TERMINATING


def test_a_publication_that_fails_is_retried_with_longer_and_longer_pauses() -> None:
    failures = [POLICY.retry_after(Failure(count, START)).total_seconds() for count in range(1, 10)]
    assert failures == [0, 1, 3, 7, 15, 31, 60, 60, 60]
    assert POLICY.retry_after(Failure(10_000, START)) == POLICY.retry_most


def test_an_instance_of_a_deleted_provider_is_terminated_at_once() -> None:
    world = World(serving(managed()), providers=(provider(),))
    world.settle()
    world.versions.clear()
    world.providers.clear()
    for _ in range(4):
        world.plan()
        world._succeed()
    assert not world.fleet.instances
    assert world.now == START


# --- next_look ----------------------------------------------------------------------------------------------------------------

KEY = PublicationKey("f", LATEST, 1)
MACHINE = InstanceType("c7i.xlarge", "x86_64", 4, 8192)


def _fleet(on: str | None, **environment: object) -> Fleet:
    kind = LAMBDA_OWNED if on is None else MACHINE
    instance = Instance("i", on, kind, "us-east-1a", START, InstancePhase.RUNNING)
    blank = Environment("e", "i", KEY, 1, 1.0, 2048, START, timedelta(seconds=3), Phase.READY)
    return Fleet({"i": instance}, {"e": replace(blank, **environment)})  # type: ignore[arg-type]  # members by name


@pytest.mark.parametrize(
    ("fleet", "wait"),
    [
        (Fleet(), None),
        (_fleet("cp"), POLICY.instance_lifetime),
        (_fleet("cp", used_at=START), POLICY.instance_lifetime),
        (_fleet(None, used_at=START), POLICY.idle_environment),
        (_fleet("cp", phase=Phase.DRAINING, draining_since=START), timedelta(seconds=33)),
        (replace(_fleet("cp"), failures={KEY: Failure(1, START)}), POLICY.instance_lifetime),
        (replace(_fleet("cp"), failures={KEY: Failure(3, START)}), timedelta(seconds=3)),
        (replace(_fleet("cp"), launch_failures={("cp", "us-east-1a"): Failure(2, START)}), timedelta(seconds=1)),
        (
            replace(_fleet("cp"), refused_types={("cp", "us-east-1a", "c7i.large"): Failure(2, START)}),
            timedelta(seconds=2),
        ),
        (
            Fleet({"i": Instance("i", "cp", MACHINE, "z", START, InstancePhase.RUNNING, START)}),
            POLICY.idle_instance,
        ),
        (
            Fleet({"i": Instance("i", "cp", MACHINE, "z", START, InstancePhase.RUNNING, START - POLICY.idle_instance)}),
            POLICY.instance_lifetime,
        ),
    ],
)
def test_when_to_look_again(fleet: Fleet, wait: timedelta | None) -> None:
    assert next_look(fleet, POLICY, START) == wait


# --- the fleet's own rules ------------------------------------------------------------------------------------------------------


def test_a_report_for_duty_does_not_bring_a_terminating_instance_back() -> None:
    fleet = _fleet("cp").terminating("i")
    assert fleet.instance_running("i") == fleet


def test_an_environment_that_is_stopped_before_it_was_ready_stays_so() -> None:
    fleet = _fleet("cp", phase=Phase.STARTING).phase("e", Phase.STOPPING)
    assert fleet.environment_ready("e", START) == fleet


@pytest.mark.parametrize(
    ("before", "after"), [(b, a) for n, b in enumerate(Phase) for m, a in enumerate(Phase) if m <= n]
)
def test_an_environment_never_goes_back(before: Phase, after: Phase) -> None:
    with pytest.raises(IllegalTransition):
        _fleet("cp", phase=before).phase("e", after)


def test_what_is_not_there_cannot_change() -> None:
    empty = Fleet()
    assert empty.instance_gone("i", START) == empty.environment_gone("e", START, failed=True) == empty
    changes: list[Callable[[], Fleet]] = [
        lambda: empty.instance_running("i"),
        lambda: empty.terminating("i"),
        lambda: empty.environment_ready("e", START),
        lambda: empty.environment_degraded("e", 0),
        lambda: empty.draining("e", START),
    ]
    for change in changes:
        with pytest.raises(IllegalTransition, match="there is no"):
            change()


# --- the world at random ----------------------------------------------------------------------------------------------------------

BOUNDS = st.sampled_from([None, ScalingBounds(1), ScalingBounds(2, 4), ScalingBounds(20), ScalingBounds(0, 0)])
SIZES = st.sampled_from([(2048, 2.0), (4096, 2.0), (4096, 4.0), (8192, 2.0), (8192, 8.0), (16384, 4.0)])
MANAGED = (("f", LATEST_PUBLISHED), ("f", "1"), ("g", "1"))
STANDARD = PublicationKey("s", LATEST, 1)
TENANTS = [PublicationKey("t", LATEST, 1, tenant) for tenant in ("blue", "green", "red")]


class Fates(RuleBasedStateMachine):
    """Users ask, things die, plans are made; in the end it is left alone and must be what was asked for."""

    @initialize(
        subnets=st.integers(1, 4),
        max_vcpus=st.sampled_from([2, 8, 12, 16, 40, 400]),
        at_rest=st.booleans(),
    )
    def begin(self, subnets: int, max_vcpus: int, at_rest: bool) -> None:
        self.least_limit = max_vcpus
        versions = [latest(standard(), function="s")]
        versions += [serving(standard(), version, function="s") for version in ("1", "2")]
        versions.append(latest(standard(tenant_isolation_mode="PER_TENANT"), function="t"))
        for function, version in MANAGED:
            versions.append(published(managed(timeout_s=5), version, function=function))
        self.world = World(*versions, providers=(provider(subnets=subnets, max_vcpus=max_vcpus),))
        if at_rest:
            self.world.settle()

    # users

    @rule(which=st.sampled_from(MANAGED), bounds=BOUNDS, then_rest=st.booleans())
    def scale(self, which: tuple[str, str], bounds: ScalingBounds | None, then_rest: bool) -> None:
        version = self.world.versions.get(which)
        if version is not None and not version.is_settling and version.state is not State.FAILED:
            self.world.save(apply(version, BoundsRequested(bounds)))
        if then_rest:
            self.world.settle()

    @rule(which=st.sampled_from(MANAGED), count=st.integers(0, 12), then_rest=st.booleans())
    def load_changes(self, which: tuple[str, str], count: int, then_rest: bool) -> None:
        """Scaling wants another number of environments."""
        self.world.scaled[which] = count
        if then_rest:
            self.world.settle()

    @rule(really=st.sampled_from([False, False, True]))
    def grow_old(self, really: bool) -> None:
        """So much time passes that every instance is due to be replaced."""
        if really:
            self.world.now += POLICY.instance_lifetime

    @rule(size=SIZES, then_rest=st.booleans(), in_vain=st.booleans())
    def republish(self, size: tuple[int, float], then_rest: bool, in_vain: bool) -> None:
        version = self.world.versions.get(MANAGED[0])
        if version is not None and not version.is_settling:
            memory_mb, ratio = size
            configuration = managed(memory_mb=memory_mb, ratio=ratio, timeout_s=5)
            again = apply(version, Republished(configuration, AT, "republished"))
            failed = CapacityFailed(again.target, INIT_FAILED, "failed")
            self.world.save(apply(again, failed) if in_vain else again)
        if then_rest:
            self.world.settle()

    @rule(which=st.sampled_from(MANAGED), really=st.sampled_from([False, False, True]))
    def delete(self, which: tuple[str, str], really: bool) -> None:
        if really and which in self.world.versions:
            self.world.save(apply(self.world.versions[which], DeletionRequested()))

    @rule(max_vcpus=st.sampled_from([16, 40, 400]))
    def raise_limit(self, max_vcpus: int) -> None:
        before = self.world.providers["cp"].scaling.max_vcpus
        self.world.providers["cp"] = provider(
            subnets=len(self.world.providers["cp"].subnets), max_vcpus=max(before, max_vcpus)
        )

    @rule(demand=st.dictionaries(st.sampled_from([STANDARD, *TENANTS]), st.integers(1, 6)))
    def invoke_standard(self, demand: dict[PublicationKey, int]) -> None:
        self.world.demand = demand

    @rule(qualifier=st.sampled_from(["1", "2", "live"]), count=st.integers(0, 5), then_rest=st.booleans())
    def provision(self, qualifier: str, count: int, then_rest: bool) -> None:
        if qualifier == "live" and self.world.alias is None:
            return
        self.world.provision(qualifier, count)
        if then_rest:
            self.world.settle()

    @rule(version=st.sampled_from(["1", "2"]), weight=st.sampled_from([0.0, 0.3, 1.0]))
    def move_alias(self, version: str, weight: float) -> None:
        second = {"1": "2", "2": "1"}[version] if weight else None
        self.world.alias = Alias("s", "live", version, "r", second=second, second_weight=weight)

    # the machines

    @rule(data=st.data(), fate=st.sampled_from(["lives", "dies", "is refused", "zone is refused"]))
    def instance_fate(self, data: st.DataObject, fate: str) -> None:
        if self.world.fleet.instances:
            instance_id = data.draw(st.sampled_from(sorted(self.world.fleet.instances)))
            launching = self.world.fleet.instances[instance_id].phase is InstancePhase.LAUNCHING
            match fate:
                case "lives" if launching:
                    self.world.instance_comes_up(instance_id)
                case "is refused" | "zone is refused" if launching:
                    self.world.instance_is_refused(instance_id, whole_zone=fate == "zone is refused")
                case "dies":
                    self.world.instance_dies(instance_id)
                case _:
                    pass

    @rule(data=st.data(), fate=st.sampled_from(["ready", "ready", "ready", "fails", "degrades", "busy", "done"]))
    def environment_fate(self, data: st.DataObject, fate: str) -> None:
        if not self.world.fleet.environments:
            return
        environment_id = data.draw(st.sampled_from(sorted(self.world.fleet.environments)))
        environment = self.world.fleet.environments[environment_id]
        match fate:
            case "ready":
                self.world.environment_is_ready(environment_id)
            case "fails":
                self.world.environment_ends(environment_id, failed=True)
            case "degrades" if environment.is_ready and environment.slots > 1:
                self.world.fleet = self.world.fleet.environment_degraded(environment_id, environment.slots - 1)
            case "busy" if environment.is_ready:
                self.world.busy[environment_id] = 1
            case _:
                self.world.busy.pop(environment_id, None)

    @rule(crowded=st.booleans())
    def crowd(self, crowded: bool) -> None:
        self.world.crowded = crowded

    @rule()
    def rest(self) -> None:
        self.world.settle()

    @rule(really=st.sampled_from([False, False, True]))
    def crash(self, really: bool) -> None:
        """The server dies and comes back: of the fleet it knows nothing, and the fleet died with it."""
        if not really:
            return
        self.world.fleet, self.world.busy, self.world.demand = Fleet(), {}, {}

    @rule(seconds=st.sampled_from([0, 1, 40, 400]))
    def look(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)
        self.world.plan()

    # what must hold

    @invariant()
    def is_safe(self) -> None:
        check_safety(self.world)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.demand, self.world.crowded = {}, False
            self.world.settle()
            check_safety(self.world)
            for version in self.world.versions.values():
                self._is_what_was_asked_for(version)
            self._nothing_is_left_over()
            assert self.world.plan() == []

    def _is_what_was_asked_for(self, version: FunctionVersion) -> None:
        assert version.state in (State.ACTIVE, State.FAILED, State.DEACTIVATED)
        assert not version.is_settling
        ready = self.world.ready(version.function, version.version)
        if not version.is_managed:
            self._is_provisioned(version, ready)
            return
        if version.serving is None:
            assert not ready
            return
        assert {e.key.number for e in ready} <= {version.serving.number}
        bounds = POLICY.bounds(version)
        least = bounds.clamp(self.world.scaled.get((version.function, version.version), 0))
        self._is_balanced(version)
        if len([e for e in ready if e.is_whole]) < least:
            configuration = version.serving.configuration
            key = key_of(version, version.serving)
            demand = Demand(key, configuration.vcpus_per_environment, configuration.memory_mb, 1)
            nowhere = place(
                demand,
                self.world.providers["cp"],
                self.world.providers["cp"].zones("us-east-1"),
                Draft(self.world.fleet),
            )
            assert isinstance(nowhere, Nowhere), "there is room for an environment that is missing"
            return
        assert len(ready) == least
        assert all(e.is_whole for e in ready)
        assert (version.function, version.version) not in self.world.obstacles
        assert not version.bounds_requested
        assert version.applied_bounds == POLICY.bounds(version)

    def _is_balanced(self, version: FunctionVersion) -> None:
        """Zones differ by one environment at most where capacity allowed it all along: nothing here is as large as 400 vCPUs."""
        cp = self.world.providers["cp"]
        if self.least_limit >= 400 and not any(not e.is_whole for e in self.world.fleet.environments.values()):
            population = [self.world.zones(version.function, version.version)[z] for z in cp.zones("us-east-1")]
            assert max(population) - min(population) <= 1

    def _is_provisioned(self, version: FunctionVersion, ready: list[Environment]) -> None:
        """Left alone, a standard version has the environments that are provisioned for it, and no other, as far as the limit allows."""
        shares = Counter[str]()
        for provision in self.world.provisions():
            shares.update(provision.shares)
        assert all(e.provisioned for e in ready)
        if shares.total() <= POLICY.standard_limit:
            assert len(ready) == shares[version.version]
            assert all(
                c.allocation == Allocation(AllocationStatus.READY, c.requested) for c in self.world.provisioned.values()
            )
            return
        assert len(ready) <= shares[version.version]
        kept = [e for e in self.world.fleet.environments.values() if e.provisioned]
        assert len(kept) == POLICY.standard_limit, "there is room, but not everything is provisioned"
        available = sum(c.allocation.available for c in self.world.provisioned.values())
        assert available == POLICY.standard_limit
        assert AllocationStatus.FAILED in {c.allocation.status for c in self.world.provisioned.values()}

    def _nothing_is_left_over(self) -> None:
        wanted = {key_of(v, v.serving) for v in self.world.versions.values() if v.serving is not None}
        for environment in self.world.fleet.environments.values():
            assert environment.key in wanted
            assert environment.is_ready
        for instance in self.world.fleet.instances.values():
            assert instance.phase is InstancePhase.RUNNING
            assert any(self.world.fleet.on(instance.id)), "an instance without environments is kept for ever"


TestFates = Fates.TestCase
TestFates.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("bounds", [None, ScalingBounds(1, None)], ids=["default", "one"])
def test_an_old_instance_serves_on_where_nothing_can_take_its_place(bounds: ScalingBounds | None) -> None:
    fates = Fates()
    fates.begin(subnets=1, max_vcpus=8, at_rest=True)
    fates.grow_old(really=True)
    fates.scale(which=MANAGED[0], bounds=bounds, then_rest=True)
    fates.teardown()
