"""The loop of schedules against a real store and a clock that tests move: fired in time, late, again after refusals, never twice."""

import asyncio
import json
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.samples import standard

from lambstead.control.schedules import LEASE, Schedules
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.configurations import Publication
from lambstead.core.errors import DomainError, ResourceNotFound, TooManyRequests
from lambstead.core.event_queue import Delivery, QueuedEvent, RetryPolicy
from lambstead.core.invocations import Target
from lambstead.core.schedule_targets import UNIVERSAL_INVOKE, ScheduleTarget, TargetCall
from lambstead.core.schedules import Schedule, Timing
from lambstead.store.port import Transaction
from lambstead.store.sqlite import SqliteStore

T = TypeVar("T")
REALM = Realm()
START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ROLE = "arn:aws:iam::000000000000:role/scheduler"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:lost"
FULL = TooManyRequests("Rate Exceeded.", Reason="CallerRateLimitExceeded", Type="User")
INPUT = json.dumps({"time": "<aws.scheduler.scheduled-time>", "attempt": "<aws.scheduler.attempt-number>"})


@dataclass
class Answer:
    payload: bytes = b"null"
    executed_version: str = "$LATEST"
    is_error: bool = False


@dataclass
class Ports:
    """An invoke path and destinations that refuse what they are told to refuse."""

    refusal: DomainError | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Payloads of synchronous invocations."""
    hangs: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Something hangs."""
    reaches: bool = True

    async def resolve(self, ref: FunctionRef) -> Target:
        if self.refusal is not None:
            raise self.refusal
        return Target(ref.name, "$LATEST", Publication(1, standard()), ref.arn(REALM))

    async def run(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> Answer:
        self.runs.append(json.loads(payload))
        if self.hangs:
            self.arrived.set()
            await asyncio.Event().wait()
        return Answer()

    def can_reach(self, arn: str) -> bool:
        return self.reaches


class World:
    """A store, a clock, and the loop's body between its ports."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self.now = START
        self.ports = Ports()
        self._poked = asyncio.Event()
        self.before_write: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.store = self.do(SqliteStore.open(path))
        self.restart()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def restart(self) -> None:
        """What a new server does after the old one was killed."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self.do(asyncio.sleep(0))
        self.schedules = Schedules(
            store=self.store,
            invoke_event=self._invoke_event,
            invocations=self.ports,
            can_reach=self.ports.can_reach,
            realm=REALM,
            policy=RetryPolicy(),
            now=lambda: self.now,
            draw=lambda: 0.5,
            poke=self._poked.set,
            wake_events=lambda: None,
        )
        self.do(self.schedules.start())

    async def _invoke_event(self, request_id: str, call: TargetCall, also: Callable[[Transaction], None]) -> None:
        if self.before_write is not None:
            await self.before_write()
        if self.ports.refusal is not None:
            raise self.ports.refusal
        event = QueuedEvent(request_id, call.ref.name, call.ref.qualifier, self.now)

        def work(tx: Transaction) -> None:
            also(tx)
            tx.enqueue_event(event, call.payload, self.now)

        await self.store.write(work)

    def add(self, expression: str, name: str = "s", *, window: timedelta | None = None, **target: Any) -> None:
        """A schedule of the function `f`; `target` are members of its target."""
        wanted = ScheduleTarget(**{"arn": REALM.function_arn("f"), "role_arn": ROLE, "input": INPUT, **target})
        arn, timing = REALM.schedule_arn("default", name), Timing(expression, anchor=self.now, window=window)
        made = Schedule("default", name, arn, timing, wanted, self.now, self.now).planned(0.5)
        self.write(lambda tx: tx.save_schedule(made))

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self.do(self.store.write(work))

    def round(self) -> timedelta | None:
        """One round of the loop, and everything that it started and that does not hang. How long the loop would wait then."""
        self._poked.clear()

        async def work() -> timedelta | None:
            me = asyncio.current_task()
            wait = await self.schedules.reconcile()
            started = {task for task in asyncio.all_tasks() if task is not me}
            if started and not self.ports.hangs:
                await asyncio.wait(started)
            elif started:
                await self.ports.arrived.wait()
            return timedelta(0) if self._poked.is_set() else wait

        return self.do(work())

    def go(self, to: datetime) -> None:
        """Let time pass as the loop sees it: it wakes when it asked to."""
        while (wait := self.round()) is not None and self.now + wait <= to:
            self.now += wait
        self.now = to
        self.round()

    def events(self) -> list[dict[str, Any]]:
        """The payloads in the queue of asynchronous invocations. Takes them out."""

        def work(tx: Transaction) -> list[bytes]:
            found = []
            for name, _ in tx.next_events():
                for event, payload in tx.claim_events(name, "test", self.now, self.now, 9999):
                    tx.delete_event(event.request_id, "test")
                    found.append(payload)
            return found

        return [json.loads(payload) for payload in self.write(work)]

    def times(self) -> list[str]:
        """For which times of the day functions were invoked."""
        return sorted(each["time"][11:16] for each in self.events())

    def letters(self) -> list[Delivery]:
        return list(self.write(lambda tx: tx.claim_deliveries("test", self.now, self.now, 99)))

    def close(self) -> None:
        self.do(self.schedules.stop(timedelta(0)))
        self.do(self.store.close())
        self.do(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "store.db")
    yield made
    made.close()


def attribute(letter: Delivery, name: str) -> str | None:
    return letter.attributes.get(name)


# --- in time ---------------------------------------------------------------------------------------------------------------------


def test_a_cron_fires_at_each_of_its_times(world: World) -> None:
    world.add("cron(0/20 10-11 * * ? *)")
    world.go(START + timedelta(hours=3))
    assert world.times() == ["10:00", "10:20", "10:40", "11:00", "11:20", "11:40"]


def test_a_rate_fires_at_once_and_then_in_its_steps(world: World) -> None:
    world.add("rate(25 minutes)")
    world.go(START + timedelta(hours=1))
    assert world.times() == ["10:00", "10:25", "10:50"]


def test_a_flexible_window_fires_within_it_for_the_scheduled_time(world: World) -> None:
    world.add("cron(0 11 * * ? *)", window=10 * MINUTE)
    world.go(START + 64 * MINUTE)
    assert world.times() == []
    world.go(START + 65 * MINUTE)
    assert world.times() == ["11:00"]


def test_a_schedule_that_was_changed_in_the_meantime_does_not_fire(world: World) -> None:
    world.add("at(2026-11-21T10:00:00)")

    async def delete() -> None:
        await world.store.write(lambda tx: tx.delete_schedule("default", "s"))

    world.before_write = delete
    world.round()
    assert world.events() == []


def test_one_broken_schedule_holds_up_no_other_and_is_not_silent(world: World) -> None:
    for name in ("a", "b", "c"):
        world.add("at(2026-11-21T10:00:00)", name)
    broken = iter([False, True, False])

    async def break_one() -> None:
        if next(broken):
            raise RuntimeError("broken")

    world.before_write = break_one
    with pytest.raises(RuntimeError, match="broken"):
        world.round()
    assert len(world.events()) == 2
    world.before_write = None
    world.round()
    assert len(world.events()) == 1


# --- late ------------------------------------------------------------------------------------------------------------------------


def test_times_that_passed_while_the_server_was_down_are_fired_once(world: World) -> None:
    world.add("cron(0/10 * * * ? *)")
    world.go(START + MINUTE)
    assert world.times() == ["10:00"]
    world.now = START + 47 * MINUTE
    world.restart()
    world.go(START + 51 * MINUTE)
    assert world.times() == ["10:40", "10:50"]


def test_a_time_that_is_older_than_the_event_age_is_not_fired_but_told(world: World) -> None:
    world.add("at(2026-11-21T10:30:00)", event_age=timedelta(seconds=60), dead_letter_target=QUEUE)
    world.now = START + 32 * MINUTE
    world.round()
    assert world.events() == []
    (letter,) = world.letters()
    assert attribute(letter, "EXHAUSTED_RETRY_CONDITION") == "MaximumEventAgeInSeconds"
    assert json.loads(letter.body)["attempt"] == "1"


# --- refused ---------------------------------------------------------------------------------------------------------------------


def test_a_refused_invocation_is_tried_again_and_counts_its_attempts(world: World) -> None:
    world.add("at(2026-11-21T10:00:00)")
    world.ports.refusal = FULL
    world.go(START + timedelta(seconds=3))
    assert world.events() == []
    world.ports.refusal = None
    world.go(START + MINUTE)
    assert world.events() == [{"time": "2026-11-21T10:00:00Z", "attempt": "4"}]
    world.go(START + timedelta(hours=1))
    assert world.events() == []


@pytest.mark.parametrize(
    ("policy", "condition", "retries"),
    [({"retry_attempts": 2}, "MaximumRetryAttempts", "2"), ({"event_age": MINUTE}, "MaximumEventAgeInSeconds", "5")],
)
def test_what_ends_the_retries_stands_in_the_dead_letter(
    world: World, policy: dict[str, Any], condition: str, retries: str
) -> None:
    world.add("at(2026-11-21T10:00:00)", dead_letter_target=QUEUE, **policy)
    world.ports.refusal = FULL
    world.go(START + timedelta(hours=1))
    (letter,) = world.letters()
    assert attribute(letter, "EXHAUSTED_RETRY_CONDITION") == condition
    assert attribute(letter, "RETRY_ATTEMPTS") == retries
    assert attribute(letter, "ERROR_CODE") == "TooManyRequestsException"
    assert json.loads(letter.body)["attempt"] == str(int(retries) + 1)
    assert world.do(world.store.read(lambda reader: reader.next_scheduled_invocation())) is None


def test_a_refusal_that_lasts_is_not_tried_again(world: World) -> None:
    world.add("rate(1 hour)", dead_letter_target=QUEUE)
    world.ports.refusal = ResourceNotFound("Function not found: f")
    world.round()
    (letter,) = world.letters()
    assert attribute(letter, "EXHAUSTED_RETRY_CONDITION") is None
    world.ports.refusal = None
    world.go(START + timedelta(hours=1))
    assert world.times() == ["11:00"]


def test_without_a_reachable_queue_the_log_says_what_was_lost(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.ports.reaches = False
    world.ports.refusal = ResourceNotFound("Function not found: f")
    world.add("at(2026-11-21T10:00:00)", dead_letter_target=QUEUE)
    world.round()
    assert world.letters() == []
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
        "schedule-gave-up",
        "schedule-undeliverable",
    ]


# --- synchronous -----------------------------------------------------------------------------------------------------------------

SYNCHRONOUS: dict[str, Any] = {"arn": UNIVERSAL_INVOKE, "input": json.dumps({"FunctionName": "f", "Payload": INPUT})}


def test_a_synchronous_target_runs_once(world: World) -> None:
    world.add("at(2026-11-21T10:00:00)", **SYNCHRONOUS)
    world.go(START + LEASE + timedelta(hours=1))
    assert world.ports.runs == [{"time": "2026-11-21T10:00:00Z", "attempt": "1"}]
    assert world.events() == []


def test_a_synchronous_target_that_was_running_when_the_server_died_runs_again(world: World) -> None:
    world.add("at(2026-11-21T10:00:00)", **SYNCHRONOUS)
    world.ports.hangs = True
    world.round()
    world.round()
    assert len(world.ports.runs) == 1
    world.restart()
    world.ports.hangs = False
    world.go(START + MINUTE)
    assert len(world.ports.runs) == 2
    world.go(START + timedelta(hours=2))
    assert len(world.ports.runs) == 2


# --- anything ----------------------------------------------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Schedules, refusals, crashes and a clock: no time is fired twice, and nothing that was due is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self._folder.name) / "store.db")
        self.fired: Counter[tuple[str, str]] = Counter()
        self.once: set[str] = set()

    @initialize()
    def begin(self) -> None:
        self.add("rate(7 minutes)", False)

    @rule(
        expression=st.sampled_from(["rate(1 minute)", "cron(0/3 * * * ? *)", "once"]),
        is_synchronous=st.booleans(),
    )
    def add(self, expression: str, is_synchronous: bool) -> None:
        name = f"s{uuid.uuid4().hex}"
        if expression == "once":
            expression = f"at({self.world.now + MINUTE:%Y-%m-%dT%H:%M:%S})"
            self.once.add(name)
        event = json.dumps({"name": name, "time": "<aws.scheduler.scheduled-time>"})
        if is_synchronous:
            call: dict[str, Any] = {
                "arn": UNIVERSAL_INVOKE,
                "input": json.dumps({"FunctionName": "f", "Payload": event}),
            }
            self.world.add(expression, name, **call)
        else:
            self.world.add(expression, name, input=event)

    @rule(seconds=st.integers(0, 400), is_watched=st.booleans())
    def pass_time(self, seconds: int, is_watched: bool) -> None:
        to = self.world.now + timedelta(seconds=seconds)
        if is_watched:
            self.world.go(to)
        else:
            self.world.now = to  # the server is down, or slow

    @rule(refuses=st.booleans())
    def throttle(self, refuses: bool) -> None:
        self.world.ports.refusal = FULL if refuses else None

    @rule()
    def crash(self) -> None:
        self.world.restart()

    @invariant()
    def nothing_is_fired_twice(self) -> None:
        seen = [*self.world.events(), *self.world.ports.runs]
        self.world.ports.runs.clear()
        self.fired.update((each["name"], each["time"]) for each in seen)
        assert all(count == 1 for count in self.fired.values()), self.fired

    def teardown(self) -> None:
        self.world.ports.refusal = None
        self.world.go(self.world.now + timedelta(minutes=12))
        self.nothing_is_fired_twice()
        assert self.once <= {name for name, _ in self.fired}, "a one-time schedule never fired"
        self.world.close()
        self._folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
