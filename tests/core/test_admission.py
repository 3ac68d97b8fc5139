"""The pool of slots against a model of what environments do.

An environment of the model has workers that park, take events, finish, die idle or die busy; between it and the pool run two queues, one each
way, as on the link. Everything can be under way at once: a worker dies while an event comes to it, an environment ends with answers undelivered.
The model keeps its own account of the promises; the pool must agree with it after every step.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from lambstead.core.admission import Granted, LineFull, Load, Pool, Waiting
from lambstead.core.errors import IllegalTransition

MOST_WORKERS = 4
PATIENCE = st.sampled_from([1.0, 5.0])


@dataclass(frozen=True, slots=True)
class Slots:
    change: int


@dataclass(frozen=True, slots=True)
class Reject:
    ticket: int


@dataclass(frozen=True, slots=True)
class Settlement:
    ticket: int


@dataclass(slots=True)
class Site:
    """An environment with its two queues, and the gateway's account of it."""

    zone: str
    parked: int = 0
    busy: list[int] = field(default_factory=list)
    between: int = 0
    """Workers that have answered and not polled again."""
    arriving: deque[int] = field(default_factory=deque)
    leaving: deque[Slots | Reject | Settlement] = field(default_factory=deque)
    promised: int = 0
    """Slots offered in frames that arrived, minus events sent, plus events that came back refused."""
    given: int = 0
    ever_given: int = 0
    draining: bool = False

    @property
    def under_way(self) -> int:
        """Promises given and taken back that the gateway has not heard of."""
        return sum(frame.change if isinstance(frame, Slots) else isinstance(frame, Reject) for frame in self.leaving)


