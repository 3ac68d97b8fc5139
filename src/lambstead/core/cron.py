"""Cron expressions as EventBridge Scheduler writes them: `minutes hours day-of-month month day-of-week year`.

Six fields; exactly one of the two day fields is `?`. Values, lists (`1,15`), ranges (`MON-FRI`), steps (`0/15`, `*/5`, `10-16/2`) in every field, in
day-of-month `L` (last day), `15W` (the weekday nearest to the 15th, in the same month) and `LW` (last weekday), in day-of-week `L` (Saturday), `6L`
(last Friday) and `6#3` (third Friday). Days of the week are 1-7 with Sunday first. What is computed here is wall time; zones are the caller's.

Source: EventBridge Scheduler User Guide, "Schedule types", cron-based schedules; which expressions AWS refuses was recorded by others
(`cron(0 1 * * * *)`: both day fields are given).
"""

import calendar
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta


class InvalidCron(ValueError):
    """The text is no cron expression; the message says why, for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class _Field:
    noun: str
    low: int
    high: int
    names: Mapping[str, int]


_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if number}
_WEEKDAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), start=1)}
_MINUTES = _Field("minutes", 0, 59, {})
_HOURS = _Field("hours", 0, 23, {})
_DAY_OF_MONTH = _Field("day-of-month", 1, 31, {})
_MONTH = _Field("month", 1, 12, _MONTHS)
_DAY_OF_WEEK = _Field("day-of-week", 1, 7, _WEEKDAYS)
FIRST_YEAR, LAST_YEAR = 1970, 2199
_YEAR = _Field("year", FIRST_YEAR, LAST_YEAR, {})
SATURDAY = 7
_NEAREST = re.compile(r"(\d{1,2})W", re.ASCII)
_NTH = re.compile(r"([A-Z]{3}|\d)#(\d)", re.ASCII)
_LAST = re.compile(r"([A-Z]{3}|\d)L", re.ASCII)


@dataclass(frozen=True, slots=True)
class DaysOfMonth:
    """Days by their number."""

    days: frozenset[int]
    nearest_weekdays: frozenset[int] = frozenset()
    """Days whose nearest weekday is meant."""
    has_last: bool = False
    has_last_weekday: bool = False

    def in_month(self, year: int, month: int) -> set[int]:
        """The days of this month that match. A day that the month does not have is nowhere, nor is its nearest weekday."""
        length = calendar.monthrange(year, month)[1]
        found = {day for day in self.days if day <= length}
        found |= {_nearest_weekday(year, month, day, length) for day in self.nearest_weekdays if day <= length}
        if self.has_last:
            found.add(length)
        if self.has_last_weekday:
            found.add(_nearest_weekday(year, month, length, length))
        return found


@dataclass(frozen=True, slots=True)
class DaysOfWeek:
    """Days by the name of the weekday, Sunday 1."""

    days: frozenset[int]
    nth: tuple[int, int] | None = None
    """A weekday and which one of the month."""
    last: int | None = None
    """A weekday whose last one of the month is meant."""

    def in_month(self, year: int, month: int) -> set[int]:
        """The days of this month that match."""
        length = calendar.monthrange(year, month)[1]
        found = {day for day in range(1, length + 1) if _weekday(year, month, day) in self.days}
        if self.last is not None:
            found.add(max(day for day in range(length - 6, length + 1) if _weekday(year, month, day) == self.last))
        if self.nth is not None:
            weekday, which = self.nth
            first = next(day for day in range(1, 8) if _weekday(year, month, day) == weekday)
            if first + 7 * (which - 1) <= length:
                found.add(first + 7 * (which - 1))
        return found


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression. Fields are in ascending order."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: DaysOfMonth | DaysOfWeek
    months: tuple[int, ...]
    years: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """The expression in `text`, which is what stands between the brackets of `cron(…)`. Raises InvalidCron."""
        fields = text.upper().split()
        if len(fields) != 6:
            raise InvalidCron(
                f"it has {len(fields)} fields instead of six: minutes hours day-of-month month day-of-week year"
            )
        minutes, hours, day_of_month, month, day_of_week, year = fields
        if (day_of_month == "?") == (day_of_week == "?"):
            raise InvalidCron("exactly one of day-of-month and day-of-week must be ?")
        return cls(
            _values(minutes, _MINUTES),
            _values(hours, _HOURS),
            _days_of_month(day_of_month) if day_of_week == "?" else _days_of_week(day_of_week),
            _values(month, _MONTH),
            _values(year, _YEAR),
        )

    def next_after(self, wall: datetime) -> datetime | None:
        """The first wall time strictly after `wall` that matches; None if no year of the expression has one."""
        if wall.year > self.years[-1]:
            return None
        start = wall.replace(second=0, microsecond=0) + timedelta(minutes=1)
        for day in self._days_from(start.date()):
            earliest = (start.hour, start.minute) if day == start.date() else (0, 0)
            for hour in self.hours:
                for minute in self.minutes:
                    if (hour, minute) >= earliest:
                        return datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - wall time, whatever the zone
        return None

    def _days_from(self, first: date) -> Iterator[date]:
        for year in self.years:
            for month in self.months:
                if (year, month) < (first.year, first.month):
                    continue
                for day in sorted(self.days.in_month(year, month)):
                    if (found := date(year, month, day)) >= first:
                        yield found


def _values(text: str, field: _Field) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _step(step_text, field) if slash else 1
        if span == "*":
            first, last = field.low, field.high
        elif "-" in span:
            first_text, _, last_text = span.partition("-")
            first, last = _number(first_text, field), _number(last_text, field)
        else:
            first = _number(span, field)
            last = field.high if slash else first
        if first > last:
            raise InvalidCron(f"the range {span} in {field.noun} runs backwards")
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(text: str, field: _Field) -> int:
    if (named := field.names.get(text)) is not None:
        return named
    if text.isascii() and text.isdigit() and len(text) <= 4 and field.low <= int(text) <= field.high:
        return int(text)
    raise InvalidCron(f"{text or 'nothing'} is no value of {field.noun}, which goes from {field.low} to {field.high}")


def _step(text: str, field: _Field) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= field.high:
        return int(text)
    raise InvalidCron(f"/{text} is no step of {field.noun}: it is a number from 1 to {field.high}")


def _days_of_month(text: str) -> DaysOfMonth:
    plain: list[str] = []
    nearest: set[int] = set()
    parts = text.split(",")
    for part in parts:
        if (near := _NEAREST.fullmatch(part)) is not None:
            nearest.add(_number(near[1], _DAY_OF_MONTH))
        elif part not in ("L", "LW"):
            plain.append(part)
    days = frozenset(_values(",".join(plain), _DAY_OF_MONTH)) if plain else frozenset[int]()
    return DaysOfMonth(days, frozenset(nearest), "L" in parts, "LW" in parts)


def _days_of_week(text: str) -> DaysOfWeek:
    if "#" in text:
        # User Guide: with # the field holds one expression only.
        found = _NTH.fullmatch(text)
        if found is None or not 1 <= int(found[2]) <= 5:
            raise InvalidCron("with # day-of-week holds one weekday and a number from 1 to 5, for example 6#3")
        return DaysOfWeek(frozenset(), nth=(_number(found[1], _DAY_OF_WEEK), int(found[2])))
    if text == "L":
        return DaysOfWeek(frozenset({SATURDAY}))
    if (found := _LAST.fullmatch(text)) is not None:
        return DaysOfWeek(frozenset(), last=_number(found[1], _DAY_OF_WEEK))
    return DaysOfWeek(frozenset(_values(text, _DAY_OF_WEEK)))


def _weekday(year: int, month: int, day: int) -> int:
    return (calendar.weekday(year, month, day) + 1) % 7 + 1


def _nearest_weekday(year: int, month: int, day: int, length: int) -> int:
    """The Monday-to-Friday day of the month that is nearest to `day`."""
    match _weekday(year, month, day):
        case 7:
            return day - 1 if day > 1 else day + 2
        case 1:
            return day + 1 if day < length else day - 2
        case _:
            return day
