"""A fleet while a plan is made: as the orders given so far will leave it.

Mutable, for one plan, and indexed by what placement asks for thousands of times: what runs where, how full an instance is, what of a publication
runs. `Fleet` stays the value that everybody else sees; a draft never leaves the plan.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from lambstead.core.capacity import MIN_MANAGED_MEMORY_MB
from lambstead.core.fleet import Environment, Fleet, Instance, InstancePhase, Phase, PublicationKey


class Draft:
    """See the module."""

    def __init__(self, fleet: Fleet, retiring: frozenset[str] = frozenset()) -> None:
        self.failures = fleet.failures
        self.launch_failures = fleet.launch_failures
        self.refused_types = fleet.refused_types
        self.instances = dict(fleet.instances)
        self.environments = dict(fleet.environments)
        self.retiring = retiring
        """Instances that are being replaced: what is on them serves on, nothing new goes there."""
        self._on: dict[str, dict[str, Environment]] = {key: {} for key in self.instances}
        self._running: dict[PublicationKey, dict[str, Environment]] = {}
        self._used: dict[str, tuple[float, int]] = {}
        self._by_provider: dict[str | None, dict[str, Instance]] = {}
        self._open: dict[str | None, dict[str, Instance]] = {}
        self._vcpus: Counter[str | None] = Counter()
        for environment in self.environments.values():
            self._on[environment.instance_id][environment.id] = environment
            self._running.setdefault(environment.key, {})[environment.id] = environment
        for key, environments in self._on.items():
            there = environments.values()
            self._used[key] = (sum(e.vcpus for e in there), sum(e.memory_mb for e in there))
        for instance in sorted(self.instances.values(), key=lambda i: (i.since, i.id)):
            self._index(instance)

    # --- what can be asked -----------------------------------------------------------------------------------------------

    def on(self, instance_id: str) -> Iterable[Environment]:
        """Environments of an instance, draining and stopping ones too: they take its room until they are gone."""
        return self._on[instance_id].values()

    def is_empty(self, instance_id: str) -> bool:
        return not self._on[instance_id]

    def used(self, instance_id: str) -> tuple[float, int]:
        """vCPUs and MB that the environments of an instance take."""
        return self._used[instance_id]

    def running(self, key: PublicationKey) -> list[Environment]:
        """Environments of a publication, oldest first."""
        return sorted(self._running.get(key, {}).values(), key=lambda e: (e.since, e.id))

    def of_provider(self, provider: str | None) -> list[Instance]:
        """Instances of a provider, oldest first."""
        return list(self._by_provider.get(provider, {}).values())

    def vcpus(self, provider: str | None) -> int:
        """vCPUs of all instances of a provider: those that terminate count until they are gone."""
        return self._vcpus[provider]

    def open(self, provider: str | None) -> Iterable[Instance]:
        """Instances of a provider that may have room for an environment of some size."""
        return self._open.get(provider, {}).values()

    def population(self, key: PublicationKey, zones: tuple[str, ...]) -> Counter[str]:
        """Environments of the publication that serve, or will, per zone."""
        counted = Counter(self.zone(e) for e in self._running.get(key, {}).values() if self.is_lasting(e))
        return Counter({zone: counted[zone] for zone in zones})

    def zone(self, environment: Environment) -> str:
        return self.instances[environment.instance_id].zone

    def is_lasting(self, environment: Environment) -> bool:
        """True for an environment that has or will have all its slots, on an instance that stays."""
        return environment.is_whole and environment.instance_id not in self.retiring

    def copy(self) -> "Draft":
        """Another draft with the same content, to try something on."""
        there = Fleet(self.instances, self.environments, self.failures, self.launch_failures, self.refused_types)
        return Draft(there, self.retiring)

    # --- changes ---------------------------------------------------------------------------------------------------------

    def launched(self, instance: Instance) -> None:
        self.instances[instance.id] = instance
        self._on[instance.id] = {}
        self._used[instance.id] = (0.0, 0)
        self._index(instance)

    def placed(self, environment: Environment) -> None:
        """A new environment was ordered on its instance, which is idle no more."""
        instance = replace(self.instances[environment.instance_id], idle_since=None)
        vcpus, memory_mb = self._used[instance.id]
        self._used[instance.id] = (vcpus + environment.vcpus, memory_mb + environment.memory_mb)
        self._save(environment)
        self._replace(instance)

    def draining(self, environment: Environment, now: datetime) -> None:
        self._save(replace(environment, phase=Phase.DRAINING, draining_since=now))

    def stopping(self, environment: Environment) -> None:
        self._save(replace(environment, phase=Phase.STOPPING))

    def terminating(self, instance: Instance) -> None:
        self._replace(replace(instance, phase=InstancePhase.TERMINATING))

    def _save(self, environment: Environment) -> None:
        self.environments[environment.id] = environment
        self._on[environment.instance_id][environment.id] = environment
        self._running.setdefault(environment.key, {})[environment.id] = environment

    def _index(self, instance: Instance) -> None:
        self._by_provider.setdefault(instance.provider, {})[instance.id] = instance
        self._vcpus[instance.provider] += instance.type.vcpus
        self._keep_open(instance)

    def _replace(self, instance: Instance) -> None:
        self.instances[instance.id] = instance
        self._by_provider[instance.provider][instance.id] = instance
        self._keep_open(instance)

    def _keep_open(self, instance: Instance) -> None:
        """Remember the instance where placement looks if the smallest environment there is would fit."""
        vcpus, memory_mb = self._used[instance.id]
        fits = instance.type.usable_vcpus - vcpus >= 1 and (
            instance.type.usable_memory_mb - memory_mb >= MIN_MANAGED_MEMORY_MB
        )
        those_open = self._open.setdefault(instance.provider, {})
        if fits and instance.takes_environments and instance.id not in self.retiring:
            those_open[instance.id] = instance
        else:
            those_open.pop(instance.id, None)
