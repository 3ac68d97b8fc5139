"""The queue of asynchronous invocations on SQLite; see `store.port.EventQueueTransaction`."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from lambstead.core.event_queue import Delivery, QueuedEvent, QueueTotals
from lambstead.store.sqlite_rows import SqliteRows, document_of, milliseconds, moment

_events = msgspec.json.Decoder(QueuedEvent)
_deliveries = msgspec.json.Decoder(Delivery)


class QueueReads(SqliteRows):
    """Reads."""

    def queue_totals(self) -> QueueTotals:
        ((events, payload_bytes),) = self._rows("queue_totals")
        return QueueTotals(events, payload_bytes)

    def next_events(self) -> Sequence[tuple[str, datetime]]:
        return [(function, moment(due)) for function, due in self._rows("next_events")]

    def next_delivery(self) -> datetime | None:
        ((due,),) = self._rows("next_delivery")
        return None if due is None else moment(due)


class QueueWrites(QueueReads):
    """Writes."""

    def enqueue_event(self, event: QueuedEvent, payload: bytes, due: datetime) -> None:
        self._rows(
            "insert_event",
            request_id=event.request_id,
            function=event.function,
            due=milliseconds(due),
            document=document_of(event),
            payload=payload,
        )
        self._rows("add_to_totals", events=1, payload_bytes=len(payload))

    def claim_events(
        self, function: str, owner: str, now: datetime, until: datetime, limit: int
    ) -> Sequence[tuple[QueuedEvent, bytes]]:
        rows = self._rows(
            "claim_events",
            function=function,
            owner=owner,
            now=milliseconds(now),
            until=milliseconds(until),
            limit=limit,
        )
        return [(_events.decode(document), payload) for document, payload in rows]

    def reschedule_event(self, event: QueuedEvent, owner: str, due: datetime) -> bool:
        return bool(
            self._rows(
                "reschedule_event",
                request_id=event.request_id,
                owner=owner,
                due=milliseconds(due),
                document=document_of(event),
            )
        )

    def delete_event(self, request_id: str, owner: str) -> bool:
        deleted = self._rows("delete_event", request_id=request_id, owner=owner)
        for (size,) in deleted:
            self._rows("add_to_totals", events=-1, payload_bytes=-size)
        return bool(deleted)

    def enqueue_delivery(self, delivery: Delivery, due: datetime) -> None:
        self._rows("insert_delivery", id=delivery.id, due=milliseconds(due), document=document_of(delivery))

    def claim_deliveries(self, owner: str, now: datetime, until: datetime, limit: int) -> Sequence[Delivery]:
        return self._documents(
            "claim_deliveries",
            _deliveries,
            owner=owner,
            now=milliseconds(now),
            until=milliseconds(until),
            limit=limit,
        )

    def reschedule_delivery(self, delivery: Delivery, owner: str, due: datetime) -> None:
        self._rows(
            "reschedule_delivery",
            id=delivery.id,
            owner=owner,
            due=milliseconds(due),
            document=document_of(delivery),
        )

    def delete_delivery(self, delivery_id: str, owner: str) -> None:
        self._rows("delete_delivery", id=delivery_id, owner=owner)

    def extend_event(self, request_id: str, owner: str, until: datetime) -> None:
        self._rows("extend_event", request_id=request_id, owner=owner, until=milliseconds(until))

    def extend_delivery(self, delivery_id: str, owner: str, until: datetime) -> None:
        self._rows("extend_delivery", id=delivery_id, owner=owner, until=milliseconds(until))

    def release_leases(self, now: datetime) -> None:
        self._rows("release_event_leases", now=milliseconds(now))
        self._rows("release_delivery_leases", now=milliseconds(now))

    def _forget_queue(self) -> None:
        for statement in ("delete_all_events", "delete_all_deliveries", "reset_totals"):
            self._rows(statement)
