"""Readings of the invoke path and of agents in, wanted environments out."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.samples import managed, provider, serving

from lambstead.control.scaling import Scaling
from lambstead.core.demand import Counts, Pace
from lambstead.core.desired import Policy, key_of
from lambstead.core.fleet import Environment, Fleet, Phase, PublicationKey, Reading
from lambstead.core.functions import FunctionVersion

START = datetime(2026, 11, 21, tzinfo=UTC)
POLICY = Policy(3, 100, timedelta(minutes=5), timedelta(minutes=5), timedelta(seconds=30))
VERSION = serving(managed(slots=16))


@dataclass
class Path:
    """An invoke path with these counts."""

    served: int = 0

    def counts(self) -> dict[PublicationKey, Counts]:
        self.served += 10
        return {key_of(VERSION, VERSION.publication): Counts(3, 0, self.served, 0)}


def fleet(version: FunctionVersion, *utilizations: float | None) -> Fleet:
    """Ready environments with these readings; None where there is none yet."""
    key, made = key_of(version, version.publication), Fleet()
    for number, utilization in enumerate(utilizations):
        reading = Reading(START, 1.0, utilization, 1 << 20) if utilization is not None else None
        blank = Environment(f"e{number}", "i", key, 16, 1.0, 2048, START, timedelta(seconds=3), Phase.READY)
        made = made.with_environment(blank).measured({blank.id: reading} if reading else {})
    return made


def test_what_was_not_measured_yet_is_not_taken_to_be_as_busy_as_the_others() -> None:
    """Else a fleet that grows would be taken to use more with every start, until the next readings."""
    scaling = Scaling(Path(), POLICY, Pace())
    there = fleet(VERSION, 0.8, 0.8, 0.8, None, None, None)
    scaling.evaluate([VERSION], {"cp": provider()}, there, START)
    (found,) = scaling.versions.values()
    assert found.track.desired == 4, "2.4 environments' worth of CPU at a target of two thirds"
    assert found.track.because == "CPU at 40% of 6 environments, target 67%"


def test_without_any_reading_slots_decide() -> None:
    scaling = Scaling(Path(), POLICY, Pace())
    scaling.evaluate([VERSION], {"cp": provider()}, fleet(VERSION, None, None, None), START)
    (found,) = scaling.versions.values()
    assert found.track.desired == 3
    assert found.track.readings[-1].cpu is None
