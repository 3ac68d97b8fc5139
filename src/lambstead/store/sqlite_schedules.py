"""Schedules on SQLite; see `store.port.ScheduleTransaction`."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from lambstead.core.schedule_targets import ScheduledInvocation
from lambstead.core.schedules import Schedule, ScheduleGroup
from lambstead.store.sqlite_rows import SqliteRows, document_of, milliseconds, moment

_groups = msgspec.json.Decoder(ScheduleGroup)
_schedules = msgspec.json.Decoder(Schedule)
_invocations = msgspec.json.Decoder(ScheduledInvocation)


class ScheduleReads(SqliteRows):
    """Reads."""

    def schedule_group(self, name: str) -> ScheduleGroup | None:
        return self._one("schedule_group", _groups, name=name)

    def schedule_groups(self, after: str, limit: int, prefix: str = "") -> Sequence[ScheduleGroup]:
        return self._documents("schedule_groups", _groups, after=after, limit=limit, prefix=prefix)

    def schedule_group_count(self) -> int:
        ((count,),) = self._rows("count_schedule_groups")
        return int(count)

    def schedule(self, group: str, name: str) -> Schedule | None:
        return self._one("schedule", _schedules, group=group, name=name)

    def schedules(
        self, after: tuple[str, str], limit: int, group: str | None = None, state: str | None = None, prefix: str = ""
    ) -> Sequence[Schedule]:
        after_group, after_name = after
        return self._documents(
            "schedules",
            _schedules,
            after_group=after_group,
            after_name=after_name,
            limit=limit,
            group=group,
            state=state,
            prefix=prefix,
        )

    def due_schedules(self, now: datetime, limit: int) -> Sequence[Schedule]:
        return self._documents("due_schedules", _schedules, now=milliseconds(now), limit=limit)

    def next_schedule(self) -> datetime | None:
        return self._first_moment("next_schedule")

    def next_scheduled_invocation(self) -> datetime | None:
        return self._first_moment("next_scheduled_invocation")

    def schedule_request(self, operation: str, resource: str, token: str, now: datetime) -> str | None:
        rows = self._rows(
            "schedule_request", operation=operation, resource=resource, token=token, now=milliseconds(now)
        )
        return str(rows[0][0]) if rows else None

    def _first_moment(self, statement: str) -> datetime | None:
        ((due,),) = self._rows(statement)
        return None if due is None else moment(due)


class ScheduleWrites(ScheduleReads):
    """Writes."""

    def save_schedule_group(self, group: ScheduleGroup) -> None:
        self._rows("save_schedule_group", name=group.name, document=document_of(group))

    def delete_schedule_group(self, name: str) -> None:
        self._rows("delete_schedule_group", name=name)

    def save_schedule(self, schedule: Schedule) -> None:
        self._rows(
            "save_schedule",
            group=schedule.group,
            name=schedule.name,
            state=schedule.state,
            due=None if schedule.upcoming is None else milliseconds(schedule.upcoming.due),
            document=document_of(schedule),
        )

    def delete_schedule(self, group: str, name: str) -> None:
        self._rows("delete_schedule", group=group, name=name)

    def enqueue_scheduled_invocation(self, invocation: ScheduledInvocation, due: datetime) -> None:
        self._rows(
            "insert_scheduled_invocation", id=invocation.id, due=milliseconds(due), document=document_of(invocation)
        )

    def claim_scheduled_invocations(
        self, owner: str, now: datetime, until: datetime, limit: int
    ) -> Sequence[ScheduledInvocation]:
        return self._documents(
            "claim_scheduled_invocations",
            _invocations,
            owner=owner,
            now=milliseconds(now),
            until=milliseconds(until),
            limit=limit,
        )

    def delete_scheduled_invocation(self, invocation_id: str, owner: str) -> bool:
        return bool(self._rows("delete_scheduled_invocation", id=invocation_id, owner=owner))

    def release_scheduled_invocations(self, now: datetime) -> None:
        self._rows("release_scheduled_invocations", now=milliseconds(now))

    def save_schedule_request(
        self, operation: str, resource: str, token: str, fingerprint: str, now: datetime, until: datetime
    ) -> None:
        self._rows("forget_schedule_requests", now=milliseconds(now))
        self._rows(
            "save_schedule_request",
            operation=operation,
            resource=resource,
            token=token,
            fingerprint=fingerprint,
            until=milliseconds(until),
        )

    def _forget_schedules(self) -> None:
        for statement in (
            "delete_all_schedules",
            "delete_all_schedule_groups",
            "delete_all_scheduled_invocations",
            "delete_all_schedule_requests",
        ):
            self._rows(statement)
