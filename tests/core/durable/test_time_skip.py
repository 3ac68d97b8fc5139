"""Time skipping as a rule: whatever an execution waits for happens at its own time, in order, while no real time passes."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.core.durable.runs import BEGINNING, PENDING, Run

from lambstead.core.durable import lifecycle, time_skip, triggers
from lambstead.core.durable.lifecycle import Backoff
from lambstead.core.durable.model import ChainedInvoke, ErrorObject, EventType, OperationStatus, TimeSkip, joined
from lambstead.core.durable.records import expires_at
from lambstead.core.durable.triggers import ChainedEnd

GRACE = timedelta(seconds=1)
TIMEOUT_S = 10_000_000


class Skipping(Run):
    """An execution that skips time, and the engine that looks at it; `real` is the clock on the wall."""

    def __init__(self, timeout_s: int = TIMEOUT_S) -> None:
        super().__init__(timeout_s=timeout_s)
        self.real = BEGINNING
        self.take(time_skip.begin(self.state, GRACE, self.now))

    def own(self) -> None:
        self.now = time_skip.now_of(self.state.execution, self.real)

    def look(self) -> bool:
        """As the engine does when it wakes: skip, let fire what is due, invoke. False when there is nothing to wake for yet."""
        at = time_skip.wake_at(self.state)
        if at is None or at > self.real:
            return False
        self.own()
        skipped = time_skip.skip(self.state, self.now)
        self.take(skipped)
        self.own()
        self.take(triggers.fire_due(self.state, self.now))
        if triggers.wants_invocation(self.state, self.now):
            self.invoked()
        return True

    def suspended(self) -> None:
        """The function returns PENDING."""
        change = lifecycle.invocation_ended(self.state, f"r-{self.requests}", PENDING, Backoff(), self.now)
        assert change is not None
        self.take(time_skip.idle(change, self.now))


def operation(number: int, kind: str, seconds: int) -> list[dict[str, object]]:
    named: dict[str, object] = {"Id": f"op-{number}", "Type": kind, "Name": f"op {number}"}
    start: dict[str, object] = {**named, "Action": "START"}
    if kind == "WAIT":
        return [{**start, "WaitOptions": {"WaitSeconds": seconds}}]
    if kind == "CALLBACK":
        return [{**start, "CallbackOptions": {"TimeoutSeconds": seconds}}]
    return [start, {**named, "Action": "RETRY", "StepOptions": {"NextAttemptDelaySeconds": seconds}}]


@given(
    st.lists(
        st.tuples(st.sampled_from(["WAIT", "CALLBACK", "STEP"]), st.integers(1, 3_000_000)), min_size=1, max_size=6
    )
)
def test_timers_happen_at_their_own_time_and_in_order(asked: list[tuple[str, int]]) -> None:
    run = Skipping()
    run.look()
    for number, (kind, seconds) in enumerate(asked):
        run.checkpointed(*operation(number, kind, seconds))
    run.suspended()
    due = {name: each.wakes_at for name, each in run.state.operations.items()}
    happened: list[str] = []
    for _ in range(3 * len(asked) + 3):
        if run.state.execution.live is not None:
            happened += run.state.execution.announced
            run.suspended()
        elif not run.look():
            at = time_skip.wake_at(run.state)
            assert at is not None
            if len(happened) == len(asked):
                break
            assert at - run.real <= GRACE, "only the grace of callbacks takes real time"
            run.real = at
    assert sorted(happened) == sorted(due)
    moments = [due[name] for name in happened]
    assert moments == sorted(moments, key=lambda at: at or BEGINNING)
    for event in run.events:
        if event.type in (EventType.WAIT_SUCCEEDED, EventType.CALLBACK_TIMED_OUT):
            planned = due[event.operation_id or ""]
            assert planned is not None
            assert timedelta(0) <= event.at - planned <= len(asked) * GRACE
    written = [event.at for event in run.events]
    assert written == sorted(written)
    callbacks = sum(kind == "CALLBACK" for kind, _ in asked)
    assert run.real - BEGINNING <= callbacks * GRACE


def test_nothing_is_skipped_while_the_function_runs_or_a_chained_one() -> None:
    run = Skipping()
    run.look()
    run.checkpointed(*operation(0, "WAIT", 60))
    assert not run.look()
    chained = {
        "Id": "c",
        "Type": "CHAINED_INVOKE",
        "Action": "START",
        "ChainedInvokeOptions": {"FunctionName": "f"},
    }
    run.checkpointed(chained, targets={"c": ChainedInvoke("f", "f", "1", is_durable=False, payload="{}")})
    run.suspended()
    assert not run.look()
    run.take(triggers.chained_ended(run.state, "c", ChainedEnd(OperationStatus.SUCCEEDED, "1"), run.now))
    assert run.look()
    run.suspended()
    assert run.look(), "now the wait is skipped"
    assert run.state.operations["op-0"].status == "SUCCEEDED"


def test_a_heartbeat_starts_the_grace_again() -> None:
    run = Skipping()
    run.look()
    options = {"CallbackOptions": {"HeartbeatTimeoutSeconds": 3600}}
    run.checkpointed({"Id": "cb", "Type": "CALLBACK", "Action": "START", **options})
    run.suspended()
    run.real += GRACE * 0.9
    run.own()
    run.take(triggers.callback_heartbeat(run.state, "cb", run.now))
    run.real += GRACE * 0.9
    assert not run.look()
    run.real += GRACE
    assert run.look()
    assert run.state.operations["cb"].status == "TIMED_OUT"


def test_the_pause_after_a_failure_is_not_skipped() -> None:
    run = Skipping()
    run.look()
    crashed = lifecycle.Crashed(ErrorObject("boom"))
    change = lifecycle.invocation_ended(run.state, "r-1", crashed, Backoff(), run.now)
    assert change is not None
    run.take(time_skip.idle(change, run.now))
    assert time_skip.wake_at(run.state) == run.real + Backoff().first


def test_retention_counts_in_real_time() -> None:
    run = Skipping(timeout_s=1_000_000)
    run.look()
    run.checkpointed(*operation(0, "WAIT", 5_000_000))
    run.suspended()
    assert run.look()
    assert run.status() == "TIMED_OUT"
    assert expires_at(run.state.execution) == run.real + timedelta(days=14)


def test_a_parent_follows_the_clock_of_its_child() -> None:
    parent, child = Skipping(), Skipping()
    assert child.state.execution.skip is not None
    ahead = TimeSkip(GRACE, timedelta(days=3))
    its = replace(child.state.execution, skip=ahead)
    change = joined(time_skip.caught_up(parent.state, its), None)
    assert change is not None
    assert time_skip.now_of(change.execution, parent.real) == parent.real + timedelta(days=3)
    assert time_skip.caught_up(change.applied_to(parent.state), its) is None
