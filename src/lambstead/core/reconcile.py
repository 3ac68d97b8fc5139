"""What to do next so that what runs becomes what is wanted.

`plan` compares the stored versions with the fleet and returns orders, each with its reason. It remembers nothing: called again on the fleet after
its orders were carried out it returns no more of them, and called after a crash it orders again whatever is missing. Orders to the fleet
(launch, start, drain, stop, terminate) are carried out by `control.provisioning`; notes about versions (ready, failed, drained, removed) are
transactions on the store.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from lambstead.core.capacity import CapacityProvider
from lambstead.core.catalogue import LAMBDA_OWNED
from lambstead.core.concurrency import Allocation, AllocationStatus, ProvisionedConcurrency
from lambstead.core.fleet import Environment, Failure, Fleet, Instance, InstancePhase, Phase, PublicationKey
from lambstead.core.functions import FunctionVersion, Publication, Reason, State, UpdateStatus
from lambstead.core.placement import Demand, Nowhere, OnInstance, OnNewInstance, place
from lambstead.core.scaling import ScalingBounds

LAUNCH_LIMIT = timedelta(seconds=60)
"""How long a launched instance may take until its agent reports; installing a runtime comes later and does not count."""

# --- orders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LaunchInstance:
    instance: Instance
    because: str


@dataclass(frozen=True, slots=True)
class StartEnvironment:
    environment: Environment
    publication: Publication
    because: str


@dataclass(frozen=True, slots=True)
class DrainEnvironment:
    """Admit nothing more; what runs may finish."""

    environment_id: str
    because: str


@dataclass(frozen=True, slots=True)
class StopEnvironment:
    environment_id: str
    because: str


@dataclass(frozen=True, slots=True)
class TerminateInstance:
    instance_id: str
    because: str


@dataclass(frozen=True, slots=True)
class NoteReady:
    """The publication has as many whole, ready environments as its bounds ask for."""

    key: PublicationKey
    bounds: ScalingBounds
    asked: ScalingBounds | None
    """The version's own bounds, which `bounds` come from; None for the defaults."""


@dataclass(frozen=True, slots=True)
class NoteFailed:
    key: PublicationKey
    reason: Reason


@dataclass(frozen=True, slots=True)
class NoteDrained:
    """A version that is being deactivated has no environment left."""

    function: str
    version: str


@dataclass(frozen=True, slots=True)
class NoteRemoved:
    """A version that is being deleted has no environment left."""

    function: str
    version: str


@dataclass(frozen=True, slots=True)
class NoteAllocation:
    """How far the environments of provisioned concurrency have come, where that is not what the config says."""

    config: ProvisionedConcurrency
    allocation: Allocation


Order = (
    LaunchInstance
    | StartEnvironment
    | DrainEnvironment
    | StopEnvironment
    | TerminateInstance
    | NoteReady
    | NoteFailed
    | NoteDrained
    | NoteRemoved
    | NoteAllocation
)


# --- what is wanted -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """Numbers that profiles and settings choose."""

    default_minimum: int
    standard_limit: int
    """Most environments of standard functions at once."""
    idle_environment: timedelta
    """How long a standard environment stays warm."""
    idle_instance: timedelta
    """How long an instance without environments is kept."""
    drain_grace: timedelta
    """How long a draining environment may go on beyond its function's timeout."""
    retry_first: timedelta = timedelta(seconds=1)
    retry_most: timedelta = timedelta(minutes=1)

    def bounds(self, version: FunctionVersion) -> ScalingBounds:
        """The version's bounds, or the profile's default."""
        return version.bounds or ScalingBounds(self.default_minimum)

    def may_retry(self, failure: Failure | None, now: datetime) -> bool:
        """True once the wait after so many failures in a row is over; it doubles up to `retry_most`."""
        return failure is None or now - failure.at >= self.retry_after(failure)

    def retry_after(self, failure: Failure) -> timedelta:
        """The wait after the latest of so many failures in a row: none after the first, then doubling."""
        return min(self.retry_first * ((1 << min(failure.count - 1, 16)) - 1), self.retry_most)


