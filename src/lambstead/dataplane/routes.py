"""Functions as the invoke path sees them: snapshots in memory, read from the store once and forgotten when the function changes.

The store calls `changed` before it acknowledges a write, so whoever got an answer to a change finds its effect in the next invocation.
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
        store.on_change(self.changed)

    def known(self, name: str) -> FunctionSnapshot | None:
        """The snapshot if it is in memory."""
        return self._known.get(name)

    async def snapshot(self, name: str) -> FunctionSnapshot | None:
        """The function now; None if there is none of this name."""
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
        for name in names:
            self._known.pop(name, None)
            self._loading.pop(name, None)

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
