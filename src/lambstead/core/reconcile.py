"""What to do next so that what runs becomes what is wanted.

`plan` compares the stored versions with the fleet and returns orders, each with its reason. It remembers nothing: called again on the fleet after
its orders were carried out it returns no more of them, and called after a crash it orders again whatever is missing. Orders to the fleet
(launch, start, drain, stop, terminate) are carried out by `control.provisioning`; notes about versions (ready, failed, drained, removed) are
transactions on the store.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from lambstead.core.capacity import CapacityProvider
from lambstead.core.configurations import Publication
from lambstead.core.desired import Desired, Policy, key_of
from lambstead.core.draft import Draft
from lambstead.core.fleet import Environment, Fleet, Instance, InstancePhase, Phase
from lambstead.core.functions import CAPACITY_CODES, FunctionVersion, Reason, State, UpdateStatus
from lambstead.core.orders import NoteDrained, NoteFailed, NoteObstacle, NoteReady, NoteRemoved, NoteRetry, Order
from lambstead.core.placement import (
    Demand,
    Nowhere,
    OnInstance,
    OnNewInstance,
    Refused,
    emptiest_zone,
    place,
    place_on_existing,
    zones_with_types,
)
from lambstead.core.planning import Planning
from lambstead.core.scaling import ScalingBounds
from lambstead.core.standard_plan import StandardPlan

LAUNCH_LIMIT = timedelta(seconds=60)
"""How long a launched instance may take until its agent reports; installing a runtime comes later and does not count."""


def plan(desired: Desired, fleet: Fleet, policy: Policy, ids: Iterator[str], now: datetime) -> list[Order]:
    """Everything to do now. `ids` yields fresh ids for instances and environments.

    An old instance is replaced only where there is room for what takes its place: without it the old one serves on.
    """
    old = retiring(desired, fleet, policy, now)
    planning, full = _planned(Planning(desired, Draft(fleet, old), policy, ids, now))
    irreplaceable = {each for each in old if fleet.instances[each].provider in full}
    if irreplaceable:
        planning, _ = _planned(Planning(desired, Draft(fleet, old - irreplaceable), policy, ids, now))
    return planning.orders


def _planned(planning: Planning) -> tuple[Planning, set[str]]:
    """The planning with all its orders, and the providers on which something found no room."""
    desired, draft = planning.desired, planning.draft
    # First, for only of environments that drained before this plan was begun is it certain that `busy` grows no more.
    _stop_drained(planning)
    wanted = {key_of(v, p) for v in desired.versions for p in _publications(v)}
    standard, managed = StandardPlan(planning), _ManagedPlan(planning)
    for version in desired.versions:
        for publication in _publications(version):
            if version.is_managed:
                managed.provide(version, publication)
            else:
                standard.provide(key_of(version, publication), publication)
        if version.is_managed and version.state is State.FAILED:
            managed.retry(version)
        _note_end(planning, version)
    managed.note_obstacles()
    standard.note_allocations()
    for environment in list(draft.environments.values()):
        if environment.key.for_all not in wanted:
            _drain_unwanted(planning, environment)
    standard.make_room()
    _terminate_idle(planning)
    return planning, managed.full


def retiring(desired: Desired, fleet: Fleet, policy: Policy, now: datetime) -> frozenset[str]:
    """Instances that are being replaced because of their age: of each provider the oldest, while nothing else moves there."""
    moving = {v.configuration.managed.provider for v in desired.versions if v.configuration.managed and v.is_settling}
    oldest: dict[str, Instance] = {}
    for instance in fleet.instances.values():
        if instance.provider is None or instance.provider in moving or instance.phase is not InstancePhase.RUNNING:
            continue
        if now - instance.since >= policy.instance_lifetime:
            known = oldest.get(instance.provider, instance)
            oldest[instance.provider] = min(known, instance, key=lambda i: (i.since, i.id))
    return frozenset(instance.id for instance in oldest.values())


class _ManagedPlan:
    """Environments of managed functions, on instances of their capacity providers."""

    def __init__(self, planning: Planning) -> None:
        self._planning = planning
        self._obstacles: dict[tuple[str, str], Reason] = {}
        self._retried: set[str] = set()
        self._refused: dict[str, Refused] = {}
        self.full: set[str] = set()
        """Providers on which an environment found no room, and none is coming."""

    def provide(self, version: FunctionVersion, publication: Publication) -> None:
        """Bring one publication to what scaling wants, replace what is damaged or too old, and note what became of it."""
        planning, draft = self._planning, self._planning.draft
        key = key_of(version, publication)
        bounds = planning.policy.bounds(version)
        count = bounds.clamp(planning.desired.scaled.get((version.function, version.version), bounds.minimum))
        running = draft.running(key)
        whole = [e for e in running if draft.is_lasting(e)]
        ready = [e for e in whole if e.is_ready]
        # What replaces a publication under load has to carry that load from its first moment.
        if len(ready) >= (count if _relieves(version, publication) else bounds.minimum):
            self._note_ready(version, publication, bounds)
        if len(ready) >= count:
            self._drain_surplus(running, ready, count)
            if len(whole) == count:
                self._balance(version, publication)
        elif planning.policy.may_retry(draft.failures.get(key), planning.now):
            for missing in range(count - len(whole), 0, -1):
                if not self._start(version, publication, missing):
                    break

    def _note_ready(self, version: FunctionVersion, publication: Publication, bounds: ScalingBounds) -> None:
        if publication.number == version.awaited and _is_waiting(version, bounds):
            self._planning.orders.append(NoteReady(key_of(version, publication), bounds, version.bounds))

    def _drain_surplus(self, running: list[Environment], ready: list[Environment], count: int) -> None:
        planning = self._planning
        for environment in running:
            if not environment.is_ready:
                continue
            if environment.slots_lost:
                planning.drain(
                    environment, f"{environment.slots_lost} of its {environment.slots} workers died and it was replaced"
                )
            elif environment.instance_id in planning.draft.retiring:
                planning.drain(environment, f"its instance is {planning.policy.instance_lifetime} old and is replaced")
        for environment in _surplus(ready, count, planning.draft):
            planning.drain(environment, f"above the {count} environments that are wanted")

    def _balance(self, version: FunctionVersion, publication: Publication) -> None:
        """Start one more in a zone that has two fewer than another, where that is possible: the surplus is then drained in the crowded zone."""
        draft = self._planning.draft
        demand = _demand(version, publication)
        provider = self._planning.desired.providers[_provider(publication)]
        zones = self._zones(provider, demand)
        if not zones:
            return
        population = draft.population(demand.key, zones)
        if max(population.values()) - min(population.values()) < 2:
            return
        emptiest = emptiest_zone(demand.key, zones, draft)
        because = (
            f"{emptiest} has {max(population.values()) - population[emptiest]} environments fewer than another zone"
        )
        match place(demand, provider, zones, draft, self._refused_types(provider)):
            case OnInstance(instance, _) if instance.zone == emptiest:
                self._planning.start(instance, demand, publication, because)
            case OnNewInstance(kind, zone, _):
                self._planning.start(
                    self._planning.launch(provider.name, kind, zone, because), demand, publication, because
                )
            case _:
                return

    def _start(self, version: FunctionVersion, publication: Publication, missing: int) -> bool:
        """Order one environment of `missing` ones; False, and perhaps a note of failure, if it can go nowhere."""
        planning = self._planning
        provider = planning.desired.providers[_provider(publication)]
        demand = _demand(version, publication)
        zones = self._zones(provider, demand)
        if not zones:
            existing = place_on_existing(demand, provider, planning.draft)
            if existing is not None:
                planning.start(existing.instance, demand, publication, existing.because)
                return True
            refusal = self._refusal(provider)
            if refusal is not None:
                self._held(version, publication, missing, refusal)
            return False
        match place(demand, provider, zones, planning.draft, self._refused_types(provider)):
            case Nowhere(code, text):
                if not self._make_room(provider.name):
                    self.full.add(provider.name)
                    self._held(version, publication, missing, Reason(code, text))
                return False
            case OnInstance(instance, because):
                planning.start(instance, demand, publication, because)
            case OnNewInstance(kind, zone, because):
                instance = planning.launch(provider.name, kind, zone, because)
                planning.start(instance, demand, publication, because)
        return True

    def _held(self, version: FunctionVersion, publication: Publication, missing: int, reason: Reason) -> None:
        """Capacity cannot be had for `missing` environments: say so, and fail what cannot even have its minimum."""
        draft, key = self._planning.draft, key_of(version, publication)
        bounds = self._planning.policy.bounds(version)
        running = draft.running(key)
        whole = [e for e in running if e.is_whole]
        if all(draft.is_lasting(e) for e in whole) or len(whole) < bounds.minimum:
            place_of_note = (version.function, version.version)
            self._obstacles[place_of_note] = Reason(
                reason.code, f"{missing} more environments are wanted. {reason.text}"
            )
        if publication.number != version.target or not version.is_settling:
            return  # A version that is settled stays as it is when it cannot grow: there is nothing that could fail.
        if len(whole) < bounds.minimum:
            self._planning.orders.append(NoteFailed(key, reason))
        elif _relieves(version, publication) and all(e.is_ready for e in whole):
            # There is no room for both to be as large as the load wants; the room that the other one leaves is for this one to grow.
            self._note_ready(version, publication, bounds)

    def _zones(self, provider: CapacityProvider, demand: Demand) -> tuple[str, ...]:
        """Zones of the provider in which an instance may be launched now: not where launches failed, or all types were refused, just before."""
        draft, planning = self._planning.draft, self._planning
        zones = tuple(
            zone
            for zone in provider.zones(planning.desired.region)
            if planning.policy.may_retry(draft.launch_failures.get((provider.name, zone)), planning.now)
        )
        return zones_with_types(demand, provider, zones, draft, self._refused_types(provider))

    def _refused_types(self, provider: CapacityProvider) -> Refused:
        """Types of the provider that were refused just before."""
        if provider.name not in self._refused:
            planning, found = self._planning, dict[str, dict[str, Reason]]()
            for (name, zone, kind), failure in planning.draft.refused_types.items():
                if name == provider.name and failure.reason and planning.policy.is_refused(failure, planning.now):
                    found.setdefault(zone, {})[kind] = failure.reason
            self._refused[provider.name] = found
        return self._refused[provider.name]

    def _refusal(self, provider: CapacityProvider) -> Reason | None:
        """Why no zone of the provider gives an instance; None unless capacity was refused in each."""
        failures, refused = self._planning.draft.launch_failures, self._refused_types(provider)
        reasons = []
        for zone in provider.zones(self._planning.desired.region):
            failure = failures.get((provider.name, zone))
            of_types = next(iter(refused.get(zone, {}).values()), None)
            reasons.append(failure.reason if failure is not None and failure.reason is not None else of_types)
        return reasons[0] if reasons and all(reasons) else None

    def _make_room(self, provider: str) -> bool:
        """Terminate instances that stand idle, because their vCPUs are needed; whether room is coming, from these or from earlier ones."""
        draft = self._planning.draft
        for instance in draft.of_provider(provider):
            if instance.phase is InstancePhase.RUNNING and draft.is_empty(instance.id):
                self._planning.terminate(instance, "its vCPUs are needed by another environment")
        return any(i.phase is InstancePhase.TERMINATING for i in draft.of_provider(provider))

    def retry(self, version: FunctionVersion) -> None:
        """Note that a version which failed for lack of capacity could have its minimum now; one per provider and plan."""
        planning, publication = self._planning, version.publication
        provider = planning.desired.providers.get(_provider(publication))
        if version.state_reason is None or version.state_reason.code not in CAPACITY_CODES or provider is None:
            return
        if provider.name in self._retried or planning.draft.running(key_of(version, publication)):
            return
        demand = _demand(version, publication)
        zones = self._zones(provider, demand)
        if not zones:
            return
        trial = Planning(
            planning.desired,
            planning.draft.copy(),
            planning.policy,
            (f"trial-{n}" for n in range(1 << 20)),
            planning.now,
        )
        for _ in range(planning.policy.bounds(version).minimum):
            match place(demand, provider, zones, trial.draft, self._refused_types(provider)):
                case Nowhere():
                    return
                case OnInstance(instance, because):
                    trial.start(instance, demand, publication, because)
                case OnNewInstance(kind, zone, because):
                    trial.start(trial.launch(provider.name, kind, zone, because), demand, publication, because)
        self._retried.add(provider.name)
        planning.orders.append(NoteRetry(demand.key))

    def note_obstacles(self) -> None:
        """What stands in the way of versions, where that is not what was noted before."""
        known = self._planning.desired.obstacles
        for place_of_note in {**known, **self._obstacles}:
            reason = self._obstacles.get(place_of_note)
            if reason != known.get(place_of_note):
                self._planning.orders.append(NoteObstacle(*place_of_note, reason))


def _relieves(version: FunctionVersion, publication: Publication) -> bool:
    """True for a publication that will take over from one that serves."""
    return version.serving is not None and version.serving.number != publication.number


def _provider(publication: Publication) -> str:
    assert publication.configuration.managed is not None
    return publication.configuration.managed.provider


def _demand(version: FunctionVersion, publication: Publication) -> Demand:
    configuration = publication.configuration
    return Demand(
        key_of(version, publication),
        configuration.vcpus_per_environment,
        configuration.memory_mb,
        configuration.slots_per_environment,
    )


# --- endings ------------------------------------------------------------------------------------------------------------


def _note_end(planning: Planning, version: FunctionVersion) -> None:
    """Notes for versions that are on their way out, once none of their environments is left."""
    if version.state not in (State.DELETING, State.DEACTIVATING):
        return
    place_of_note = (version.function, version.version)
    if any((e.key.function, e.key.version) == place_of_note for e in planning.draft.environments.values()):
        return
    note = NoteRemoved if version.state is State.DELETING else NoteDrained
    planning.orders.append(note(*place_of_note))


def _drain_unwanted(planning: Planning, environment: Environment) -> None:
    if environment.phase is Phase.STARTING:
        planning.stop(environment, "its version is not wanted any more")
    elif environment.phase is Phase.READY:
        planning.drain(environment, "its version is not wanted any more")


def _stop_drained(planning: Planning) -> None:
    for environment in list(planning.draft.environments.values()):
        if environment.phase is not Phase.DRAINING:
            continue
        draining_for = planning.now - (environment.draining_since or planning.now)
        if environment.busy == 0:
            planning.stop(environment, "drained")
        elif draining_for >= environment.timeout + planning.policy.drain_grace:
            planning.stop(environment, f"still busy {draining_for} after it was asked to drain")


def _terminate_idle(planning: Planning) -> None:
    draft, policy = planning.draft, planning.policy
    for instance in list(draft.instances.values()):
        if instance.phase is InstancePhase.LAUNCHING and planning.now - instance.since >= LAUNCH_LIMIT:
            planning.terminate(instance, f"its agent did not report within {LAUNCH_LIMIT}")
        if instance.phase is not InstancePhase.RUNNING or not draft.is_empty(instance.id):
            continue
        if instance.provider is not None and instance.provider not in planning.desired.providers:
            planning.terminate(instance, "its capacity provider is gone")
        elif instance.id in draft.retiring:
            planning.terminate(instance, f"it is {policy.instance_lifetime} old and was replaced")
        elif planning.now - (instance.idle_since or instance.since) >= policy.idle_instance:
            planning.terminate(instance, f"no environment for {policy.idle_instance}")


def _publications(version: FunctionVersion) -> Iterable[Publication]:
    """Publications of a version that should have environments: the one that serves and the one that is coming."""
    if version.state in (State.DELETING, State.DEACTIVATING, State.DEACTIVATED, State.FAILED):
        return
    if version.serving is not None:
        yield version.serving
    coming = version.serving is None or version.serving.number != version.target
    if version.is_managed and coming and version.update_status is not UpdateStatus.FAILED:
        yield version.publication


def _surplus(ready: list[Environment], count: int, draft: Draft) -> list[Environment]:
    """Which of `ready`, oldest first, go so that `count` stay: each time the newest one in the zone that has most."""
    by_zone: dict[str, list[Environment]] = {}
    for environment in ready:
        by_zone.setdefault(draft.zone(environment), []).append(environment)
    going = []
    for _ in range(len(ready) - count):
        crowded = max(filter(None, by_zone.values()), key=lambda there: (len(there), there[-1].since, there[-1].id))
        going.append(crowded.pop())
    return going


def _is_waiting(version: FunctionVersion, bounds: ScalingBounds) -> bool:
    """True while somebody waits to hear how provisioning went."""
    return version.is_settling or version.bounds_requested or version.applied_bounds != bounds


def next_look(fleet: Fleet, policy: Policy, now: datetime) -> timedelta | None:
    """How soon `plan` could have something new to say although nothing else happens; None if never."""
    moments = []
    for instance in fleet.instances.values():
        if instance.phase is InstancePhase.LAUNCHING:
            moments.append(instance.since + LAUNCH_LIMIT)
        elif instance.provider is not None:
            moments.append(instance.since + policy.instance_lifetime)
        if instance.idle_since:
            moments.append(instance.idle_since + policy.idle_instance)
    for environment in fleet.environments.values():
        if environment.draining_since:
            moments.append(environment.draining_since + environment.timeout + policy.drain_grace)
        elif environment.used_at and fleet.instances[environment.instance_id].provider is None:
            moments.append(environment.used_at + policy.idle_environment)
    failures = (*fleet.failures.values(), *fleet.launch_failures.values())
    moments += [failure.at + policy.retry_after(failure) for failure in failures]
    moments += [failure.at + policy.refused_for(failure) for failure in fleet.refused_types.values()]
    return min((moment - now for moment in moments if moment > now), default=None)
