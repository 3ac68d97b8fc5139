"""The queue of asynchronous invocations against a real store: a machine that accepts, runs, fails, crashes and moves the clock, and the rules of AWS."""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.samples import latest, standard

from lambstead.control.event_invokes import LEASE, EventInvokes
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.configurations import Publication
from lambstead.core.errors import DomainError, ResourceNotFound, ServiceFailure, TooManyRequests
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.event_queue import MAX_DELIVERY_ATTEMPTS, Delivery, DeliveryFailed, QueuedEvent, RetryPolicy
from lambstead.core.invocations import Target
from lambstead.store.port import Reader, Transaction
from lambstead.store.sqlite import SqliteStore

T = TypeVar("T")
REALM = Realm()
START = datetime(2026, 11, 21, 10, tzinfo=UTC)
QUEUE = "arn:aws:sqs:us-east-1:000000000000:told"
UNREACHABLE = "arn:aws:sns:us-east-1:000000000000:nowhere"


@dataclass(frozen=True)
class Outcome:
    payload: bytes
    executed_version: str = "$LATEST"
    is_error: bool = False


SUCCESS = Outcome(b'{"ok": 1.50}')
ERROR = Outcome(b'{"errorMessage": "no", "errorType": "ValueError"}', is_error=True)
THROTTLED = TooManyRequests("Rate Exceeded.", Reason="ConcurrentInvocationLimitExceeded", Type="User")
LOST = ServiceFailure("The execution environment was lost.")


class Hanging:
    """Where runs and sends wait for ever, and how many do."""

    def __init__(self) -> None:
        self.count = 0
        self.arrived = asyncio.Event()

    async def wait(self) -> None:
        self.count += 1
        self.arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.count -= 1


HANGING = Hanging()


