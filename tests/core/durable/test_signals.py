"""Signals as a rule: none is lost, each is taken once, and in the order in which they came."""

import json
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.durable.runs import PENDING, Run

from lambstead.core.durable import lifecycle, triggers
from lambstead.core.durable.lifecycle import Returned
from lambstead.core.durable.signals import MAX_KEPT, deliver, names_of, query, signal
from lambstead.core.errors import InvalidParameterValue, ResourceConflict, TooManyRequests

NAMES = ["a", "b"]


class Signalled(RuleBasedStateMachine):
    """An execution whose code opens callbacks of two names, and somebody who signals them."""

    @initialize()
    def begin(self) -> None:
        self.run = Run(timeout_s=1_000_000)
        self.sent: dict[str, list[str]] = {each: [] for each in NAMES}
        self.opened = 0
        self.number = 0

    @rule(name=st.sampled_from(NAMES), timeout=st.sampled_from([0, 5]))
    def the_code_opens_a_callback(self, name: str, timeout: int) -> None:
        if self.run.state.execution.live is None:
            if not triggers.wants_invocation(self.run.state, self.run.now):
                return
            self.run.invoked()
        self.opened += 1
        options = {"CallbackOptions": {"TimeoutSeconds": timeout}}
        self.run.checkpointed(
            {"Id": f"cb-{self.opened}", "Type": "CALLBACK", "Action": "START", "Name": name, **options}
        )
        self.run.take(deliver(self.run.state, self.run.now))

    @precondition(lambda self: self.opened)
    @rule()
    def the_code_suspends(self) -> None:
        if self.run.state.execution.live is not None:
            self.run.ended(PENDING)

    @rule(seconds=st.sampled_from([1, 6]))
    def time_passes(self, seconds: int) -> None:
        self.run.later(seconds)

    @precondition(lambda self: not self.run.state.execution.status.is_closed)
    @rule(name=st.sampled_from(NAMES))
    def somebody_signals(self, name: str) -> None:
        self.number += 1
        change, completed = signal(self.run.state, name, str(self.number), self.run.now)
        self.run.take(change)
        self.sent[name].append(str(self.number))
        assert completed is None or names_of(self.run.state, completed) == {name}

    @invariant()
    def every_signal_is_in_one_place_in_order(self) -> None:
        execution = self.run.state.execution
        for name in NAMES:
            operations = [each for each in self.run.state.operations.values() if each.name == name]
            taken = [each.result for each in operations if each.result is not None]
            kept = [each.data for each in execution.signals if each.name == name]
            assert sorted([*taken, *kept], key=str) == sorted(self.sent[name], key=str)
            assert taken == sorted(taken, key=lambda each: int(each or 0)), "the oldest callback takes the oldest"
            assert kept == self.sent[name][len(taken) :]
            if kept and not execution.status.is_closed:
                assert all(each.status.is_closed for each in operations), "a signal waits beside an open callback"


SignalledTest = Signalled.TestCase
SignalledTest.settings = settings(settings.get_profile("commit"), max_examples=200, stateful_step_count=50)


def test_a_wait_for_callback_is_signalled_by_the_name_that_the_code_gave() -> None:
    run = Run().invoked()
    run.checkpointed(
        {"Id": "c", "Type": "CONTEXT", "Action": "START", "Name": "approval", "SubType": "WaitForCallback"},
        {"Id": "cb", "Type": "CALLBACK", "Action": "START", "Name": "create", "ParentId": "c"},
    )
    change, completed = signal(run.state, "approval", "yes", run.now)
    assert completed is not None
    run.take(change)
    assert run.state.operations["cb"].result == "yes"


def test_a_callback_that_is_overdue_takes_no_signal() -> None:
    run = Run().invoked()
    run.checkpointed(
        {"Id": "cb", "Type": "CALLBACK", "Action": "START", "Name": "a", "CallbackOptions": {"TimeoutSeconds": 5}}
    )
    change, completed = signal(run.state, "a", "late", run.now + timedelta(seconds=5))
    assert completed is None
    run.take(change)
    assert run.state.operations["cb"].status == "TIMED_OUT"
    assert [each.data for each in run.state.execution.signals] == ["late"]


def test_limits_and_refusals_lose_nothing() -> None:
    run = Run().invoked()
    for number in range(MAX_KEPT):
        run.take(signal(run.state, "a", str(number), run.now)[0])
    with pytest.raises(TooManyRequests):
        signal(run.state, "a", "one more", run.now)
    for name, data in (("", ""), ("é", ""), ("x" * 257, ""), ("a", "x" * (1024 * 1024 + 1))):
        with pytest.raises(InvalidParameterValue):
            signal(run.state, name, data, run.now)
    run.ended(Returned(json.dumps({"Status": "SUCCEEDED"}).encode()))
    with pytest.raises(ResourceConflict, match="SUCCEEDED"):
        signal(run.state, "a", "", run.now)


def test_a_query_shows_the_latest_of_every_name() -> None:
    run = Run().invoked()
    for number in (1, 2):
        step = {"Id": f"s{number}", "Type": "STEP", "Name": "progress"}
        run.checkpointed({**step, "Action": "START"}, {**step, "Action": "SUCCEED", "Payload": str(number)})
    run.checkpointed({"Id": "cb", "Type": "CALLBACK", "Action": "START", "Name": "approval"})
    run.take(signal(run.state, "later", "x", run.now)[0])
    view = query(run.state)
    assert [(each.name, each.result) for each in view.latest] == [("progress", "2"), ("approval", None)]
    assert [each.callback_id for each in view.callbacks] == [run.state.operations["cb"].callback_id]
    assert query(run.state, "later").signals[0].data == "x"
    assert query(run.state, "nothing").latest == ()
    _, change = lifecycle.stop(run.state, None, run.now)
    run.take(change)
    assert deliver(run.state, run.now) is None
