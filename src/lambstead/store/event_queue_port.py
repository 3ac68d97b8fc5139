"""The part of the store's port for the queue of asynchronous invocations, and for what their destinations are told."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from lambstead.core.event_queue import Delivery, QueuedEvent, QueueTotals


class EventQueueReader(Protocol):
    """The queue of asynchronous invocations, as far as it can be read."""

    def queue_totals(self) -> QueueTotals:
        """How many events the queue holds, those that run included, and the size of their payloads."""

    def next_events(self) -> Sequence[tuple[str, datetime]]:
        """Every function that has events, and when the first of them can be claimed."""

    def next_delivery(self) -> datetime | None:
        """When the first message to another service can be claimed; None if there is none."""


class EventQueueTransaction(EventQueueReader, Protocol):
    """Changes of the queue. What is claimed belongs to its `owner` until `until`; then anybody may claim it again."""

    def enqueue_event(self, event: QueuedEvent, payload: bytes, due: datetime) -> None:
        """Add an event that may be claimed from `due` on. Its request id is not in the queue."""

    def claim_events(
        self, function: str, owner: str, now: datetime, until: datetime, limit: int
    ) -> Sequence[tuple[QueuedEvent, bytes]]:
        """Take up to `limit` events of a function that are due, with their payloads; those due longest first are taken."""

    def reschedule_event(self, event: QueuedEvent, owner: str, due: datetime) -> bool:
        """Put a claimed event back; False, and nothing done, if `owner` does not have it any more."""

    def delete_event(self, request_id: str, owner: str) -> bool:
        """Forget a claimed event; False if `owner` does not have it any more."""

    def enqueue_delivery(self, delivery: Delivery, due: datetime) -> None:
        """Add a message to another service; one with the same id that is there already stays as it is."""

    def claim_deliveries(self, owner: str, now: datetime, until: datetime, limit: int) -> Sequence[Delivery]:
        """Take up to `limit` messages that are due."""

    def reschedule_delivery(self, delivery: Delivery, owner: str, due: datetime) -> None:
        """Put a claimed message back."""

    def delete_delivery(self, delivery_id: str, owner: str) -> None:
        """Forget a claimed message."""

    def extend_event(self, request_id: str, owner: str, until: datetime) -> None:
        """Let a claimed event belong to `owner` until `until`."""

    def extend_delivery(self, delivery_id: str, owner: str, until: datetime) -> None:
        """Let a claimed message belong to `owner` until `until`."""

    def release_leases(self, now: datetime) -> None:
        """Make everything claimable now, whoever has it: for a server that knows to be the only one."""
