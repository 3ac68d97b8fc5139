"""What was refused for want of room: whoever is called is the oldest of those who still wait, once."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lambstead.control.durable.parked import Parked
from lambstead.core.throttles import Cause, Room

ROOMS = [
    Room(Cause.ACCOUNT_CONCURRENCY),
    Room(Cause.RESERVED_CONCURRENCY, "f"),
    Room(Cause.NO_SLOT, "f"),
    Room(Cause.NO_SLOT, "g"),
]
KEYS = st.sampled_from("abcdef")


class ParkedMachine(RuleBasedStateMachine):
    """Beside a dictionary of who waits for what."""

    def __init__(self) -> None:
        super().__init__()
        self.parked = Parked()
        self.waiting: dict[str, Room] = {}
        self.called: list[str] = []
        self.expected: list[str] = []

    @rule(room=st.sampled_from(ROOMS), key=KEYS)
    def is_refused(self, room: Room, key: str) -> None:
        self.parked.add(room, key, lambda: self.called.append(key))
        self.waiting[key] = room

    @rule(key=KEYS)
    def is_tried(self, key: str) -> None:
        self.parked.forget(key)
        self.waiting.pop(key, None)

    @rule(room=st.sampled_from(ROOMS))
    def room_is_freed(self, room: Room) -> None:
        self.parked.freed(room)
        self.call(sorted(key for key, wanted in self.waiting.items() if wanted == room)[:1])

    @rule(function=st.sampled_from("fgh"))
    def a_function_changes(self, function: str) -> None:
        before = len(self.called)
        self.parked.changed([function])
        self.called[before:] = sorted(self.called[before:])
        self.call(sorted(key for key, wanted in self.waiting.items() if wanted.function == function))

    @rule()
    def everything_goes(self) -> None:
        self.parked.clear()
        self.waiting.clear()

    def call(self, keys: list[str]) -> None:
        for key in keys:
            del self.waiting[key]
        self.expected += keys

    @invariant()
    def the_right_ones_were_called(self) -> None:
        assert self.called == self.expected


TestParked = ParkedMachine.TestCase
