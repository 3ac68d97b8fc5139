"""What every store must do with schedules, their groups, invocations that wait, and requests that were carried out."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.kept import Kept

from lambstead.core.schedule_targets import ScheduledInvocation, ScheduleTarget
from lambstead.core.schedules import Schedule, ScheduleGroup, Timing, Upcoming

NOW = datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TARGET = ScheduleTarget("arn:f", "arn:r", '{"é": 1}', "arn:q", timedelta(seconds=61), 3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "store.db")
    yield kept
    kept.close()


def schedule(name: str, group: str = "default", due: datetime | None = NOW) -> Schedule:
    timing = Timing("rate(1 minute)", NOW, "Europe/Berlin", NOW, NOW + MINUTE, timedelta(minutes=15))
    upcoming = None if due is None else Upcoming(due, due)
    return Schedule(group, name, f"arn:{name}", timing, TARGET, NOW, NOW, due is not None, True, "d", "k", upcoming)


def test_a_schedule_survives_a_restart_exactly(store: Kept) -> None:
    store.write(lambda tx: tx.save_schedule(schedule("a")))
    store.reopen()
    assert store.read(lambda reader: reader.schedule("default", "a")) == schedule("a")
    assert store.read(lambda reader: reader.schedule("other", "a")) is None
    store.write(lambda tx: tx.delete_schedule("default", "a"))
    assert store.read(lambda reader: reader.schedule("default", "a")) is None


def test_schedules_are_listed_by_group_and_name_and_filtered(store: Kept) -> None:
    store.write(lambda tx: tx.save_schedule_group(ScheduleGroup("zoo", NOW, NOW)))
    for each in (schedule("b"), schedule("a_1", due=None), schedule("a%2"), schedule("a_1", "zoo")):
        store.write(lambda tx, each=each: tx.save_schedule(each))  # type: ignore[misc]  # mypy cannot infer lambdas with defaults

    def names(after: tuple[str, str] = ("", ""), limit: int = 9, **filters: Any) -> list[tuple[str, str]]:
        found = store.read(lambda reader: reader.schedules(after, limit, **filters))
        return [(each.group, each.name) for each in found]

    everything = [("default", "a%2"), ("default", "a_1"), ("default", "b"), ("zoo", "a_1")]
    assert names() == everything
    assert names(limit=2) == everything[:2]
    assert names(after=everything[1]) == everything[2:]
    assert names(group="zoo") == everything[3:]
    assert names(prefix="a_") == [everything[1], everything[3]], "a prefix is no pattern"
    assert names(state="DISABLED") == [everything[1]]


def test_a_group_goes_with_its_schedules_and_the_default_group_is_there(store: Kept) -> None:
    store.write(lambda tx: tx.save_schedule_group(ScheduleGroup("g", NOW, NOW)))
    store.write(lambda tx: tx.save_schedule(schedule("a", "g")))
    store.write(lambda tx: tx.save_schedule(schedule("a")))
    assert [each.name for each in store.read(lambda reader: reader.schedule_groups("", 9))] == ["default", "g"]
    assert [each.name for each in store.read(lambda reader: reader.schedule_groups("default", 9))] == ["g"]
    assert store.read(lambda reader: reader.schedule_group_count()) == 2
    store.write(lambda tx: tx.delete_schedule_group("g"))
    assert store.read(lambda reader: reader.schedule_group("g")) is None
    assert [each.group for each in store.read(lambda reader: reader.schedules(("", ""), 9))] == ["default"]
    store.write(lambda tx: tx.delete_everything())
    assert store.read(lambda reader: reader.schedules(("", ""), 9)) == []
    assert store.read(lambda reader: reader.schedule_group("default")) is not None


def test_what_is_due_longest_comes_first_and_what_has_no_time_never(store: Kept) -> None:
    for name, due in (("late", NOW - MINUTE), ("now", NOW), ("soon", NOW + MINUTE), ("never", None)):
        store.write(lambda tx, name=name, due=due: tx.save_schedule(schedule(name, due=due)))  # type: ignore[misc]  # see above
    assert [each.name for each in store.read(lambda reader: reader.due_schedules(NOW, 9))] == ["late", "now"]
    assert [each.name for each in store.read(lambda reader: reader.due_schedules(NOW, 1))] == ["late"]
    first = store.read(lambda reader: reader.next_schedule())
    assert first is not None
    assert abs(first - (NOW - MINUTE)) <= timedelta(milliseconds=1)


def test_an_invocation_belongs_to_its_claimer_until_the_lease_ends(store: Kept) -> None:
    waiting = ScheduledInvocation("i", "arn:s", TARGET, NOW, NOW, 2)
    assert store.read(lambda reader: reader.next_scheduled_invocation()) is None
    store.write(lambda tx: tx.enqueue_scheduled_invocation(waiting, NOW))
    assert store.write(lambda tx: tx.claim_scheduled_invocations("a", NOW - MINUTE, NOW, 9)) == []
    assert store.write(lambda tx: tx.claim_scheduled_invocations("a", NOW, NOW + MINUTE, 9)) == [waiting]
    assert store.write(lambda tx: tx.claim_scheduled_invocations("b", NOW, NOW + MINUTE, 9)) == []
    assert not store.write(lambda tx: tx.delete_scheduled_invocation("i", "b"))
    store.reopen()
    store.write(lambda tx: tx.release_scheduled_invocations(NOW))
    assert store.write(lambda tx: tx.claim_scheduled_invocations("b", NOW, NOW + MINUTE, 9)) == [waiting]
    assert store.write(lambda tx: tx.delete_scheduled_invocation("i", "b"))


def test_requests_are_remembered_by_their_token_for_a_while(store: Kept) -> None:
    store.write(lambda tx: tx.save_schedule_request("Create", "arn:s", "t", "print", NOW, NOW + MINUTE))

    def known(operation: str, resource: str, token: str, now: datetime = NOW) -> str | None:
        return store.read(lambda reader: reader.schedule_request(operation, resource, token, now))

    assert known("Create", "arn:s", "t") == "print"
    for other in (("Delete", "arn:s", "t"), ("Create", "arn:x", "t"), ("Create", "arn:s", "u")):
        assert known(*other) is None
    assert known("Create", "arn:s", "t", NOW + MINUTE) is None
    store.write(lambda tx: tx.save_schedule_request("Create", "arn:s", "u", "p", NOW + MINUTE, NOW + 2 * MINUTE))
    assert known("Create", "arn:s", "t") is None, "forgotten, not only too old"
