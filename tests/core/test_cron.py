"""Cron expressions: what AWS's user guide shows, and a search that knows nothing of ours as the judge of everything else."""
# ruff: noqa: DTZ001 - wall times have no zone

import calendar
import contextlib
import itertools
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.cron import Cron, InvalidCron


def coming(text: str, wall: str, count: int = 3) -> list[str]:
    cron, found, moment = Cron.parse(text), [], datetime.fromisoformat(wall)
    for _ in range(count):
        following = cron.next_after(moment)
        if following is None:
            break
        found.append(following.isoformat(" ", "minutes"))
        moment = following
    return found


@pytest.mark.parametrize(
    ("text", "wall", "expected"),
    [
        # The examples of AWS's pages.
        ("0 10 * * ? *", "2022-11-01T10:00", ["2022-11-02 10:00", "2022-11-03 10:00"]),
        ("15 12 * * ? *", "2022-11-01", ["2022-11-01 12:15", "2022-11-02 12:15"]),
        ("0 18 ? * MON-FRI *", "2022-11-04T18:00", ["2022-11-07 18:00", "2022-11-08 18:00"]),
        ("0 8 1 * ? *", "2022-11-01T08:00", ["2022-12-01 08:00", "2023-01-01 08:00"]),
        ("0/15 * * * ? *", "2022-11-01T10:50", ["2022-11-01 11:00", "2022-11-01 11:15"]),
        ("0/10 * ? * MON-FRI *", "2022-11-04T23:50", ["2022-11-07 00:00", "2022-11-07 00:10"]),
        ("0/5 8-17 ? * MON-FRI *", "2022-11-04T17:52", ["2022-11-04 17:55", "2022-11-07 08:00"]),
        ("15 10 ? * 6L 2022-2023", "2022-11-25T10:15", ["2022-12-30 10:15", "2023-01-27 10:15"]),
        # Users' expressions that AWS takes.
        ("0-15/1 8-8 ? * 2,3,4,5,6,7 *", "2025-12-27T08:15", ["2025-12-29 08:00", "2025-12-29 08:01"]),
        ("1-31/30 1-1 ? * 1,7 *", "2025-12-29", ["2026-01-03 01:01", "2026-01-03 01:31"]),
        # Every character of the day fields.
        ("0 0 L * ? *", "2024-02-01", ["2024-02-29 00:00", "2024-03-31 00:00"]),
        ("0 0 LW * ? *", "2024-02-29T00:00", ["2024-03-29 00:00", "2024-04-30 00:00"]),
        ("0 0 1W 6 ? *", "2024-01-01", ["2024-06-03 00:00", "2025-06-02 00:00"]),  # 1 June 2024 is a Saturday
        ("0 0 30W 6 ? *", "2024-01-01", ["2024-06-28 00:00", "2025-06-30 00:00"]),  # 30 June 2024 is a Sunday
        ("0 0 31W * ? *", "2026-01-31", ["2026-03-31 00:00", "2026-05-29 00:00"]),
        ("0 0 15W * ? *", "2026-08-01", ["2026-08-14 00:00", "2026-09-15 00:00"]),
        ("0 0 1,L * ? *", "2026-02-01", ["2026-02-28 00:00", "2026-03-01 00:00"]),
        ("0 0 ? * L *", "2026-11-21", ["2026-11-28 00:00", "2026-12-05 00:00"]),
        ("0 0 ? * 3#2 *", "2026-11-01", ["2026-11-10 00:00", "2026-12-08 00:00"]),
        ("0 0 ? * FRI#5 *", "2026-01-30", ["2026-05-29 00:00", "2026-07-31 00:00"]),
        ("0 0 ? jan,DEC sun *", "2026-12-26", ["2026-12-27 00:00", "2027-01-03 00:00"]),
        ("0 0 29 2 ? *", "2096-02-29", ["2104-02-29 00:00", "2108-02-29 00:00"]),
        ("0 0 31 2 ? *", "2026-01-01", []),
        ("30 12 1 1 ? 2030", "2026-01-01", ["2030-01-01 12:30"]),
        ("30 12 1 1 ? 2030", "2030-01-01T12:30", []),
        ("59 23 31 12 ? 2199", "2199-12-31T23:58", ["2199-12-31 23:59"]),
        ("* * * * ? *", "2199-12-31T23:59", []),
        ("* * * * ? *", "9999-12-31T23:59", []),
    ],
)
def test_the_coming_times_of_an_expression(text: str, wall: str, expected: list[str]) -> None:
    assert coming(text, wall, 2) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 fields"),
        ("0 10 * * ?", "5 fields"),
        ("0 1 * * * *", "exactly one"),
        ("7 20 * * NOT *", "exactly one"),
        ("0 0 ? * ? *", "exactly one"),
        ("71 8 1 * ? *", "71 is no value of minutes"),
        ("0 24 1 * ? *", "24 is no value of hours"),
        ("0 dummy ? * MON-FRI *", "DUMMY is no value of hours"),
        ("0 0 0 * ? *", "day-of-month"),
        ("0 0 1 13 ? *", "month"),
        ("0 0 ? * 8 *", "day-of-week"),
        ("0 0 ? * 0 *", "day-of-week"),
        ("0 0 1 * ? 1969", "year"),
        ("0 0 1 * ? 2200", "year"),
        ("0/0 0 1 * ? *", "no step of minutes"),
        ("0/60 0 1 * ? *", "no step of minutes"),
        ("5-1 0 1 * ? *", "runs backwards"),
        ("1, 0 1 * ? *", "nothing is no value"),
        ("-1 0 1 * ? *", "nothing is no value"),
        ("? 0 1 * ? *", "? is no value of minutes"),
        ("0 0 ? * 3#6 *", "1 to 5"),
        ("0 0 ? * 3#1,6#3 *", "one weekday"),
        ("0 0 ? * 9#1 *", "9 is no value"),
        ("0 0 32W * ? *", "32 is no value"),
        ("٣ 0 1 * ? *", "is no value of minutes"),
        ("1e1 0 1 * ? *", "1E1"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidCron, match=reason.replace("?", r"\?")):
        Cron.parse(text)


