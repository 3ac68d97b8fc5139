"""The part of the store's port for durable executions, and for what Lambstead adds to them: attributes, search, subscribers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from lambstead.core.durable.model import Change, Event, Execution, State
from lambstead.core.durable.records import Errand, ExecutionQuery, ExecutionSummary, KeptExecution
from lambstead.core.durable.search import ExecutionSearch
from lambstead.core.durable.subscriptions import Notice, Subscription


class DurableSearchReader(Protocol):
    """Attributes, search and subscribers, as far as they can be read."""

    def search_durable_executions(
        self, search: ExecutionSearch, position: tuple[int, str] | None, limit: int, now: datetime
    ) -> Sequence[ExecutionSummary]:
        """Executions of all functions, newest first; `position` is start (epoch milliseconds) and id of the last one seen."""

    def durable_attributes(self, execution_id: str) -> Mapping[str, str]:
        """Custom attributes of an execution by name."""

    def durable_subscriptions(self) -> Sequence[Subscription]:
        """Everybody who hears of changes of status."""

    def due_durable_notices(self, now: datetime, limit: int) -> Sequence[tuple[int, Notice]]:
        """Events that are to be delivered now, with their numbers, the longest overdue first."""

    def next_durable_notice(self) -> datetime | None:
        """When the next event is to be delivered."""


class DurableSearchTransaction(DurableSearchReader, Protocol):
    """Changes of attributes and subscribers, and notices to these."""

    def set_durable_attributes(self, execution_id: str, attributes: Mapping[str, str | None]) -> None:
        """Set custom attributes of an execution, and remove those that are None; others stay."""

    def save_durable_subscription(self, subscription: Subscription) -> None:
        """Insert a subscription of a new id."""

    def delete_durable_subscription(self, subscription_id: str) -> bool:
        """Remove a subscription with everything that was to be delivered to it; False if there is none."""

    def add_durable_notice(self, notice: Notice, due: datetime) -> None:
        """Have an event delivered to a subscription, if it exists still."""

    def reschedule_durable_notice(self, number: int, notice: Notice, due: datetime) -> None:
        """Put a delivery off."""

    def delete_durable_notice(self, number: int) -> None:
        """Forget an event that was delivered, or given up."""


class DurableReader(DurableSearchReader, Protocol):
    """Durable executions, as far as they can be read. One whose retention is over is not shown, though it may still be there."""

    def durable_state(self, execution_id: str) -> State | None:
        """An execution with its input and all its operations, expired or not; None if there is none of this id."""

    def durable_execution(self, execution_id: str, now: datetime) -> Execution | None:
        """An execution alone."""

    def durable_input(self, execution_id: str) -> str:
        """The input of an execution that exists."""

    def durable_execution_named(self, function: str, name: str, now: datetime) -> KeptExecution | None:
        """The execution of a function that has this name; one that is being deleted has lost it."""

    def durable_executions(
        self, query: ExecutionQuery, position: tuple[int, str] | None, limit: int, now: datetime
    ) -> Sequence[ExecutionSummary]:
        """Executions by their start; `position` is start (epoch milliseconds) and id of the last one seen."""

    def durable_events(self, execution_id: str, after: int, limit: int) -> Sequence[Event]:
        """History: events with a number greater than `after`, in order."""

    def durable_events_backwards(self, execution_id: str, before: int, limit: int) -> Sequence[Event]:
        """History: events with a number less than `before`, the newest first."""

    def due_durable_executions(self, now: datetime, limit: int) -> Sequence[str]:
        """Ids of executions for which something is due, the longest overdue first."""

    def next_durable_wake(self, after: datetime) -> datetime | None:
        """When something is due next that is not due at `after`."""

    def live_durable_executions(self) -> Sequence[str]:
        """Ids of executions that have a live invocation."""

    def expired_durable_executions(self, now: datetime, limit: int) -> Sequence[str]:
        """Ids of executions that are to be removed."""

    def next_durable_expiry(self) -> datetime | None:
        """When the next execution is to be removed."""

    def durable_totals(self) -> Mapping[str, int]:
        """How many executions there are by status; statuses without any are left out."""

    def due_durable_errands(self, now: datetime, limit: int) -> Sequence[Errand]:
        """Errands that are due, the longest overdue first."""

    def next_durable_errand(self, after: datetime) -> datetime | None:
        """When the next errand is due that is not due at `after`."""


class DurableTransaction(DurableReader, DurableSearchTransaction, Protocol):
    """Changes of durable executions. `wake_at` is when something happens to the execution by itself."""

    def start_durable_execution(self, state: State, change: Change, wake_at: datetime | None) -> None:
        """Insert an execution of a new id and a name that `durable_execution_named` does not find. Who had the name before is removed."""

    def save_durable_change(self, change: Change, wake_at: datetime | None) -> bool:
        """Write what a rule made of an execution; False, and nothing done, if it is not there any more.

        `Execution.answered` is not kept.
        """

    def save_durable_errand(self, errand: Errand, due: datetime) -> None:
        """Insert an errand, or replace that of the same operation."""

    def delete_durable_errand(self, errand: Errand) -> None:
        """Forget an errand."""

    def delete_durable_execution(self, execution_id: str, limit: int) -> bool:
        """Remove an execution, at most `limit` of its operations and events at a time; True once nothing of it is left."""
