"""EC2 instance types that managed instances may have, and the choice among them.

Families and their memory per vCPU are EC2's (C: 2 GiB, M: 4 GiB, R: 8 GiB); sizes are `.large` (2 vCPU) and up, as the Developer Guide
names for managed instances. One vCPU and 1 GiB of every instance are kept for the host (AWS's cost calculator plans so).
"""

import fnmatch
from dataclasses import dataclass
from functools import cache, lru_cache

from lambstead.core.capacity import Architecture, InstanceRequirements

HOST_VCPUS = 1
HOST_MEMORY_MB = 1024

_SIZES = {
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "4xlarge": 16,
    "8xlarge": 32,
    "12xlarge": 48,
    "16xlarge": 64,
    "24xlarge": 96,
}
_GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8}
_GENERATIONS: dict[Architecture, tuple[str, ...]] = {"x86_64": ("7i", "6i", "5"), "arm64": ("8g", "7g", "6g")}
"""Generations by architecture, the one we choose first in front."""
_COMFORTABLE_VCPUS = 4
"""Instances are launched from this size up where the provider's limit allows: a `.large` keeps half of itself for the host."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    name: str
    architecture: Architecture
    vcpus: int
    memory_mb: int

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
        InstanceType(f"{family}{generation}.{size}", architecture, vcpus, vcpus * gib * 1024)
        for architecture, generations in _GENERATIONS.items()
        for generation in generations
        for family, gib in _GIB_PER_VCPU.items()
        for size, vcpus in _SIZES.items()
    )


def unknown_patterns(requirements: InstanceRequirements) -> list[str]:
    """Allowed or excluded type patterns that match no type of the catalogue for the architecture."""
    names = [t.name for t in all_types() if t.architecture == requirements.architecture]
    return [p for p in (*requirements.allowed, *requirements.excluded) if not fnmatch.filter(names, p)]


def choose(requirements: InstanceRequirements, vcpus: float, memory_mb: int, vcpu_headroom: int) -> InstanceType | None:
    """The type to launch for an environment of this size; None if no permitted type fits or `vcpu_headroom` is too small.

    The smallest comfortable size that fits wins, then the family whose memory per vCPU wastes least, then the newest generation.
    """
    fitting = [t for t in _permitted_types(requirements) if t.fits(vcpus, memory_mb) and t.vcpus <= vcpu_headroom]
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
