"""Redrive of executions of AWS's SDK, as an operator does it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.durable import create_durable, durable_package, event_of, finished, history, start_execution, types
from tests.harness import FUNCTIONS, Server, create_function, running, wait_active, wait_for

REDRIVEN = (FUNCTIONS / "redriven.py").read_text()


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("redrive")) as server:
        create_durable(server.aws, "redriven", REDRIVEN)
        package = durable_package(REDRIVEN)
        create_function(server.aws, "charger", "", Code={"ZipFile": package}, Handler="app.plain_handler", Timeout=20)
        wait_active(server.aws, "charger", "$LATEST")
        yield server


def failed(server: Server, do: str, folder: Path, **event: Any) -> str:
    arn = start_execution(
        server.aws, "redriven", {"do": do, "folder": str(folder), **event}, name=f"{do}-{folder.name}"
    )
    assert finished(server.aws, arn)["Status"] == "FAILED"
    return arn


def runs(folder: Path, what: str) -> int:
    return len(list(folder.glob(f"{what}-*")))


@pytest.mark.parametrize(("do", "kept"), [("order", "reserve"), ("branches", "good")])
def test_only_what_failed_is_run_again(server: Server, tmp_path: Path, do: str, kept: str) -> None:
    arn = failed(server, do, tmp_path)
    (tmp_path / "mended").touch()
    done = server.command("durable", "redrive", arn, "--json")
    assert done.returncode == 0, done.stderr
    assert [each["Name"] for each in json.loads(done.stdout)["Reopened"]] == ["charge"]
    found = finished(server.aws, arn)
    assert found["Status"] == "SUCCEEDED", found
    assert json.loads(found["Result"])[-1] == "charged"
    assert (runs(tmp_path, kept), runs(tmp_path, "charge")) == (1, 2)
    events = history(server.aws, arn)
    (resumed,) = [each for each in events if each["EventType"] == "ExecutionResumed"]
    assert resumed["ExecutionResumedDetails"]["Reason"]["Payload"] == "redriven from STEP charge"
    # The name still means this execution.
    event = {"do": do, "folder": str(tmp_path)}
    assert start_execution(server.aws, "redriven", event, name=f"{do}-{tmp_path.name}") == arn


@pytest.mark.parametrize("do", ["parent", "plain"])
def test_what_a_chained_invocation_ran_is_redriven_or_run_again(server: Server, tmp_path: Path, do: str) -> None:
    arn = failed(server, do, tmp_path)
    (tmp_path / "mended").touch()
    assert server.command("durable", "redrive", arn).returncode == 0
    assert finished(server.aws, arn)["Status"] == "SUCCEEDED"
    assert runs(tmp_path, "charge") == 2
    assert runs(tmp_path, "reserve") == (1 if do == "parent" else 0)


def test_a_callback_that_timed_out_is_open_again_under_its_id(server: Server, tmp_path: Path) -> None:
    arn = failed(server, "approval", tmp_path, timeout=1)
    callback_id = event_of(server.aws, arn, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
    done = server.command("durable", "redrive", arn, "--from", "approval")
    assert "CALLBACK approval" in done.stdout
    server.aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b'"yes"')
    assert "yes" in finished(server.aws, arn)["Result"]
    assert types(history(server.aws, arn)).count("CallbackTimedOut") == 1


def test_a_caller_waits_for_a_redriven_execution(server: Server, tmp_path: Path) -> None:
    arn = failed(server, "order", tmp_path)
    (tmp_path / "mended").touch()
    assert server.command("durable", "redrive", arn.rpartition("/")[2]).returncode == 0
    answer = server.aws.invoke(
        FunctionName="redriven",
        Qualifier="$LATEST",
        Payload=json.dumps({"do": "order", "folder": str(tmp_path)}).encode(),
        DurableExecutionName=f"order-{tmp_path.name}",
    )
    assert json.loads(answer["Payload"].read()) == ["reserved", "charged"]


def test_what_cannot_be_redriven_is_refused_with_a_reason(server: Server, tmp_path: Path) -> None:
    arn = failed(server, "order", tmp_path)
    for origin, words in {
        "nosuch": "no operation with the id or name 'nosuch'",
        "reserve": "fork the execution",
    }.items():
        refused = server.command("durable", "redrive", arn, "--from", origin)
        assert refused.returncode == 2
        assert words in refused.stderr
    (tmp_path / "mended").touch()
    server.command("durable", "redrive", arn)
    assert finished(server.aws, arn)["Status"] == "SUCCEEDED"
    assert "SUCCEEDED" in server.command("durable", "redrive", arn).stderr
    assert "There is no durable execution" in server.command("durable", "redrive", "nosuch").stderr


def test_an_execution_whose_version_is_gone_is_not_redriven(server: Server, tmp_path: Path) -> None:
    create_durable(server.aws, "gone", REDRIVEN)
    version = server.aws.publish_version(FunctionName="gone")["Version"]
    wait_for(
        lambda: server.aws.get_function(FunctionName="gone", Qualifier=version)["Configuration"]["State"] == "Active",
        "the version is active",
    )
    arn = start_execution(server.aws, "gone", {"do": "order", "folder": str(tmp_path)}, qualifier=version)
    assert finished(server.aws, arn)["Status"] == "FAILED"
    server.aws.delete_function(FunctionName="gone", Qualifier=version)
    refused = server.command("durable", "redrive", arn)
    assert refused.returncode == 2
    assert "is gone" in refused.stderr
