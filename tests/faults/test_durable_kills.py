"""`kill -9` of everything around durable executions: what was acknowledged is there again, and every execution ends as its code says."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from tests.durable import create_durable, event_of, finished, history, start_execution, types
from tests.harness import FUNCTIONS, Server, create_function, marked_processes, running, start, wait_active, wait_for

WORKFLOWS = (FUNCTIONS / "workflows.py").read_text()
FLOW = "flow"


def killed(server: Server) -> None:
    server.kill()
    wait_for(lambda: not marked_processes(server.data), "no process outlives the server")


def deployed(data: Path, **settings: str) -> Server:
    server = start(data, **settings)
    create_durable(server.aws, FLOW, WORKFLOWS, Timeout=60)
    return server


def result(found: dict[str, Any]) -> Any:
    assert found["Status"] == "SUCCEEDED", found.get("Error")
    return json.loads(found["Result"])


def test_a_wait_that_ends_while_the_server_is_down_ends_at_its_start(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    server = deployed(data)
    try:
        event = {"do": "step_wait_step", "n": 1, "seconds": 2, "folder": str(folder)}
        arn = start_execution(server.aws, FLOW, event)
        due = event_of(server.aws, arn, "WaitStarted")["WaitStartedDetails"]["ScheduledEndTimestamp"]
        event_of(server.aws, arn, "InvocationCompleted")
        killed(server)
    finally:
        server.process.kill()
    wait_for(lambda: time.time() > due.timestamp(), "the wait is over")
    with running(data) as again:
        assert result(finished(again.aws, arn)) == {"first": 2, "second": 4}
        assert types(history(again.aws, arn)).count("WaitSucceeded") == 1
    assert len(list(folder.glob("first-*"))) == 1, "a step that was acknowledged is not run again"


def test_an_invocation_killed_in_a_step_is_begun_again_at_once(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    hour = {
        "durable_backoff_first": "1h",
        "durable_backoff_most": "1h",
    }  # for functions that fail, not for servers that do
    server = deployed(data, **hour)
    try:
        arn = start_execution(server.aws, FLOW, {"do": "held", "folder": str(folder)})
        wait_for(lambda: list(folder.glob("began-*")), "the step runs")
        killed(server)
    finally:
        server.process.kill()
    (folder / "open").touch()
    with running(data, **hour) as again:
        assert result(finished(again.aws, arn)) == "held!"
        events = history(again.aws, arn)
    ends = [each["InvocationCompletedDetails"]["Error"] for each in events if "InvocationCompletedDetails" in each]
    assert [bool(each) for each in ends] == [True, False]
    assert len(list(folder.glob("began-*"))) == 2


def test_callbacks_and_chained_invocations_go_on_after_a_kill(runtimes: Path, tmp_path: Path) -> None:
    """A parent waits for a child that waits for a callback; another for a plain function that was running."""
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    server = deployed(data)
    plain = "import os, time\ndef handler(event, context):\n    open(event['folder'] + f'/plain-{time.time_ns()}', 'w').close()\n    while not os.path.exists(event['folder'] + '/open'):\n        time.sleep(0.005)\n    return 'plain'\n"
    try:
        create_function(server.aws, "plain", plain, Timeout=60)
        wait_active(server.aws, "plain", "$LATEST")
        waiting = {"do": "chained", "function": f"{FLOW}:$LATEST", "payload": {"do": "callback"}}
        parent = start_execution(server.aws, FLOW, waiting)
        child = event_of(server.aws, parent, "ChainedInvokeStarted")["ChainedInvokeStartedDetails"][
            "DurableExecutionArn"
        ]
        callback_id = event_of(server.aws, child, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
        calling = {"do": "chained", "function": "plain", "payload": {"folder": str(folder)}}
        caller = start_execution(server.aws, FLOW, calling)
        wait_for(lambda: list(folder.glob("plain-*")), "the plain function runs")
        killed(server)
    finally:
        server.process.kill()
    (folder / "open").touch()
    with running(data) as again:
        again.aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"yes")
        assert result(finished(again.aws, parent)) == {"answer": {"approved": "yes"}}
        assert result(finished(again.aws, child)) == {"approved": "yes"}
        assert result(finished(again.aws, caller)) == {"answer": "plain"}
        assert types(history(again.aws, parent)).count("ChainedInvokeSucceeded") == 1
        assert types(history(again.aws, caller)).count("ChainedInvokeSucceeded") == 1
        found = again.aws.list_durable_executions_by_function(FunctionName=FLOW)["DurableExecutions"]
        assert len(found) == 3, "the child was not started twice"


def test_executions_of_every_kind_survive_kills_at_any_moment(runtimes: Path, tmp_path: Path) -> None:
    """Clients start executions while the server dies again and again; every acknowledged one ends as its code says."""
    data = tmp_path / "data"
    expected: dict[str, tuple[Path, dict[str, Any], Any]] = {}
    kinds: list[tuple[dict[str, Any], Any]] = [
        ({"do": "step_wait_step", "n": 1}, {"first": 2, "second": 4}),
        ({"do": "parallel"}, [10, 20]),
        ({"do": "mapped", "items": [1, 2, 3]}, [1, 4, 9]),
        ({"do": "many_steps", "steps": 5}, 10),
        ({"do": "chained", "function": f"{FLOW}:$LATEST", "payload": {"do": "many_steps", "steps": 3}}, {"answer": 3}),
    ]
    server = deployed(data)
    server.stop()
    number = 0
    for round_number in range(4):
        server = start(data)
        stop = threading.Event()
        try:

            def offer(server: Server = server, stop: threading.Event = stop) -> None:
                nonlocal number
                while not stop.is_set():
                    event, answer = kinds[number % len(kinds)]
                    number += 1
                    folder = tmp_path / f"out{number}"
                    folder.mkdir()
                    try:
                        arn = start_execution(server.aws, FLOW, {**event, "folder": str(folder)}, name=f"n{number}")
                    except Exception:  # noqa: BLE001 - the server died under it: nothing was acknowledged
                        return
                    expected[arn] = (folder, event, answer)

            client = threading.Thread(target=offer)
            client.start()
            goal = 10 * (round_number + 1)
            wait_for(lambda goal=goal: len(expected) >= goal, "some are acknowledged")  # type: ignore[misc]
            killed(server)
            stop.set()
            client.join(30)
        finally:
            stop.set()
            server.process.kill()
    with running(data) as again:
        for arn, (folder, event, answer) in expected.items():
            assert result(finished(again.aws, arn, 90)) == answer, arn
            kinds_of_events = types(history(again.aws, arn))
            assert kinds_of_events[-1] == "ExecutionSucceeded"
            assert kinds_of_events.count("ExecutionSucceeded") == 1
            if event["do"] == "step_wait_step":
                assert list(folder.glob("second-*")), "its effect is there"
    assert len(expected) >= 40


def test_a_killed_agent_has_its_invocation_begun_again_elsewhere(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    with running(data, instance_poll="200ms") as server:
        create_durable(server.aws, FLOW, WORKFLOWS, Timeout=60)
        arn = start_execution(server.aws, FLOW, {"do": "held", "folder": str(folder)})
        wait_for(lambda: list(folder.glob("began-*")), "the step runs")
        (agent,) = server.agents()
        os.kill(agent.pid, 9)
        (folder / "open").touch()
        assert result(finished(server.aws, arn)) == "held!"


def test_a_clean_stop_lets_a_running_function_checkpoint_to_its_end(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    with running(data) as server:
        create_durable(server.aws, FLOW, WORKFLOWS, Timeout=60)
        arn = start_execution(server.aws, FLOW, {"do": "held", "folder": str(folder)})
        wait_for(lambda: list(folder.glob("began-*")), "the step runs")
        server.process.terminate()
        wait_for(lambda: not (data / "server.json").exists(), "the server is stopping")
        (folder / "open").touch()
        assert server.process.wait(30) == 0
    with running(data) as again:
        found = finished(again.aws, arn)
        assert result(found) == "held!"
        assert types(history(again.aws, arn)).count("InvocationCompleted") == 1
    assert len(list(folder.glob("began-*"))) == 1
