"""How load becomes a number of environments."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.capacity import ProviderScaling
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
from lambstead.core.scaling import ScalingBounds

START = datetime(2026, 11, 21, 10, tzinfo=UTC)
PACE = Pace()
TEN_SLOTS = Tracking(10, ScalingBounds(3, 50), PACE.target, PACE)


def reading(second: float = 0, ready: int = 3, in_use: float = 0, **members: Any) -> LoadReading:
    """A reading without anybody waiting or refused, unless the members say otherwise."""
    blank = LoadReading(START + timedelta(seconds=second), ready, in_use, served=100, arrived=100, cpu=None)
    return replace(blank, **members)


def fed(*readings: LoadReading, tracking: Tracking = TEN_SLOTS) -> Track:
    found: Track | None = None
    for each in readings:
        found = track(found, each, tracking)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("load", "desired"),
    [
        pytest.param(reading(), 3, id="nothing-to-do-is-the-minimum"),
        pytest.param(reading(in_use=20), 3, id="two-thirds-are-the-target"),
        pytest.param(reading(in_use=20.1), 4, id="a-little-above-it-is-one-more"),
        pytest.param(reading(in_use=30), 5, id="all-in-use-is-half-as-many-again"),
        pytest.param(reading(in_use=30, arrived=150), 6, id="no-more-than-twice-what-is-ready"),
        pytest.param(reading(in_use=20, ready=10, arrived=150), 5, id="who-was-refused-counts"),
        pytest.param(reading(in_use=16, ready=10, served=0, arrived=14), 5, id="who-waits-for-long-ones-counts"),
        pytest.param(reading(cpu=2 / 3), 3, id="cpu-at-its-target"),
        pytest.param(reading(cpu=0.9), 5, id="cpu-above-it"),
        pytest.param(reading(in_use=28, cpu=0.7), 5, id="the-hungrier-of-the-two-decides"),
        pytest.param(reading(in_use=1000, ready=40), 50, id="the-maximum-holds"),
    ],
)
def test_demand_over_target_is_what_is_wanted(load: LoadReading, desired: int) -> None:
    assert fed(load).desired == desired


def test_half_as_much_again_fits_at_once_whatever_the_load() -> None:
    for in_use in (7, 21, 50, 133, 300):
        settled = fed(reading(in_use=in_use, ready=50), tracking=replace(TEN_SLOTS, bounds=ScalingBounds(1)))
        assert settled.desired * 10 >= in_use * 1.5


def test_demand_is_averaged_unless_somebody_waits() -> None:
    calm = [reading(second, in_use=10) for second in (0, 5, 10)]
    assert fed(*calm, reading(14, in_use=30)).desired == 3, "one reading of four makes a mean of 15"
    assert fed(*calm, reading(14, in_use=30, arrived=101)).desired == 5


def test_scaling_in_waits_five_minutes_and_goes_in_steps() -> None:
    peak = fed(reading(in_use=100, ready=15))
    assert peak.desired == 15
    counts: list[int] = []
    found = peak
    for second in range(5, 900, 5):
        found = track(found, reading(second, ready=found.desired), TEN_SLOTS)
        counts.append(found.desired)
    steps = [
        (second, after)
        for second, before, after in zip(range(10, 900, 5), counts, counts[1:], strict=False)
        if before != after
    ]
    assert steps == [(300, 12), (360, 9), (420, 7), (480, 6), (540, 5), (600, 4), (660, 3)]
    assert found.because == "no more than 3 were wanted for 5 min"


def test_a_second_peak_within_five_minutes_starts_the_wait_anew() -> None:
    found = fed(reading(in_use=100, ready=15), reading(200, in_use=60, ready=15))
    for second in range(205, 499, 5):
        found = track(found, reading(second, ready=15), TEN_SLOTS)
    assert found.desired in (9, 12), "the first peak is forgotten, the second is not"
    assert found.wanted[0][1] == 9


def test_new_bounds_hold_at_once() -> None:
    found = fed(reading(in_use=100, ready=15))
    lower = track(found, reading(5, in_use=100, ready=15), replace(TEN_SLOTS, bounds=ScalingBounds(2, 4)))
    assert (lower.desired, lower.because) == (4, "the version's scaling config")
    raised = track(lower, reading(10, ready=4), replace(TEN_SLOTS, bounds=ScalingBounds(20)))
    assert raised.desired == 20


@pytest.mark.parametrize(
    ("scaling", "target"),
    [
        (ProviderScaling(), PACE.target),
        (ProviderScaling(mode="Manual"), PACE.target),
        *(
            (
                ProviderScaling(
                    mode="Manual",
                    policies=(
                        {"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": value},
                    ),
                ),
                target,
            )
            for value, target in ((70.0, 0.7), (0.0, 0.01), (100.0, 1.0))
        ),
    ],
)
def test_the_cpu_target_is_the_policys_in_manual_mode(scaling: ProviderScaling, target: float) -> None:
    assert cpu_target(scaling, PACE) == target


def test_the_reason_names_the_signal_its_target_and_who_had_to_wait() -> None:
    assert fed(reading(in_use=30)).because == "30 of 30 slots wanted at once, target 67%"
    assert fed(reading(cpu=0.9)).because == "CPU at 90% of 3 environments, target 67%"
    assert fed(reading(in_use=30, arrived=120)).because.endswith("; more arrives than is served")


@pytest.mark.parametrize(
    ("cpu", "cause"),
    [(None, ThrottleCause.CONCURRENCY), (0.94, ThrottleCause.CONCURRENCY), (0.95, ThrottleCause.CPU)],
)
def test_a_throttle_is_put_down_to_what_was_missing(cpu: float | None, cause: ThrottleCause) -> None:
    assert throttle_cause(cpu) is cause


def test_cpu_is_the_mean_of_what_is_measured() -> None:
    assert mean_cpu([0.5, 1.0]) == 0.75
    assert mean_cpu([]) is None


def test_cpu_of_environments_that_nobody_invokes_is_no_load() -> None:
    """What they use is their start; otherwise each start would call for the next."""
    assert fed(reading(cpu=1.0, served=0, arrived=0)).desired == 3
    assert fed(reading(cpu=1.0, served=0, arrived=0, in_use=1)).desired == 5


def test_counters_that_began_anew_count_from_there() -> None:
    before = Counts(1, 2, served=100, throttled=5)
    assert Counts(3, 4, served=110, throttled=6).since(before) == Counts(3, 4, served=10, throttled=1)
    assert Counts(0, 0, served=7, throttled=0).since(before) == Counts(0, 0, served=7, throttled=0)
    assert before.since(None) == before


def test_a_faster_pace_changes_times_and_nothing_else() -> None:
    fast = PACE.faster(60)
    assert fast.remember == timedelta(seconds=5)
    assert (fast.target, fast.growth, fast.scale_in_share) == (PACE.target, PACE.growth, PACE.scale_in_share)


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 900), st.integers(0, 500), st.floats(0, 1)), max_size=80))
def test_the_count_stays_in_its_bounds_and_falls_by_no_more_than_a_quarter(
    loads: list[tuple[int, float, int, float]],
) -> None:
    second = 0
    found: Track | None = None
    for pause, in_use, refused, cpu in loads:
        second += pause
        before = found
        load = reading(second, ready=before.desired if before else 3, in_use=in_use, arrived=100 + refused, cpu=cpu)
        found = track(before, load, TEN_SLOTS)
        assert 3 <= found.desired <= 50
        most = max((n for _, n in found.wanted), default=3)
        assert found.wanted[0][1] == most, "what is kept falls"
        assert found.desired >= most
        if before is not None and found.desired < before.desired:
            assert before.desired - found.desired <= max(1, before.desired // 4)
