"""Tells subscribers of changes of an execution's status, at least once.

    change of an execution ──one transaction──► notice per subscriber ──loop──► function: an asynchronous invocation, in the transaction that forgets the notice
                                                                         └────► URL: POST, forgotten once it was answered with 2xx

What is not taken comes again with growing pauses for a day. The order in which a subscriber gets events is not promised; each has its id and time.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.durable.lifecycle import Backoff
from lambstead.core.durable.model import Change
from lambstead.core.durable.subscriptions import Notice, Subscription, interested, status_event, statuses_of
from lambstead.core.durable.time_skip import now_of
from lambstead.core.errors import DomainError, ResourceNotFound
from lambstead.core.event_queue import DeliveryFailed, QueuedEvent, check_room
from lambstead.store.port import Store, Transaction

log = logging.getLogger(__name__)

MAX_SENDING = 20
"""Deliveries under way at once."""


class Webhooks(Protocol):
    """HTTP addresses outside."""

    async def post(self, url: str, body: bytes) -> None:
        """POST JSON. Raises DeliveryFailed unless the answer is 2xx."""


class Notices:
    """The outbox of status changes; see the module. `start` once before the first round."""

    def __init__(
        self,
        *,
        store: Store,
        webhooks: Webhooks,
        realm: Realm,
        backoff: Backoff,
        now: Callable[[], datetime],
        poke: Callable[[], None],
        wake_events: Callable[[], None],
    ) -> None:
        self._store = store
        self._webhooks = webhooks
        self._realm = realm
        self._backoff = backoff
        self._now = now
        self._poke = poke
        self._wake_events = wake_events
        self.subscriptions: tuple[Subscription, ...] = ()

    async def start(self) -> None:
        """Read who is subscribed."""
        self.subscriptions = tuple(await self._store.read(lambda reader: reader.durable_subscriptions()))

    async def subscribe(self, subscription: Subscription) -> None:
        """Have every change from now on delivered. Raises ResourceNotFound when the target is a function that does not exist."""
        if not subscription.is_url:
            name = FunctionRef.parse(subscription.target, self._realm).name
            if await self._store.read(lambda reader: reader.function(name)) is None:
                raise ResourceNotFound(f"Function not found: {self._realm.function_arn(name)}")
        await self._store.write(lambda tx: tx.save_durable_subscription(subscription))
        await self.start()

    async def unsubscribe(self, subscription_id: str) -> None:
        """Deliver nothing more. Raises ResourceNotFound."""
        kept = tuple(each for each in self.subscriptions if each.id != subscription_id)
        self.subscriptions = kept  # first: a notice must not be written for a subscription that is gone
        if not await self._store.write(lambda tx: tx.delete_durable_subscription(subscription_id)):
            raise ResourceNotFound(f"There is no subscription {subscription_id}.")

    def forget(self) -> None:
        """Everything was removed from the store."""
        self.subscriptions = ()

    # --- in the transaction of a change -------------------------------------------------------------------------------------

    def announce(self, tx: Transaction, change: Change) -> None:
        """Write what follows for subscribers from a change, in its transaction."""
        if not self.subscriptions:
            return
        now = self._now()
        for notice in self._notices(change, now):
            tx.add_durable_notice(notice, now)

    def _notices(self, change: Change, now: datetime) -> Iterator[Notice]:
        for status in statuses_of(change):
            subscribers = list(interested(self.subscriptions, change.execution.function, status))
            if not subscribers:
                continue
            event_id = str(uuid.uuid4())
            event = status_event(change, self._realm, status, event_id, now_of(change.execution, now))
            body = msgspec.json.encode(event).decode()
            for each in subscribers:
                yield Notice(each.id, event_id, body, now)

    def written(self) -> None:
        """A change that was announced is durable."""
        if self.subscriptions:
            self._poke()

    # --- the loop's body ------------------------------------------------------------------------------------------------------

    async def reconcile(self) -> timedelta | None:
        """Deliver what is due. Returns how soon something will be."""
        while due := await self._store.read(lambda reader: reader.due_durable_notices(self._now(), MAX_SENDING)):
            await asyncio.gather(*(self._deliver(number, notice) for number, notice in due))
        following = await self._store.read(lambda reader: reader.next_durable_notice())
        return None if following is None else max(following - self._now(), timedelta(milliseconds=1))

    async def _deliver(self, number: int, notice: Notice) -> None:
        subscription = next((each for each in self.subscriptions if each.id == notice.subscription), None)
        if subscription is None:
            await self._store.write(lambda tx: tx.delete_durable_notice(number))
            return
        try:
            if subscription.is_url:
                await self._webhooks.post(subscription.target, notice.body.encode())
                await self._store.write(lambda tx: tx.delete_durable_notice(number))
            else:
                await self._store.write(lambda tx: self._enqueue(tx, number, notice, subscription.target))
                self._wake_events()
        except (DeliveryFailed, DomainError) as problem:
            await self._put_off(number, notice, subscription, str(problem))

    def _enqueue(self, tx: Transaction, number: int, notice: Notice, target: str) -> None:
        ref = FunctionRef.parse(target, self._realm)
        if tx.function(ref.name) is None:
            raise ResourceNotFound(f"Function not found: {ref.arn(self._realm)}")
        payload = notice.body.encode()
        check_room(tx.queue_totals(), payload)
        tx.enqueue_event(QueuedEvent(str(uuid.uuid4()), ref.name, ref.qualifier, self._now()), payload, self._now())
        tx.delete_durable_notice(number)

    async def _put_off(self, number: int, notice: Notice, subscription: Subscription, because: str) -> None:
        now = self._now()
        facts = {"subscription": subscription.id, "target": subscription.target, "because": because}
        if notice.is_given_up(now):
            log.warning("status-change-undeliverable", extra={**facts, "event": notice.event_id})
            await self._store.write(lambda tx: tx.delete_durable_notice(number))
            return
        if not notice.failures:
            log.info("status-change-put-off", extra=facts)
        later = replace(notice, failures=notice.failures + 1)
        due = now + self._backoff.delay(later.failures)
        await self._store.write(lambda tx: tx.reschedule_durable_notice(number, later, due))
