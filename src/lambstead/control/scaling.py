"""Readings of the invoke path in, wanted environments out: the scaling of every managed version, evaluated at the pace of `core.demand`.

It belongs to the provisioning loop, which asks it in every round; between evaluations it answers what it decided last. After a restart it knows
nothing: versions begin with their minimum and grow with the next readings.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from lambstead.core.capacity import CapacityProvider
from lambstead.core.demand import (
    Counts,
    LoadReading,
    Pace,
    ThrottleCause,
    Track,
    Tracking,
    cpu_target,
    mean_cpu,
    throttle_cause,
    track,
)
from lambstead.core.desired import Policy
from lambstead.core.fleet import Environment, Fleet, PublicationKey
from lambstead.core.functions import FunctionVersion, State

VersionName = tuple[str, str]
"""Function and version."""


class Meter(Protocol):
    """The invoke path as scaling sees it."""

    def counts(self) -> dict[PublicationKey, Counts]: ...


@dataclass(frozen=True, slots=True)
class VersionScaling:
    """How the scaling of a version stands: what `status` shows of it."""

    track: Track
    throttled: Mapping[ThrottleCause, int]
    """Invocations refused since the server started, by what was missing."""


class Scaling:
    """See the module."""

    def __init__(self, meter: Meter, policy: Policy, pace: Pace) -> None:
        self._meter = meter
        self._policy = policy
        self._pace = pace
        self._before: dict[PublicationKey, Counts] = {}
        self._evaluated: datetime | None = None
        self._is_needed = False
        self.versions: dict[VersionName, VersionScaling] = {}

    @property
    def wanted(self) -> dict[VersionName, int]:
        """Environments by version, as decided last."""
        return {name: scaling.track.desired for name, scaling in self.versions.items()}

    def next_evaluation(self, now: datetime) -> timedelta | None:
        """How long until readings are due again; None while nothing runs that could be scaled."""
        if self._evaluated is None or not self._is_needed:
            return None
        return max(timedelta(0), self._evaluated + self._pace.evaluation - now)

    def evaluate(
        self,
        versions: Iterable[FunctionVersion],
        providers: Mapping[str, CapacityProvider],
        fleet: Fleet,
        now: datetime,
    ) -> list[tuple[VersionName, Track]]:
        """Take readings and decide, if it is time; the versions whose number of environments changed."""
        serving = [v for v in versions if v.is_managed and v.serving is not None and v.state is State.ACTIVE]
        self._is_needed = bool(serving)
        if self._evaluated is not None and now - self._evaluated < self._pace.evaluation:
            return []
        self._evaluated = now
        counts = self._meter.counts()
        by_version = dict[VersionName, dict[PublicationKey, Counts]]()
        for key, count in counts.items():
            by_version.setdefault((key.function, key.version), {})[key] = count
        environments = _by_version(fleet)
        changed = []
        after: dict[VersionName, VersionScaling] = {}
        for version in serving:
            name = (version.function, version.version)
            before = self.versions.get(name)
            of_version = by_version.get(name, {})
            after[name] = self._next(version, before, of_version, providers, environments.get(name, []), now)
            if before is not None and after[name].track.desired != before.track.desired:
                changed.append((name, after[name].track))
        self.versions, self._before = after, counts
        return changed

    def _next(
        self,
        version: FunctionVersion,
        before: VersionScaling | None,
        counts: Mapping[PublicationKey, Counts],
        providers: Mapping[str, CapacityProvider],
        environments: list[Environment],
        now: datetime,
    ) -> VersionScaling:
        configuration = version.configuration
        assert configuration.managed is not None
        # Only of the publication that serves: those of its successor do nothing yet, and would pull the mean down.
        serving = version.serving
        ready = [e for e in environments if serving and e.key.number == serving.number and e.is_ready and e.is_whole]
        measured = [e.reading.cpu_utilization for e in ready if e.reading is not None]
        cpu = mean_cpu(measured)
        # What became ready since the latest readings has nothing of the load that they show.
        shared = cpu * len(measured) / len(ready) if cpu is not None else None
        reading, throttled = self._reading(counts, len(ready), shared, now)
        causes = Counter(before.throttled if before else {})
        if throttled:
            causes[throttle_cause(cpu)] += throttled
        tracking = Tracking(
            configuration.slots_per_environment,
            self._policy.bounds(version),
            cpu_target(providers[configuration.managed.provider].scaling, self._pace),
            self._pace,
        )
        return VersionScaling(track(before.track if before else None, reading, tracking), causes)

    def _reading(
        self,
        counts: Mapping[PublicationKey, Counts],
        ready: int,
        cpu: float | None,
        now: datetime,
    ) -> tuple[LoadReading, int]:
        """The reading of a version from the `counts` of all its publications, and how many of its invocations were refused since the last one."""
        in_use = served = throttled = joined = 0
        for key, count in counts.items():
            known = self._before.get(key)
            new = count.since(known)
            in_use, served, throttled = in_use + count.in_use, served + new.served, throttled + new.throttled
            joined += count.waiting - (known.waiting if known else 0)
        arrived = served + throttled + max(0, joined)
        return LoadReading(now, ready, in_use, served, arrived, cpu), throttled


def _by_version(fleet: Fleet) -> dict[VersionName, list[Environment]]:
    found: dict[VersionName, list[Environment]] = {}
    for environment in fleet.environments.values():
        found.setdefault((environment.key.function, environment.key.version), []).append(environment)
    return found
