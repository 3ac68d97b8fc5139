"""The Runtime API's rules, driven at random against a model that only counts."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import integers

from lambstead.core.runtime_api import (
    REMEMBERED_TIMEOUTS,
    Connections,
    InitProgress,
    Invocation,
    Late,
    Refused,
    RuntimeApi,
    Unknown,
    WorkerId,
    exit_message,
    is_initialized,
    reported_error_type,
    timed_out_message,
)

picks = integers(0, 1_000)
"""Which of the candidates a rule takes: any number, so that no step is wasted on a worker that is gone."""


class OneConnectionPerWorker(RuleBasedStateMachine):
    """Workers as AWS's Python client behaves, a gateway that also makes forbidden moves, time that only grows.

    Invariants: no slot is oversold; every accepted invocation is settled exactly once; what the gateway counts is what there is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots = 1
        self.api = RuntimeApi(1, Connections.WORKERS)
        self.now_ms = 0
        self.counted = 0  # idle slots as the gateway counts them
        self.opened = False
        self.next_worker = 0
        self.next_stream = 0
        self.accepted: set[int] = set()
        self.settled: list[int] = []
        self.running: dict[WorkerId, Invocation] = {}
        self.timed_out: dict[WorkerId, Invocation] = {}
        self.parked: list[WorkerId] = []
        self.between: list[WorkerId] = []  # alive, neither parked nor at work

    @initialize(slots=integers(1, 5))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.api = RuntimeApi(slots, Connections.WORKERS)

    @property
    def alive(self) -> list[WorkerId]:
        return [*self.between, *self.parked, *self.running, *self.timed_out]

    def told(self) -> None:
        change = self.api.take_slots_change()
        self.counted += change
        assert self.opened or change == 0

    @precondition(lambda self: len(self.alive) < self.slots)  # the runtime starts at most one worker per slot
    @rule()
    def start_worker(self) -> None:
        self.next_worker += 1
        self.between.append(WorkerId(self.next_worker))

    @rule()
    def open(self) -> None:
        self.opened = True
        self.api.open()
        self.told()

    @precondition(lambda self: self.between or self.timed_out)
    @rule(pick=picks)
    def poll(self, pick: int) -> None:
        """A worker that timed out may poll without having answered: its code was ended by an exception, say."""
        worker = _pick([*self.between, *self.timed_out], pick)
        self.api.poll(worker)
        if worker in self.between:
            self.between.remove(worker)
        self.timed_out.pop(worker, None)
        self.parked.append(worker)
        self.told()

    @rule(timeout=integers(1, 50), reuse=st.booleans())
    def invoke(self, timeout: int, reuse: bool) -> None:
        """Sent whatever the gateway counts: with no idle slot, a refusal is the only right answer."""
        self.next_stream += 1
        fresh = f"r{self.next_stream}"
        duplicate = next(iter(self.running.values()), None) if reuse else None
        request_id = duplicate.request_id if duplicate is not None else fresh
        invocation = Invocation(self.next_stream, request_id, self.now_ms + timeout, timeout)
        had_slot = self.counted > 0
        self.counted -= 1
        outcome = self.api.invoke(invocation)
        if isinstance(outcome, Refused):
            self.counted += 1
            assert not had_slot or request_id != fresh
        else:
            assert had_slot
            self.parked.remove(outcome)
            self.running[outcome] = invocation
            self.accepted.add(invocation.stream)
        self.told()

    @precondition(lambda self: self.running)
    @rule(pick=picks, echo=st.booleans())
    def answer(self, pick: int, echo: bool) -> None:
        worker = _pick(list(self.running), pick)
        invocation = self.running.pop(worker)
        assert self.api.answer(invocation.request_id, invocation.stream if echo else None) is invocation
        self.settled.append(invocation.stream)
        assert isinstance(self.api.answer(invocation.request_id, invocation.stream), Unknown | Late)
        self.between.append(worker)
        self.told()

    @precondition(lambda self: self.timed_out)
    @rule(pick=picks)
    def answer_late(self, pick: int) -> None:
        worker = _pick(list(self.timed_out), pick)
        invocation = self.timed_out.pop(worker)
        assert isinstance(self.api.answer(invocation.request_id, invocation.stream), Late)
        self.between.append(worker)
        self.told()

    @precondition(lambda self: self.running)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        worker = _pick(list(self.running), pick)
        self.api.cancel(self.running[worker].stream)
        assert self.running[worker].abandoned
        self.told()

    @rule(by=integers(1, 40))
    def time_passes(self, by: int) -> None:
        self.now_ms += by
        due = {w: i for w, i in self.running.items() if i.deadline_ms <= self.now_ms}
        expired = self.api.expire(self.now_ms)
        assert {i.stream for i in expired} == {i.stream for i in due.values()}
        for worker, invocation in due.items():
            self.settled.append(invocation.stream)
            self.timed_out[worker] = self.running.pop(worker)
        self.told()

    @precondition(lambda self: self.alive)
    @rule(pick=picks)
    def kill_worker(self, pick: int) -> None:
        worker = _pick(self.alive, pick)
        lost = self.api.lost(worker)
        assert lost.was_worker is (worker not in self.between)
        for group in (self.between, self.parked):
            if worker in group:
                group.remove(worker)
        self.timed_out.pop(worker, None)
        mine = self.running.pop(worker, None)
        assert [i.stream for i in lost.aborted] == ([mine.stream] if mine else [])
        self.settled += [i.stream for i in lost.aborted]
        self.told()

    @rule(request_id=st.text(max_size=3))
    def answer_nonsense(self, request_id: str) -> None:
        assert isinstance(self.api.answer(request_id, None), Unknown)

    def teardown(self) -> None:
        """The environment ends: what still ran is settled now, and nothing is left to give."""
        self.settled += [i.stream for i in self.api.end()]
        self.counted += self.api.take_slots_change()
        assert self.counted == 0
        assert sorted(self.settled) == sorted(self.accepted)

    @invariant()
    def no_slot_is_oversold(self) -> None:
        assert self.counted == (len(self.parked) if self.opened else 0)
        assert len(self.running) + len(self.timed_out) + self.counted <= self.slots
        assert self.api.running == len(self.running)
        assert self.api.lingering == len(self.timed_out)

    @invariant()
    def every_accepted_invocation_is_settled_exactly_once(self) -> None:
        assert len(self.settled) == len(set(self.settled))
        assert self.accepted == set(self.settled) | {i.stream for i in self.running.values()}