class Admission(RuleBasedStateMachine):
    """See the module."""

    sites_made = Bundle("sites_made")
    tickets_made = Bundle("tickets_made")

    @initialize(max_waiting=st.integers(0, 6))
    def make_pool(self, max_waiting: int) -> None:
        self.pool = Pool(max_waiting)
        self.now = 100.0
        self.line: list[int] = []
        self.deadlines: dict[int, float] = {}
        self.holding: dict[int, str] = {}
        self.settled: dict[int, str] = {}
        self.sites: dict[str, Site] = {}
        self.gone: set[str] = set()
        self.numbers = 0

    # --- callers -------------------------------------------------------------------------------------------------------

    @rule(target=tickets_made, patience=PATIENCE)
    def admit(self, patience: float) -> int:
        ticket = self._number()
        free = self._free()
        decision = self.pool.admit(ticket, self.now, patience)
        match decision:
            case Granted(granted, environment_id):
                assert granted == ticket
                assert not self.line, "somebody who came later was served first"
                self._check_zone(environment_id, free)
                self._grant(ticket, environment_id)
            case Waiting(waiting, deadline):
                assert (waiting, deadline) == (ticket, self.now + patience)
                assert not free, "it waits although there is a slot"
                self.line.append(ticket)
                self.deadlines[ticket] = deadline
            case LineFull(waiting):
                assert waiting == len(self.line) >= self.pool.max_waiting
                assert not free, "it is refused although there is a slot"
                self._settle(ticket, "line full")
        return ticket

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        late = [ticket for ticket in self.line if self.deadlines[ticket] <= self.now]
        assert self.pool.expired(self.now) == late
        for ticket in late:
            self._leave_line(ticket, "expired")

    @rule(ticket=tickets_made)
    def leave(self, ticket: int) -> None:
        assert self.pool.left(ticket) is (ticket in self.line)
        if ticket in self.line:
            self._leave_line(ticket, "left")

    @rule(most=st.sampled_from([1, 2, None]))
    def leave_because_it_will_not_come(self, most: int | None) -> None:
        leaving = self.line[:most]
        assert self.pool.leave_all(most) == leaving
        for ticket in leaving:
            self._leave_line(ticket, "told to leave")

    # --- what environments do --------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.sites) < 4)
    @rule(target=sites_made, workers=st.integers(1, MOST_WORKERS), zone=st.sampled_from("ab"))
    def join(self, workers: int, zone: str) -> str:
        environment_id = f"env-{self._number()}"
        self.pool.joined(environment_id, zone)
        self.sites[environment_id] = Site(zone, parked=workers, leaving=deque([Slots(workers)]))
        return environment_id

    @rule(environment_id=sites_made)
    def take_event(self, environment_id: str) -> None:
        site = self.sites.get(environment_id)
        if site is None or not site.arriving:
            return
        ticket = site.arriving.popleft()
        if site.parked:
            site.parked -= 1
            site.busy.append(ticket)
        else:
            site.leaving.append(Reject(ticket))

    @rule(environment_id=sites_made, which=st.integers(0, MOST_WORKERS))
    def answer(self, environment_id: str, which: int) -> None:
        site = self.sites.get(environment_id)
        if site is not None and site.busy:
            site.leaving.append(Settlement(site.busy.pop(which % len(site.busy))))
            site.between += 1

    @rule(environment_id=sites_made)
    def poll_again(self, environment_id: str) -> None:
        site = self.sites.get(environment_id)
        if site is not None and site.between:
            site.between -= 1
            site.parked += 1
            site.leaving.append(Slots(1))

    @rule(environment_id=sites_made)
    def die_idle(self, environment_id: str) -> None:
        site = self.sites.get(environment_id)
        if site is not None and site.parked:
            site.parked -= 1
            site.leaving.append(Slots(-1))

    @rule(environment_id=sites_made)
    def die_idle_while_an_event_comes(self, environment_id: str) -> None:
        site = self.sites.get(environment_id)
        while site is not None and site.arriving and site.parked:
            self.die_idle(environment_id)
        self.take_event(environment_id)

    @rule(environment_id=sites_made)
    def die_busy(self, environment_id: str) -> None:
        site = self.sites.get(environment_id)
        if site is not None and site.busy:
            site.leaving.append(Settlement(site.busy.pop()))

    # --- what the gateway hears --------------------------------------------------------------------------------------------

    @rule(environment_id=sites_made, frames=st.integers(1, 4))
    def hear(self, environment_id: str, frames: int) -> None:
        site = self.sites.get(environment_id)
        for _ in range(frames):
            if site is not None and site.leaving:
                self._hear(environment_id, site, site.leaving.popleft())

    def _hear(self, environment_id: str, site: Site, frame: Slots | Reject | Settlement) -> None:
        match frame:
            case Slots(change):
                site.promised += change
                served = self.line[: max(0, site.promised)] if not site.draining else []
                assert self.pool.slots_changed(environment_id, change) == [
                    Granted(ticket, environment_id) for ticket in served
                ]
                for ticket in served:
                    self.line.remove(ticket)
                    self._grant(ticket, environment_id)
            case Settlement(ticket):
                assert self.holding.pop(ticket) == environment_id
                site.given -= 1
                self.pool.finished(environment_id)
                self._settle(ticket, "finished")
            case Reject(ticket):
                self._rejected(environment_id, site, ticket)

    def _rejected(self, environment_id: str, site: Site, ticket: int) -> None:
        assert self.holding.pop(ticket) == environment_id
        site.given -= 1
        site.promised += 1
        free = self._free()
        decision = self.pool.again(ticket, environment_id, self.now, 5.0)
        if isinstance(decision, Granted):
            self._grant(ticket, decision.environment_id)
        else:
            assert decision == Waiting(ticket, self.now + 5.0)
            assert not free, "it waits although there is a slot"
            self.line.insert(0, ticket)
            self.deadlines[ticket] = self.now + 5.0

    @rule(environment_id=sites_made)
    def drain(self, environment_id: str) -> None:
        self.pool.drain(environment_id)
        if environment_id in self.sites:
            self.sites[environment_id].draining = True

    @rule(environment_id=consumes(sites_made))
    def end(self, environment_id: str) -> None:
        """The link is lost, with whatever was under way on it."""
        self.pool.gone(environment_id)
        self.gone.add(environment_id)
        del self.sites[environment_id]
        for ticket in [ticket for ticket, where in self.holding.items() if where == environment_id]:
            del self.holding[ticket]
            self._settle(ticket, "lost")

    # --- moves that are forbidden, or come too late --------------------------------------------------------------------------

    @rule(environment_id=sites_made)
    def join_twice(self, environment_id: str) -> None:
        with pytest.raises(IllegalTransition, match="joined twice"):
            self.pool.joined(environment_id, "zone")

    @rule(environment_id=sites_made)
    def finish_more_than_was_given(self, environment_id: str) -> None:
        if self.sites[environment_id].given == 0:
            with pytest.raises(IllegalTransition, match="finished more"):
                self.pool.finished(environment_id)
            with pytest.raises(IllegalTransition, match="finished more"):
                self.pool.again(-1, environment_id, self.now, 1.0)

    @rule(change=st.integers(-2, 3))
    def hear_of_an_environment_that_is_gone(self, change: int) -> None:
        for environment_id in (*self.gone, "env-never"):
            assert self.pool.slots_changed(environment_id, change) == []
            self.pool.finished(environment_id)
            self.pool.drain(environment_id)
            self.pool.gone(environment_id)
            assert not self.pool.is_drained(environment_id)

    # --- what must always hold ----------------------------------------------------------------------------------------------

    @invariant()
    def pool_agrees_with_the_model(self) -> None:
        free = self._free()
        assert self.pool.idle == sum(free.values())
        assert self.pool.running == len(self.holding)
        assert self.pool.waiting == len(self.line)
        assert self.pool.next_deadline() == min((self.deadlines[t] for t in self.line), default=None)
        assert self.pool.loads() == {key: Load(s.given, s.ever_given) for key, s in self.sites.items()}
        for environment_id, site in self.sites.items():
            assert self.pool.is_drained(environment_id) is (site.draining and site.given == 0)

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        assert not (self.line and self._free())

    @invariant()
    def promises_are_neither_lost_nor_made_up(self) -> None:
        """What the gateway may still give away, all told, is what workers are parked and no event is on its way to."""
        for site in self.sites.values():
            assert site.promised + site.under_way == site.parked - len(site.arriving)

    @invariant()
    def every_ticket_is_in_one_place(self) -> None:
        assert not set(self.line) & set(self.holding)
        assert not set(self.settled) & (set(self.line) | set(self.holding))

    def teardown(self) -> None:
        """Let everything end: then every ticket was settled, once."""
        if not hasattr(self, "pool"):
            return
        for environment_id in list(self.sites):
            while self._moves(environment_id):
                self.pool_agrees_with_the_model()
        self.time_passes(1000.0)
        for environment_id in list(self.sites):
            while self._moves(environment_id):
                pass
            # A debt that was forgotten, or never forgiven, shows when new workers come.
            self.sites[environment_id].parked += MOST_WORKERS
            self.sites[environment_id].leaving.append(Slots(MOST_WORKERS))
            self.hear(environment_id, 1)
            self.pool_agrees_with_the_model()
        assert not self.line
        assert not self.holding
        assert self.pool.running == self.pool.waiting == 0

    def _moves(self, environment_id: str) -> bool:
        site = self.sites[environment_id]
        if not (site.arriving or site.busy or site.between or site.leaving):
            return False
        self.take_event(environment_id)
        self.answer(environment_id, 0)
        self.poll_again(environment_id)
        self.hear(environment_id, 4)
        return True

    # --- the model's account ----------------------------------------------------------------------------------------------

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def _check_zone(self, chosen: str, free: dict[str, int]) -> None:
        """Of environments as fresh as the chosen one, none is in a zone that runs less."""
        runs = Counter(dict.fromkeys("ab", 0))
        for site in self.sites.values():
            runs[site.zone] += site.given
        zones = {self.sites[key].zone for key, idle in free.items() if idle == free[chosen]}
        assert runs[self.sites[chosen].zone] == min(runs[zone] for zone in zones), "a busier zone was chosen"

    def _free(self) -> dict[str, int]:
        return {key: s.promised for key, s in self.sites.items() if s.promised > 0 and not s.draining}

    def _grant(self, ticket: int, environment_id: str) -> None:
        site = self.sites[environment_id]
        assert not site.draining, "given from an environment that drains"
        assert site.promised > 0, "a slot was sold twice"
        most = max(self._free().values())
        assert ticket in self.deadlines or site.promised == most, "packed although a fresher environment was free"
        site.promised -= 1
        site.given += 1
        site.ever_given += 1
        site.arriving.append(ticket)
        assert ticket not in self.holding
        self.holding[ticket] = environment_id

    def _leave_line(self, ticket: int, how: str) -> None:
        self.line.remove(ticket)
        self._settle(ticket, how)

    def _settle(self, ticket: int, how: str) -> None:
        assert ticket not in self.settled, f"settled twice: {self.settled.get(ticket)}, then {how}"
        self.settled[ticket] = how


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=50, deadline=None)


