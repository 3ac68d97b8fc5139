"""Functions as the invoke path sees them: snapshots in memory, read from the store once and forgotten when the function changes.

The store calls `changed` before it acknowledges a write, so whoever got an answer to a change finds its effect in the next invocation. The
concurrency that functions took from the account is kept in the same way; any change of a function may have changed it.
"""

import asyncio

from lambstead.core.invocations import FunctionSnapshot
from lambstead.store.port import Store

MAX_SNAPSHOTS = 10_000
"""Functions kept in memory; beyond that the oldest loaded is forgotten."""


class Routes:
    """Snapshots by function name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, FunctionSnapshot | None] = {}
        self._loading: dict[str, asyncio.Task[FunctionSnapshot | None]] = {}
        self._changes = 0
        self._taken_as_of = -1
        """The number of changes that `concurrency_taken` has seen."""
        self._taking = asyncio.Lock()
        self.concurrency_taken = 0
        """Concurrency that is reserved or provisioned, as of the last snapshot that was handed out."""
        store.on_change(self.changed)

    def known(self, name: str) -> FunctionSnapshot | None:
        """The snapshot if it, and `concurrency_taken`, is in memory."""
        return self._known.get(name) if self._taken_as_of == self._changes else None

    async def snapshot(self, name: str) -> FunctionSnapshot | None:
        """The function now; None if there is none of this name."""
        if self._taken_as_of != self._changes:
            await self._load_taken()
        known = self._known.get(name)
        if known is not None:
            return known
        task = self._loading.get(name)
        if task is None:
            task = asyncio.ensure_future(self._load(name))
            self._loading[name] = task
        return await asyncio.shield(task)

    def changed(self, names: frozenset[str]) -> None:
        """Forget functions, and whatever is being read of them."""
        self._changes += 1
        for name in names:
            self._known.pop(name, None)
            self._loading.pop(name, None)

    async def _load_taken(self) -> None:
        async with self._taking:  # callers that come together share one read
            if self._taken_as_of == self._changes:
                return
            changes = self._changes
            self.concurrency_taken = await self._store.read(lambda reader: reader.concurrency_taken())
            self._taken_as_of = changes

    async def _load(self, name: str) -> FunctionSnapshot | None:
        me = asyncio.current_task()
        found = await self._store.read(lambda reader: reader.function(name))
        # A change while we read has removed us from the table: the answer is right for our callers, but not to be kept.
        if self._loading.get(name) is me:
            del self._loading[name]
            if found is not None:
                self._known[name] = found
                if len(self._known) > MAX_SNAPSHOTS:
                    del self._known[next(iter(self._known))]
        return found
