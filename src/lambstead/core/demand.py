"""How many environments the load of a version wants: target tracking on slots and on CPU, out at once and in slowly.

    readings ─► demand ─► environments wanted ─► out: at once · in: never below the most wanted lately, a step at a time ─► desired

AWS says what comes of it, not how: 50 % more load is absorbed at once, traffic that doubles within five minutes is served without throttles, and
scaling in is gradual (reference on managed instances, §6). The numbers that bring this about are in `Pace`; decision 0026 gives the reasoning.
All of it is per version, as `FunctionScalingConfig` is. A decision is a value: the same readings give the same decision, live and in the simulator.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lambstead.core.capacity import ProviderScaling
from lambstead.core.scaling import ScalingBounds

CPU_METRIC = "LambdaCapacityProviderAverageCPUUtilization"
CPU_SATURATED = 0.95
"""Mean utilisation from which a throttle is put down to CPU: more slots would not have helped."""


class ThrottleCause(enum.StrEnum):
    """What was missing when an invocation was refused; the names are those of AWS's metrics (`ConcurrencyThrottles`, `CPUThrottles`)."""

    CONCURRENCY = "Concurrency"
    CPU = "CPU"


@dataclass(frozen=True, slots=True)
class Pace:
    """Constants of scaling that AWS does not publish; decision 0026 says why they are what they are."""

    headroom: float = 0.5
    """Share of the present load that the environments can take beyond it: AWS's "50 % at once". It fixes the target of both signals."""
    evaluation: timedelta = timedelta(seconds=5)
    """How often readings are taken and decided on."""
    average_over: timedelta = timedelta(seconds=15)
    """Demand is averaged over so long, unless invocations are waiting or refused: then the latest reading counts."""
    remember: timedelta = timedelta(minutes=5)
    """Scaling in goes no further than what was wanted at most in so long."""
    scale_in_pause: timedelta = timedelta(minutes=1)
    """Between two steps in."""
    scale_in_share: float = 0.25
    """Of the environments that may go in one step; one at least."""
    growth: float = 2.0
    """Times the environments that are ready now, beyond which no decision goes: a burst can ask for more than it needs."""

    @property
    def target(self) -> float:
        """Utilisation of slots, and of CPU in Auto mode, that scaling aims at."""
        return 1 / (1 + self.headroom)

    def faster(self, scale: float) -> "Pace":
        """The same pace with all its times divided by `scale`."""
        return replace(
            self,
            evaluation=self.evaluation / scale,
            average_over=self.average_over / scale,
            remember=self.remember / scale,
            scale_in_pause=self.scale_in_pause / scale,
        )


def cpu_target(scaling: ProviderScaling, pace: Pace) -> float:
    """Utilisation of CPU to aim at: of the provider's policy in Manual mode, else our own."""
    for policy in scaling.policies if scaling.mode == "Manual" else ():
        if policy.get("PredefinedMetricType") == CPU_METRIC:
            # A target of 0 % would want infinitely many; 1 % is what the most careful operator can mean.
            return max(float(policy["TargetValue"]), 1.0) / 100
    return pace.target


@dataclass(frozen=True, slots=True)
class Counts:
    """What the invoke path has counted for one publication since it began, and how it stands now."""

    in_use: int
    waiting: int
    served: int
    """Invocations that were given a slot."""
    throttled: int
    """Invocations that were refused for want of a slot."""

    def since(self, before: "Counts | None") -> "Counts":
        """The same with the counters counting from `before`; all of it if the counters began anew since."""
        if before is None or before.served > self.served or before.throttled > self.throttled:
            return self
        return replace(self, served=self.served - before.served, throttled=self.throttled - before.throttled)


@dataclass(frozen=True, slots=True)
class LoadReading:
    """What one version did since the reading before, and how it stands now."""

    at: datetime
    ready: int
    """Environments that take invocations."""
    in_use: float
    """Slots."""
    served: float
    """Invocations that were given a slot since the reading before."""
    arrived: float
    """Invocations that were served or refused since then, or have joined those who wait."""
    cpu: float | None
    """Mean utilisation of the ready environments, 0 to 1; None where nobody measures it."""

    @property
    def is_short(self) -> bool:
        """True if more arrived than could be served."""
        return self.arrived > self.served

    @property
    def pressure(self) -> float:
        """What arrived per what was served: by so much more the environments would be used if there were enough of them (Little's law)."""
        return self.arrived / self.served if self.is_short and self.served else 1.0

    @property
    def demand(self) -> float:
        """Slots that would be in use if nobody had to wait."""
        unserved = self.arrived if self.served == 0 and self.is_short else 0.0
        return self.in_use * self.pressure + unserved

    @property
    def cpu_demand(self) -> float:
        """Environments' worth of CPU that would be in use if nobody had to wait; none while nothing is invoked: that CPU is their start's."""
        if not self.served and not self.in_use:
            return 0.0
        return (self.cpu or 0.0) * self.ready * self.pressure


