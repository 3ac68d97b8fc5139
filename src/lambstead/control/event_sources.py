"""Brings event source mappings to the state that was asked for.

Nothing polls the sources yet: a change has nothing to wait for and is done at once. Pollers will belong here, and then a mapping is Enabled when its
poller runs and gone when its poller has ended.
"""

import logging
from datetime import timedelta

from lambstead.core.arn import Realm
from lambstead.core.event_sources import EventSourceMapping, Settled, apply
from lambstead.store.port import Store, Transaction

log = logging.getLogger(__name__)

MAX_PER_ROUND = 100


class EventSources:
    """The loop's body; see the module."""

    def __init__(self, store: Store, realm: Realm) -> None:
        self._store = store
        self._realm = realm

    async def reconcile(self) -> timedelta | None:
        """One round. Returns how soon the next one has something to do although nobody pokes."""
        unsettled = await self._store.read(lambda reader: reader.unsettled_event_source_mappings(MAX_PER_ROUND))
        for mapping in unsettled:
            await self._store.write(lambda tx, mapping_id=mapping.id: self._settle(tx, mapping_id))  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
        return timedelta(0) if len(unsettled) == MAX_PER_ROUND else None

    def _settle(self, tx: Transaction, mapping_id: str) -> None:
        mapping = tx.event_source_mapping(mapping_id)
        if mapping is None or not mapping.is_settling:
            return  # somebody was faster: a reset, for example
        settled = apply(mapping, Settled())
        self._keep(tx, mapping, settled)

    def _keep(self, tx: Transaction, before: EventSourceMapping, settled: EventSourceMapping | None) -> None:
        if settled is None:
            tx.delete_event_source_mapping(before.id)
            tx.remove_tags(self._realm.event_source_mapping_arn(before.id))
        else:
            tx.save_event_source_mapping(settled)
        log.info(
            "event-source-mapping-settled",
            extra={"mapping": before.id, "from": before.state, "to": settled.state if settled else "gone"},
        )
