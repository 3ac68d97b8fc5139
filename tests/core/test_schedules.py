"""When schedules are due: rates, one-time schedules, clocks that change, flexible windows, times that were missed."""
# ruff: noqa: DTZ001 - wall times have no zone

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lambstead.core.errors import ValidationError
from lambstead.core.schedule_targets import ScheduleTarget
from lambstead.core.schedules import (
    At,
    InvalidExpression,
    Rate,
    Schedule,
    Timing,
    Upcoming,
    check_dates,
    fire,
    first_upcoming,
    parse_expression,
    window_of,
    zone_of,
)

NOW = datetime(2026, 11, 21, 10, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def timing(expression: str, timezone: str = "UTC", **members: object) -> Timing:
    return replace(Timing(expression, anchor=NOW, timezone=timezone), **members)  # type: ignore[arg-type]  # each test knows what it names


def coming(each: Timing, after: datetime, count: int) -> list[datetime]:
    found = []
    for _ in range(count):
        following = each.occurrence_after(after)
        if following is None:
            break
        found.append(following)
        after = following
    return found


# --- expressions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("rate(1 minute)", Rate(MINUTE)),
        ("rate(5 minutes)", Rate(5 * MINUTE)),
        ("rate(1 hours)", Rate(HOUR)),
        ("rate(2 days)", Rate(timedelta(days=2))),
        ("at(2026-11-21T10:00:01)", At(datetime(2026, 11, 21, 10, 0, 1))),
    ],
)
def test_expressions_are_read(text: str, parsed: object) -> None:
    assert parse_expression(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        # Recorded.
        *("cron(0 1 * * * *)", "cron(7 20 * * NOT *)", "cron(INVALID)", "cron(0 dummy ? * MON-FRI *)"),
        *("cron(71 8 1 * ? *)", "cron()", "rate(10 seconds)", "rate(10 years)", "rate()", "rate(10)"),
        *("rate(10 minutess)", "rate(foo minutes)", "rate(-10 minutes)", "rate( 10 minutes )", " rate(10 minutes)"),
        *("at(2021-12-31T23:59:59Z)", "at(2021-12-31)"),
        # Ours.
        *(
            "rate(0 minutes)",
            "at(2026-02-30T00:00:00)",
            "at(0001-01-01T00:00:00)",
            "at(2026-11-21T24:00:00)",
            "hourly",
            "rate(٥ minutes)",
        ),
    ],
)
def test_what_aws_refuses_is_refused_in_its_words_and_explained(text: str) -> None:
    with pytest.raises(InvalidExpression) as caught:
        parse_expression(text)
    assert caught.value.message == f"Invalid Schedule Expression {text}."
    assert caught.value.reason


