"""Where a new environment goes: onto an instance with room, onto a new instance, or nowhere.

Zones come first: an environment goes to the zone that has fewest of its publication, because three environments over three zones are what the
default is for. Within a zone it fills the fullest instance that still has room, so that others can fall idle and be terminated. A new
instance is launched only within the provider's vCPU limit; when the best zone cannot have one, any instance with room will do.

A type that was refused in a zone is replaced by the next one that the provider allows, in the same zone, as a fleet of EC2 does (decision 0044).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lambstead.core.capacity import CapacityProvider
from lambstead.core.catalogue import InstanceType, choose
from lambstead.core.draft import Draft
from lambstead.core.fleet import Instance, PublicationKey
from lambstead.core.functions import Reason


@dataclass(frozen=True, slots=True)
class Demand:
    """What one environment of a publication needs."""

    key: PublicationKey
    vcpus: float
    memory_mb: int
    slots: int


@dataclass(frozen=True, slots=True)
class OnInstance:
    instance: Instance
    because: str


@dataclass(frozen=True, slots=True)
class OnNewInstance:
    type: InstanceType
    zone: str
    because: str


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No room, and none can be made. `code` is AWS's StateReasonCode."""

    code: str
    text: str


Placement = OnInstance | OnNewInstance | Nowhere

LIMIT_REACHED = (
    "MinimumExecutionEnvironments can't be provisioned because CapacityProvider has reached maxVCpuCount limit. "
    "Increase maxVCpuCount in the CapacityProvider configuration and try again."
)


Refused = Mapping[str, Mapping[str, Reason]]
"""By zone: types that cannot be had there now, and why."""
NOTHING_REFUSED: Refused = {}
MOST_TYPES_REFUSED = 10
"""A zone that has refused so many types is left alone until it is time to ask for one of them again."""


def zones_with_types(
    demand: Demand, provider: CapacityProvider, zones: tuple[str, ...], draft: Draft, refused: Refused
) -> tuple[str, ...]:
    """Those of `zones` in which some type can be had for `demand`; the limit of vCPUs takes none away that it leaves none in."""
    if not any(refused.get(zone) for zone in zones):
        return zones
    headroom = provider.scaling.max_vcpus - draft.vcpus(provider.name)
    if choose(provider.requirements, demand.vcpus, demand.memory_mb, headroom) is None:
        return zones
    return tuple(
        zone
        for zone in zones
        if len(there := refused.get(zone, {})) < MOST_TYPES_REFUSED
        and choose(provider.requirements, demand.vcpus, demand.memory_mb, headroom, there) is not None
    )


def place(
    demand: Demand,
    provider: CapacityProvider,
    zones: tuple[str, ...],
    draft: Draft,
    refused: Refused = NOTHING_REFUSED,
) -> Placement:
    """Where the next environment of `demand` goes; `zones` are those of the provider in which instances can be launched now."""
    best_zone = emptiest_zone(demand.key, zones, draft)
    roomy = [i for i in draft.open(provider.name) if has_room(i, demand, draft)]
    here = [i for i in roomy if i.zone == best_zone]
    if here:
        return OnInstance(
            _fullest(here, draft), f"room in {best_zone}, the zone with fewest environments of {demand.key}"
        )
    headroom = provider.scaling.max_vcpus - draft.vcpus(provider.name)
    there = refused.get(best_zone, {})
    chosen = choose(provider.requirements, demand.vcpus, demand.memory_mb, headroom, there)
    if chosen is not None:
        because = f"no room in {best_zone} for an environment of {demand.key}"
        preferred = choose(provider.requirements, demand.vcpus, demand.memory_mb, headroom)
        if preferred is not None and preferred.name in there:
            because += f"; instead of {preferred.name}: {there[preferred.name].text}"
        return OnNewInstance(chosen, best_zone, because)
    if roomy:
        return OnInstance(_fullest(roomy, draft), f"no instance can be added in {best_zone}, another zone has room")
    if choose(provider.requirements, demand.vcpus, demand.memory_mb, vcpu_headroom=1_000_000) is None:
        return Nowhere(
            "InsufficientCapacity",
            f"No instance type that capacity provider {provider.name} allows has room for an execution environment of "
            f"{demand.vcpus:g} vCPU and {demand.memory_mb} MB.",
        )
    return Nowhere("CapacityProviderScalingLimitExceeded", LIMIT_REACHED)


def place_on_existing(demand: Demand, provider: CapacityProvider, draft: Draft) -> OnInstance | None:
    """Where the next environment goes while no instance can be launched in any zone: wherever there is room."""
    roomy = [i for i in draft.open(provider.name) if has_room(i, demand, draft)]
    if not roomy:
        return None
    # Launches are refused by zone, so the spread over those there are is kept as far as it goes.
    zones = tuple(sorted({i.zone for i in roomy}))
    best = emptiest_zone(demand.key, zones, draft)
    there = [i for i in roomy if i.zone == best]
    return OnInstance(_fullest(there, draft), f"no instance can be launched now, {best} has room")


def emptiest_zone(key: PublicationKey, zones: tuple[str, ...], draft: Draft) -> str:
    """The zone that has fewest environments of the publication; the first of several."""
    population = draft.population(key, zones)
    return min(zones, key=lambda zone: (population[zone], zones.index(zone)))


def has_room(instance: Instance, demand: Demand, draft: Draft) -> bool:
    """True if the instance takes one more environment of this size beside those it has."""
    vcpus, memory_mb = draft.used(instance.id)
    return (
        instance.takes_environments
        and vcpus + demand.vcpus <= instance.type.usable_vcpus
        and memory_mb + demand.memory_mb <= instance.type.usable_memory_mb
    )


def _fullest(instances: list[Instance], draft: Draft) -> Instance:
    return max(instances, key=lambda i: (draft.used(i.id), i.id))
