"""Rows and documents of one SQLite connection: what every noun's statements are run with."""

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class SqliteRows:
    """Runs named statements on a connection."""

    def __init__(self, connection: sqlite3.Connection, queries: Mapping[str, str]) -> None:
        self._connection = connection
        self._queries = queries

    def _rows(
        self, name: str, /, **values: object
    ) -> list[tuple[Any, ...]]:  # Any: columns of whatever the statement selects
        return self._connection.execute(self._queries[name], values).fetchall()

    def _documents(self, name: str, decoder: msgspec.json.Decoder[T], /, **values: object) -> list[T]:
        return [decoder.decode(document) for (document,) in self._rows(name, **values)]

    def _one(self, name: str, decoder: msgspec.json.Decoder[T], /, **values: object) -> T | None:
        found = self._documents(name, decoder, **values)
        return found[0] if found else None


def document_of(value: object) -> str:
    """A value of the domain as its row keeps it."""
    return msgspec.json.encode(value).decode()


def milliseconds(moment: datetime) -> int:
    """A time as a column keeps it: epoch milliseconds."""
    return round(moment.timestamp() * 1000)


def moment(milliseconds: int) -> datetime:
    """The time in a column."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
