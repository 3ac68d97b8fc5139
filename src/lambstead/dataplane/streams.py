"""An answer on its way to one caller, part by part.

    link ──CHUNK──► Lane ──chunk──► ResponseStream ──► caller
    link ◄─WINDOW─────────── grant ◄────┘ what the caller took

The executor may send only what was granted, so at most one window of an answer is in memory, however slow its caller is. What the caller took is granted
again as fast as AWS lets a response flow (`core.streaming`). A caller that goes away lets the function finish: the rest is taken and thrown away.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from lambstead.core.errors import DomainError
from lambstead.core.streaming import Allowance
from lambstead.dataplane.outcomes import Outcome


class Parts(Protocol):
    """Where the parts of a streamed answer go."""

    def chunk(self, part: bytes, grant: Callable[[int], None], content_type: str, executed_version: str) -> None:
        """The next part of an answer of this type; `grant` lets the executor send so many bytes more."""


class ResponseStream:
    """The parts of one answer. The lane puts them in, one caller iterates; then `outcome` says how it ended."""

    def __init__(self, bytes_per_s: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._allowance = Allowance.full(bytes_per_s, self._loop.time())
        self._chunks: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._ended: Outcome | DomainError | None = None
        self._grant: Callable[[int], None] = lambda size_bytes: None
        self._has_begun = False
        self._is_abandoned = False
        self.executed_version = ""
        """The version that answers, once something is there to tell."""
        self.content_type: str | None = None
        """What the runtime says the parts are; None before the first."""

    @property
    def outcome(self) -> Outcome | DomainError:
        """How the invocation ended; only once everything was iterated. The payload of an answer that came in parts is empty."""
        assert self._ended is not None
        return self._ended

    # --- the lane's side -------------------------------------------------------------------------------------------------

    def chunk(self, part: bytes, grant: Callable[[int], None], content_type: str, executed_version: str) -> None:
        """See `Parts`."""
        self._grant = grant
        self.content_type = content_type
        self.executed_version = executed_version
        self._has_begun = True
        if self._is_abandoned:
            grant(len(part))
            return
        self._chunks.append(part)
        self._changed.set()

    def settle(self, outcome: Outcome | DomainError) -> None:
        """The invocation ended; no part follows."""
        self._ended = outcome
        if isinstance(outcome, Outcome):
            self.executed_version = outcome.executed_version
        self._changed.set()

    # --- the caller's side -----------------------------------------------------------------------------------------------

    async def begun(self) -> None:
        """Return once there is something to tell. Raises the error of an invocation that the platform refused or lost before its first part."""
        await self._something()
        if isinstance(self._ended, DomainError) and not self._has_begun:
            raise self._ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await self._something()
            if not self._chunks:
                return
            part = self._chunks.popleft()
            yield part
            # Only now has the caller taken it: its connection had room for it.
            self._taken(len(part))

    def abandon(self) -> None:
        """The caller is gone."""
        self._is_abandoned = True
        waiting = sum(map(len, self._chunks))
        self._chunks.clear()
        if waiting:
            self._grant(waiting)

    async def _something(self) -> None:
        while not self._chunks and self._ended is None:
            self._changed.clear()
            await self._changed.wait()

    def _taken(self, size_bytes: int) -> None:
        self._allowance = self._allowance.spend(size_bytes, self._loop.time())
        wait_s = 0.0 if self._is_abandoned else self._allowance.wait_s
        if wait_s:
            self._loop.call_later(wait_s, self._grant, size_bytes)
        else:
            self._grant(size_bytes)
