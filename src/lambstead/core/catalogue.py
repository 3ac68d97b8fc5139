"""EC2 instance types that managed instances may have, and the choice among them.

Families and their memory per vCPU are EC2's (C: 2 GiB, M: 4 GiB, R: 8 GiB); sizes are `.large` (2 vCPU) and up, as the Developer Guide
names for managed instances. One vCPU and 1 GiB of every instance are kept for the host (AWS's cost calculator plans so).
"""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache

from lambstead.core.capacity import Architecture, InstanceRequirements

HOST_VCPUS = 1
HOST_MEMORY_MB = 1024

_VCPUS = {
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "4xlarge": 16,
    "8xlarge": 32,
    "9xlarge": 36,
    "12xlarge": 48,
    "16xlarge": 64,
    "18xlarge": 72,
    "24xlarge": 96,
    "32xlarge": 128,
    "48xlarge": 192,
}
_COMMON = ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge")


@dataclass(frozen=True, slots=True)
class _Series:
    """A family in one generation: `c7i`."""

    name: str
    architecture: Architecture
    gib_per_vcpu: int
    usd_per_vcpu_hour: float
    """On demand, Linux, us-east-1; every size costs its vCPUs' share."""
    sizes: tuple[str, ...]


_C5_SIZES = ("large", "xlarge", "2xlarge", "4xlarge", "9xlarge", "12xlarge", "18xlarge", "24xlarge")
_UP_TO_24 = (*_COMMON, "24xlarge")
_UP_TO_32 = (*_UP_TO_24, "32xlarge")
_UP_TO_48 = (*_UP_TO_24, "48xlarge")
_SERIES = (
    _Series("c7i", "x86_64", 2, 0.044625, _UP_TO_48),
    _Series("m7i", "x86_64", 4, 0.0504, _UP_TO_48),
    _Series("r7i", "x86_64", 8, 0.06615, _UP_TO_48),
    _Series("c6i", "x86_64", 2, 0.0425, _UP_TO_32),
    _Series("m6i", "x86_64", 4, 0.048, _UP_TO_32),
    _Series("r6i", "x86_64", 8, 0.063, _UP_TO_32),
    _Series("c5", "x86_64", 2, 0.0425, _C5_SIZES),
    _Series("m5", "x86_64", 4, 0.048, _UP_TO_24),
    _Series("r5", "x86_64", 8, 0.063, _UP_TO_24),
    _Series("c8g", "arm64", 2, 0.039875, _UP_TO_48),
    _Series("m8g", "arm64", 4, 0.04488, _UP_TO_48),
    _Series("r8g", "arm64", 8, 0.05891, _UP_TO_48),
    _Series("c7g", "arm64", 2, 0.03625, _COMMON),
    _Series("m7g", "arm64", 4, 0.0408, _COMMON),
    _Series("r7g", "arm64", 8, 0.05355, _COMMON),
    _Series("c6g", "arm64", 2, 0.034, _COMMON),
    _Series("m6g", "arm64", 4, 0.0385, _COMMON),
    _Series("r6g", "arm64", 8, 0.0504, _COMMON),
)
"""By architecture and generation, the one we choose first in front. Sizes: EC2's instance type pages, without `.medium` and `.metal`. Prices: public
price tables that agree with each other (reference on managed instances, §14); for m8g one table only. Left out for want of a sourced price: the
8i, 9g, AMD (`a`) and disk (`d`), network (`n`) variants."""
_COMFORTABLE_VCPUS = 4
"""Instances are launched from this size up where the provider's limit allows: a `.large` keeps half of itself for the host."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    name: str
    architecture: Architecture
    vcpus: int
    memory_mb: int
    usd_per_hour: float = 0.0
    """On demand, Linux, us-east-1, without the management fee; 0 for machines that nobody is billed for."""

    @property
    def usable_vcpus(self) -> int:
        return self.vcpus - HOST_VCPUS

    @property
    def usable_memory_mb(self) -> int:
        return self.memory_mb - HOST_MEMORY_MB

    def fits(self, vcpus: float, memory_mb: int) -> bool:
        """True if an empty instance of this type has room for one such environment."""
        return vcpus <= self.usable_vcpus and memory_mb <= self.usable_memory_mb


LAMBDA_OWNED = InstanceType("lambda", "x86_64", 1_000_000, 1_000_000_000)
"""The machines of standard functions: AWS's own, not limited by a provider."""


@cache
def all_types() -> tuple[InstanceType, ...]:
    """Every type, in order of preference within an architecture: newest generation, then the leanest family, then size."""
    return tuple(
        InstanceType(
            f"{series.name}.{size}",
            series.architecture,
            _VCPUS[size],
            _VCPUS[size] * series.gib_per_vcpu * 1024,
            _VCPUS[size] * series.usd_per_vcpu_hour,
        )
        for series in _SERIES
        for size in series.sizes
    )


def unknown_patterns(requirements: InstanceRequirements) -> list[str]:
    """Allowed or excluded type patterns that match no type of the catalogue for the architecture."""
    names = [t.name for t in all_types() if t.architecture == requirements.architecture]
    return [p for p in (*requirements.allowed, *requirements.excluded) if not fnmatch.filter(names, p)]


def choose(
    requirements: InstanceRequirements,
    vcpus: float,
    memory_mb: int,
    vcpu_headroom: int,
    refused: Collection[str] = (),
) -> InstanceType | None:
    """The type to launch for an environment of this size; None if no permitted type fits or `vcpu_headroom` is too small.

    `refused` are names of types that cannot be had now.

    The smallest comfortable size that fits wins, then the family whose memory per vCPU wastes least, then the newest generation.
    """
    fitting = [
        t
        for t in _permitted_types(requirements)
        if t.fits(vcpus, memory_mb) and t.vcpus <= vcpu_headroom and t.name not in refused
    ]
    comfortable = [t for t in fitting if t.vcpus >= _COMFORTABLE_VCPUS]
    return min(comfortable or fitting, key=lambda t: (t.vcpus, t.memory_mb), default=None)


@lru_cache(maxsize=1024)
def _permitted_types(requirements: InstanceRequirements) -> tuple[InstanceType, ...]:
    return tuple(
        t for t in all_types() if t.architecture == requirements.architecture and _permitted(t.name, requirements)
    )


def _permitted(name: str, requirements: InstanceRequirements) -> bool:
    if requirements.allowed:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in requirements.allowed)
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in requirements.excluded)