# --- any expression ---------------------------------------------------------------------------------------------------------

NAMES = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    def part() -> str:
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, max(1, min(high, 20))))
        return draw(st.sampled_from(["*", str(first), f"{first}-{last}", f"{first}/{step}", f"{first}-{last}/{step}"]))

    return ",".join(part() for _ in range(draw(st.integers(1, 3))))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    day = draw(st.integers(1, 31))
    weekday = draw(st.sampled_from([*NAMES, *"1234567"]))
    of_month = st.one_of(fields(1, 31), st.sampled_from(["L", "LW", f"{day}W", f"{day},L"]))
    nth = draw(st.integers(1, 5))
    of_week = st.one_of(fields(1, 7), st.sampled_from(["L", f"{weekday}L", f"{weekday}#{nth}", "MON-FRI"]))
    days = draw(st.one_of(of_month.map(lambda text: (text, "?")), of_week.map(lambda text: ("?", text))))
    minutes, hours, month = draw(fields(0, 59)), draw(fields(0, 23)), draw(fields(1, 12))
    return f"{minutes} {hours} {days[0]} {month} {days[1]} {draw(st.sampled_from(['*', '2024', '2023-2026/2']))}"


def holds(text: str, value: int, low: int, high: int) -> bool:
    """Whether a field of plain parts holds a value, read part by part."""
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (int(end) for end in span.split("-"))
        else:
            first = int(span)
            last = high if step else first
        if first <= value <= last and (value - first) % int(step or 1) == 0:
            return True
    return False


def day_holds(of_month: str, of_week: str, day: date) -> bool:
    """Whether the day fields hold a day, by the words of AWS's guide."""
    length = calendar.monthrange(day.year, day.month)[1]
    if of_week == "?":
        return any(_part_of_month(part, day, length) for part in of_month.split(","))
    name = NAMES[(day.weekday() + 1) % 7]
    for word, number in zip(NAMES, "1234567", strict=True):
        of_week = of_week.replace(word, number)
    mine = NAMES.index(name) + 1
    if "#" in of_week:
        weekday, _, nth = of_week.partition("#")
        return mine == int(weekday) and (day.day - 1) // 7 + 1 == int(nth)
    if of_week == "L":
        return mine == 7
    if of_week.endswith("L"):
        return mine == int(of_week[:-1]) and day.day + 7 > length
    return holds(of_week, mine, 1, 7)


def _part_of_month(part: str, day: date, length: int) -> bool:
    if part == "L":
        return day.day == length
    if part in ("LW",) or part.endswith("W"):
        wanted = length if part == "LW" else int(part[:-1])
        if wanted > length or day.weekday() > 4:
            return False
        weekdays = [d for d in range(1, length + 1) if calendar.weekday(day.year, day.month, d) < 5]
        nearest = min(weekdays, key=lambda d: (abs(d - wanted), d != wanted))
        return day.day == nearest
    return holds(part, day.day, 1, 31)


def brute(text: str, after: datetime, until: datetime) -> datetime | None:
    minutes, hours, of_month, month, of_week, year = text.split()
    times = [
        timedelta(hours=hour, minutes=minute)
        for hour, minute in itertools.product(range(24), range(60))
        if holds(hours, hour, 0, 23) and holds(minutes, minute, 0, 59)
    ]
    day = after.date()
    while day <= until.date():
        if holds(year, day.year, 1970, 2199) and holds(month, day.month, 1, 12) and day_holds(of_month, of_week, day):
            midnight = datetime(day.year, day.month, day.day)
            found = [midnight + time for time in times if midnight + time > after]
            if found:
                return found[0]
        day += timedelta(days=1)
    return None


@given(expressions(), st.datetimes(datetime(2023, 1, 1), datetime(2027, 6, 1)))
def test_the_next_time_is_what_a_search_of_every_minute_finds(text: str, after: datetime) -> None:
    until = after + timedelta(days=800)
    found = Cron.parse(text).next_after(after)
    expected = brute(text, after, until)
    if expected is None:
        assert found is None or found > until
    else:
        assert found == expected


@given(expressions(), st.datetimes(datetime(2023, 1, 1), datetime(2027, 6, 1)))
def test_times_strictly_increase(text: str, after: datetime) -> None:
    cron, moment = Cron.parse(text), after
    for _ in range(20):
        following = cron.next_after(moment)
        if following is None:
            return
        assert following > moment
        assert (following.second, following.microsecond) == (0, 0)
        moment = following


@given(st.text(alphabet="0123456789*/,-?LW#MONFRI ", max_size=40))
def test_whatever_is_typed_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidCron):
        Cron.parse(text).next_after(datetime(2026, 11, 21))
