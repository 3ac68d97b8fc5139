"""Attributes, search and subscribers of durable executions on SQLite; see `store.durable_port`."""

import heapq
import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from lambstead.core.durable.model import ExecutionStatus
from lambstead.core.durable.records import ExecutionSummary
from lambstead.core.durable.search import ExecutionSearch
from lambstead.core.durable.subscriptions import Notice, Subscription
from lambstead.store.sqlite_rows import SqliteRows, document_of, milliseconds, moment

_subscriptions = msgspec.json.Decoder(Subscription)
_notices = msgspec.json.Decoder(Notice)

EVER = 2**62
"""A time before or after all others, in milliseconds."""


class DurableSearchReads(SqliteRows):
    """Reads."""

    def search_durable_executions(
        self, search: ExecutionSearch, position: tuple[int, str] | None, limit: int, now: datetime
    ) -> Sequence[ExecutionSummary]:
        at, execution_id = position or (EVER, "")
        values: dict[str, object] = {
            "name": search.name_pattern,
            "at": at,
            "id": execution_id,
            "started_after": bound(search.started_after, -EVER),
            "started_before": bound(search.started_before, EVER),
            "now": milliseconds(now),
            "limit": limit,
        }
        statement = "search_durable"
        if search.attributes:
            statement = "search_durable_by_attribute"
            first, value = next(iter(search.attributes.items()))
            values |= {"attribute": first, "value": value, "function": search.function}
        elif search.function is not None:
            statement = "search_durable_by_function"
            values |= {"function": search.function}
        if statement != "search_durable":
            values["attributes"] = json.dumps(dict(search.attributes))
        by_status = [
            [summary(row) for row in self._rows(statement, status=status, **values)]
            for status in search.statuses or tuple(ExecutionStatus)
        ]
        merged = heapq.merge(*by_status, key=by_start, reverse=True)
        return list(itertools.islice(merged, limit))

    def durable_attributes(self, execution_id: str) -> Mapping[str, str]:
        return dict(self._rows("durable_attributes", execution=execution_id))

    def durable_subscriptions(self) -> Sequence[Subscription]:
        return self._documents("durable_subscriptions", _subscriptions)

    def due_durable_notices(self, now: datetime, limit: int) -> Sequence[tuple[int, Notice]]:
        rows = self._rows("due_durable_notices", now=milliseconds(now), limit=limit)
        return [(number, _notices.decode(document)) for number, document in rows]

    def next_durable_notice(self) -> datetime | None:
        ((due,),) = self._rows("next_durable_notice")
        return None if due is None else moment(due)


class DurableSearchWrites(DurableSearchReads):
    """Writes."""

    def set_durable_attributes(self, execution_id: str, attributes: Mapping[str, str | None]) -> None:
        for name, value in attributes.items():
            if value is None:
                self._rows("delete_durable_attribute", execution=execution_id, name=name)
            else:
                self._rows("save_durable_attribute", execution=execution_id, name=name, value=value)

    def save_durable_subscription(self, subscription: Subscription) -> None:
        self._rows("save_durable_subscription", id=subscription.id, document=document_of(subscription))

    def delete_durable_subscription(self, subscription_id: str) -> bool:
        return bool(self._rows("delete_durable_subscription", id=subscription_id))

    def add_durable_notice(self, notice: Notice, due: datetime) -> None:
        self._rows(
            "insert_durable_notice",
            subscription=notice.subscription,
            due=milliseconds(due),
            document=document_of(notice),
        )

    def reschedule_durable_notice(self, number: int, notice: Notice, due: datetime) -> None:
        self._rows("reschedule_durable_notice", number=number, due=milliseconds(due), document=document_of(notice))

    def delete_durable_notice(self, number: int) -> None:
        self._rows("delete_durable_notice", number=number)

    def _forget_durable_search(self) -> None:
        for noun in ("attributes", "notices", "subscriptions"):
            self._rows(f"delete_all_durable_{noun}")


def summary(row: tuple[Any, ...]) -> ExecutionSummary:  # Any: columns
    """An execution of a list's row."""
    execution_id, name, function, version, status, started_at, ended_at, kms_key_arn = row
    ended = None if ended_at is None else moment(ended_at)
    started = moment(started_at)
    return ExecutionSummary(execution_id, name, function, version, ExecutionStatus(status), started, ended, kms_key_arn)


def by_start(found: ExecutionSummary) -> tuple[datetime, str]:
    """The order of lists."""
    return found.started_at, found.id


def bound(at: datetime | None, otherwise: int) -> int:
    """A limit of time as a column has it."""
    return otherwise if at is None else milliseconds(at)
