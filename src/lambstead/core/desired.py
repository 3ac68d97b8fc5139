"""What should run: the stored side of a reconcile, and the numbers that profiles and settings choose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lambstead.core.capacity import CapacityProvider
from lambstead.core.concurrency import ProvisionedConcurrency
from lambstead.core.configurations import Publication
from lambstead.core.fleet import Failure, PublicationKey
from lambstead.core.functions import FunctionVersion, Reason
from lambstead.core.scaling import ScalingBounds


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
    instance_lifetime: timedelta = timedelta(days=14)
    """How old an instance of a provider grows before it is replaced by a fresh one; public sources disagree on AWS's (14 days, 12 hours)."""
    retry_first: timedelta = timedelta(seconds=1)
    retry_most: timedelta = timedelta(minutes=1)

    def bounds(self, version: FunctionVersion) -> ScalingBounds:
        """The version's bounds, or the profile's default."""
        return version.bounds or ScalingBounds(self.default_minimum)

    def may_retry(self, failure: Failure | None, now: datetime) -> bool:
        """True once the wait after so many failures in a row is over; it doubles up to `retry_most`."""
        return failure is None or now - failure.at >= self.retry_after(failure)

    def is_refused(self, failure: Failure, now: datetime) -> bool:
        """True until a type is asked for again that could not be had so many times in a row."""
        return now < failure.at + self.refused_for(failure)

    def refused_for(self, failure: Failure) -> timedelta:
        """How long another type is preferred to one that was refused: `retry_first`, then doubling."""
        return min(self.retry_first * (1 << min(failure.count - 1, 16)), self.retry_most)

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
    """Standard publications, of each tenant if they isolate tenants: invocations that run in or wait for an environment now."""
    provisioned: tuple["Provision", ...] = ()
    scaled: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Environments that scaling wants, by function and version; a version that is not named wants its minimum."""
    obstacles: Mapping[tuple[str, str], Reason] = field(default_factory=dict)
    """Why versions could not grow, as noted before."""


@dataclass(frozen=True, slots=True)
class Provision:
    """Provisioned concurrency as stored, and what it comes to now."""

    config: ProvisionedConcurrency
    shares: Mapping[str, int]
    """Environments by version; an alias may spread them over two."""


def key_of(version: FunctionVersion, publication: Publication) -> PublicationKey:
    """The key of a version's publication."""
    return PublicationKey(version.function, version.version, publication.number)