class OneConnectionPerPoller(RuleBasedStateMachine):
    """Worker threads as AWS's Node.js client behaves: each polls again at once, on its own connection, whatever it still runs.

    Invariants: as many at once as there are slots, however many polls are parked; what ran in a thread that died is settled by its deadline and
    holds no slot after it; every accepted invocation is settled exactly once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots = 1
        self.api = RuntimeApi(1, Connections.POLLERS)
        self.now_ms = 0
        self.counted = 0
        self.next_stream = 0
        self.threads: list[WorkerId] = []
        self.parked: list[WorkerId] = []  # the oldest poll first
        self.running: dict[int, tuple[WorkerId, Invocation]] = {}
        self.overdue: dict[int, tuple[WorkerId, Invocation]] = {}
        self.streaming: dict[int, tuple[WorkerId, Invocation]] = {}
        self.accepted: set[int] = set()
        self.settled: list[int] = []

    @initialize(slots=integers(1, 6), threads=integers(1, 4))
    def begin(self, slots: int, threads: int) -> None:
        self.slots = slots
        self.api = RuntimeApi(slots, Connections.POLLERS)
        self.threads = [WorkerId(number) for number in range(threads)]
        self.api.open()
        for thread in self.threads:
            self.park(thread)

    def park(self, thread: WorkerId) -> None:
        self.api.poll(thread)
        self.parked.append(thread)
        self.counted += self.api.take_slots_change()

    @rule(timeout=integers(1, 50), polls_again=st.booleans())
    def invoke(self, timeout: int, polls_again: bool) -> None:
        self.next_stream += 1
        invocation = Invocation(self.next_stream, f"r{self.next_stream}", self.now_ms + timeout, timeout)
        outcome = self.api.invoke(invocation)
        if isinstance(outcome, Refused):
            assert self.counted == 0
            return
        assert self.counted > 0
        self.counted -= 1
        assert outcome == self.parked.pop(0)
        self.running[invocation.stream] = (outcome, invocation)
        self.accepted.add(invocation.stream)
        self.counted += self.api.take_slots_change()
        if polls_again:
            self.park(outcome)

    @precondition(lambda self: bool(set(self.threads) - set(self.parked)))
    @rule(pick=picks)
    def poll(self, pick: int) -> None:
        self.park(_pick(sorted(set(self.threads) - set(self.parked)), pick))

    @precondition(lambda self: self.running)
    @rule(pick=picks)
    def begin_stream(self, pick: int) -> None:
        stream = list(self.running)[pick % len(self.running)]
        thread, invocation = self.running[stream]
        if thread in self.threads:
            begun = self.api.begin_stream(invocation.request_id, None)
            assert begun is (None if stream in self.streaming else invocation)
            self.streaming[stream] = (thread, invocation)
            assert self.api.take_slots_change() == 0

    @precondition(lambda self: self.streaming)
    @rule(pick=picks)
    def end_stream(self, pick: int) -> None:
        """The answer is complete, or its connection broke off: also long after its invocation was settled, or its thread ended."""
        stream = list(self.streaming)[pick % len(self.streaming)]
        _, invocation = self.streaming.pop(stream)
        assert self.api.end_stream(invocation) is (stream in self.running)
        if self.running.pop(stream, None):
            self.settled.append(stream)
        self.overdue.pop(stream, None)
        self.counted += self.api.take_slots_change()

    @precondition(lambda self: self.running)
    @rule(pick=picks)
    def answer(self, pick: int) -> None:
        stream = list(self.running)[pick % len(self.running)]
        thread, invocation = self.running[stream]
        if stream in self.streaming:
            assert isinstance(self.api.answer(invocation.request_id, None), Unknown)
        elif thread in self.threads:  # a dead one answers nothing
            assert self.api.answer(invocation.request_id, None) is invocation
            del self.running[stream]
            self.settled.append(stream)
            self.counted += self.api.take_slots_change()

    @precondition(lambda self: self.overdue)
    @rule(pick=picks)
    def answer_late(self, pick: int) -> None:
        stream = list(self.overdue)[pick % len(self.overdue)]
        _, invocation = self.overdue.pop(stream)
        self.streaming.pop(stream, None)
        assert isinstance(self.api.answer(invocation.request_id, None), Late)
        self.counted += self.api.take_slots_change()

    @rule(by=integers(1, 40))
    def time_passes(self, by: int) -> None:
        self.now_ms += by
        due = {s: pair for s, pair in self.running.items() if pair[1].deadline_ms <= self.now_ms}
        assert {i.stream for i in self.api.expire(self.now_ms)} == set(due)
        for stream, (thread, invocation) in due.items():
            del self.running[stream]
            self.settled.append(stream)
            if thread in self.threads:
                self.overdue[stream] = (thread, invocation)
        self.counted += self.api.take_slots_change()

    @precondition(lambda self: self.threads)
    @rule(pick=picks)
    def thread_dies(self, pick: int) -> None:
        thread = self.threads.pop(pick % len(self.threads))
        if thread in self.parked:
            self.parked.remove(thread)
        lost = self.api.lost(thread)
        assert (lost.aborted, lost.workers_left, lost.was_worker) == ((), len(self.threads), True)
        self.overdue = {s: pair for s, pair in self.overdue.items() if pair[0] != thread}
        self.counted += self.api.take_slots_change()

    @rule()
    def another_connection_ends(self) -> None:
        assert not self.api.lost(WorkerId(-1)).was_worker

    @invariant()
    def as_many_as_there_are_slots(self) -> None:
        busy = len(self.running) + len(self.overdue)
        assert busy + self.counted <= self.slots
        assert self.counted == min(len(self.parked), self.slots - busy)
        assert self.api.lingering == len(self.overdue)

    @invariant()
    def every_accepted_invocation_is_settled_exactly_once(self) -> None:
        assert len(self.settled) == len(set(self.settled))
        assert self.accepted == set(self.settled) | set(self.running)

    def teardown(self) -> None:
        self.settled += [i.stream for i in self.api.end()]
        assert sorted(self.settled) == sorted(self.accepted)


def _pick(candidates: list[WorkerId], pick: int) -> WorkerId:
    return candidates[pick % len(candidates)]


TestOneConnectionPerWorker = OneConnectionPerWorker.TestCase
TestOneConnectionPerPoller = OneConnectionPerPoller.TestCase


def an_invocation(stream: int, request_id: str = "r", deadline_ms: int = 100) -> Invocation:
    return Invocation(stream, request_id, deadline_ms, 100)


def open_rules(slots: int, connections: Connections = Connections.ANONYMOUS) -> RuntimeApi:
    rules = RuntimeApi(slots, connections)
    rules.open()
    return rules


def test_a_runtime_that_polls_more_often_than_it_has_slots_is_offered_no_more_than_its_slots() -> None:
    rules = open_rules(2)
    for number in range(5):
        rules.poll(WorkerId(number))
    assert rules.take_slots_change() == 2
    assert not isinstance(rules.invoke(an_invocation(1, "a")), Refused)
    assert not isinstance(rules.invoke(an_invocation(2, "b")), Refused)
    assert isinstance(rules.invoke(an_invocation(3, "c")), Refused)
    rules.answer("a", None)
    assert rules.take_slots_change() == 1


def test_where_connections_are_not_workers_their_end_aborts_nothing() -> None:
    rules = open_rules(1)
    rules.poll(WorkerId(1))
    rules.invoke(an_invocation(1))
    assert rules.lost(WorkerId(1)).aborted == ()
    assert isinstance(rules.answer("r", None), Invocation)


def test_a_second_delivery_of_a_request_id_is_not_answered_by_the_first_ones_code() -> None:
    rules = open_rules(2, Connections.WORKERS)
    rules.poll(WorkerId(1))
    rules.invoke(an_invocation(1))
    rules.expire(100)
    rules.poll(WorkerId(2))
    rules.take_slots_change()
    assert rules.invoke(an_invocation(2, deadline_ms=300)) == WorkerId(2)
    assert isinstance(rules.answer("r", 1), Late)
    answered = rules.answer("r", 2)
    assert isinstance(answered, Invocation)
    assert answered.stream == 2


def test_only_the_last_thousand_timed_out_ids_are_remembered() -> None:
    rules = open_rules(1, Connections.WORKERS)
    for number in range(REMEMBERED_TIMEOUTS + 1):
        rules.poll(WorkerId(1))
        rules.take_slots_change()
        rules.invoke(an_invocation(number, f"r{number}", 1))
        rules.expire(1)
    rules.poll(WorkerId(1))
    assert isinstance(rules.answer("r0", None), Unknown)
    assert isinstance(rules.answer("r1", None), Late)


@pytest.mark.parametrize(
    ("claimed", "init", "reported"),
    [
        ("Runtime.ImportModuleError", False, "Runtime.ImportModuleError"),
        ("Function.Whatever", True, "Function.Whatever"),
        ("ValueError", False, "Function.Unknown"),
        ("ValueError", True, "Runtime.Unknown"),
        ("Runtime.lower", False, "Function.Unknown"),
        ("Runtime.Sub.Sub", False, "Function.Unknown"),
        ("", True, "Runtime.Unknown"),
    ],
)
def test_error_types_are_reported_in_the_platforms_form_or_as_unknown(claimed: str, init: bool, reported: str) -> None:
    assert reported_error_type(claimed, init=init) == reported


@pytest.mark.parametrize(
    ("exit_code", "message"),
    [
        (None, "Runtime exited without providing a reason"),
        (0, "Runtime exited without providing a reason"),
        (127, "Runtime exited with error: exit status 127"),
        (-9, "Runtime exited with error: signal: killed"),
        (-11, "Runtime exited with error: signal: segmentation fault"),
        (-64, "Runtime exited with error: signal: signal 64"),
    ],
)
def test_the_end_of_a_runtime_is_told_in_awss_words(exit_code: int | None, message: str) -> None:
    assert exit_message(exit_code) == message


def test_a_time_out_is_told_in_awss_words() -> None:
    assert timed_out_message(1_000) == "Task timed out after 1.00 seconds"
    assert timed_out_message(2_505) == "Task timed out after 2.50 seconds"


@pytest.mark.parametrize(
    ("progress", "complete"),
    [
        (InitProgress(parked=4, expected=4), True),
        (InitProgress(parked=3, expected=4), False),
        (InitProgress(parked=3, expected=4, workers_alive=4), False),
        (InitProgress(parked=3, expected=4, workers_alive=3), True),
        (InitProgress(parked=0, expected=4, workers_alive=0), False),
    ],
)
def test_init_is_complete_when_all_poll_or_the_rest_is_gone(progress: InitProgress, complete: bool) -> None:
    assert is_initialized(progress) is complete
