"""Schedules: what EventBridge Scheduler keeps of them, and when they are due.

    CreateSchedule ─► upcoming ──due──► fired ─┬─► an invocation of the target
                         ▲                     └─► the next time ──┐      (none: the schedule stays, or deletes itself)
                         └─────────────────────────────────────────┘

The *scheduled time* is what the expression says; *due* is when the target is invoked: the same moment, or a random one in the flexible window.
A schedule that was due while nobody could run it (the server was down) is fired once, for the latest time that it missed (decision 0030).

Sources: EventBridge Scheduler User Guide, "Schedule types", "Flexible time windows", "Deletion after completion"; API reference, CreateSchedule.
"""

import functools
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import assert_never
from zoneinfo import ZoneInfo

from lambstead.core.cron import FIRST_YEAR, LAST_YEAR, Cron, InvalidCron
from lambstead.core.errors import ValidationError
from lambstead.core.schedule_targets import ScheduleTarget

DEFAULT_GROUP = "default"
MAX_GROUPS = 500
"""Quotas page of the User Guide, schedule groups per Region."""
PRECISION = timedelta(minutes=1)
"""AWS invokes within the minute that begins at the scheduled time. Whoever is later has missed it."""
EARLIEST_START = timedelta(minutes=5)
"""How far in the past a StartDate may lie."""

_AT = re.compile(r"at\((\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})\)", re.ASCII)
_RATE = re.compile(r"rate\((\d{1,9})\s+(minute|hour|day)s?\)", re.ASCII)
_CRON = re.compile(r"cron\((.*)\)")
_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_MOMENT = timedelta(microseconds=1)


class InvalidExpression(ValidationError):
    """A schedule expression that AWS refuses; `reason` says why, which AWS's own text does not."""

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(f"Invalid Schedule Expression {expression}.")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class At:
    """Once."""

    wall: datetime
    """Without a zone."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Again and again after the same time, whatever clocks do: a day is 24 hours."""

    every: timedelta


Expression = At | Rate | Cron


@functools.lru_cache(maxsize=4096)
def parse_expression(text: str) -> Expression:
    """The expression of a schedule. Raises InvalidExpression."""
    if (at := _AT.fullmatch(text)) is not None:
        try:
            wall = datetime.fromisoformat(at[1])
        except ValueError as exc:
            raise InvalidExpression(text, f"there is no such time: {exc}") from exc
        if not FIRST_YEAR <= wall.year <= LAST_YEAR:
            raise InvalidExpression(text, f"the year is not between {FIRST_YEAR} and {LAST_YEAR}")
        return At(wall)
    if (rate := _RATE.fullmatch(text)) is not None:
        if int(rate[1]) == 0:
            raise InvalidExpression(text, "the value of a rate is a positive integer")
        return Rate(int(rate[1]) * _UNITS[rate[2]])
    if (cron := _CRON.fullmatch(text)) is not None:
        try:
            return Cron.parse(cron[1])
        except InvalidCron as exc:
            raise InvalidExpression(text, str(exc)) from exc
    raise InvalidExpression(
        text,
        "it is none of at(yyyy-mm-ddThh:mm:ss), rate(VALUE minutes|hours|days) and cron(MINUTES HOURS DAY-OF-MONTH MONTH DAY-OF-WEEK YEAR)",
    )


