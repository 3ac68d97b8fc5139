"""Environments of standard functions, on machines of Lambda's own: one per invocation, and those of provisioned concurrency.

A tenant's environments are planned for the tenant alone, as if each were a publication of its own; the limit holds for all together.
"""

from collections import Counter
from datetime import datetime

from lambstead.core.catalogue import LAMBDA_OWNED
from lambstead.core.concurrency import Allocation, AllocationStatus
from lambstead.core.configurations import Publication
from lambstead.core.desired import Provision
from lambstead.core.fleet import Environment, Instance, Phase, PublicationKey
from lambstead.core.orders import NoteAllocation
from lambstead.core.placement import Demand
from lambstead.core.planning import Planning


class StandardPlan:
    """See the module."""

    def __init__(self, planning: Planning) -> None:
        self._planning = planning
        self._home = (None, f"{planning.desired.region}a")
        """Provider and zone of Lambda's own machines."""
        self._provisioned: Counter[tuple[str, str]] = Counter()
        """Environments to keep for provisioned concurrency, by function and version."""
        self._unplaced = 0
        """Environments that invocations wait for and the limit does not allow yet."""
        for provision in planning.desired.provisioned:
            for version, count in provision.shares.items():
                self._provisioned[provision.config.function, version] += count
        self._tenants: dict[PublicationKey, set[PublicationKey]] = {}
        """Of a publication: its tenants that have invocations or environments."""
        for key in (*planning.desired.on_demand, *(e.key for e in planning.draft.environments.values())):
            if key.tenant_id:
                self._tenants.setdefault(key.for_all, set()).add(key)

    def provide(self, key: PublicationKey, publication: Publication) -> None:
        """What one publication should have."""
        self._provide_provisioned(key, publication)
        self._provide_on_demand(key, publication)
        for tenant in sorted(self._tenants.get(key, ())):
            self._provide_on_demand(tenant, publication)

    def _provide_provisioned(self, key: PublicationKey, publication: Publication) -> None:
        """As many environments as are provisioned, within the limit; surplus ones end, in use or not."""
        planning = self._planning
        count = self._provisioned[key.function, key.version]
        kept = self._whole(key, provisioned=True)
        failures = (planning.draft.failures.get(key), planning.draft.launch_failures.get(self._home))
        if all(planning.policy.may_retry(failure, planning.now) for failure in failures):
            for _ in range(min(count - len(kept), self._room())):
                self._order(key, publication, "provisioned concurrency", provisioned=True)
        for environment in kept[count:]:
            planning.drain(environment, f"above the {count} environments that are provisioned")

    def _provide_on_demand(self, key: PublicationKey, publication: Publication) -> None:
        """One environment for each invocation that runs or waits beyond those provisioned, within the limit; idle ones end after a while."""
        planning = self._planning
        running = self._whole(key, provisioned=False)
        provisioned = sum(e.is_ready for e in self._whole(key, provisioned=True))
        wanted = max(0, planning.desired.on_demand.get(key, 0) - provisioned)
        if planning.policy.may_retry(planning.draft.launch_failures.get(self._home), planning.now):
            missing, room = wanted - len(running), self._room()
            for _ in range(min(missing, room)):
                self._order(key, publication, "an invocation waits for it", provisioned=False)
            self._unplaced += max(0, missing - max(0, room))
        for environment in running[: max(0, len(running) - wanted)]:
            if _is_idle_since(environment, planning.now - planning.policy.idle_environment):
                planning.drain(environment, f"not used for {planning.policy.idle_environment}")

    def _whole(self, key: PublicationKey, *, provisioned: bool) -> list[Environment]:
        return [e for e in self._planning.draft.running(key) if e.is_whole and e.provisioned is provisioned]

    def _order(self, key: PublicationKey, publication: Publication, because: str, *, provisioned: bool) -> None:
        configuration = publication.configuration
        demand = Demand(key, configuration.vcpus_per_environment, configuration.memory_mb, slots=1)
        self._planning.start(self._lambda_owned(), demand, publication, because, provisioned=provisioned)

    def make_room(self) -> None:
        """Give up warm environments that nobody uses, those longest unused first, where invocations wait because of the limit.

        What is on its way out already makes room too, so a round that finds the same shortage again drains no more.
        """
        if not self._unplaced:
            return
        existing = self._existing()
        leaving = sum(e.phase in (Phase.DRAINING, Phase.STOPPING) for e in existing)
        now = self._planning.now
        idle = [e for e in existing if _is_idle_since(e, now) and not e.provisioned and not self._is_needed(e)]
        idle.sort(key=lambda e: e.used_at or e.since)
        for environment in idle[: max(0, self._unplaced - leaving)]:
            self._planning.drain(environment, "another function's invocation waits for its place")

    def _is_needed(self, environment: Environment) -> bool:
        """True when as many invocations run in or wait for environments of its publication as there are."""
        demand = self._planning.desired.on_demand.get(environment.key, 0)
        return demand >= len(self._whole(environment.key, provisioned=False))

    def _existing(self) -> list[Environment]:
        draft = self._planning.draft
        return [environment for instance in draft.of_provider(None) for environment in draft.on(instance.id)]

    def _room(self) -> int:
        """How many more environments standard functions may have."""
        return self._planning.policy.standard_limit - len(self._existing())

    def _lambda_owned(self) -> Instance:
        existing = [i for i in self._planning.draft.of_provider(None) if i.takes_environments]
        if existing:
            return existing[0]
        return self._planning.launch(None, LAMBDA_OWNED, self._home[1], "a standard function is invoked")

    # --- provisioned concurrency ---------------------------------------------------------------------------------------

    def note_allocations(self) -> None:
        """What has become of provisioned concurrency. Environments of a version that two aliases share are counted once."""
        provisions = self._planning.desired.provisioned
        if not provisions:
            return
        environments = self._planning.draft.environments.values()
        ready = Counter((e.key.function, e.key.version) for e in environments if _is_kept(e))
        for provision in provisions:
            config, available = provision.config, 0
            for version, count in provision.shares.items():
                place = (config.function, version)
                mine = min(count, ready[place])
                ready[place] -= mine
                available += mine
            allocation = self._allocation(provision, available)
            if allocation != config.allocation:
                self._planning.orders.append(NoteAllocation(config, allocation))

    def _allocation(self, provision: Provision, available: int) -> Allocation:
        config, draft = provision.config, self._planning.draft
        if available >= config.requested:
            return Allocation(AllocationStatus.READY, available)
        if any(key.function == config.function and key.version in provision.shares for key in draft.failures):
            return Allocation(AllocationStatus.FAILED, available, "FUNCTION_ERROR_INIT_FAILURE")
        is_starting = any(
            e.provisioned
            and e.phase is Phase.STARTING
            and e.key.function == config.function
            and e.key.version in provision.shares
            for e in draft.environments.values()
        )
        if not is_starting and self._room() <= 0:
            limit = self._planning.policy.standard_limit
            text = f"This Lambstead runs at most {limit} environments of standard functions (setting standard_environments)."
            return Allocation(AllocationStatus.FAILED, available, text)
        return Allocation(AllocationStatus.IN_PROGRESS, available)


def _is_kept(environment: Environment) -> bool:
    """True for an initialised environment of provisioned concurrency."""
    return environment.provisioned and environment.is_ready and environment.is_whole


def _is_idle_since(environment: Environment, moment: datetime) -> bool:
    return environment.is_ready and environment.busy == 0 and (environment.used_at or environment.since) <= moment