@dataclass(frozen=True, slots=True)
class Desired:
    """The stored side of the comparison."""

    versions: tuple[FunctionVersion, ...]
    """Published versions on providers, and standard versions that are in demand, provisioned or being deleted."""
    providers: Mapping[str, CapacityProvider]
    region: str
    on_demand: Mapping[PublicationKey, int]
    """Standard publications: invocations that run in or wait for an environment now."""
    provisioned: tuple["Provision", ...] = ()


@dataclass(frozen=True, slots=True)
class Provision:
    """Provisioned concurrency as stored, and what it comes to now."""

    config: ProvisionedConcurrency
    shares: Mapping[str, int]
    """Environments by version; an alias may spread them over two."""


def key_of(version: FunctionVersion, publication: Publication) -> PublicationKey:
    """The key of a version's publication."""
    return PublicationKey(version.function, version.version, publication.number)


# --- the plan -----------------------------------------------------------------------------------------------------------


def plan(desired: Desired, fleet: Fleet, policy: Policy, ids: Iterator[str], now: datetime) -> list[Order]:
    """Everything to do now. `ids` yields fresh ids for instances and environments."""
    planner = _Planner(desired, fleet, policy, ids, now)
    planner.run()
    return planner.orders


class _Planner:
    """One planning: `fleet` changes as orders are given, so that later decisions see earlier ones."""

    def __init__(self, desired: Desired, fleet: Fleet, policy: Policy, ids: Iterator[str], now: datetime) -> None:
        self.desired = desired
        self.fleet = fleet
        self.policy = policy
        self.ids = ids
        self.now = now
        self.orders: list[Order] = []
        self.unplaced = 0
        """Environments of standard functions that invocations wait for and the limit does not allow yet."""
        self.provisioned: Counter[tuple[str, str]] = Counter()
        """Environments to keep for provisioned concurrency, by function and version."""
        for provision in desired.provisioned:
            for version, count in provision.shares.items():
                self.provisioned[provision.config.function, version] += count

    def run(self) -> None:
        # First, for only of environments that drained before this plan was begun is it certain that `busy` grows no more.
        self._stop_drained()
        wanted: set[PublicationKey] = set()
        for version in self.desired.versions:
            publications = list(_publications(version))
            for publication in publications:
                key = key_of(version, publication)
                wanted.add(key)
                if version.is_managed:
                    self._provide(version, publication)
                else:
                    self._provide_provisioned(key, publication)
                    self._provide_on_demand(key, publication)
            self._note_end(version)
        self._note_allocations()
        self._drain_unwanted(wanted)
        self._drain_idlest()
        self._terminate_idle()

    # managed functions

    def _provide(self, version: FunctionVersion, publication: Publication) -> None:
        """Bring one publication to its minimum, replace damaged environments, and note what became of it."""
        key = key_of(version, publication)
        bounds = self.policy.bounds(version)
        count = bounds.minimum
        running = self.fleet.running(key)
        whole = [e for e in running if e.is_whole]
        ready = [e for e in whole if e.is_ready]
        if publication.number == version.awaited and len(ready) >= count and _is_waiting(version, bounds):
            self.orders.append(NoteReady(key, bounds, version.bounds))
        if len(ready) >= count:
            self._drain_surplus(running, ready, count)
        elif self.policy.may_retry(self.fleet.failures.get(key), self.now):
            for _ in range(count - len(whole)):
                if not self._start(version, publication):
                    break

    def _drain_surplus(self, running: list[Environment], ready: list[Environment], count: int) -> None:
        for environment in running:
            if environment.slots_lost and environment.is_ready:
                self._drain(
                    environment, f"{environment.slots_lost} of its {environment.slots} workers died and it was replaced"
                )
        for environment in _surplus(ready, count, self.fleet):
            self._drain(environment, f"above the {count} environments that are wanted")

    def _start(self, version: FunctionVersion, publication: Publication) -> bool:
        """Order one environment; False, and perhaps a note of failure, if it can go nowhere."""
        configuration = publication.configuration
        assert configuration.managed is not None
        provider = self.desired.providers[configuration.managed.provider]
        key = key_of(version, publication)
        demand = Demand(
            key, configuration.vcpus_per_environment, configuration.memory_mb, configuration.slots_per_environment
        )
        if not self.policy.may_retry(self.fleet.launch_failures.get(provider.name), self.now):
            return False
        placement = place(demand, provider, self.desired.region, self.fleet)
        match placement:
            case Nowhere(code, text):
                if self._make_room(provider.name):
                    return False
                # A version that is settled stays as it is when it cannot grow: there is nothing that could fail.
                if publication.number == version.target and version.is_settling:
                    self.orders.append(NoteFailed(key, Reason(code, text)))
                return False
            case OnInstance(instance, because):
                self._order_environment(instance, demand, publication, because)
            case OnNewInstance(instance_type, zone, because):
                instance = Instance(f"i-{next(self.ids)}", provider.name, instance_type, zone, self.now)
                self.fleet = self.fleet.with_instance(instance)
                self.orders.append(LaunchInstance(instance, because))
                self._order_environment(instance, demand, publication, because)
        return True

    def _make_room(self, provider: str) -> bool:
        """Terminate instances that stand idle, because their vCPUs are needed; whether room is coming, from these or from earlier ones."""
        instances = self.fleet.of_provider(provider)
        for instance in instances:
            if instance.phase is InstancePhase.RUNNING and not any(self.fleet.on(instance.id)):
                self._terminate(instance, "its vCPUs are needed by another environment")
        return any(self.fleet.instances[i.id].phase is InstancePhase.TERMINATING for i in instances)

    def _terminate(self, instance: Instance, because: str) -> None:
        self.fleet = self.fleet.terminating(instance.id)
        self.orders.append(TerminateInstance(instance.id, because))

    # standard functions

    def _provide_provisioned(self, key: PublicationKey, publication: Publication) -> None:
        """As many environments as are provisioned, within the limit; surplus ones end, in use or not."""
        count = self.provisioned[key.function, key.version]
        kept = self._whole(key, provisioned=True)
        failures = (self.fleet.failures.get(key), self.fleet.launch_failures.get(None))
        if all(self.policy.may_retry(failure, self.now) for failure in failures):
            for _ in range(min(count - len(kept), self._room())):
                self._order_standard(key, publication, "provisioned concurrency", provisioned=True)
        for environment in kept[count:]:
            self._drain(environment, f"above the {count} environments that are provisioned")

    def _provide_on_demand(self, key: PublicationKey, publication: Publication) -> None:
        """One environment for each invocation that runs or waits beyond those provisioned, within the limit; idle ones end after a while."""
        running = self._whole(key, provisioned=False)
        provisioned = sum(e.is_ready for e in self._whole(key, provisioned=True))
        wanted = max(0, self.desired.on_demand.get(key, 0) - provisioned)
        if self.policy.may_retry(self.fleet.launch_failures.get(None), self.now):
            missing = wanted - len(running)
            room = self._room()
            for _ in range(min(missing, room)):
                self._order_standard(key, publication, "an invocation waits for it", provisioned=False)
            self.unplaced += max(0, missing - max(0, room))
        for environment in running[: max(0, len(running) - wanted)]:
            if _is_idle_since(environment, self.now - self.policy.idle_environment):
                self._drain(environment, f"not used for {self.policy.idle_environment}")

    def _whole(self, key: PublicationKey, *, provisioned: bool) -> list[Environment]:
        return [e for e in self.fleet.running(key) if e.is_whole and e.provisioned is provisioned]

    def _order_standard(
        self, key: PublicationKey, publication: Publication, because: str, *, provisioned: bool
    ) -> None:
        configuration = publication.configuration
        demand = Demand(key, configuration.vcpus_per_environment, configuration.memory_mb, slots=1)
        self._order_environment(self._lambda_owned(), demand, publication, because, provisioned=provisioned)

    def _drain_idlest(self) -> None:
        """Give up warm environments that nobody uses, those longest unused first, where invocations wait because of the limit.

        What is on its way out already makes room too, so a round that finds the same shortage again drains no more.
        """
        if not self.unplaced:
            return
        owned = {i.id for i in self.fleet.of_provider(None)}
        standard = [e for e in self.fleet.environments.values() if e.instance_id in owned]
        leaving = sum(e.phase in (Phase.DRAINING, Phase.STOPPING) for e in standard)
        idle = [e for e in standard if _is_idle_since(e, self.now) and not e.provisioned and not self._is_needed(e)]
        idle.sort(key=lambda e: e.used_at or e.since)
        for environment in idle[: max(0, self.unplaced - leaving)]:
            self._drain(environment, "another function's invocation waits for its place")

    def _is_needed(self, environment: Environment) -> bool:
        """True when as many invocations run in or wait for environments of its publication as there are."""
        return self.desired.on_demand.get(environment.key, 0) >= len(self._whole(environment.key, provisioned=False))

    def _room(self) -> int:
        """How many more environments standard functions may have."""
        return self.policy.standard_limit - self._standard_count()

    def _note_allocations(self) -> None:
        """What has become of provisioned concurrency. Environments of a version that two aliases share are counted once."""
        ready = Counter((e.key.function, e.key.version) for e in self.fleet.environments.values() if _is_kept(e))
        for provision in self.desired.provisioned:
            config, available = provision.config, 0
            for version, count in provision.shares.items():
                place = (config.function, version)
                mine = min(count, ready[place])
                ready[place] -= mine
                available += mine
            allocation = self._allocation(provision, available)
            if allocation != config.allocation:
                self.orders.append(NoteAllocation(config, allocation))

    def _allocation(self, provision: Provision, available: int) -> Allocation:
        config = provision.config
        if available >= config.requested:
            return Allocation(AllocationStatus.READY, available)
        if any(key.function == config.function and key.version in provision.shares for key in self.fleet.failures):
            return Allocation(AllocationStatus.FAILED, available, "FUNCTION_ERROR_INIT_FAILURE")
        is_starting = any(
            e.provisioned
            and e.phase is Phase.STARTING
            and e.key.function == config.function
            and e.key.version in provision.shares
            for e in self.fleet.environments.values()
        )
        if not is_starting and self._room() <= 0:
            limit = self.policy.standard_limit
            text = f"This Lambstead runs at most {limit} environments of standard functions (setting standard_environments)."
            return Allocation(AllocationStatus.FAILED, available, text)
        return Allocation(AllocationStatus.IN_PROGRESS, available)

    def _standard_count(self) -> int:
        owned = {i.id for i in self.fleet.of_provider(None)}
        return sum(e.instance_id in owned for e in self.fleet.environments.values())

    def _lambda_owned(self) -> Instance:
        existing = [i for i in self.fleet.of_provider(None) if i.takes_environments]
        if existing:
            return existing[0]
        instance = Instance(f"i-{next(self.ids)}", None, LAMBDA_OWNED, f"{self.desired.region}a", self.now)
        self.fleet = self.fleet.with_instance(instance)
        self.orders.append(LaunchInstance(instance, "a standard function is invoked"))
        return instance

    # both

    def _order_environment(
        self,
        instance: Instance,
        demand: Demand,
        publication: Publication,
        because: str,
        *,
        provisioned: bool = False,
    ) -> None:
        environment = Environment(
            id=f"env-{next(self.ids)}",
            instance_id=instance.id,
            key=demand.key,
            slots=demand.slots,
            vcpus=demand.vcpus,
            memory_mb=demand.memory_mb,
            since=self.now,
            timeout=timedelta(seconds=publication.configuration.timeout_s),
            provisioned=provisioned,
        )
        self.fleet = self.fleet.placed(environment)
        self.orders.append(StartEnvironment(environment, publication, because))

    def _drain(self, environment: Environment, because: str) -> None:
        self.fleet = self.fleet.draining(environment.id, self.now)
        self.orders.append(DrainEnvironment(environment.id, because))

    def _stop(self, environment: Environment, because: str) -> None:
        self.fleet = self.fleet.phase(environment.id, Phase.STOPPING)
        self.orders.append(StopEnvironment(environment.id, because))

    def _note_end(self, version: FunctionVersion) -> None:
        """Notes for versions that are on their way out, once none of their environments is left."""
        if version.state not in (State.DELETING, State.DEACTIVATING):
            return
        of_version = (
            e
            for e in self.fleet.environments.values()
            if (e.key.function, e.key.version) == (version.function, version.version)
        )
        if any(of_version):
            return
        note = NoteRemoved if version.state is State.DELETING else NoteDrained
        self.orders.append(note(version.function, version.version))

    def _drain_unwanted(self, wanted: set[PublicationKey]) -> None:
        for environment in list(self.fleet.environments.values()):
            if environment.key in wanted:
                continue
            if environment.phase is Phase.STARTING:
                self._stop(environment, "its version is not wanted any more")
            elif environment.phase is Phase.READY:
                self._drain(environment, "its version is not wanted any more")

    def _stop_drained(self) -> None:
        for environment in list(self.fleet.environments.values()):
            if environment.phase is not Phase.DRAINING:
                continue
            draining_for = self.now - (environment.draining_since or self.now)
            if environment.busy == 0:
                self._stop(environment, "drained")
            elif draining_for >= environment.timeout + self.policy.drain_grace:
                self._stop(environment, f"still busy {draining_for} after it was asked to drain")

    def _terminate_idle(self) -> None:
        for instance in list(self.fleet.instances.values()):
            if instance.phase is InstancePhase.LAUNCHING and self.now - instance.since >= LAUNCH_LIMIT:
                self._terminate(instance, f"its agent did not report within {LAUNCH_LIMIT}")
            if instance.phase is not InstancePhase.RUNNING or any(self.fleet.on(instance.id)):
                continue
            unused = instance.provider is not None and instance.provider not in self.desired.providers
            if unused or self.now - (instance.idle_since or instance.since) >= self.policy.idle_instance:
                self._terminate(
                    instance,
                    "its capacity provider is gone" if unused else f"no environment for {self.policy.idle_instance}",
                )


