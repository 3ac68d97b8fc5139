"""Capacity providers and what one execution environment of a managed function takes from them.

A provider's life: Pending → Active → Deleting → gone. Creating one launches nothing: instances come with the first publish
(Developer Guide, capacity providers). Sizing rules: environment vCPUs = memory GiB ÷ ratio, at least one vCPU and 2,048 MB, at
most 64 concurrent invocations per vCPU (Developer Guide, scaling and runtimes).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, assert_never

from lambstead.core.errors import IllegalTransition, InvalidParameterValue, ResourceConflict

MIN_MANAGED_MEMORY_MB = 2048
MAX_SLOTS_PER_VCPU = 64
DEFAULT_MAX_VCPUS = 400
DEFAULT_MEMORY_GIB_PER_VCPU = 2.0
MAX_PROVIDERS = 1000
MAX_VERSIONS_PER_PROVIDER = 100

Architecture = Literal["x86_64", "arm64"]


class ProviderState(enum.StrEnum):
    PENDING = "Pending"
    ACTIVE = "Active"
    FAILED = "Failed"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True)
class InstanceRequirements:
    """Which EC2 types a provider may use; at most one of the two filters is set."""

    architecture: Architecture = "x86_64"
    allowed: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderScaling:
    """How far and by which rule a provider grows. `policies` hold the API's target-tracking policies as given."""

    max_vcpus: int = DEFAULT_MAX_VCPUS
    mode: Literal["Auto", "Manual"] = "Auto"
    policies: tuple[Mapping[str, Any], ...] = ()  # Any: documents of the API, kept as given

    @classmethod
    def from_request(cls, request: Mapping[str, Any], current: "ProviderScaling | None" = None) -> "ProviderScaling":
        """The scaling part of a create or update request. Raises InvalidParameterValue for policies in Auto mode."""
        before = current or cls()
        mode = request.get("ScalingMode", before.mode)
        policies = tuple(request.get("ScalingPolicies") or (before.policies if mode == "Manual" else ()))
        if mode == "Auto" and policies:
            raise InvalidParameterValue("A scaling policy can't be specified when the scalingMode is set to Auto")
        return cls(request.get("MaxVCpuCount", before.max_vcpus), mode, policies)


@dataclass(frozen=True, slots=True)
class CapacityProvider:
    """A capacity provider as stored. `telemetry` and `propagated_tags` are kept as the API gave them."""

    name: str
    state: ProviderState
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    operator_role: str
    last_modified: str
    requirements: InstanceRequirements = InstanceRequirements()
    scaling: ProviderScaling = field(default_factory=ProviderScaling)
    kms_key_arn: str | None = None
    propagated_tags: Mapping[str, Any] | None = None  # Any: document of the API, kept as given
    telemetry: Mapping[str, Any] | None = None  # Any: document of the API, kept as given
    subnet_zones: Mapping[str, str] = field(default_factory=dict)
    """Availability zones of subnets, as far as somebody knew them."""

    def zones(self, region: str) -> tuple[str, ...]:
        """Availability zones of the provider's subnets, in the order of the subnets.

        A subnet of which nobody knew stands in the zone of the region that its place in the list gives (a, b, c, then a again).
        """
        return tuple(dict.fromkeys(zone for zone, _ in self.subnets_by_zone(region)))

    def subnets_by_zone(self, region: str) -> list[tuple[str, str]]:
        """The zone of each subnet, and the subnet, in their order."""
        letters = "abc"
        return [
            (self.subnet_zones.get(subnet) or f"{region}{letters[n % len(letters)]}", subnet)
            for n, subnet in enumerate(self.subnets)
        ]


@dataclass(frozen=True, slots=True)
class ProviderChecked:
    """Its configuration was accepted: versions may be published onto it."""

    subnet_zones: Mapping[str, str] = field(default_factory=dict)
    """Availability zones of its subnets, as far as they are known."""


@dataclass(frozen=True, slots=True)
class ProviderUpdated:
    """The members that may change were changed; None leaves a member as it is."""

    at: str
    scaling: ProviderScaling | None = None
    propagated_tags: Mapping[str, Any] | None = None  # Any: document of the API, kept as given
    telemetry: Mapping[str, Any] | None = None  # Any: document of the API, kept as given


