"""The part of the store's port for what Lambstead adds to durable executions: attributes, search, subscribers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from lambstead.core.durable.records import ExecutionSummary
from lambstead.core.durable.search import ExecutionSearch
from lambstead.core.durable.subscriptions import Notice, Subscription


class DurableSearchReader(Protocol):
    """Reads."""

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
    """Changes."""

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
