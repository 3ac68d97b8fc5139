"""Forks, replay checks, and stop or redrive of all that a search finds: with AWS's SDK and the command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.durable import (
    create_durable,
    durable_package,
    event_of,
    finished,
    history,
    start_execution,
    status_of,
    types,
)
from tests.harness import FUNCTIONS, Server, running, wait_active, wait_for, wait_updated

VERSIONS = (FUNCTIONS / "versions.py").read_text()
RESULT = ["reserve", "left", "right"]


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("fork")) as server:
        create_durable(server.aws, "versions", VERSIONS)
        yield server


def deploy(server: Server, variant: str) -> str:
    """A published version with this variant of the code."""
    package = durable_package(VERSIONS.replace('"FIRST"', f'"{variant}"'))
    aws = server.aws
    aws.update_function_code(FunctionName="versions", ZipFile=package)
    wait_updated(aws, "versions")
    version = aws.publish_version(FunctionName="versions")["Version"]
    wait_active(aws, "versions", version)
    return version


def runs(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


@pytest.fixture
def first(server: Server) -> str:
    return deploy(server, "FIRST")


def test_a_fork_goes_on_from_the_chosen_operation_with_another_version(
    server: Server, first: str, tmp_path: Path
) -> None:
    arn = start_execution(server.aws, "versions", {"folder": str(tmp_path)}, qualifier=first)
    assert json.loads(finished(server.aws, arn)["Result"]) == RESULT
    before = history(server.aws, arn)
    other = deploy(server, "RESULT")
    done = server.command("durable", "fork", arn, "--up-to", "left", "--qualifier", other, "--name", "again", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["DurableExecutionArn"]
    assert f":versions:{other}/durable-execution/again/" in made
    assert json.loads(finished(server.aws, made)["Result"]) == [*RESULT, "more"]
    assert runs(tmp_path) == ["left", "reserve", "right", "right"], "only what is not copied runs again"
    assert types(history(server.aws, made))[0] == "ExecutionStarted"
    assert history(server.aws, arn) == before
    attributes = json.loads(server.command("durable", "attributes", made, "--json").stdout)
    assert attributes == {"forked-from": arn}
    taken = server.command("durable", "fork", arn, "--name", "again")
    assert (taken.returncode, "was started already" in taken.stderr) == (2, True)


def test_a_fork_takes_another_input_and_leaves_an_open_source_alone(server: Server, first: str, tmp_path: Path) -> None:
    event: dict[str, Any] = {"folder": str(tmp_path), "approval": True}
    arn = start_execution(server.aws, "versions", event, qualifier=first)
    event_of(server.aws, arn, "CallbackStarted")
    done = server.command("durable", "fork", arn, "--input", json.dumps({"folder": str(tmp_path)}))
    made = done.stdout.strip()
    assert json.loads(finished(server.aws, made)["Result"]) == RESULT
    assert status_of(server.aws, arn) == "RUNNING"
    assert runs(tmp_path) == ["left", "reserve", "right"]
    for arguments, words in {
        ("--up-to", "nosuch"): "no operation with the id or name 'nosuch'",
        ("--up-to", "approval"): "its status is STARTED",
        ("--input", "{"): "Input is not JSON",
        ("--qualifier", "999"): "Function not found",
    }.items():
        refused = server.command("durable", "fork", arn, *arguments)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused


def test_a_replay_check_finds_what_another_version_does_differently(server: Server, first: str, tmp_path: Path) -> None:
    ended = start_execution(server.aws, "versions", {"folder": str(tmp_path)}, qualifier=first, name="ended")
    waits = start_execution(
        server.aws, "versions", {"folder": str(tmp_path), "approval": True}, qualifier=first, name="waits"
    )
    finished(server.aws, ended)
    event_of(server.aws, waits, "CallbackStarted")
    wait_for(lambda: types(history(server.aws, waits)).count("InvocationCompleted") == 2, "it is suspended")
    histories = [history(server.aws, each) for each in (ended, waits)]
    steps = runs(tmp_path)

    def check(qualifier: str, *what: str) -> tuple[int, dict[str, tuple[str, str]]]:
        done = server.command("durable", "replay-check", *(what or (ended, waits)), "--qualifier", qualifier, "--json")
        found = {each["DurableExecutionName"]: (each["Verdict"], each["Because"]) for each in json.loads(done.stdout)}
        return done.returncode, found

    assert check(first) == (0, {"ended": ("SAME", ""), "waits": ("SAME", "")})
    code, found = check(deploy(server, "MORE"))
    assert code == 1
    assert {verdict for verdict, _ in found.values()} == {"DIVERGED"}
    code, found = check(deploy(server, "RESULT"))
    assert (code, found["waits"]) == (1, ("SAME", ""))
    assert "result was" in found["ended"][1]
    code, found = check(deploy(server, "LESS"))
    assert (code, found["waits"][0]) == (1, "DIVERGED")
    code, found = check(deploy(server, "CRASH"), ended)
    assert "The invocation failed" in found["ended"][1]

    table = server.command("durable", "replay-check", "--function", "versions", "--name", "ended", "--qualifier", first)
    assert table.returncode == 0
    assert "1 checked against" in table.stderr
    assert runs(tmp_path) == steps, "no step ran again"
    assert [history(server.aws, each) for each in (ended, waits)] == histories, "nothing of it is stored"
    listed = json.loads(server.command("durable", "list", "--name", "replay*", "--json").stdout)
    assert listed == []


def test_all_that_a_search_finds_is_stopped_and_redriven(server: Server, first: str, tmp_path: Path) -> None:
    event = {"folder": str(tmp_path), "approval": True}
    arns = [start_execution(server.aws, "versions", event, qualifier=first, name=f"bulk-{n}") for n in range(5)]
    for arn in arns:
        event_of(server.aws, arn, "CallbackStarted")
    meant = ("--name", "bulk-*", "--function", "versions")
    dry = server.command("durable", "stop", *meant, "--dry-run")
    assert "5 executions would be meant" in dry.stderr
    assert {status_of(server.aws, arn) for arn in arns} == {"RUNNING"}
    done = server.command("durable", "stop", *meant, "--yes", "--reason", "not needed")
    assert (done.returncode, "5 done, 0 refused" in done.stderr) == (0, True), done
    assert {status_of(server.aws, arn) for arn in arns} == {"STOPPED"}
    assert server.aws.get_durable_execution(DurableExecutionArn=arns[0])["Error"]["ErrorMessage"] == "not needed"
    again = server.command("durable", "redrive", *meant, "--yes", "--json")
    assert len(json.loads(again.stdout)) == 5
    assert {status_of(server.aws, arn) for arn in arns} == {"RUNNING"}
    refused = server.command("durable", "redrive", arns[0], arns[1])
    assert (refused.returncode, "0 done, 2 refused" in refused.stderr) == (1, True)
    assert server.command("durable", "stop").returncode == 2
    assert server.command("durable", "stop", arns[0], "--name", "x").returncode == 2