@pytest.mark.parametrize("name", ["Mars/Olympus", "America", "../etc/passwd", "/etc/localtime", "", "\0"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="ScheduleExpressionTimezone"):
        zone_of(name)


# --- rates and one-time schedules ----------------------------------------------------------------------------------------------


def test_a_rate_without_a_start_date_begins_at_once() -> None:
    assert first_upcoming(timing("rate(5 minutes)"), NOW, 0) == Upcoming(NOW, NOW)
    assert coming(timing("rate(5 minutes)"), NOW, 2) == [NOW + 5 * MINUTE, NOW + 10 * MINUTE]


def test_a_rate_with_a_start_date_begins_there_and_ends_at_its_end_date() -> None:
    each = timing("rate(1 hour)", start=NOW + HOUR, end=NOW + 3 * HOUR)
    assert first_upcoming(each, NOW, 0) == Upcoming(NOW + HOUR, NOW + HOUR)
    assert coming(each, NOW, 9) == [NOW + HOUR, NOW + 2 * HOUR, NOW + 3 * HOUR]


def test_a_day_of_a_rate_is_24_hours_whatever_clocks_do() -> None:
    each = timing("rate(1 day)", "Europe/Berlin", start=utc("2026-03-28T12:00"))
    assert coming(each, utc("2026-03-28T12:00"), 1) == [utc("2026-03-29T12:00")]


def test_a_one_time_schedule_is_read_in_its_zone_and_knows_no_dates() -> None:
    each = timing("at(2026-12-01T09:00:00)", "America/New_York", start=NOW + timedelta(days=90), end=NOW)
    assert coming(each, NOW, 2) == [utc("2026-12-01T14:00")]


def test_a_one_time_schedule_may_lie_in_the_minute_that_passes_but_not_before() -> None:
    assert first_upcoming(timing("at(2026-11-21T10:00:00)"), NOW, 0) is not None
    assert first_upcoming(timing("at(2026-11-21T09:59:29)"), NOW, 0) is None


def test_dates_that_no_schedule_can_have_are_refused() -> None:
    cron = parse_expression("cron(0 0 * * ? *)")
    with pytest.raises(ValidationError, match="The StartDate you specify cannot be earlier than 5 minutes ago"):
        check_dates(cron, NOW - 5 * MINUTE - timedelta(seconds=1), None, NOW)
    with pytest.raises(ValidationError, match="EndDate"):
        check_dates(cron, None, NOW - timedelta(seconds=1), NOW)
    with pytest.raises(ValidationError, match="earlier than the StartDate"):
        check_dates(cron, NOW + HOUR, NOW + MINUTE, NOW)
    check_dates(cron, NOW - 5 * MINUTE, NOW + HOUR, NOW)
    check_dates(parse_expression("at(2026-12-01T09:00:00)"), NOW - HOUR, NOW - HOUR, NOW)


# --- clocks that change --------------------------------------------------------------------------------------------------------


def test_a_time_that_the_clocks_skip_in_spring_is_skipped() -> None:
    each = timing("cron(30 2 * * ? *)", "America/New_York")
    assert coming(each, utc("2026-03-07T12:00"), 2) == [utc("2026-03-09T06:30"), utc("2026-03-10T06:30")]


def test_a_time_that_comes_twice_in_autumn_is_run_once() -> None:
    each = timing("cron(30 1 * * ? *)", "America/New_York")
    assert coming(each, utc("2026-11-01T00:00"), 2) == [utc("2026-11-01T05:30"), utc("2026-11-02T06:30")]
    assert coming(each, utc("2026-11-01T05:45"), 1) == [utc("2026-11-02T06:30")], "the second half past one"


def test_a_cron_of_minutes_pauses_for_the_hour_that_comes_twice() -> None:
    each = timing("cron(0/30 * * * ? *)", "Europe/Berlin")
    assert coming(each, utc("2026-10-24T23:59"), 4) == [
        *(utc("2026-10-25T00:00"), utc("2026-10-25T00:30")),  # two o'clock in summer time
        *(utc("2026-10-25T02:00"), utc("2026-10-25T02:30")),  # three o'clock in winter time
    ]


def test_a_whole_day_that_a_zone_skipped_has_no_times() -> None:
    each = timing("cron(0 12 * * ? *)", "Pacific/Apia")
    assert coming(each, utc("2011-12-29T00:00"), 2) == [utc("2011-12-29T22:00"), utc("2011-12-30T22:00")]


def test_a_one_time_schedule_at_a_skipped_time_runs_an_hour_later_on_the_clock() -> None:
    each = timing("at(2026-03-08T02:30:00)", "America/New_York")
    (found,) = coming(each, utc("2026-03-08T00:00"), 2)
    assert found.astimezone(ZoneInfo("America/New_York")).isoformat() == "2026-03-08T03:30:00-04:00"


ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
)
CRONS = st.sampled_from(
    ["cron(0/20 * * * ? *)", "cron(30 2 * * ? *)", "cron(15 1-3 ? * SUN *)", "cron(0 0 L * ? *)", "cron(59 23 1 1 ? *)"]
)
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31)).map(lambda each: each.replace(tzinfo=UTC))


@given(CRONS, ZONES, MOMENTS)
def test_times_increase_match_the_wall_clock_and_never_repeat_one(expression: str, zone: str, after: datetime) -> None:
    each = timing(expression, zone)
    found = coming(each, after, 30)
    assert found == sorted(set(found))
    walls = [moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for moment in found]
    assert len(set(walls)) == len(walls), "a wall time was run twice"
    for earlier, later in itertools.pairwise([after, *found]):
        assert each.occurrence_from(later) == later
        assert each.occurrence_after(earlier) == later


@settings(max_examples=25)
@given(CRONS, ZONES, MOMENTS)
def test_every_minute_of_a_day_and_more_agrees(expression: str, zone: str, after: datetime) -> None:
    """A search over real minutes: those whose wall time the expression has, the first time that the clock shows it."""
    each, there = timing(expression, zone), ZoneInfo(zone)
    start = after.replace(second=0, microsecond=0) + MINUTE
    cron = parse_expression(expression)
    assert not isinstance(cron, At | Rate)
    expected = []
    for step in range(30 * 60):
        moment = start + step * MINUTE
        local = moment.astimezone(there)
        wall = local.replace(tzinfo=None, fold=0)
        if cron.next_after(wall - MINUTE) == wall and local.fold == 0:
            expected.append(moment)
    found = [moment for moment in coming(each, after, 200) if moment < start + 30 * HOUR]
    assert found == expected


# --- windows and missed times --------------------------------------------------------------------------------------------------


@given(
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 1440),
    st.sampled_from(["rate(7 minutes)", "cron(0/10 * * * ? *)", "at(2026-11-21T12:00:00)"]),
)
def test_a_flexible_window_ends_before_the_following_time(draw: float, minutes: int, expression: str) -> None:
    each = timing(expression, window=timedelta(minutes=minutes))
    upcoming = first_upcoming(each, NOW, draw)
    assert upcoming is not None
    assert upcoming.scheduled_at <= upcoming.due <= upcoming.scheduled_at + timedelta(minutes=minutes)
    following = each.occurrence_after(upcoming.scheduled_at)
    assert following is None or upcoming.due <= following


