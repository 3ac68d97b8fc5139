"""`kill -9` of the server around schedules: every scheduled time is fired, and fired once."""

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.harness import Server, create_function, marked_processes, running, start, wait_active, wait_for

ROLE = "arn:aws:iam::000000000000:role/scheduler"
KEEP = """
import json, os, pathlib

def handler(event, context):
    folder = pathlib.Path(os.environ['FOLDER'])
    (folder / f".{context.aws_request_id}").write_text(json.dumps(event))
    os.rename(folder / f".{context.aws_request_id}", folder / f"{context.aws_request_id}.json")
"""


def deploy(server: Server, folder: Path) -> str:
    created = create_function(server.aws, "keep", KEEP, Environment={"Variables": {"FOLDER": str(folder)}})
    wait_active(server.aws, "keep", "$LATEST")
    return str(created["FunctionArn"])


def create(scheduler: Any, name: str, expression: str, function: str) -> None:
    event = json.dumps({"schedule": name, "execution": "<aws.scheduler.execution-id>"})
    scheduler.create_schedule(
        Name=name,
        ScheduleExpression=expression,
        FlexibleTimeWindow={"Mode": "OFF"},
        ActionAfterCompletion="DELETE",
        Target={"Arn": function, "RoleArn": ROLE, "Input": event},
    )


def at(moment: datetime) -> str:
    return f"at({moment:%Y-%m-%dT%H:%M:%S})"


def killed(server: Server) -> None:
    server.kill()
    wait_for(lambda: not marked_processes(server.data), "no process outlives the server")


def executions(folder: Path) -> Counter[str]:
    """How many different executions each schedule had. A run that was killed half way is the same execution once more."""
    seen = {
        (each["schedule"], each["execution"]) for each in (json.loads(p.read_text()) for p in folder.glob("*.json"))
    }
    return Counter(name for name, _ in seen)


def test_a_time_that_passes_while_the_server_is_down_is_fired_by_the_next_one(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    server = start(data)
    function = deploy(server, folder)
    moment = datetime.now(UTC) + timedelta(seconds=3)
    create(server.client("scheduler"), "slept", at(moment), function)
    killed(server)
    assert not executions(folder)
    wait_for(lambda: datetime.now(UTC) > moment, "the time has passed")
    with running(data) as again:
        wait_for(lambda: executions(folder) == {"slept": 1}, "fired late")
        wait_for(lambda: not again.client("scheduler").list_schedules()["Schedules"], "and over")


def test_schedules_that_are_due_around_kills_are_each_fired_once(runtimes: Path, tmp_path: Path) -> None:
    """Sixty schedules are due in four seconds, in which the server is killed whenever some but not all have fired."""
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    chance = random.Random(6)
    server = start(data, event_backoff_first="100ms")
    function = deploy(server, folder)
    scheduler = server.client("scheduler")
    first = datetime.now(UTC) + timedelta(seconds=2)
    names = [f"s-{number}" for number in range(60)]
    for name in names:
        create(scheduler, name, at(first + timedelta(seconds=chance.randrange(4))), function)
    kills = 0
    while kills < 4 and len(executions(folder)) < len(names):
        more = min(len(executions(folder)) + chance.randrange(1, 12), len(names))
        wait_for(lambda more=more: len(executions(folder)) >= more, f"{more} schedules have fired")  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
        killed(server)
        kills += 1
        server = start(data, event_backoff_first="100ms")
    killed(server)
    with running(data, event_backoff_first="100ms") as last:
        wait_for(lambda: set(executions(folder)) == set(names), "every schedule fired", 60)
        wait_for(lambda: last.status()["events"]["queued"] == 0, "the queue is empty")
        assert not last.client("scheduler").list_schedules()["Schedules"]
    assert executions(folder) == Counter(names), "a schedule fired twice"
    assert kills >= 2
