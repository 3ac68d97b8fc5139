"""Durable executions on SQLite; see `store.port.DurableTransaction`."""

import heapq
import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from lambstead.core.durable.model import Change, Event, Execution, ExecutionStatus, Operation, State
from lambstead.core.durable.records import (
    Errand,
    ExecutionQuery,
    ExecutionSummary,
    KeptExecution,
    expires_at,
    input_digest,
    is_kept,
    is_shown,
)
from lambstead.store.sqlite_durable_search import (
    EVER,
    DurableSearchReads,
    DurableSearchWrites,
    bound,
    by_start,
    summary,
)
from lambstead.store.sqlite_rows import document_of, milliseconds, moment

_executions = msgspec.json.Decoder(Execution)
_operations = msgspec.json.Decoder(Operation)
_events = msgspec.json.Decoder(Event)


ROWS_AT_ONCE = 8
"""Rows that are inserted in one step."""
ONE_ROW = "(?, ?, ?)"


class DurableReads(DurableSearchReads):
    """Reads."""

    def durable_state(self, execution_id: str) -> State | None:
        execution = self._one("durable_execution", _executions, id=execution_id)
        if execution is None:
            return None
        operations = self._documents("durable_operations", _operations, execution=execution_id)
        return State(execution, self.durable_input(execution_id), {each.id: each for each in operations})

    def durable_execution(self, execution_id: str, now: datetime) -> Execution | None:
        execution = self._one("durable_execution", _executions, id=execution_id)
        return execution if execution is not None and is_shown(execution, now) else None

    def durable_input(self, execution_id: str) -> str:
        ((payload,),) = self._rows("durable_input", execution=execution_id)
        text: str = payload
        return text

    def durable_execution_named(self, function: str, name: str, now: datetime) -> KeptExecution | None:
        for document, digest in self._rows("durable_execution_named", function=function, name=name):
            execution = _executions.decode(document)
            if is_kept(execution, now):
                return KeptExecution(execution, digest)
        return None

    def durable_executions(
        self, query: ExecutionQuery, position: tuple[int, str] | None, limit: int, now: datetime
    ) -> Sequence[ExecutionSummary]:
        if query.name is not None:
            return self._only_named(query, query.name, position, now)[:limit]
        name = "durable_executions_oldest" if query.oldest_first else "durable_executions_newest"
        at, execution_id = position or ((-EVER, "") if query.oldest_first else (EVER, ""))
        values = {
            "function": query.function,
            "version": query.version,
            "at": at,
            "id": execution_id,
            "started_after": bound(query.started_after, -EVER),
            "started_before": bound(query.started_before, EVER),
            "now": milliseconds(now),
            "limit": limit,
        }
        by_status = [
            [summary(row) for row in self._rows(name, status=status, **values)]
            for status in query.statuses or tuple(ExecutionStatus)
        ]
        merged = heapq.merge(*by_status, key=by_start, reverse=not query.oldest_first)
        return list(itertools.islice(merged, limit))

    def _only_named(
        self, query: ExecutionQuery, name: str, position: tuple[int, str] | None, now: datetime
    ) -> list[ExecutionSummary]:
        """The one execution of a name, if the rest of the query fits it too and it is not on an earlier page."""
        kept = self.durable_execution_named(query.function, name, now)
        if kept is None or position is not None:
            return []
        execution = kept.execution
        fits = (
            query.version in (None, execution.version)
            and (not query.statuses or execution.status in query.statuses)
            and (query.started_after is None or execution.started_at > query.started_after)
            and (query.started_before is None or execution.started_at < query.started_before)
        )
        return [_summary_of(execution)] if fits else []

    def durable_events(self, execution_id: str, after: int, limit: int) -> Sequence[Event]:
        return self._documents("durable_events", _events, execution=execution_id, after=after, limit=limit)

    def durable_events_backwards(self, execution_id: str, before: int, limit: int) -> Sequence[Event]:
        return self._documents("durable_events_backwards", _events, execution=execution_id, before=before, limit=limit)

    def due_durable_executions(self, now: datetime, limit: int) -> Sequence[str]:
        return [name for (name,) in self._rows("due_durable_executions", now=milliseconds(now), limit=limit)]

    def next_durable_wake(self, after: datetime) -> datetime | None:
        return self._moment("next_durable_wake", after=milliseconds(after))

    def live_durable_executions(self) -> Sequence[str]:
        return [name for (name,) in self._rows("live_durable_executions")]

    def expired_durable_executions(self, now: datetime, limit: int) -> Sequence[str]:
        return [name for (name,) in self._rows("expired_durable_executions", now=milliseconds(now), limit=limit)]

    def next_durable_expiry(self) -> datetime | None:
        return self._moment("next_durable_expiry")

    def durable_totals(self) -> Mapping[str, int]:
        return dict(self._rows("durable_totals"))

    def due_durable_errands(self, now: datetime, limit: int) -> Sequence[Errand]:
        return [Errand(*row) for row in self._rows("due_durable_errands", now=milliseconds(now), limit=limit)]

    def next_durable_errand(self, after: datetime) -> datetime | None:
        return self._moment("next_durable_errand", after=milliseconds(after))

    def _moment(self, name: str, **values: object) -> datetime | None:
        ((found,),) = self._rows(name, **values)
        return None if found is None else moment(found)