def test_windows_need_their_minutes() -> None:
    assert window_of("FLEXIBLE", 15) == timedelta(minutes=15)
    assert window_of("OFF", None) is None
    for mode, minutes in (("FLEXIBLE", None), ("OFF", 15)):
        with pytest.raises(ValidationError, match="MaximumWindowInMinutes"):
            window_of(mode, minutes)


def test_a_schedule_in_time_fires_for_its_time_and_goes_on() -> None:
    each = timing("rate(1 minute)")
    firing = fire(each, Upcoming(NOW, NOW), NOW + timedelta(seconds=59), 0)
    assert (firing.scheduled_at, firing.since) == (NOW, NOW)
    assert firing.upcoming == Upcoming(NOW + MINUTE, NOW + MINUTE)


def test_times_that_were_missed_are_one_firing_for_the_latest() -> None:
    each = timing("rate(10 minutes)")
    firing = fire(each, Upcoming(NOW, NOW), NOW + timedelta(minutes=35), 0)
    assert firing.scheduled_at == firing.since == NOW + 30 * MINUTE
    assert firing.upcoming == Upcoming(NOW + 40 * MINUTE, NOW + 40 * MINUTE)


def test_a_missed_one_time_schedule_fires_late_and_is_over() -> None:
    each, at = timing("at(2026-11-21T11:00:00)"), utc("2026-11-21T11:00")
    firing = fire(each, Upcoming(at, at), at + timedelta(days=3), 0)
    assert (firing.scheduled_at, firing.upcoming) == (at, None)


@given(
    st.sampled_from(["rate(1 minute)", "rate(3 hours)", "cron(0/7 * * * ? *)", "cron(0 4 ? * MON *)"]),
    st.timedeltas(timedelta(0), timedelta(days=40)),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.none(), st.integers(1, 90)),
)
def test_a_late_firing_is_for_the_last_time_before_now_and_the_next_lies_ahead(
    expression: str, late: timedelta, draw: float, window: int | None
) -> None:
    each = timing(expression, window=None if window is None else timedelta(minutes=window))
    upcoming = first_upcoming(each, NOW, draw)
    assert upcoming is not None
    now = upcoming.due + late
    assume(late > MINUTE)
    firing = fire(each, upcoming, now, draw)
    assert upcoming.scheduled_at <= firing.scheduled_at <= now
    following = each.occurrence_after(firing.scheduled_at)
    assert following is not None
    assert following > now
    assert firing.upcoming is not None
    assert firing.upcoming.scheduled_at == following


@given(
    st.sampled_from(["rate(2 minutes)", "cron(* * * * ? *)"]), st.lists(st.integers(0, 900), max_size=12), st.randoms()
)
def test_no_time_is_fired_twice_however_late_the_loop_is(expression: str, delays: list[int], random: object) -> None:
    each = timing(expression, window=timedelta(minutes=1))
    upcoming, seen = first_upcoming(each, NOW, 0.5), []
    for delay in delays:
        assert upcoming is not None
        firing = fire(each, upcoming, upcoming.due + timedelta(seconds=delay), 0.5)
        seen.append(firing.scheduled_at)
        upcoming = firing.upcoming
    assert seen == sorted(set(seen))


# --- updates --------------------------------------------------------------------------------------------------------------------


def schedule(expression: str, now: datetime = NOW, **members: object) -> Schedule:
    target = ScheduleTarget("arn:aws:lambda:us-east-1:000000000000:function:f", "arn:aws:iam::000000000000:role/r")
    made = Schedule("default", "s", "arn", Timing(expression, anchor=now), target, now, now)
    return replace(made, **members)  # type: ignore[arg-type]  # each test knows what it names


def test_an_update_that_leaves_the_timing_alone_leaves_the_coming_time_alone() -> None:
    former = schedule("rate(1 hour)", upcoming=Upcoming(NOW, NOW + 7 * MINUTE))
    updated = schedule("rate(1 hour)", NOW + 5 * MINUTE, description="new").replacing(former, 0)
    assert updated.upcoming == former.upcoming
    assert (updated.created_at, updated.modified_at) == (NOW, NOW + 5 * MINUTE)


def test_an_enabled_rate_goes_on_in_its_steps_and_a_new_rate_begins_at_once() -> None:
    later = NOW + 5 * MINUTE
    disabled = schedule("rate(1 hour)", is_enabled=False)
    assert schedule("rate(1 hour)", later).replacing(disabled, 0).upcoming == Upcoming(NOW + HOUR, NOW + HOUR)
    assert schedule("rate(2 hours)", later).replacing(disabled, 0).upcoming == Upcoming(later, later)
    assert schedule("rate(2 hours)", later, is_enabled=False).replacing(disabled, 0).upcoming is None