@dataclass
class Functions:
    """An invoke path that answers as it was told, one script per request; runs that were given nothing yet hang."""

    script: dict[str, list[Outcome | DomainError]] = field(default_factory=dict)
    default: Outcome | DomainError | None = SUCCESS
    runs: list[tuple[str, bytes, str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    answered: Counter[str] = field(default_factory=Counter)
    """How often a function answered, by request."""

    async def resolve(self, ref: FunctionRef) -> Target:
        if ref.name in self.missing:
            raise ResourceNotFound(f"Function not found: {ref.name}")
        arn = ref.arn(REALM)
        return Target(ref.name, "$LATEST", Publication(1, standard(recorded=DEAD_LETTERS.get(ref.name, {}))), arn)

    async def run(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> Outcome:
        self.runs.append((request_id, payload, trace_id))
        self.targets.append(target)
        answer = self.script[request_id].pop(0) if self.script.get(request_id) else self.default
        if answer is None:
            await HANGING.wait()
        if isinstance(answer, DomainError):
            raise answer
        assert answer is not None
        self.answered[request_id] += 1
        return answer


DEAD_LETTERS: dict[str, dict[str, Any]] = {
    "lettered": {"DeadLetterConfig": {"TargetArn": QUEUE}},
    "unlettered": {"DeadLetterConfig": {"TargetArn": UNREACHABLE}},
}


@dataclass
class Elsewhere:
    """The other services: one queue that can be reached, and may refuse."""

    got: list[Delivery] = field(default_factory=list)
    refusals: int = 0
    hangs: bool = False

    def can_reach(self, arn: str) -> bool:
        return arn == QUEUE

    async def send(self, delivery: Delivery) -> None:
        if self.hangs:
            await HANGING.wait()
        if self.refusals:
            self.refusals -= 1
            raise DeliveryFailed("the queue is not there")
        self.got.append(delivery)


class World:
    """A store, an invoke path, other services and a clock; and the loop under test, which can be lost and begun anew."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.new_event_loop()
        HANGING.arrived = asyncio.Event()  # an event belongs to the loop that waits for it
        self.path = path
        self.now = START
        self.functions = Functions()
        self.elsewhere = Elsewhere()
        self.store: SqliteStore = self.do(SqliteStore.open(path))
        self.events = self.begin()

    def do(self, work: Any) -> Any:  # Any: whatever the coroutine returns
        return self.loop.run_until_complete(work)

    def write(self, work: Callable[[Transaction], T]) -> T:
        found: T = self.do(self.store.write(work))
        return found

    def read(self, work: Callable[[Reader], T]) -> T:
        found: T = self.do(self.store.read(work))
        return found

    def begin(self) -> EventInvokes:
        events = EventInvokes(
            store=self.store,
            invocations=self.functions,
            destinations=self.elsewhere,
            realm=REALM,
            policy=RetryPolicy(),
            now=lambda: self.now,
            poke=lambda: None,
        )
        self.do(events.start())
        return events

    def crash(self) -> None:
        """Lose the loop with everything it was doing, and begin anew on what is stored."""
        self.do(self.events.stop(timedelta(0)))
        self.events = self.begin()

    def deploy(self, name: str, config: EventInvokeConfig | None = None) -> None:
        def work(tx: Transaction) -> None:
            tx.save_version(latest(standard(recorded=DEAD_LETTERS.get(name, {})), name))
            if config is not None:
                tx.save_event_invoke_config(name, "$LATEST", config)

        self.write(work)

    def accept(self, request_id: str, function: str = "f", payload: bytes = b'{"n": 1.50}', **members: Any) -> None:
        event = QueuedEvent(request_id, function, None, self.now, **members)
        self.write(lambda tx: tx.enqueue_event(event, payload, self.now))

    def settle(self) -> None:
        """Rounds until nothing is due."""

        async def rounds() -> None:
            for _ in range(100):
                await self.events.reconcile()
                if not self.events._tasks():
                    return
                await self.events.idle()
            raise AssertionError("the queue does not come to rest")

        self.do(rounds())

    def round(self) -> None:
        """One round, until everything that it started has ended or hangs."""

        async def one() -> None:
            await self.events.reconcile()
            async with asyncio.timeout(10):
                while HANGING.count < len(self.events._tasks()):
                    HANGING.arrived.clear()
                    arrival = asyncio.ensure_future(HANGING.arrived.wait())
                    await asyncio.wait({arrival, *self.events._tasks()}, return_when=asyncio.FIRST_COMPLETED)
                    arrival.cancel()

        self.do(one())

    @property
    def queued(self) -> int:
        return self.read(lambda reader: reader.queue_totals()).events

    def pass_time(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def close(self) -> None:
        self.do(self.events.stop(timedelta(0)))
        self.do(self.store.close())
        self.do(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "store.db")
    yield world
    world.close()


def runs_of(world: World, request_id: str) -> int:
    return sum(1 for each, _, _ in world.functions.runs if each == request_id)


# --- retries, by the clock -----------------------------------------------------------------------------------------------


def test_function_errors_come_again_after_one_minute_and_after_two_more(world: World) -> None:
    world.deploy("f")
    world.functions.default = ERROR
    world.accept("a")
    for wait, runs in ((0, 1), (59.9, 1), (0.2, 2), (119.8, 2), (0.3, 3), (86_400, 3)):
        world.pass_time(seconds=wait)
        world.settle()
        assert runs_of(world, "a") == runs
    assert world.queued == 0
    assert world.events.counts.ended == Counter({"RetriesExhausted": 1})


def test_throttles_come_again_after_one_second_doubling_to_five_minutes_and_cost_no_attempt(world: World) -> None:
    world.deploy("f")
    world.functions.default = THROTTLED
    world.accept("a")
    world.settle()
    pauses = []
    for _ in range(12):
        before, runs = world.now, runs_of(world, "a")
        ((_, world.now),) = world.read(lambda reader: reader.next_events())
        world.settle()
        assert runs_of(world, "a") == runs + 1
        pauses.append((world.now - before).total_seconds())
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    world.functions.default = ERROR
    world.pass_time(minutes=5)
    world.settle()
    world.pass_time(minutes=1)
    world.settle()
    world.functions.default = SUCCESS
    world.pass_time(minutes=2)
    world.settle()
    assert world.events.counts.ended == Counter({"Success": 1})


def test_an_event_that_is_throttled_until_it_is_six_hours_old_ends(world: World) -> None:
    world.deploy("lettered", EventInvokeConfig(on_failure=QUEUE))
    world.functions.default = THROTTLED
    world.accept("a", "lettered")
    world.settle()
    while world.queued and world.now < START + timedelta(hours=7):
        ((_, world.now),) = world.read(lambda reader: reader.next_events())
        world.settle()
    assert world.now == START + timedelta(hours=6)
    record, letter = sorted(world.elsewhere.got, key=lambda each: each.dead_letter is not None)
    context = json.loads(record.body)["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 0)
    assert "responseContext" not in json.loads(record.body)
    assert letter.dead_letter is not None
    assert letter.dead_letter.error_code == "429"


@pytest.mark.parametrize(
    ("config", "runs", "condition"),
    [
        (EventInvokeConfig(maximum_retry_attempts=0), 1, "RetriesExhausted"),
        (EventInvokeConfig(maximum_retry_attempts=1), 2, "RetriesExhausted"),
        (EventInvokeConfig(), 3, "RetriesExhausted"),
        # Recorded: with 60 s of age the first retry would come too late, with 100 s the second.
        (EventInvokeConfig(maximum_event_age=timedelta(seconds=59)), 1, "EventAgeExceeded"),
        (EventInvokeConfig(maximum_event_age=timedelta(seconds=100)), 2, "EventAgeExceeded"),
    ],
)
def test_the_config_decides_how_often_and_how_long(
    world: World, config: EventInvokeConfig, runs: int, condition: str
) -> None:
    world.deploy("f", replace(config, on_failure=QUEUE))
    world.functions.default = ERROR
    world.accept("a")
    world.settle()
    while due := world.read(lambda reader: reader.next_events()):
        ((_, world.now),) = due
        world.settle()
    (record,) = world.elsewhere.got
    context = json.loads(record.body)["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == (condition, runs)
    assert runs_of(world, "a") == runs


# --- what is told ------------------------------------------------------------------------------------------------------------


def test_a_destination_in_another_service_gets_the_record_as_aws_writes_it(world: World) -> None:
    world.deploy("f", EventInvokeConfig(on_success=QUEUE, on_failure=QUEUE, maximum_retry_attempts=0))
    world.functions.script = {"bad": [ERROR]}
    world.accept("good")
    world.accept("bad")
    world.settle()
    world.settle()
    good, bad = (next(d for d in world.elsewhere.got if d.id.startswith(name)) for name in ("good", "bad"))
    head = '{"version":"1.0","timestamp":"2026-11-21T10:00:00.000Z","requestContext":{"requestId":"%s",'
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST"
    assert good.body == (
        head % "good" + f'"functionArn":"{arn}","condition":"Success","approximateInvokeCount":1}},'
        '"requestPayload":{"n": 1.50},"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},'
        '"responsePayload":{"ok": 1.50}}'
    )
    assert bad.body == (
        head % "bad" + f'"functionArn":"{arn}","condition":"RetriesExhausted","approximateInvokeCount":1}},'
        '"requestPayload":{"n": 1.50},"responseContext":{"statusCode":200,"executedVersion":"$LATEST",'
        '"functionError":"Unhandled"},"responsePayload":{"errorMessage": "no", "errorType": "ValueError"}}'
    )


def test_a_destination_function_is_invoked_with_the_record_and_counted_in_the_lineage(world: World) -> None:
    world.deploy("f", EventInvokeConfig(on_success=REALM.function_arn("g")))
    world.deploy("g")
    world.accept("a", trace_id="Root=1-5759e988-bd862e3fe1be46a994272793")
    world.settle()
    (_, _, _), (_, payload, trace) = world.functions.runs
    assert json.loads(payload)["requestContext"]["requestId"] == "a"
    assert trace.startswith("Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=")
    assert world.events.counts.ended == Counter({"Success": 2})


@pytest.mark.parametrize(
    "target",
    [
        UNREACHABLE,
        REALM.function_arn("nobody"),
        "arn:aws:lambda:eu-west-1:000000000000:function:g",
        "arn:aws:lambda:us-east-1:123456789012:function:g",
    ],
)
def test_what_no_destination_gets_is_counted_and_harms_nothing(world: World, target: str) -> None:
    world.deploy("f", EventInvokeConfig(on_success=target))
    world.accept("a")
    world.settle()
    assert world.events.counts.destination_delivery_failures == Counter({"f": 1})
    assert world.events.counts.ended == Counter({"Success": 1})
    assert world.queued == 0


def test_a_record_larger_than_an_event_may_be_is_a_failed_delivery(world: World) -> None:
    world.deploy("f", EventInvokeConfig(on_success=REALM.function_arn("g")))
    world.deploy("g")
    world.functions.default = Outcome(b'"' + b"x" * 1_048_576 + b'"')
    world.accept("a")
    world.settle()
    assert world.events.counts.destination_delivery_failures == Counter({"f": 1})


def test_dead_letters_carry_the_event_and_the_error(world: World) -> None:
    world.deploy("lettered", EventInvokeConfig(maximum_retry_attempts=0))
    world.deploy("unlettered", EventInvokeConfig(maximum_retry_attempts=0))
    long = Outcome(json.dumps({"errorMessage": "é" * 2000}).encode(), is_error=True)
    world.functions.script = {"a": [ERROR], "b": [long], "c": [ERROR]}
    for request_id, function in (("a", "lettered"), ("b", "lettered"), ("c", "unlettered")):
        world.accept(request_id, function)
    world.settle()
    letters = {d.id: d for d in world.elsewhere.got}
    first = letters["a/dead-letter"]
    assert first.body == '{"n": 1.50}'
    assert first.dead_letter is not None
    assert (first.dead_letter.request_id, first.dead_letter.error_code, first.dead_letter.error_message) == (
        *("a", "200", "no"),
    )
    second = letters["b/dead-letter"].dead_letter
    assert second is not None
    assert second.error_message == "é" * 512, "the first kilobyte, whole characters"
    assert world.events.counts.dead_letter_errors == Counter({"unlettered": 1})


def test_a_service_that_refuses_gets_the_message_again_and_at_last_it_counts_as_failed(world: World) -> None:
    world.deploy("f", EventInvokeConfig(on_success=QUEUE))
    world.elsewhere.refusals = 3
    world.accept("a")
    for _ in range(10):
        world.settle()
        world.pass_time(minutes=6)
    assert [d.attempts for d in world.elsewhere.got] == [3]
    world.elsewhere.refusals = 99
    world.accept("b")
    for _ in range(MAX_DELIVERY_ATTEMPTS + 3):
        world.settle()
        world.pass_time(minutes=6)
    assert world.events.counts.destination_delivery_failures == Counter({"f": 1})
    assert world.elsewhere.refusals == 99 - MAX_DELIVERY_ATTEMPTS
    assert world.read(lambda reader: reader.next_delivery()) is None


def test_a_message_survives_a_crash_while_it_is_sent(world: World) -> None:
    world.deploy("f", EventInvokeConfig(on_success=QUEUE))
    world.elsewhere.hangs = True
    world.accept("a")
    world.round()
    world.round()
    assert world.queued == 0
    world.crash()
    world.elsewhere.hangs = False
    world.settle()
    assert len(world.elsewhere.got) == 1


# --- ends without a run ---------------------------------------------------------------------------------------------------------


def test_an_event_in_a_loop_ends_without_a_run_and_its_destination_hears_of_it(world: World) -> None:
    world.deploy("f", EventInvokeConfig(on_failure=QUEUE))
    world.accept("a", is_looping=True)
    world.settle()
    assert not world.functions.runs
    assert json.loads(world.elsewhere.got[0].body)["requestContext"]["approximateInvokeCount"] == 0


def test_events_of_functions_that_are_gone_are_dropped(world: World) -> None:
    world.deploy("f", EventInvokeConfig(on_failure=QUEUE))
    world.accept("a", "nobody")
    world.functions.missing = {"f"}
    world.accept("b", "f")
    world.settle()
    assert world.queued == 0
    assert world.events.counts.dropped == Counter({"nobody": 1, "f": 1})
    assert not world.elsewhere.got


def test_asynchronous_runs_have_the_function_s_whole_time(world: World) -> None:
    world.deploy("f")
    world.accept("a")
    world.settle()
    (target,) = world.functions.targets
    long = replace(target.publication, configuration=replace(target.publication.configuration, timeout_s=5400))
    assert replace(target, publication=long).timeout_ms == 5_400_000
    assert replace(target, publication=long, is_asynchronous=False).timeout_ms == 900_000


# --- leases ---------------------------------------------------------------------------------------------------------------------


def test_a_long_run_keeps_its_lease_and_nobody_else_takes_it(world: World) -> None:
    world.deploy("f")
    world.functions.default = None
    world.accept("a")
    world.round()
    other = EventInvokes(
        store=world.store,
        invocations=world.functions,
        destinations=world.elsewhere,
        realm=REALM,
        policy=RetryPolicy(),
        now=lambda: world.now,
        poke=lambda: None,
    )
    for _ in range(40):
        world.pass_time(minutes=2)
        world.round()
        world.do(other.reconcile())
    assert runs_of(world, "a") == 1
    assert other.running == 0


def test_whoever_lost_its_lease_settles_nothing(world: World) -> None:
    """Another server took the event because we did not extend its lease: only its settlement counts."""
    world.deploy("f", EventInvokeConfig(on_success=QUEUE))
    world.functions.default = None
    world.accept("a")
    world.round()
    world.pass_time(seconds=LEASE.total_seconds() + 1)
    ((taken, _),) = world.write(lambda tx: tx.claim_events("f", "other", world.now, world.now + LEASE, 1))
    assert taken.request_id == "a"
    mine = world.events._owner
    assert not world.write(lambda tx: tx.delete_event("a", mine))
    assert not world.write(lambda tx: tx.reschedule_event(taken, mine, world.now))
    assert world.write(lambda tx: tx.delete_event("a", "other"))
    assert world.queued == 0


def test_one_function_s_backlog_leaves_room_for_another_s_event(world: World) -> None:
    world.deploy("busy")
    world.deploy("other")
    world.functions.default = None
    for number in range(150):
        world.accept(f"busy-{number}", "busy")
    world.accept("other-0", "other")
    world.round()
    assert world.events.running == 101
    assert runs_of(world, "other-0") == 1


# --- the machine ------------------------------------------------------------------------------------------------------------------

ANSWERS: dict[str, Outcome | DomainError] = {"success": SUCCESS, "error": ERROR, "throttled": THROTTLED, "lost": LOST}


@settings(max_examples=25, stateful_step_count=40)
class Queue(RuleBasedStateMachine):
    """Every acknowledged event ends exactly once, however often the server is lost; runs and their number follow the config."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name) / "store.db")
        self.accepted: dict[str, datetime] = {}
        self.refused = 0

    @initialize(attempts=st.integers(0, 2), age=st.sampled_from([60, 300, 21600]))
    def deploy(self, attempts: int, age: int) -> None:
        self.attempts, self.age = attempts, timedelta(seconds=age)
        self.world.deploy("f", EventInvokeConfig(attempts, self.age, on_success=QUEUE, on_failure=QUEUE))

    @rule(answers=st.lists(st.sampled_from(sorted(ANSWERS)), max_size=6))
    def accept(self, answers: list[str]) -> None:
        request_id = f"r{len(self.accepted)}"
        self.world.functions.script[request_id] = [ANSWERS[answer] for answer in answers]
        self.world.accept(request_id)
        self.accepted[request_id] = self.world.now

    @rule()
    def run(self) -> None:
        self.world.settle()

    @rule()
    def crash(self) -> None:
        self.world.crash()

    @rule()
    def crash_while_running(self) -> None:
        """Whatever is due begins to run and never answers."""
        scripts, self.world.functions.script = self.world.functions.script, {}
        self.world.functions.default = None
        self.world.round()
        self.world.crash()
        self.world.functions.script, self.world.functions.default = scripts, SUCCESS

    @rule(seconds=st.sampled_from([1, 30, 61, 125, 3600]))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_time(seconds=seconds)

    @rule(count=st.integers(1, 3))
    def the_queue_elsewhere_refuses(self, count: int) -> None:
        """Never so often in all that a delivery is given up: that may lose one, and has a test of its own."""
        count = min(count, MAX_DELIVERY_ATTEMPTS - 1 - self.refused)
        self.refused += count
        self.world.elsewhere.refusals = count

    @invariant()
    def nothing_ends_twice(self) -> None:
        told = Counter(delivery.id for delivery in self.world.elsewhere.got)
        assert all(count == 1 for count in told.values())
        for delivery in self.world.elsewhere.got:
            context = json.loads(delivery.body)["requestContext"]
            assert context["approximateInvokeCount"] == self.world.functions.answered[context["requestId"]]
            assert context["approximateInvokeCount"] <= self.attempts + 1
            if context["condition"] == "RetriesExhausted":
                assert context["approximateInvokeCount"] == self.attempts + 1

    @invariant()
    def totals_are_right(self) -> None:
        told = len({delivery.id for delivery in self.world.elsewhere.got})
        assert self.world.queued <= len(self.accepted) - told

    def teardown(self) -> None:
        """In the end nothing fails any more, and everything that was accepted has ended once."""
        if hasattr(self, "attempts"):
            self.world.elsewhere.refusals = 0
            for _ in range(60):
                self.world.settle()
                self.world.pass_time(minutes=7)
            assert self.world.queued == 0
            assert {d.id.partition("/")[0] for d in self.world.elsewhere.got} == set(self.accepted)
            self.nothing_ends_twice()
        self.world.close()
        self.folder.cleanup()


TestQueue = Queue.TestCase