def zone_of(name: str) -> ZoneInfo:
    """The zone of the IANA database with this name. Raises ValidationError (how AWS words it is not recorded)."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as exc:
        raise ValidationError(
            f"Invalid ScheduleExpressionTimezone {name}: it is not a name of the IANA time zone database, for example Europe/Berlin."
        ) from exc


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule is due."""

    expression: str
    anchor: datetime
    """Where a rate begins that has no StartDate: AWS starts it at once."""
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    window: timedelta | None = None
    """How late the target may be invoked; None when the flexible time window is off."""

    def occurrence_from(self, moment: datetime) -> datetime | None:
        """The first scheduled time at or after `moment`, in UTC. One-time schedules have no StartDate and EndDate (API reference)."""
        try:
            return self._occurrence_from(moment)
        except OverflowError:
            return None  # beyond the year 9999

    def _occurrence_from(self, moment: datetime) -> datetime | None:
        expression = parse_expression(self.expression)
        match expression:
            case At(wall):
                # A time that the clocks skip is read with the offset before the skip, one that comes twice is the first.
                found: datetime | None = _utc(wall, zone_of(self.timezone))
                return found if found is not None and found >= moment else None
            case Rate(every):
                first = self.start or self.anchor
                found = first if moment <= first else first + -((first - moment) // every) * every
            case Cron():
                found = _cron_from(expression, zone_of(self.timezone), max(moment, self.start or moment))
            case _:
                assert_never(expression)
        return found if found is not None and (self.end is None or found <= self.end) else None

    def occurrence_after(self, moment: datetime) -> datetime | None:
        """The first scheduled time after `moment`."""
        return self.occurrence_from(moment + _MOMENT)

    def latest(self, known: datetime, now: datetime) -> datetime:
        """The last scheduled time up to `now`, not before `known`, which is one."""
        if isinstance(parse_expression(self.expression), At):
            return known
        # Look back twice as far each time; then a few steps forward.
        back, found = PRECISION, None
        while now - back > known and found is None:
            found = self.occurrence_from(now - back)
            found = found if found is not None and found <= now else None
            back *= 2
        latest = found or known
        while (following := self.occurrence_after(latest)) is not None and following <= now:
            latest = following
        return latest


def _cron_from(cron: Cron, zone: tzinfo, moment: datetime) -> datetime | None:
    """The first match at or after `moment`.

    User Guide, "Daylight saving time": a time that the clocks skip in spring is skipped; one that comes twice in autumn is run once, here the first time.
    """
    before = moment - _MOMENT
    wall: datetime | None = before.astimezone(zone).replace(tzinfo=None, fold=0)
    while wall is not None and (wall := cron.next_after(wall)) is not None:
        found = _utc(wall, zone)
        exists = found.astimezone(zone).replace(tzinfo=None, fold=0) == wall
        if exists and found > before:
            return found
    return None


def _utc(wall: datetime, zone: tzinfo) -> datetime:
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The next time of a schedule."""

    scheduled_at: datetime
    due: datetime


@dataclass(frozen=True, slots=True)
class Firing:
    """A schedule is due: what for, and when next."""

    scheduled_at: datetime
    since: datetime
    """From when on the age of the invocation counts."""
    upcoming: Upcoming | None


def first_upcoming(timing: Timing, now: datetime, draw: float) -> Upcoming | None:
    """The first time of a schedule that is created, changed or enabled now; None if there is none any more.

    `draw` is a random number from 0 up to 1, for the flexible window. One-time schedules may lie in the minute that is just passing.
    """
    is_once = isinstance(parse_expression(timing.expression), At)
    return _drawn(timing, timing.occurrence_from(now - PRECISION if is_once else now), draw)


def fire(timing: Timing, upcoming: Upcoming, now: datetime, draw: float) -> Firing:
    """What a schedule that is due at `upcoming` does now."""
    if now - upcoming.due <= PRECISION:
        scheduled_at, since = upcoming.scheduled_at, upcoming.due
    else:
        scheduled_at = since = timing.latest(upcoming.scheduled_at, now)
    return Firing(scheduled_at, since, _drawn(timing, timing.occurrence_after(scheduled_at), draw))


def _drawn(timing: Timing, scheduled_at: datetime | None, draw: float) -> Upcoming | None:
    """A time with its place in the window, which ends before the following time: no time overtakes another."""
    if scheduled_at is None or timing.window is None:
        return None if scheduled_at is None else Upcoming(scheduled_at, scheduled_at)
    following = timing.occurrence_after(scheduled_at)
    room = timing.window if following is None else min(timing.window, following - scheduled_at)
    return Upcoming(scheduled_at, scheduled_at + room * draw)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule of a group."""

    group: str
    name: str
    arn: str
    timing: Timing
    target: ScheduleTarget
    created_at: datetime
    modified_at: datetime
    is_enabled: bool = True
    deletes_itself: bool = False
    """ActionAfterCompletion is DELETE."""
    description: str = ""
    kms_key_arn: str = ""
    upcoming: Upcoming | None = None
    """None: disabled, or nothing is to come."""

    @property
    def state(self) -> str:
        return "ENABLED" if self.is_enabled else "DISABLED"

    def planned(self, draw: float) -> "Schedule":
        """The schedule with the time that it is due next, seen from the moment it was asked for: a rate begins in that moment."""
        return replace(self, upcoming=first_upcoming(self.timing, self.modified_at, draw) if self.is_enabled else None)

    def replacing(self, former: "Schedule", draw: float) -> "Schedule":
        """What UpdateSchedule makes of `former`: a rate whose expression and StartDate stay goes on in its steps.

        What does not touch the timing does not touch the time that is due next either.
        """
        kept = (self.timing.expression, self.timing.start) == (former.timing.expression, former.timing.start)
        anchor = former.timing.anchor if kept else self.timing.anchor
        updated = replace(self, created_at=former.created_at, timing=replace(self.timing, anchor=anchor))
        if updated.timing == former.timing and updated.is_enabled and former.is_enabled:
            return replace(updated, upcoming=former.upcoming)
        return updated.planned(draw)


@dataclass(frozen=True, slots=True)
class ScheduleGroup:
    """A group of schedules; the unit that carries tags."""

    name: str
    created_at: datetime
    modified_at: datetime


def check_dates(expression: Expression, start: datetime | None, end: datetime | None, now: datetime) -> None:
    """Raise ValidationError for dates that no schedule can have. The first text is recorded."""
    if isinstance(expression, At):
        return
    if start is not None and start < now - EARLIEST_START:
        raise ValidationError("The StartDate you specify cannot be earlier than 5 minutes ago.")
    if end is not None and end < now:
        raise ValidationError("The EndDate you specify cannot be in the past.")
    if start is not None and end is not None and end < start:
        raise ValidationError("The EndDate you specify cannot be earlier than the StartDate.")


def window_of(mode: str, minutes: int | None) -> timedelta | None:
    """The flexible time window. Raises ValidationError unless the minutes are there exactly when they mean something."""
    if mode == "FLEXIBLE":
        if minutes is None:
            raise ValidationError("FlexibleTimeWindow needs MaximumWindowInMinutes when Mode is FLEXIBLE.")
        return timedelta(minutes=minutes)
    if minutes is not None:
        raise ValidationError("FlexibleTimeWindow takes no MaximumWindowInMinutes when Mode is OFF.")
    return None
