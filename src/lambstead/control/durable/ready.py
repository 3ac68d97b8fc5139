"""The one door for everything that starts a function of a durable execution: a queue with a bound on how much runs at once.

Work has a key. What is offered while work of the same key waits is the same work; what is offered while it runs is done once more afterwards, so
that news that comes at its last moment is not lost.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import timedelta

from lambstead.control.loop import end

log = logging.getLogger(__name__)

MAX_RUNNING = 500
"""Invocations of durable executions, and of what they chain, that run at once."""
MAX_WAITING = 1000
"""Work in line. What is refused beyond that is in the store, and found there again."""

BROKEN_PAUSE_S = 1.0
"""How long after work broke what is due is looked for again."""

Work = Callable[[], Coroutine[None, None, None]]


class ReadyQueue:
    """See the module. Belongs to the event loop."""

    def __init__(self, room_again: Callable[[], None], running: int = MAX_RUNNING, waiting: int = MAX_WAITING) -> None:
        """`room_again` is called when work ends after some was refused, and a while after work broke."""
        self._room_again = room_again
        self._max_running, self._max_waiting = running, waiting
        self._waiting: dict[str, Work] = {}
        self._line: deque[str] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, Work] = {}
        self._refused = False
        self._is_closed = False

    @property
    def has_room(self) -> bool:
        """True when what is offered now starts now."""
        return not self._is_closed and len(self._running) < self._max_running

    @property
    def waiting(self) -> int:
        return len(self._line)

    def knows(self, key: str) -> bool:
        """True while work of this key waits or runs."""
        return key in self._waiting or key in self._running

    def offer(self, key: str, work: Work) -> bool:
        """Do this work as soon as there is room. False when there is no room in the line, or nothing is begun any more."""
        if self._is_closed:
            return False
        if key in self._running:
            self._again[key] = work
            return True
        if key in self._waiting:
            return True
        if self.has_room:
            self._start(key, work)
            return True
        if len(self._line) >= self._max_waiting:
            self._refused = True
            return False
        self._waiting[key] = work
        self._line.append(key)
        return True

    def _start(self, key: str, work: Work) -> None:
        task = asyncio.create_task(self._run(key, work), name=f"durable {key}")
        self._running[key] = task
        task.add_done_callback(lambda _: self._ended(key))

    async def _run(self, key: str, work: Work) -> None:
        try:
            await work()
        except Exception:
            # Task boundary. What was not done is in the store, and looked for again; not at once, for it may break again.
            log.exception("durable-work-broke", extra={"key": key})
            asyncio.get_running_loop().call_later(BROKEN_PAUSE_S, self._room_again)

    def _ended(self, key: str) -> None:
        del self._running[key]
        again = self._again.pop(key, None)
        if self._is_closed:
            return
        if again is not None:
            self.offer(key, again)
        while self._line and self.has_room:
            following = self._line.popleft()
            self._start(following, self._waiting.pop(following))
        if self._refused:
            self._refused = False
            self._room_again()

    async def close(self, grace: timedelta) -> None:
        """Begin nothing more, and let what runs end for `grace`."""
        self._is_closed = True
        self._line.clear()
        self._waiting.clear()
        await end(self._running.values(), grace)
