"""Event source mappings on SQLite; see `store.port.EventSourceTransaction`."""

from collections.abc import Sequence

import msgspec

from lambstead.core.event_sources import EventSourceMapping
from lambstead.store.sqlite_rows import SqliteRows, document_of

NO_LIMIT = -1

_mappings = msgspec.json.Decoder(EventSourceMapping)


class EventSourceReads(SqliteRows):
    """Reads."""

    def event_source_mapping(self, mapping_id: str) -> EventSourceMapping | None:
        return self._one("event_source_mapping", _mappings, id=mapping_id)

    def event_source_mappings(
        self, after: str, limit: int | None = None, source: str | None = None, function: str | None = None
    ) -> Sequence[EventSourceMapping]:
        return self._documents(
            "event_source_mappings",
            _mappings,
            after=after,
            limit=NO_LIMIT if limit is None else limit,
            source=source,
            function=function,
        )

    def unsettled_event_source_mappings(self, limit: int) -> Sequence[EventSourceMapping]:
        return self._documents("unsettled_event_source_mappings", _mappings, limit=limit)


class EventSourceWrites(EventSourceReads):
    """Writes."""

    def save_event_source_mapping(self, mapping: EventSourceMapping) -> None:
        self._rows(
            "save_event_source_mapping",
            id=mapping.id,
            source=mapping.source,
            function=mapping.function,
            unsettled=int(mapping.is_settling),
            document=document_of(mapping),
        )

    def delete_event_source_mapping(self, mapping_id: str) -> None:
        self._rows("delete_event_source_mapping", id=mapping_id)

    def _forget_event_sources(self) -> None:
        self._rows("delete_all_event_source_mappings")
