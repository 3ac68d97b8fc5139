"""The part of the store's port for schedules, their groups, and invocations of their targets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from lambstead.core.schedule_targets import ScheduledInvocation
from lambstead.core.schedules import Schedule, ScheduleGroup


class ScheduleReader(Protocol):
    """Schedules and their groups, as far as they can be read."""

    def schedule_group(self, name: str) -> ScheduleGroup | None:
        """One group; `default` is always there."""

    def schedule_groups(self, after: str, limit: int, prefix: str = "") -> Sequence[ScheduleGroup]:
        """Groups by name; those whose name begins with `prefix`."""

    def schedule_group_count(self) -> int:
        """How many groups there are."""

    def schedule(self, group: str, name: str) -> Schedule | None:
        """One schedule."""

    def schedules(
        self, after: tuple[str, str], limit: int, group: str | None = None, state: str | None = None, prefix: str = ""
    ) -> Sequence[Schedule]:
        """Schedules by group and name; of one group, in one state (`ENABLED`, `DISABLED`), with a name that begins with `prefix`, if given."""

    def due_schedules(self, now: datetime, limit: int) -> Sequence[Schedule]:
        """Up to `limit` schedules that are due, those due longest first."""

    def next_schedule(self) -> datetime | None:
        """When the first schedule is due; None if none has anything to come."""

    def next_scheduled_invocation(self) -> datetime | None:
        """When the first waiting invocation of a target can be claimed; None if there is none."""

    def schedule_request(self, operation: str, resource: str, token: str, now: datetime) -> str | None:
        """The fingerprint of a request that was carried out with this ClientToken and is still remembered."""


class ScheduleTransaction(ScheduleReader, Protocol):
    """Changes of schedules. Claims of invocations are leases, as in the queue of asynchronous invocations."""

    def save_schedule_group(self, group: ScheduleGroup) -> None:
        """Insert or replace one group."""

    def delete_schedule_group(self, name: str) -> None:
        """Forget one group and all its schedules. Tags are the caller's to remove."""

    def save_schedule(self, schedule: Schedule) -> None:
        """Insert or replace one schedule of an existing group."""

    def delete_schedule(self, group: str, name: str) -> None:
        """Forget one schedule."""

    def enqueue_scheduled_invocation(self, invocation: ScheduledInvocation, due: datetime) -> None:
        """Add an invocation of a target that may be claimed from `due` on. Its id is new."""

    def claim_scheduled_invocations(
        self, owner: str, now: datetime, until: datetime, limit: int
    ) -> Sequence[ScheduledInvocation]:
        """Take up to `limit` invocations that are due; they belong to `owner` until `until`."""

    def delete_scheduled_invocation(self, invocation_id: str, owner: str) -> bool:
        """Forget a claimed invocation; False if `owner` does not have it any more."""

    def release_scheduled_invocations(self, now: datetime) -> None:
        """Make every invocation claimable now that somebody has: for a server that knows to be the only one."""

    def save_schedule_request(
        self, operation: str, resource: str, token: str, fingerprint: str, now: datetime, until: datetime
    ) -> None:
        """Remember until `until` that a request was carried out, and forget those whose time is over."""
