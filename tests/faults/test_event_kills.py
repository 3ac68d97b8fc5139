"""`kill -9` of the server around asynchronous invocations: what was acknowledged is run, and run once where nothing was running."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness import Server, create_function, marked_processes, running, start, wait_active, wait_for

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

COUNT = """
import json, os, pathlib, time

def handler(event, context):
    folder = pathlib.Path(event['folder'])
    name = f"{event['number']}-{time.time_ns()}"
    (folder / f".{name}").write_text(json.dumps({'id': context.aws_request_id, 'number': event['number']}))
    os.rename(folder / f".{name}", folder / f"{name}.json")
    if event.get('errors') and len(list(folder.glob(f"{event['number']}-*.json"))) <= event['errors']:
        raise ValueError('as asked')
    while event.get('hold') and not (folder / 'open').exists():
        time.sleep(0.005)
"""


def documents(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def deploy(aws: "LambdaClient") -> None:
    create_function(aws, "count", COUNT, Timeout=60)
    wait_active(aws, "count", "$LATEST")


def send(aws: "LambdaClient", folder: Path, number: int, **event: Any) -> str:
    payload = json.dumps({"folder": str(folder), "number": number, **event}).encode()
    answer = aws.invoke(FunctionName="count", InvocationType="Event", Payload=payload)
    assert answer["StatusCode"] == 202
    return answer["ResponseMetadata"]["RequestId"]


def killed(server: Server) -> None:
    server.kill()
    wait_for(lambda: not marked_processes(server.data), "no process outlives the server")


def settled(server: Server) -> bool:
    return bool(server.status()["events"]["queued"] == 0)


def test_events_killed_between_acknowledgement_and_execution_are_run_by_the_next_server(
    runtimes: Path, tmp_path: Path
) -> None:
    """One environment is busy, so the other events are acknowledged and wait when the server dies."""
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    server = start(data, standard_environments="1", event_backoff_first="100ms")
    try:
        deploy(server.aws)
        first = send(server.aws, folder, 0, hold=True)
        wait_for(lambda: documents(folder), "the first event runs")
        sent = {send(server.aws, folder, number) for number in range(1, 30)}
        assert len(documents(folder)) == 1, "nothing but the first has run"
        killed(server)
    finally:
        server.process.kill()
    (folder / "open").touch()
    with running(data) as again:
        wait_for(lambda: settled(again), "the queue is empty")
    by_id: dict[str, int] = {}
    for run in documents(folder):
        by_id[run["id"]] = by_id.get(run["id"], 0) + 1
    assert by_id == {first: 2, **dict.fromkeys(sent, 1)}


def test_every_acknowledged_event_runs_whenever_the_server_dies(runtimes: Path, tmp_path: Path) -> None:
    """Events come from many clients until the server dies in the middle of accepting and running them."""
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    server = start(data)
    acknowledged: set[str] = set()
    try:
        deploy(server.aws)

        def deliver(number: int) -> None:
            acknowledged.add(send(server.aws, folder, number))

        futures = [server.clients.submit(deliver, number) for number in range(400)]
        wait_for(lambda: len(acknowledged) > 60, "some are acknowledged")
        killed(server)
        for future in futures:
            future.exception(60)
        assert len(acknowledged) < 400, "the kill came in the middle"
    finally:
        server.process.kill()
    with running(data) as again:
        wait_for(lambda: settled(again), "the queue is empty", 60)
    assert acknowledged <= {run["id"] for run in documents(folder)}


def test_an_event_killed_while_it_runs_is_run_again(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    server = start(data)
    try:
        deploy(server.aws)
        sent = send(server.aws, folder, 0, hold=True)
        wait_for(lambda: documents(folder), "the event runs")
        killed(server)
    finally:
        server.process.kill()
    (folder / "open").touch()
    with running(data) as again:
        wait_for(lambda: settled(again), "the event is settled")
        assert again.status()["events"]["ended"] == {"Success": 1}
    assert [run["id"] for run in documents(folder)] == [sent, sent]


def test_an_event_killed_while_it_waits_for_its_retry_keeps_its_attempts_and_its_time(
    runtimes: Path, tmp_path: Path
) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    server = start(data, event_retry_delay="3s")
    try:
        deploy(server.aws)
        sent = send(server.aws, folder, 0, errors=99)
        wait_for(lambda: documents(folder), "the first attempt")
        failed_at = time.time()
        wait_for(lambda: server.status()["events"]["running"] == 0, "the attempt is settled")
        killed(server)
    finally:
        server.process.kill()
    with running(data, event_retry_delay="1s") as again:
        wait_for(lambda: len(documents(folder)) == 2, "the second attempt")
        assert time.time() - failed_at > 2.9, "the time of the retry survived"
        wait_for(lambda: settled(again), "the event is settled")
        assert again.status()["events"]["ended"] == {"RetriesExhausted": 1}
    assert [run["id"] for run in documents(folder)] == [sent] * 3


def test_a_clean_stop_lets_a_running_event_end_and_runs_it_once(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    with running(data) as server:
        deploy(server.aws)
        send(server.aws, folder, 0, hold=True)
        wait_for(lambda: documents(folder), "the event runs")
        server.process.terminate()
        wait_for(lambda: not (data / "server.json").exists(), "the server is stopping")
        (folder / "open").touch()
        assert server.process.wait(30) == 0
    with running(data) as again:
        assert again.status()["events"]["queued"] == 0
    assert len(documents(folder)) == 1


def test_a_killed_agent_has_its_event_run_again_elsewhere(runtimes: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    with running(data, instance_poll="200ms", event_backoff_first="50ms") as server:
        deploy(server.aws)
        sent = send(server.aws, folder, 0, hold=True)
        wait_for(lambda: documents(folder), "the event runs")
        (agent,) = server.agents()
        os.kill(agent.pid, 9)
        (folder / "open").touch()
        wait_for(lambda: settled(server), "the event is settled")
        assert server.status()["events"]["ended"] == {"Success": 1}
    assert [run["id"] for run in documents(folder)] == [sent, sent]