class DurableWrites(DurableReads, DurableSearchWrites):
    """Writes."""

    def start_durable_execution(self, state: State, change: Change, wake_at: datetime | None) -> None:
        execution = change.execution
        for (expired,) in self._rows("durable_execution_id", function=execution.function, name=execution.name):
            self.delete_durable_execution(expired, EVER)
        self._rows(
            "insert_durable_execution",
            function=execution.function,
            version=execution.version,
            name=execution.name,
            started_at=milliseconds(execution.started_at),
            kms_key_arn=execution.config.kms_key_arn,
            input_digest=input_digest(state.input_payload),
            **_columns(execution, wake_at),
        )
        self._rows("insert_durable_input", execution=execution.id, payload=state.input_payload)
        self._append(change)

    def save_durable_change(self, change: Change, wake_at: datetime | None) -> bool:
        columns = _columns(change.execution, wake_at)
        if not self._connection.execute(self._queries["update_durable_execution"], columns).rowcount:
            return False
        self._append(change)
        return True

    def _append(self, change: Change) -> None:
        key = change.execution.id
        if change.operations:
            rows = [(key, each.sequence, document_of(each)) for each in change.operations]
            self._insert("save_durable_operation", rows)
        if change.events:
            self._insert("insert_durable_event", [(key, each.number, document_of(each)) for each in change.events])

    def _insert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows with a statement that is written for one: few of them, as checkpoints have, in one step."""
        sql = self._queries[statement]
        if len(rows) > ROWS_AT_ONCE:
            self._connection.executemany(sql, rows)
            return
        # Each step gives the interpreter to another thread, and getting it back is what a small write mostly waits for.
        self._connection.execute(
            sql.replace(ONE_ROW, ", ".join([ONE_ROW] * len(rows))), [value for row in rows for value in row]
        )

    def save_durable_errand(self, errand: Errand, due: datetime) -> None:
        self._rows(
            "save_durable_errand",
            execution=errand.execution_id,
            operation=errand.operation_id,
            child=errand.child_id,
            refusals=errand.refusals,
            due=milliseconds(due),
        )

    def delete_durable_errand(self, errand: Errand) -> None:
        self._rows("delete_durable_errand", execution=errand.execution_id, operation=errand.operation_id)

    def delete_durable_execution(self, execution_id: str, limit: int) -> bool:
        room = limit
        for statement in ("delete_durable_operations", "delete_durable_events"):
            room -= len(self._rows(statement, execution=execution_id, limit=room))
            if room <= 0:
                return False
        self._rows("delete_durable_input", execution=execution_id)
        self._rows("delete_durable_errands", execution=execution_id)
        self._rows("delete_durable_attributes", execution=execution_id)
        self._rows("delete_durable_execution", id=execution_id)
        return True

    def _forget_durable(self) -> None:
        for noun in ("executions", "inputs", "operations", "events", "errands"):
            self._rows(f"delete_all_durable_{noun}")
        self._forget_durable_search()


def _columns(execution: Execution, wake_at: datetime | None) -> dict[str, object]:
    """The columns that a change may change. The last answered checkpoint is of use to the live invocation only."""
    stored = execution if execution.answered is None else execution.amended({"answered": None})
    return {
        "id": execution.id,
        "status": execution.status,
        "ended_at": _optional(execution.ended_at),
        "wake_at": _optional(wake_at),
        "live": int(execution.live is not None),
        "expires_at": _optional(expires_at(execution)),
        "document": document_of(stored),
    }


def _summary_of(execution: Execution) -> ExecutionSummary:
    return ExecutionSummary(
        execution.id,
        execution.name,
        execution.function,
        execution.version,
        execution.status,
        execution.started_at,
        execution.ended_at,
        execution.config.kms_key_arn,
    )


def _optional(at: datetime | None) -> int | None:
    return None if at is None else milliseconds(at)
