"""The command as a user types it, without a server: help, variables for the shell, and what each mistake is answered with."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from rich.console import Console

from lambstead.cli.main import app
from lambstead.cli.running_server import find_server
from lambstead.cli.status import Status, status_tree

HEAVY = {"rich", "psutil", "http.client", "botocore", "uvicorn", "starlette", "sqlite3", "asyncio", "lambstead.app"}


def lambstead(*arguments: str | Path, environ: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the real command with only these LAMBSTEAD_ variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LAMBSTEAD_", "AWS_"))}
    command = [sys.executable, "-m", "lambstead", *map(str, arguments)]
    return subprocess.run(
        command, env={**clean, **(environ or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


def complaint(result: "subprocess.CompletedProcess[str]") -> list[str]:
    """The lines on stderr of a command that could not be carried out."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()


def write_server_file(data: Path, pid: int, started_at: datetime, url: str = "http://127.0.0.1:1") -> None:
    document = {"pid": pid, "url": url, "region": "eu-west-1", "account": "000000000000", "profile": "dev"}
    (data / "server.json").write_text(json.dumps({**document, "started_at": started_at.isoformat()}))


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[str]"]:
    """A living process that ends at SIGTERM."""
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


def commands(group: typer.core.TyperGroup | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the application by its words."""
    if group is None:
        root = typer.main.get_command(app)
        assert isinstance(root, typer.core.TyperGroup)
        group = root
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def test_the_commands_are_these() -> None:
    names = {" ".join(words) for words in commands()}
    singles = {"up", "down", "env", "status", "top", "logs", "invoke", "doctor", "reset", "simulate"}
    schedules = {f"schedule {name}" for name in ("create", "list", "show", "delete", "next")}
    durable = {
        f"durable {each}"
        for each in (
            "list",
            "attributes",
            "show",
            "history",
            "redrive",
            "signal",
            "stop",
            "fork",
            "replay-check",
            "query",
            "skip",
            "subscribe",
            "subscriptions",
            "unsubscribe",
        )
    }
    faults = {"kill-instance", "kill-environment", "kill-worker", "lose-zone", "slow-start", "no-capacity", "throttle"}
    chaos = {f"chaos {name}" for name in faults | {"list", "clear"}}
    assert names == singles | schedules | durable | chaos | {"runtime list", "runtime install"}


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_explains_itself_with_examples(words: tuple[str, ...]) -> None:
    result = lambstead(*words, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"lambstead {' '.join(words)}" in result.stdout.partition("Examples:")[2]
    needs_no_server = words in {("schedule", "next"), ("simulate",)}
    assert ("--data" in result.stdout) is not needs_no_server


def test_help_lists_every_command_in_one_line_each() -> None:
    result = lambstead("--help")
    assert result.returncode == 0
    listed = re.findall(r"^  (\w+)  +(\S.*)$", result.stdout.partition("Commands:")[2], re.MULTILINE)
    assert {name for name, _ in listed} == {words[0] for words in commands()}
    assert all(not text.endswith("...") for _, text in listed)


@pytest.mark.parametrize("arguments", [["--help"], ["env"], ["up", "--help"]], ids=" ".join)
def test_shell_start_up_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "lambstead", *arguments]
    environ = {**os.environ, "LAMBSTEAD_DATA": str(tmp_path)}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if "import time:" in line}
    assert "lambstead.cli.main" in imported
    assert not imported & HEAVY


def test_env_without_a_server_says_so_beside_the_lines(tmp_path: Path) -> None:
    result = lambstead("env", "--data", tmp_path, environ={"LAMBSTEAD_PORT": "4999"})
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "export AWS_ENDPOINT_URL='http://127.0.0.1:4999'",
        "export AWS_ACCESS_KEY_ID='lambstead'",
        "export AWS_SECRET_ACCESS_KEY='lambstead'",
        "export AWS_DEFAULT_REGION='us-east-1'",
        "export AWS_REGION='us-east-1'",
    ]
    assert result.stderr.startswith(f"No Lambstead server is running on {tmp_path};")


def test_env_lines_work_in_a_shell(tmp_path: Path) -> None:
    script = (
        f'eval "$({sys.executable} -m lambstead env --data {tmp_path} 2>/dev/null)"; echo $AWS_ENDPOINT_URL $AWS_REGION'
    )
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "http://127.0.0.1:4566 us-east-1\n"


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("fish", "set -gx AWS_REGION 'us-east-1'"),
        ("powershell", "$Env:AWS_REGION = 'us-east-1'"),
        ("posix", "export AWS_REGION='us-east-1'"),
    ],
)
def test_env_speaks_the_shells_language(tmp_path: Path, shell: str, line: str) -> None:
    assert line in lambstead("env", "--shell", shell, "--data", tmp_path).stdout.splitlines()


def test_env_as_json(tmp_path: Path) -> None:
    variables = json.loads(lambstead("env", "--json", "--data", tmp_path).stdout)
    assert variables == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
        "AWS_ACCESS_KEY_ID": "lambstead",
        "AWS_SECRET_ACCESS_KEY": "lambstead",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
    }


def test_env_of_a_running_server_is_that_servers(tmp_path: Path, bystander: "subprocess.Popen[str]") -> None:
    write_server_file(tmp_path, bystander.pid, datetime.now(UTC), "http://127.0.0.1:5001")
    result = lambstead("env", "--json", "--data", tmp_path)
    assert result.stderr == ""
    variables = json.loads(result.stdout)
    assert (variables["AWS_ENDPOINT_URL"], variables["AWS_REGION"]) == ("http://127.0.0.1:5001", "eu-west-1")


def test_env_cannot_guess_a_port_that_is_chosen_at_start(tmp_path: Path) -> None:
    lines = complaint(lambstead("env", "--data", tmp_path, environ={"LAMBSTEAD_PORT": "0"}))
    assert lines[1] == "Start it first with: lambstead up"


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["logs", "f"], ["invoke", "f"], ["doctor"], ["reset", "--yes"]],
    ids=" ".join,
)
def test_clients_say_that_no_server_runs_and_how_to_start_one(tmp_path: Path, arguments: list[str]) -> None:
    assert complaint(lambstead(*arguments, "--data", tmp_path)) == [
        f"No Lambstead server is running on {tmp_path}.",
        "Start one with: lambstead up (add --data DIR if its data is elsewhere)",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["logs", "f"], ["invoke", "f"], ["doctor"], ["reset", "--yes"]],
    ids=" ".join,
)
def test_a_silent_server_is_told_in_a_sentence(
    tmp_path: Path, bystander: "subprocess.Popen[str]", arguments: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        url = f"http://127.0.0.1:{closed_soon.getsockname()[1]}"
    write_server_file(tmp_path, bystander.pid, datetime.now(UTC), url)
    lines = complaint(lambstead(*arguments, "--data", tmp_path))
    assert lines[0].startswith(f"The server at {url} (process {bystander.pid}) does not answer: ")


def test_a_taken_port_is_one_sentence_and_a_next_step(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = lambstead("up", "--port", str(port), "--data", tmp_path)
    assert complaint(result) == [
        f"Port {port} on 127.0.0.1 is taken by another program.",
        "Choose another with --port, or let the system choose one with --port 0.",
    ]


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path, bystander: "subprocess.Popen[str]") -> None:
    write_server_file(tmp_path, bystander.pid, datetime.now(UTC))
    assert complaint(lambstead("up", "--port", "0", "--data", tmp_path)) == [
        f"A Lambstead server (process {bystander.pid}) already serves {tmp_path} at http://127.0.0.1:1.",
        "Use that one, stop it with `lambstead down`, or give this one another directory with --data.",
    ]


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert complaint(lambstead("up", "--data", file)) == [
        f"The data directory {file} cannot be made: File exists.",
        "Choose another with --data or LAMBSTEAD_DATA.",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["up", "--profile", "prod"], "--profile: 'prod' is not one of dev, faithful."),
        (["up", "--port", "70000"], "--port: 70000 is not a whole number from 0 to 65535."),
        (["invoke", "f", "--payload", "@nowhere.json"], None),
    ],
    ids=["profile", "port", "payload"],
)
def test_bad_flags_are_named(
    tmp_path: Path, bystander: "subprocess.Popen[str]", arguments: list[str], sentence: str | None
) -> None:
    if sentence is None:
        write_server_file(tmp_path, bystander.pid, datetime.now(UTC))
        sentence = "The payload file nowhere.json cannot be read: No such file or directory."
    assert complaint(lambstead(*arguments, "--data", tmp_path)) == [sentence]


@pytest.mark.parametrize("arguments", [["upp"], ["up", "--prot", "1"], ["up", "--port", "http"], ["invoke"]])
def test_unknown_words_are_a_usage_error(arguments: list[str]) -> None:
    assert complaint(lambstead(*arguments))


def test_down_without_a_server_has_nothing_to_do(tmp_path: Path) -> None:
    result = lambstead("down", "--data", tmp_path)
    assert (result.returncode, result.stdout) == (0, f"No Lambstead server is running on {tmp_path}.\n")
    assert json.loads(lambstead("down", "--json", "--data", tmp_path).stdout) == {"stopped": None}


def test_down_stops_the_server_and_waits_for_its_end(tmp_path: Path, bystander: "subprocess.Popen[str]") -> None:
    write_server_file(tmp_path, bystander.pid, datetime.now(UTC))
    result = lambstead("down", "--json", "--data", tmp_path)
    assert (result.returncode, json.loads(result.stdout)) == (0, {"stopped": bystander.pid})
    assert bystander.poll() is not None


def test_down_leaves_a_stranger_alone_that_got_the_process_id(
    tmp_path: Path, bystander: "subprocess.Popen[str]"
) -> None:
    write_server_file(tmp_path, bystander.pid, datetime.now(UTC) - timedelta(minutes=1))
    assert json.loads(lambstead("down", "--json", "--data", tmp_path).stdout) == {"stopped": None}
    assert bystander.poll() is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"pid": 1}',
        '{"pid": "x", "url": 1, "region": 1, "account": 1, "started_at": "yesterday"}',
    ],
)
def test_a_broken_server_file_means_no_server(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    assert find_server(tmp_path) is None


def test_the_file_of_an_ended_process_means_no_server(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    started_at = datetime.now(UTC)
    process.wait()
    write_server_file(tmp_path, process.pid, started_at)
    assert find_server(tmp_path) is None


def test_status_shows_every_level_and_takes_nothing_for_markup() -> None:
    document: Status = {
        "server": {},
        "providers": [
            {
                "name": "[bold]prod",
                "state": "Active",
                "max_vcpus": 12,
                "vcpus": 2,
                "instances": [
                    {
                        "id": "i-1",
                        "type": "m7g.large",
                        "zone": "us-east-1a",
                        "phase": "Running",
                        "vcpus": 2,
                        "memory_mb": 8192,
                        "cpu_utilization": 0.125,
                        "memory_bytes": 96 << 20,
                        "environments": [
                            {
                                "id": "env-1",
                                "function": "fibonacci",
                                "version": "$LATEST.PUBLISHED",
                                "tenant": None,
                                "phase": "Ready",
                                "slots": 16,
                                "busy": 3,
                                "cpu_utilization": 0.25,
                                "memory_bytes": 64 << 20,
                                "because": "minimum",
                            }
                        ],
                    }
                ],
            },
            {
                "name": "(standard functions)",
                "state": "Active",
                "max_vcpus": None,
                "vcpus": 0,
                "instances": [
                    {
                        "id": "i-2",
                        "type": "lambda",
                        "zone": "us-east-1a",
                        "phase": "Running",
                        "vcpus": None,
                        "memory_mb": None,
                        "cpu_utilization": None,
                        "memory_bytes": None,
                        "environments": [],
                    }
                ],
            },
        ],
        "functions": [
            {
                "name": "fibonacci",
                "runtime": "python3.13",
                "provider": None,
                "versions": [{"version": "1", "state": "Failed", "reason": "[red]no module"}],
            }
        ],
        "events": {
            "queued": 3,
            "running": 1,
            "dropped": {"gone": 2},
            "destination_delivery_failures": {"fibonacci": 4},
            "dead_letter_errors": {},
        },
        "durable": {
            "running": 1,
            "suspended": 4,
            "executions": {"RUNNING": 4, "PAUSED": 1, "SUCCEEDED": 9, "FAILED": 2},
        },
        "decisions": [{"at": "2026-11-21T13:00:00.123456+01:00", "what": "start env-1", "because": "below minimum"}],
    }
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(status_tree("Lambstead", document))
    assert [line.strip(" │├└─") for line in captured.get().splitlines()] == [
        "Lambstead",
        "Capacity providers",
        "[bold]prod  Active  2 of 12 vCPU",
        "i-1  Running  m7g.large · us-east-1a · 2 vCPU · 8192 MB · CPU 12% · 96 MB used",
        "env-1  Ready  fibonacci:$LATEST.PUBLISHED · 3 of 16 slots busy · CPU 25% · 64 MB used · minimum",
        "(standard functions)  Active  0 vCPU",
        "i-2  Running  lambda · us-east-1a",
        "Functions",
        "fibonacci  python3.13 · on demand",
        "1  Failed  [red]no module",
        "Asynchronous invocations: 3 queued, 1 of them running",
        "gone: 2 events dropped, their function is gone",
        "fibonacci: 4 records reached no destination",
        "Durable executions: 1 running, 4 suspended; ended: 2 FAILED, 9 SUCCEEDED",
        "Latest decisions",
        "2026-11-21 12:00:00Z  start env-1: below minimum",
    ]


def test_coming_times_of_an_expression_need_no_server() -> None:
    asked = (
        "schedule",
        "next",
        "cron(30 2 ? * SUN *)",
        "--timezone",
        "Europe/Berlin",
        "--after",
        "2026-03-15T12:00:00Z",
    )
    shown = lambstead(*asked, "--count", "2")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == ["Sun 2026-03-22 02:30:00 CET", "Sun 2026-04-05 02:30:00 CEST"]
    told = lambstead(*asked, "--count", "1", "--json")
    assert json.loads(told.stdout) == ["2026-03-22T02:30:00+01:00"]


def test_an_expression_that_is_never_due_is_bad_news() -> None:
    result = lambstead("schedule", "next", "at(2020-01-01T00:00:00)", "--after", "2026-01-01")
    assert (result.returncode, result.stdout) == (1, "")
    assert "never due" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "fact", "next_step"),
    [
        (["cron(0 9 * * MON *)"], "Invalid Schedule Expression cron(0 9 * * MON *).", "exactly one of day-of-month"),
        (["rate(1 minute)", "--after", "noon"], "noon is no time", "2026-12-01T09:00:00Z"),
    ],
)
def test_a_wrong_expression_is_told_with_the_reason(arguments: list[str], fact: str, next_step: str) -> None:
    told = complaint(lambstead("schedule", "next", *arguments))
    assert fact in told[0]
    assert next_step in told[1]


def test_a_wrong_zone_is_named() -> None:
    (told,) = complaint(lambstead("schedule", "next", "rate(1 minute)", "--timezone", "Mars"))
    assert "Mars" in told