def test_fresh_environments_come_before_packing() -> None:
    pool = Pool(max_waiting=0)
    for environment_id, slots in (("a", 2), ("b", 3)):
        pool.joined(environment_id, "zone")
        pool.slots_changed(environment_id, slots)
    given = [pool.admit(ticket, 0.0, 1.0) for ticket in range(5)]
    assert [g.environment_id for g in given if isinstance(g, Granted)] == ["b", "a", "b", "a", "b"]
    assert pool.admit(5, 0.0, 1.0) == LineFull(0)


def test_a_rejected_invocation_goes_ahead_of_the_line() -> None:
    pool = Pool(max_waiting=5)
    pool.joined("a", "zone")
    pool.slots_changed("a", 1)
    assert pool.admit(1, 0.0, 9.0) == Granted(1, "a")
    assert pool.admit(2, 0.0, 9.0) == Waiting(2, 9.0)
    assert pool.slots_changed("a", -1) == []
    assert pool.again(1, "a", 1.0, 9.0) == Waiting(1, 10.0)
    assert pool.next_deadline() == 9.0
    assert pool.slots_changed("a", 2) == [Granted(1, "a"), Granted(2, "a")]


@given(
    offers=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=1, max_size=6),
    moves=st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=30),
)
def test_of_environments_as_fresh_the_one_in_the_quietest_zone_is_chosen(
    offers: list[tuple[str, int]], moves: list[int | None]
) -> None:
    """A move of None admits an invocation, a number ends one of those that run; its slot is offered again at once."""
    pool = Pool(max_waiting=0)
    zones = {f"env-{number}": zone for number, (zone, _) in enumerate(offers)}
    idle = {f"env-{number}": slots for number, (_, slots) in enumerate(offers)}
    runs = Counter(dict.fromkeys("abc", 0))
    for environment_id, zone in zones.items():
        pool.joined(environment_id, zone)
        pool.slots_changed(environment_id, idle[environment_id])
    running: list[str] = []
    for ticket, move in enumerate(moves):
        if move is not None and running:
            ended = running.pop(move % len(running))
            pool.finished(ended)
            pool.slots_changed(ended, 1)
            idle[ended] += 1
            runs[zones[ended]] -= 1
        elif move is None and any(idle.values()):
            decision = pool.admit(ticket, 0.0, 1.0)
            assert isinstance(decision, Granted)
            chosen = decision.environment_id
            assert idle[chosen] == max(idle.values()), "packed although a fresher environment was free"
            as_fresh = {zones[key] for key, count in idle.items() if count == idle[chosen]}
            assert runs[zones[chosen]] == min(runs[zone] for zone in as_fresh), "a busier zone was chosen"
            idle[chosen] -= 1
            runs[zones[chosen]] += 1
            running.append(chosen)
