"""What runs: instances, the environments on them, and how both change.

An *instance* is a machine of a capacity provider; Lambda's own machines, which run standard functions, have no provider. An *environment* runs
one publication of one version. Both are known only while they run: after a restart the fleet is empty and the next reconcile orders anew.

    instance     Launching → Running → Terminating → gone
    environment  Starting → Ready → Draining → Stopping → gone      (any → gone when its process or its instance dies)
"""

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from lambstead.core.catalogue import InstanceType
from lambstead.core.errors import IllegalTransition
from lambstead.core.functions import Reason


class PublicationKey(NamedTuple):
    """Which publication an environment runs, and for which tenant if its function isolates tenants."""

    function: str
    version: str
    number: int
    tenant_id: str = ""
    """The tenant whose invocations it runs, and nobody else's; empty without tenant isolation."""

    def __str__(self) -> str:
        tenant = f" for tenant {self.tenant_id}" if self.tenant_id else ""
        return f"{self.function}:{self.version}{tenant}"

    @property
    def for_all(self) -> "PublicationKey":
        """The publication, whatever the tenant."""
        return self._replace(tenant_id="") if self.tenant_id else self


class InstancePhase(enum.StrEnum):
    LAUNCHING = "Launching"
    RUNNING = "Running"
    TERMINATING = "Terminating"


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    provider: str | None
    """Capacity provider; None for Lambda's own machines, which run standard functions."""
    type: InstanceType
    zone: str
    since: datetime
    phase: InstancePhase = InstancePhase.LAUNCHING
    idle_since: datetime | None = None
    """Since when no environment is on it."""

    @property
    def takes_environments(self) -> bool:
        return self.phase in (InstancePhase.LAUNCHING, InstancePhase.RUNNING)


