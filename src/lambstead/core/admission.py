"""Which invocation gets which slot: admission to the environments of one publication.

A slot is a promise of an environment to run one invocation now. The pool holds the promises that environments made (`slots_changed`) and gives
each to one invocation. What finds no idle slot waits in line, for a bounded time and in a line of bounded length; what waits too long is refused.

Invariants, checked by a rule machine: a slot is given to at most one invocation until the environment offers it again; nothing is given from an
environment that drains or is gone; an invocation is given a slot or refused exactly once; whoever came first is served first.

The pool is the one mutable thing in core: it sits on the path of every invocation, where copying its state would be most of the cost. It does no
I/O and takes time as a value.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from lambstead.core.errors import IllegalTransition

Ticket = int
"""An invocation as the pool knows it; the caller chooses numbers that are never reused."""


class Granted(NamedTuple):
    """The invocation has a slot of this environment."""

    ticket: Ticket
    environment_id: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The invocation stands in line until `deadline` (seconds, the clock of `now`)."""

    ticket: Ticket
    deadline: float


@dataclass(frozen=True, slots=True)
class LineFull:
    """As many invocations wait as may wait: refused at once."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Load:
    """What an environment is doing, and whether it did anything since the last look."""

    running: int
    ever_given: int
    """Invocations given to it since it joined."""


@dataclass(slots=True)
class _Offer:
    """What one environment offers."""

    zone: str
    idle: int = 0
    given: int = 0
    ever_given: int = 0
    draining: bool = False


@dataclass(slots=True)
class Pool:
    """Slots and waiting line of one publication."""

    max_waiting: int
    """Longest line; at this length further invocations are refused."""
    _offers: dict[str, _Offer] = field(default_factory=dict)
    _line: OrderedDict[Ticket, float] = field(default_factory=OrderedDict)
    _given_in: Counter[str] = field(default_factory=Counter)
    """Invocations that hold a slot, by zone."""
    _given_by_gone: int = 0
    """Invocations given to environments that are gone."""

    # --- what can be asked ---------------------------------------------------------------------------------------------

    @property
    def idle(self) -> int:
        """Slots that an invocation could have now."""
        return sum(max(0, offer.idle) for offer in self._offers.values() if not offer.draining)

    @property
    def running(self) -> int:
        """Invocations that hold a slot."""
        return sum(offer.given for offer in self._offers.values())

    @property
    def ever_given(self) -> int:
        """Invocations that ever got a slot."""
        return self._given_by_gone + sum(offer.ever_given for offer in self._offers.values())

    @property
    def waiting(self) -> int:
        """Invocations that stand in line."""
        return len(self._line)

    def loads(self) -> dict[str, Load]:
        """The load of every environment."""
        return {key: Load(offer.given, offer.ever_given) for key, offer in self._offers.items()}

    def is_drained(self, environment_id: str) -> bool:
        """True once a draining environment runs nothing any more."""
        offer = self._offers.get(environment_id)
        return offer is not None and offer.draining and offer.given == 0

    def next_deadline(self) -> float | None:
        """When the first in line must be served or refused."""
        return min(self._line.values(), default=None)

    @property
    def is_closing(self) -> bool:
        """True when environments are left and all of them drain: nobody in line will be served here."""
        return bool(self._offers) and all(offer.draining for offer in self._offers.values())

    # --- invocations ---------------------------------------------------------------------------------------------------

    def admit(self, ticket: Ticket, now: float, patience: float) -> Granted | Waiting | LineFull:
        """A slot now, a place in line until `now + patience` seconds, or a refusal because the line is full."""
        if not self._line:
            environment_id = self._emptiest()
            if environment_id is not None:
                return self._give(ticket, environment_id)
        if len(self._line) >= self.max_waiting:
            return LineFull(len(self._line))
        self._line[ticket] = now + patience
        return Waiting(ticket, now + patience)

    def again(
        self, ticket: Ticket, environment_id: str, now: float, patience: float, *, elsewhere: bool = True
    ) -> Granted | Waiting:
        """The environment did not run the invocation after all: next free slot, ahead of the line.

        `elsewhere` when the environment refused it: what it refused it would refuse again, so another one is asked first.
        """
        self._taken_back(environment_id)
        offer = self._offers.get(environment_id)
        if offer is not None:
            # What it did not run has used nothing of it.
            offer.idle += 1
        found = self._emptiest(but=environment_id if elsewhere else None)
        if found is not None:
            return self._give(ticket, found)
        self._line[ticket] = now + patience
        self._line.move_to_end(ticket, last=False)
        return Waiting(ticket, now + patience)

    def finished(self, environment_id: str) -> None:
        """An invocation ended. Its slot is idle only when the environment offers it again."""
        self._taken_back(environment_id)

    def left(self, ticket: Ticket) -> bool:
        """The caller gave up while in line; False if the ticket does not wait any more."""
        return self._line.pop(ticket, None) is not None

    def expired(self, now: float) -> list[Ticket]:
        """Take everybody out of the line whose deadline has passed; the caller refuses them."""
        late = [ticket for ticket, deadline in self._line.items() if deadline <= now]
        for ticket in late:
            del self._line[ticket]
        return late

    def leave_all(self, most: int | None = None) -> list[Ticket]:
        """Take the first `most` (or all) out of the line, because what they wait for will not come."""
        leaving = list(self._line)[:most]
        for ticket in leaving:
            del self._line[ticket]
        return leaving

    # --- environments ----------------------------------------------------------------------------------------------------

    def joined(self, environment_id: str, zone: str) -> None:
        """An environment is there; it offers nothing yet. Raises IllegalTransition if it joined before."""
        if environment_id in self._offers:
            raise IllegalTransition(f"environment {environment_id} joined twice")
        self._offers[environment_id] = _Offer(zone)

    def slots_changed(self, environment_id: str, change: int) -> list[Granted]:
        """The environment offers more slots, or lost idle ones; whoever can be served from the line now is."""
        offer = self._offers.get(environment_id)
        if offer is None:
            return []
        # Below zero for a moment: a worker died while an invocation was on its way to it. The rejection that follows settles it.
        offer.idle += change
        grants: list[Granted] = []
        while offer.idle > 0 and self._line and not offer.draining:
            ticket, _ = self._line.popitem(last=False)
            grants.append(self._give(ticket, environment_id))
        return grants

    def drain(self, environment_id: str) -> None:
        """Give no more slots of this environment; what runs in it goes on."""
        offer = self._offers.get(environment_id)
        if offer is not None:
            offer.draining = True

    def gone(self, environment_id: str) -> None:
        """The environment is over; its slots with it."""
        offer = self._offers.pop(environment_id, None)
        if offer is not None:
            self._given_in[offer.zone] -= offer.given
            self._given_by_gone += offer.ever_given

    # --- inside ----------------------------------------------------------------------------------------------------------

    def _emptiest(self, but: str | None = None) -> str | None:
        """The environment with most idle slots: fresh environments before packing (managed instances spread first).

        Of several as fresh, one in the zone that runs least: zones are balanced, as AWS says of environments. Nothing says that a request prefers
        the zone it comes from. (Reference on managed instances, §6.)
        """
        best: str | None = None
        most = least = 0
        for environment_id, offer in self._offers.items():
            idle = offer.idle
            if idle < most or idle <= 0 or offer.draining or environment_id == but:
                continue
            if idle > most or self._given_in[offer.zone] < least:
                best, most, least = environment_id, idle, self._given_in[offer.zone]
        return best

    def _give(self, ticket: Ticket, environment_id: str) -> Granted:
        offer = self._offers[environment_id]
        offer.idle -= 1
        offer.given += 1
        offer.ever_given += 1
        self._given_in[offer.zone] += 1
        return Granted(ticket, environment_id)

    def _taken_back(self, environment_id: str) -> None:
        offer = self._offers.get(environment_id)
        if offer is None:
            return
        if offer.given == 0:
            raise IllegalTransition(f"environment {environment_id} finished more invocations than it was given")
        offer.given -= 1
        self._given_in[offer.zone] -= 1