@dataclass(frozen=True, slots=True)
class ProviderDeletionRequested:
    """Somebody wants the provider gone; `users` are the ARNs of function versions on it."""

    arn: str
    users: tuple[str, ...]


ProviderEvent = ProviderChecked | ProviderUpdated | ProviderDeletionRequested


def apply(provider: CapacityProvider, event: ProviderEvent) -> CapacityProvider:
    """The provider after `event`. Raises ResourceConflict where AWS refuses and IllegalTransition for our own bugs."""
    match event:
        case ProviderChecked(subnet_zones):
            if provider.state is not ProviderState.PENDING:
                raise IllegalTransition(f"provider {provider.name} was checked in state {provider.state}")
            return replace(provider, state=ProviderState.ACTIVE, subnet_zones=subnet_zones)
        case ProviderUpdated():
            _refuse_unless_active(provider)
            return replace(
                provider,
                last_modified=event.at,
                scaling=event.scaling or provider.scaling,
                propagated_tags=provider.propagated_tags if event.propagated_tags is None else event.propagated_tags,
                telemetry=provider.telemetry if event.telemetry is None else event.telemetry,
            )
        case ProviderDeletionRequested():
            if event.users:
                raise ResourceConflict(
                    f"The capacity provider is currently in use by {len(event.users)} functions. "
                    f"To delete this capacity provider, first remove its association with {event.users[0]}."
                )
            return replace(provider, state=ProviderState.DELETING)
        case _:
            assert_never(event)


def _refuse_unless_active(provider: CapacityProvider) -> None:
    if provider.state is not ProviderState.ACTIVE:
        raise ResourceConflict(
            "The operation cannot be performed at this time. "
            f"The capacity provider is currently in the following state: {provider.state}"
        )


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a managed function uses its provider: slots in one environment, and memory per vCPU of that environment."""

    slots: int
    memory_gib_per_vcpu: float = DEFAULT_MEMORY_GIB_PER_VCPU

    def vcpus(self, memory_mb: int) -> float:
        """vCPUs of one environment with so much memory."""
        return memory_mb / 1024 / self.memory_gib_per_vcpu

    @classmethod
    def from_request(
        cls, runtime: str, memory_mb: int, slots: int | None, memory_gib_per_vcpu: float | None
    ) -> "Sizing":
        """The sizing of a function, defaults filled in. Raises InvalidParameterValue for combinations AWS refuses."""
        if memory_mb < MIN_MANAGED_MEMORY_MB:
            raise InvalidParameterValue(
                f"Lambda Managed Instance functions must have memory size greater than or equal to {MIN_MANAGED_MEMORY_MB}"
            )
        ratio = memory_gib_per_vcpu or DEFAULT_MEMORY_GIB_PER_VCPU
        vcpus = memory_mb / 1024 / ratio
        if vcpus < 1:
            raise InvalidParameterValue(
                f"{memory_mb} MB at {ratio:g} GiB per vCPU gives {vcpus:.2f} vCPU; an execution environment needs at least one. "
                "Raise MemorySize or lower ExecutionEnvironmentMemoryGiBPerVCpu."
            )
        most = int(MAX_SLOTS_PER_VCPU * vcpus)
        if slots is not None and slots > most:
            raise InvalidParameterValue(
                f"PerExecutionEnvironmentMaxConcurrency {slots} is above {most}, "
                f"which is {MAX_SLOTS_PER_VCPU} for each of the environment's {vcpus:g} vCPUs."
            )
        return cls(slots or min(most, int(default_slots_per_vcpu(runtime) * vcpus)), ratio)


_DEFAULT_SLOTS_PER_VCPU = {"nodejs": 64, "java": 32, "dotnet": 32, "python": 16, "provided": 8}


def default_slots_per_vcpu(runtime: str) -> int:
    """AWS's default concurrency per vCPU for the runtime's family (Developer Guide, runtimes; Rust's 8 for `provided`)."""
    return next((slots for family, slots in _DEFAULT_SLOTS_PER_VCPU.items() if runtime.startswith(family)), 8)
