"""Mixed durable executions while the server, its agents and its workers are killed at random; every execution is judged by what its code says.

Clients start executions by name and ask again when the server dies under them, so a start whose answer was lost must find the execution it made. The
killer keeps step with the executions that have ended: kills are spread over the whole run, however fast the machine is.
"""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError
from tests.durable import LATEST, create_durable, finished, history, start_execution, types
from tests.harness import (
    FUNCTIONS,
    PUBLISHED,
    create_provider,
    marked_processes,
    on_provider,
    start,
    wait_active,
    wait_for,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

T = TypeVar("T")
WORKFLOWS = (FUNCTIONS / "workflows.py").read_text()
CLIENTS = 16
ANSWER_S = 900.0
"""How long one execution may take. One that finds no room, or whose function is killed, again and again, is put off for up to five minutes each time."""
VICTIMS = ("server", "agent", "worker", "worker", "worker")
"""Whom a kill hits: workers more often than what they run in."""
FLOWS = {"on-demand": LATEST, "managed": PUBLISHED}


@dataclass(frozen=True, slots=True)
class Kind:
    """A workflow, its event, and what its code says of its end."""

    event: Mapping[str, Any]
    result: Any = None
    """Of an execution that succeeds."""
    error: str | None = None
    """Message of the error of one that fails."""
    once: tuple[str, ...] = ()
    """Effects of steps that run at least once: their marks are there in the end."""
    retried: str | None = None
    """The mark of a step that runs at most once per attempt."""


KINDS = (
    Kind({"do": "step_wait_step", "n": 1}, {"first": 2, "second": 4}, once=("first", "second")),
    Kind({"do": "many_steps", "steps": 8}, 28),
    Kind({"do": "parallel"}, [10, 20]),
    Kind({"do": "mapped", "items": [1, 2, 3]}, [1, 4, 9]),
    Kind({"do": "retried", "attempts": 3}, "done", once=("attempt",)),
    Kind({"do": "at_most_once"}, "survived", retried="attempt"),
    Kind({"do": "callback"}, {"approved": "yes"}),
    Kind({"do": "condition"}, 3),
    Kind({"do": "nested", "size": 1000}, 1000),
    Kind({"do": "chained", "payload": {"do": "many_steps", "steps": 3}}, {"answer": 3}),
    Kind({"do": "fails"}, error="as asked"),
)


@dataclass
class Chaos:
    """One run. `violations` is empty in the end, and `ended` has every execution."""

    folder: Path
    executions: int
    kills: int
    seed: int
    violations: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    events: int = 0
    repeated_effects: int = 0
    """Effects of at-least-once steps beyond the first: what at-least-once allows, and a sign that kills hit."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._server = start(self.folder / "data", slot_wait="20s")
        self._aws = self._server.aws
        self._deploy()

    def _deploy(self) -> None:
        aws, config = self._aws, {"DurableConfig": {"ExecutionTimeout": 3600}, "Timeout": 60}
        create_durable(aws, "on-demand", WORKFLOWS, **config)
        # More would only queue for the processors of a small machine.
        aws.put_function_concurrency(FunctionName="on-demand", ReservedConcurrentExecutions=4)
        managed = on_provider(
            create_provider(aws), 4, Publish=True, PublishTo="LATEST_PUBLISHED", MemorySize=2048, **config
        )
        create_durable(aws, "managed", WORKFLOWS, **managed)
        wait_active(aws, "managed")

    def run(self) -> None:
        """All executions, all kills; then the server is stopped."""
        try:
            with ThreadPoolExecutor(CLIENTS) as clients:
                killer = threading.Thread(target=self._kill_all, daemon=True)
                killer.start()
                for _ in clients.map(self._one, range(self.executions)):
                    pass
                killer.join(60)
        finally:
            with suppress(ProcessLookupError):
                self._server.stop()

    # --- clients -----------------------------------------------------------------------------------------------------------

    def asked(self, ask: "Callable[[LambdaClient], T]") -> T:
        """The answer of whichever server is there; asks again when one dies. Raises AssertionError when none answers for long."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                return ask(self._aws)
            except (HTTPClientError, ConnectionError):
                assert time.monotonic() < deadline, "no server answers"
                time.sleep(0.05)  # between two questions to a server that is being started

    def _one(self, number: int) -> None:
        """One execution from its start to the verdict on it."""
        kind = KINDS[number % len(KINDS)]
        try:
            self._judge(number, kind)
        except AssertionError as failure:
            self._report(f"execution {number} ({kind.event['do']}): {failure}")
        except Exception as failure:  # noqa: BLE001 - whatever it was, it belongs to the findings
            self._report(f"execution {number} ({kind.event['do']}): {failure!r}")

    def _judge(self, number: int, kind: Kind) -> None:
        flow = tuple(FLOWS)[number // len(KINDS) % len(FLOWS)]
        effects = self.folder / f"effects-{number}"
        effects.mkdir()
        event = {**kind.event, "folder": str(effects), "function": f"{flow}:{FLOWS[flow]}"}
        name = f"number-{number}"
        arn = self.asked(lambda aws: start_execution(aws, flow, event, FLOWS[flow], name))
        if kind.event["do"] == "callback":
            self._complete_callback(arn)
        found = self.asked(lambda aws: finished(aws, arn, ANSWER_S))
        recorded = self.asked(lambda aws: history(aws, arn))  # fails if an event is missing
        kinds = types(recorded)
        if kind.error is None:
            assert found["Status"] == "SUCCEEDED", found.get("Error")
            assert json.loads(found["Result"]) == kind.result, found["Result"]
        else:
            assert (found["Status"], found["Error"]["ErrorMessage"]) == ("FAILED", kind.error), found
        last = "ExecutionSucceeded" if kind.error is None else "ExecutionFailed"
        assert kinds[0] == "ExecutionStarted"
        assert kinds.count(last) == 1, kinds
        # The end of the invocation that ended the execution may be told after the end of the execution.
        assert set(kinds[kinds.index(last) + 1 :]) <= {"InvocationCompleted"}, kinds
        assert kinds.count("ExecutionStarted") == 1, kinds
        self._judge_effects(kind, effects, recorded)
        with self._lock:
            self.ended[found["Status"]] += 1
            self.events += len(recorded)

    def _judge_effects(self, kind: Kind, effects: Path, recorded: list[dict[str, Any]]) -> None:
        for mark in kind.once:
            runs = len(list(effects.glob(f"{mark}-*")))
            assert runs >= 1, f"the effect of {mark} is missing"
            with self._lock:
                self.repeated_effects += max(0, runs - kind.event.get("attempts", 1))
        if kind.retried is not None:
            runs = len(list(effects.glob(f"{kind.retried}-*")))
            attempts = types(recorded).count("StepStarted")
            assert 1 <= runs <= attempts, f"{runs} runs in {attempts} attempts of a step that runs at most once in each"

    def _complete_callback(self, arn: str) -> None:
        def opened(aws: "LambdaClient") -> str:
            def started() -> str | None:
                events = (each for each in history(aws, arn) if each["EventType"] == "CallbackStarted")
                return next((each["CallbackStartedDetails"]["CallbackId"] for each in events), None)

            return wait_for(started, "the callback is there", ANSWER_S)

        callback_id = self.asked(opened)
        asked = 0

        def complete(aws: "LambdaClient") -> None:
            nonlocal asked
            asked += 1
            try:
                aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"yes")
            except ClientError:
                if asked == 1:  # later ones may find what the first did before its answer was lost
                    raise

        self.asked(complete)

    def _report(self, violation: str) -> None:
        with self._lock:
            self.violations.append(violation)
            self.ended["violated"] += 1

    # --- the killer --------------------------------------------------------------------------------------------------------

    def _kill_all(self) -> None:
        """One kill after another, each due when its share of the executions has ended."""
        for number in range(self.kills):
            due = number * self.executions * 0.95 / self.kills
            while self.ended.total() < due:
                time.sleep(self._random.uniform(0.01, 0.2))  # so that kills hit any moment of what follows an end
            victim = self._random.choice(VICTIMS)
            while not self._kill(victim):  # nobody of that sort is there right now
                time.sleep(0.05)
            self.killed[victim] += 1
            if number % 20 == 19:
                print(f"{number + 1} kills, {self.ended.total()} ended, {len(self.violations)} violations", flush=True)

    def _kill(self, victim: str) -> bool:
        if victim == "server":
            self._server.kill()
            self._server = start(self.folder / "data", slot_wait="20s")
            self._aws = self._server.aws
            return True
        found = [pid for pid in marked_processes(self._server.data) if _is_agent(pid) == (victim == "agent")]
        if not found:
            return False
        try:
            os.kill(self._random.choice(found), 9)
        except ProcessLookupError:
            return False
        return True


def _is_agent(pid: int) -> bool:
    with suppress(psutil.Error):
        return "lambstead.instance.agent" in psutil.Process(pid).cmdline()
    return False