def _publications(version: FunctionVersion) -> Iterable[Publication]:
    """Publications of a version that should have environments: the one that serves and the one that is coming."""
    if version.state in (State.DELETING, State.DEACTIVATING, State.DEACTIVATED, State.FAILED):
        return
    if version.serving is not None:
        yield version.serving
    coming = version.serving is None or version.serving.number != version.target
    if version.is_managed and coming and version.update_status is not UpdateStatus.FAILED:
        yield version.publication


def _surplus(ready: list[Environment], count: int, fleet: Fleet) -> list[Environment]:
    """Which of `ready`, oldest first, go so that `count` stay: each time the newest one in the zone that has most."""
    staying, going = list(ready), list[Environment]()
    while len(staying) > count:
        zones = Counter(fleet.instances[e.instance_id].zone for e in staying)
        crowded = max(zones.values())
        newest = next(e for e in reversed(staying) if zones[fleet.instances[e.instance_id].zone] == crowded)
        staying.remove(newest)
        going.append(newest)
    return going


def _is_waiting(version: FunctionVersion, bounds: ScalingBounds) -> bool:
    """True while somebody waits to hear how provisioning went."""
    return version.is_settling or version.bounds_requested or version.applied_bounds != bounds


def _is_kept(environment: Environment) -> bool:
    """True for an initialised environment of provisioned concurrency."""
    return environment.provisioned and environment.is_ready and environment.is_whole


def _is_idle_since(environment: Environment, moment: datetime) -> bool:
    return environment.is_ready and environment.busy == 0 and (environment.used_at or environment.since) <= moment


def next_look(fleet: Fleet, policy: Policy, now: datetime) -> timedelta | None:
    """How soon `plan` could have something new to say although nothing else happens; None if never."""
    moments = [i.since + LAUNCH_LIMIT for i in fleet.instances.values() if i.phase is InstancePhase.LAUNCHING]
    moments += [
        instance.idle_since + policy.idle_instance for instance in fleet.instances.values() if instance.idle_since
    ]
    for environment in fleet.environments.values():
        if environment.draining_since:
            moments.append(environment.draining_since + environment.timeout + policy.drain_grace)
        elif environment.used_at and fleet.instances[environment.instance_id].provider is None:
            moments.append(environment.used_at + policy.idle_environment)
    failures = (*fleet.failures.values(), *fleet.launch_failures.values())
    moments += [failure.at + policy.retry_after(failure) for failure in failures]
    return min((moment - now for moment in moments if moment > now), default=None)