class Phase(enum.StrEnum):
    STARTING = "Starting"
    READY = "Ready"
    DRAINING = "Draining"
    STOPPING = "Stopping"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an environment, or an instance with all its environments, takes; measured by the agent every few seconds."""

    at: datetime
    """When the server heard of it."""
    cpu_seconds_total: float
    """Since the environment was started. Of an instance: of the environments that are on it now."""
    cpu_utilization: float
    """Since the reading before, as a share of its vCPUs, from 0 to 1."""
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Environment:
    id: str
    instance_id: str
    key: PublicationKey
    slots: int
    vcpus: float
    memory_mb: int
    since: datetime
    timeout: timedelta
    """The function's timeout: how long what runs in it may rightly take."""
    phase: Phase = Phase.STARTING
    draining_since: datetime | None = None
    slots_lost: int = 0
    """Slots whose worker died; the interface client does not replace workers."""
    busy: int = 0
    """Invocations running in it at the moment of the snapshot."""
    used_at: datetime | None = None
    """When it last finished an invocation, or became ready."""
    provisioned: bool = False
    """Kept for provisioned concurrency: started before it is needed, not stopped for being idle."""
    reading: Reading | None = None
    """The latest; None until the first, which comes some seconds after it is ready."""

    @property
    def is_whole(self) -> bool:
        """True while it has, or will have, all its slots."""
        return self.slots_lost == 0 and self.phase in (Phase.STARTING, Phase.READY)

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.READY


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance cannot be had now."""

    reason: Reason
    whole_zone: bool = False
    """No type can be had in the zone; else it is one of this type that is lacking, as EC2's capacity is by type and zone."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Starts of one publication that failed in a row."""

    count: int
    at: datetime
    reason: Reason | None = None
    """Why the latest one failed, where capacity was refused."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that runs at one moment."""

    instances: Mapping[str, Instance] = field(default_factory=dict)
    environments: Mapping[str, Environment] = field(default_factory=dict)
    failures: Mapping[PublicationKey, Failure] = field(default_factory=dict)
    launch_failures: Mapping[tuple[str | None, str], Failure] = field(default_factory=dict)
    """Per provider and zone: instances that died before they ran, or could not be had whatever their type, in a row."""
    refused_types: Mapping[tuple[str | None, str, str], Failure] = field(default_factory=dict)
    """Per provider, zone and type: instances that could not be had, in a row."""

    def on(self, instance_id: str) -> Iterator[Environment]:
        """Environments of an instance."""
        return (e for e in self.environments.values() if e.instance_id == instance_id)

    def running(self, key: PublicationKey) -> list[Environment]:
        """Environments of a publication, oldest first."""
        return sorted((e for e in self.environments.values() if e.key == key), key=lambda e: (e.since, e.id))

    def of_provider(self, provider: str | None) -> list[Instance]:
        """Instances of a provider, oldest first."""
        return sorted((i for i in self.instances.values() if i.provider == provider), key=lambda i: (i.since, i.id))

    def reading(self, instance_id: str) -> Reading | None:
        """The sums of an instance's environments, utilization by the vCPUs of the instance; None before the first reading.

        An instance of Lambda's own has no size: there it is a share of the vCPUs of what runs on it.
        """
        measured = [(e.vcpus, e.reading) for e in self.on(instance_id) if e.reading is not None]
        if not measured:
            return None
        instance = self.instances[instance_id]
        vcpus = instance.type.vcpus if instance.provider is not None else sum(granted for granted, _ in measured)
        return Reading(
            at=max(reading.at for _, reading in measured),
            cpu_seconds_total=sum(reading.cpu_seconds_total for _, reading in measured),
            cpu_utilization=min(1.0, sum(granted * reading.cpu_utilization for granted, reading in measured) / vcpus),
            memory_bytes=sum(reading.memory_bytes for _, reading in measured),
        )

    # --- changes: each returns the fleet afterwards ---------------------------------------------------------------------

    def with_instance(self, instance: Instance) -> "Fleet":
        return replace(self, instances={**self.instances, instance.id: instance})

    def with_environment(self, environment: Environment) -> "Fleet":
        return self.with_environments((environment,))

    def with_environments(self, environments: Iterable[Environment]) -> "Fleet":
        return replace(self, environments={**self.environments, **{each.id: each for each in environments}})

    def instance_running(self, instance_id: str) -> "Fleet":
        """The agent of a launched instance reported for duty. One that is to be terminated meanwhile stays so."""
        instance = self._instance(instance_id)
        if instance.phase is not InstancePhase.LAUNCHING:
            return self
        place = (instance.provider, instance.zone)
        cleared = {p: f for p, f in self.launch_failures.items() if p != place}
        had = {p: f for p, f in self.refused_types.items() if p != (*place, instance.type.name)}
        running = replace(instance, phase=InstancePhase.RUNNING)
        return replace(self, launch_failures=cleared, refused_types=had).with_instance(running)

    def instance_gone(self, instance_id: str, now: datetime, refused: Refusal | None = None) -> "Fleet":
        """The instance is terminated or lost, and with it every environment on it; `refused` if it could not be had."""
        lost = self.instances.get(instance_id)
        if lost is None:
            return self
        failures, types = self.launch_failures, self.refused_types
        place = (lost.provider, lost.zone)
        pool = (*place, lost.type.name)
        if refused is not None and not refused.whole_zone:
            types = {**types, pool: _once_more(types.get(pool), now, refused.reason)}
        elif lost.phase is InstancePhase.LAUNCHING:
            why = refused.reason if refused is not None else None
            failures = {**failures, place: _once_more(failures.get(place), now, why)}
        return replace(
            self,
            launch_failures=failures,
            refused_types=types,
            instances={k: i for k, i in self.instances.items() if k != instance_id},
            environments={k: e for k, e in self.environments.items() if e.instance_id != instance_id},
        )

    def environment_ready(self, environment_id: str, now: datetime) -> "Fleet":
        """Init is complete. An environment that is to be stopped meanwhile stays so."""
        environment = self._environment(environment_id)
        cleared = {k: f for k, f in self.failures.items() if k != environment.key.for_all}
        if environment.phase is not Phase.STARTING:
            return self
        ready = replace(environment, phase=Phase.READY, used_at=now)
        return replace(self, failures=cleared).with_environment(ready)

    def environment_gone(self, environment_id: str, now: datetime, failed: bool) -> "Fleet":
        """The environment is over; `failed` when its init failed or it ended on its own."""
        gone = self.environments.get(environment_id)
        if gone is None:
            return self
        # Of a publication, not of a tenant: there is no end of tenants.
        key = gone.key.for_all
        failures = {**self.failures, key: _once_more(self.failures.get(key), now)} if failed else self.failures
        rest = {k: e for k, e in self.environments.items() if k != environment_id}
        after = replace(self, environments=rest, failures=failures)
        instance = self.instances.get(gone.instance_id)
        if instance is None or any(after.on(instance.id)):
            return after
        return after.with_instance(replace(instance, idle_since=now))

    def environment_degraded(self, environment_id: str, slots_left: int) -> "Fleet":
        """Workers of the environment died."""
        environment = self._environment(environment_id)
        return self.with_environment(replace(environment, slots_lost=environment.slots - slots_left))

    def launches_may_succeed(self) -> "Fleet":
        """What stood in the way of launches is gone: they are tried at once."""
        return replace(self, launch_failures={}, refused_types={})

    def measured(self, readings: Mapping[str, Reading]) -> "Fleet":
        """Readings by environment id; those of environments that are gone are dropped."""
        fresh = {
            key: replace(self.environments[key], reading=r) for key, r in readings.items() if key in self.environments
        }
        return replace(self, environments={**self.environments, **fresh}) if fresh else self

    def phase(self, environment_id: str, phase: Phase) -> "Fleet":
        """The environment goes on to `phase`. Raises IllegalTransition backwards."""
        environment = self._environment(environment_id)
        order = list(Phase)
        if order.index(phase) <= order.index(environment.phase):
            raise IllegalTransition(f"environment {environment_id} cannot go from {environment.phase} to {phase}")
        return self.with_environment(replace(environment, phase=phase))

    def draining(self, environment_id: str, now: datetime) -> "Fleet":
        """The environment takes no new invocations from now on."""
        return self.phase(environment_id, Phase.DRAINING).with_environment(
            replace(self._environment(environment_id), phase=Phase.DRAINING, draining_since=now)
        )

    def terminating(self, instance_id: str) -> "Fleet":
        return self.with_instance(replace(self._instance(instance_id), phase=InstancePhase.TERMINATING))

    def placed(self, environment: Environment) -> "Fleet":
        """A new environment was ordered on its instance, which is idle no more."""
        instance = replace(self._instance(environment.instance_id), idle_since=None)
        return self.with_instance(instance).with_environment(environment)

    def _instance(self, instance_id: str) -> Instance:
        try:
            return self.instances[instance_id]
        except KeyError as exc:
            raise IllegalTransition(f"there is no instance {instance_id}") from exc

    def _environment(self, environment_id: str) -> Environment:
        try:
            return self.environments[environment_id]
        except KeyError as exc:
            raise IllegalTransition(f"there is no environment {environment_id}") from exc


def _once_more(failure: Failure | None, now: datetime, reason: Reason | None = None) -> Failure:
    return Failure((failure.count if failure else 0) + 1, now, reason)
