"""Work that was refused for want of room, and is called when there is some again: its time of back-off is only the latest moment.

Only in memory: whatever is parked stands in the store with the time at which it is tried in any case, so a crash, a missed call or a full
register costs time and nothing else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from lambstead.core.throttles import Room

MAX_PARKED = 10_000
"""Pieces of work that are known here; what is refused beyond that waits for its time."""


@dataclass(slots=True)
class _Line:
    """Keys in order, some of which may not be parked any more."""

    heap: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


class Parked:
    """See the module. Keys begin with the id of an execution, which sorts by its start: the oldest is called first, so that none waits for ever."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Room, Callable[[], None]]] = {}
        self._lines: dict[Room, _Line] = {}

    def add(self, room: Room, key: str, call: Callable[[], None]) -> None:
        """Have `call` called once there is room for one."""
        if len(self._calls) >= MAX_PARKED and key not in self._calls:
            return
        self._calls[key] = room, call
        line = self._lines.setdefault(room, _Line())
        if key not in line.keys:
            line.keys.add(key)
            heappush(line.heap, key)

    def forget(self, key: str) -> None:
        """The work is tried now, for whatever reason."""
        self._calls.pop(key, None)

    def clear(self) -> None:
        """There is no work any more."""
        self._calls.clear()
        self._lines.clear()

    def freed(self, room: Room) -> None:
        """There is room for one."""
        line = self._lines.get(room)
        if line is None:
            return
        while line.heap:
            key = heappop(line.heap)
            line.keys.discard(key)
            parked = self._calls.get(key)
            if parked is not None and parked[0] == room:
                del self._calls[key]
                parked[1]()
                return
        del self._lines[room]

    def changed(self, functions: Iterable[str]) -> None:
        """These functions changed, perhaps in how much of them may run: all that waits for them is tried."""
        for function in functions:
            for room in [each for each in self._lines if each.function == function]:
                while room in self._lines:
                    self.freed(room)