@dataclass(frozen=True, slots=True)
class Track:
    """What scaling remembers of one version."""

    desired: int
    readings: tuple[LoadReading, ...] = ()
    """Those that are averaged over."""
    wanted: tuple[tuple[datetime, int], ...] = ()
    """What was wanted lately, falling: an entry that a later, higher one made irrelevant is not kept."""
    changed_at: datetime | None = None
    because: str = "the minimum"


@dataclass(frozen=True, slots=True)
class Tracking:
    """What scaling tracks for one version: its size, its limits and its targets."""

    slots: int
    """Per environment."""
    bounds: ScalingBounds
    cpu_target: float
    pace: Pace


def track(before: Track | None, reading: LoadReading, tracking: Tracking) -> Track:
    """The track after a reading; `desired` is what the version shall have from now on, `because` why it last changed."""
    pace, bounds, now = tracking.pace, tracking.bounds, reading.at
    known = before or Track(bounds.minimum)
    readings = (*(r for r in known.readings if now - r.at < pace.average_over), reading)
    wanted, because = _wanted(readings, tracking)
    # The first of what is left is the most that was wanted lately: lower ones before a higher one do not matter any more.
    lately = (*((at, n) for at, n in known.wanted if now - at < pace.remember and n > wanted), (now, wanted))
    desired, after = known.desired, replace(known, readings=readings, wanted=lately)
    if desired != bounds.clamp(desired):
        desired = bounds.clamp(desired)
        after = replace(after, desired=desired, changed_at=now, because="the version's scaling config")
    if wanted > desired:
        return replace(after, desired=wanted, changed_at=now, because=because)
    most = lately[0][1]
    is_time = known.changed_at is None or now - known.changed_at >= pace.scale_in_pause
    if most < desired and is_time:
        step = max(1, int(desired * pace.scale_in_share))
        fewer = max(most, desired - step)
        return replace(
            after,
            desired=fewer,
            changed_at=now,
            because=f"no more than {most} were wanted for {_text(pace.remember)}",
        )
    return after


def _wanted(readings: tuple[LoadReading, ...], tracking: Tracking) -> tuple[int, str]:
    """Environments that the load wants now, and why."""
    latest = readings[-1]
    counted = (latest,) if latest.is_short else readings
    demand = sum(r.demand for r in counted) / len(counted)
    cpu_demand = sum(r.cpu_demand for r in counted) / len(counted)
    pace = tracking.pace
    by_slots, by_cpu = _ceil(demand / (tracking.slots * pace.target)), _ceil(cpu_demand / tracking.cpu_target)
    most = int(pace.growth * max(latest.ready, tracking.bounds.minimum))
    wanted = tracking.bounds.clamp(min(max(by_slots, by_cpu), most))
    lacking = "; more arrives than is served" if latest.is_short else ""
    if by_cpu > by_slots:
        share = cpu_demand / max(1, latest.ready)
        return wanted, f"CPU at {share:.0%} of {latest.ready} environments, target {tracking.cpu_target:.0%}{lacking}"
    there = latest.ready * tracking.slots
    return wanted, f"{demand:.3g} of {there} slots wanted at once, target {pace.target:.0%}{lacking}"


def throttle_cause(cpu: float | None) -> ThrottleCause:
    """What an invocation lacked that found no slot, by the mean CPU utilisation of the environments that it could have had."""
    return ThrottleCause.CPU if cpu is not None and cpu >= CPU_SATURATED else ThrottleCause.CONCURRENCY


def mean_cpu(utilizations: Sequence[float]) -> float | None:
    """The mean over environments whose CPU is measured; None if there is none."""
    return sum(utilizations) / len(utilizations) if utilizations else None


def _ceil(environments: float) -> int:
    """Rounded up, but not for a rounding error."""
    return math.ceil(environments - 1e-9)


def _text(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
