"""What people see of a fleet: `lambstead top`, and the system log of a capacity provider by command and by CloudWatch's API."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.harness import Server, create_provider, invoke, publish_managed, running, wait_for

HOLD = """
import pathlib, time

def handler(event, context):
    while not pathlib.Path(event).exists():
        time.sleep(0.01)
"""


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LAMBSTEAD_")}


@pytest.fixture(scope="module")
def busy(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One environment of four slots, two of them in use: so few that no further one is wanted."""
    folder = tmp_path_factory.mktemp("visible")
    with running(folder / "d") as server:
        publish_managed(server.aws, "hold", HOLD, create_provider(server.aws), slots=4)
        held = [server.clients.submit(invoke, server.aws, "hold", str(folder / "go")) for _ in range(2)]
        wait_for(lambda: server.environments("hold")[0]["busy"] == 2, "two slots are in use")
        yield server
        (folder / "go").touch()
        for each in held:
            each.result(30)


def test_top_shows_instances_environments_slots_and_reasons_once(busy: Server) -> None:
    shown = busy.command("top", "--once")
    assert shown.returncode == 0, shown.stderr
    (environment,) = busy.environments("hold")
    (instance,) = busy.status()["providers"][0]["instances"]
    assert re.search(
        r"1 instances \(\$0\.\d{3}/h on AWS\) · 1 environments · 2/4 slots in use · 0 waiting", shown.stdout
    )
    assert re.search(rf"  {instance['id']} +Running +2/4 .*{instance['type']} · us-east-1a · \$0\.\d+/h", shown.stdout)
    assert re.search(rf"    {environment['id']} +Ready +2/4 +█{{5}}░{{5}} .*hold:\$LATEST.PUBLISHED", shown.stdout)
    assert re.search(r"is ready +init took \d+ ms", shown.stdout)
    wait_for(
        lambda: re.search(r"hold:\$LATEST.PUBLISHED +1 of 1 +2 ", busy.command("top", "--once").stdout),
        "scaling has taken a reading",
    )


def test_top_prints_the_status_as_json(busy: Server) -> None:
    shown = busy.command("top", "--once", "--json")
    document: dict[str, Any] = json.loads(shown.stdout)
    (instance,) = document["providers"][0]["instances"]
    assert instance["usd_per_hour"] > 0
    assert instance["environments"][0]["busy"] == 2


def test_top_redraws_in_a_terminal_until_it_is_interrupted(busy: Server) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lambstead", "top", "--interval", "0.1", "--data", str(busy.data)]
    environ = {**clean(), "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    ) as top:
        os.close(theirs)
        seen = bytearray()

        def read() -> bool:
            """Take what there is; False once the command has let go of the terminal."""
            try:
                if select.select([ours], [], [], 0.1)[0]:
                    seen.extend(os.read(ours, 65536))
            except OSError:
                return False
            return True

        wait_for(lambda: read() and seen.count(b"slots in use \xc2\xb7") >= 3, "it was drawn three times")
        top.send_signal(signal.SIGINT)
        wait_for(lambda: not read(), "it ends")
        assert top.wait(30) == 0
    os.close(ours)


def test_the_system_log_of_a_provider_is_read_by_command_and_by_cloudwatchs_api(busy: Server) -> None:
    (instance,) = busy.status()["providers"][0]["instances"]
    shown = busy.command("logs", "--provider", "pool")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["message"].split(" ", 1)[0] for line in lines] == ["Launching", "Successfully"]
    assert lines[1]["message"] == f"Successfully launched {instance['type']} instance {instance['id']} in us-east-1a"
    logs = busy.client("logs")
    group = "/aws/lambda/capacity-provider/pool"
    found = logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/capacity-provider/")["logGroups"]
    assert [each["logGroupName"] for each in found] == [group]
    events = logs.filter_log_events(logGroupName=group, filterPattern='{ $.level = "INFO" }')["events"]
    assert [json.loads(event["message"]) for event in events] == lines
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[pool\]", stream["logStreamName"])
    assert stream["firstEventTimestamp"] == events[0]["timestamp"]


def test_a_provider_can_log_into_a_group_of_its_choice(server: Server) -> None:
    arn = create_provider(server.aws, "chosen", TelemetryConfig={"LoggingConfig": {"LogGroup": "/fleet/system"}})
    publish_managed(server.aws, "elsewhere", HOLD, arn, slots=2)
    logs = server.client("logs")
    events = logs.filter_log_events(logGroupName="/fleet/system")["events"]
    assert "Launching" in events[0]["message"]
    assert server.command("logs", "--provider", "chosen", "--tail", "1").stdout.startswith('{"timestamp":')


@pytest.mark.parametrize(
    "arguments", [[], ["hold", "--provider", "pool"], ["--provider", "pool", "--qualifier", "1"]], ids=" ".join
)
def test_logs_of_nothing_or_of_two_things_are_refused(busy: Server, arguments: list[str]) -> None:
    refused = busy.command("logs", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Name a function, or a capacity provider with --provider and no qualifier.")


def test_a_provider_without_a_log_is_said_to_have_none(busy: Server) -> None:
    refused = busy.command("logs", "--provider", "none")
    assert "There is no log of capacity provider none: no instance of it has been launched here." in refused.stderr
