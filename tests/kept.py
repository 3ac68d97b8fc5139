"""The store as contract tests use it: without an event loop of their own."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lambstead.store.port import Reader, Transaction
from lambstead.store.sqlite import SqliteStore

T = TypeVar("T")


class Kept:
    """A store with its own event loop, which can be closed and opened again."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._path = path
        self._store = self._loop.run_until_complete(SqliteStore.open(path))

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self._loop.run_until_complete(self._store.write(work))

    def read(self, work: Callable[[Reader], T]) -> T:
        return self._loop.run_until_complete(self._store.read(work))

    def reopen(self) -> None:
        """Close the store and open it again, as a restart does."""
        self._loop.run_until_complete(self._store.close())
        self._store = self._loop.run_until_complete(SqliteStore.open(self._path))

    def close(self) -> None:
        self._loop.run_until_complete(self._store.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
