"""What containers leave on the machine, and who gets them."""

import os
import shutil
from pathlib import Path

import pytest
from tests.harness import create_provider, invoke, publish_managed, running, wait_for

from lambstead.instance.cgroups import find_cgroups
from lambstead.instance.isolation import AUTOMATIC
from lambstead.instance.levels import LevelFails, strongest, try_level

SLOW = """
import os, socket, time, pathlib

def handler(event, context):
    here = pathlib.Path("/tmp/here")
    here.mkdir(exist_ok=True)
    (here / str(os.getpid())).touch()
    deadline = time.monotonic() + 20
    while len(list(here.iterdir())) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    # A connection of the worker's own to its Runtime API that drops: its worker is looked for.
    socket.create_connection(os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")).close()
    time.sleep(1)
    return len(list(here.iterdir()))
"""
SOURCE = "def handler(event, context):\n    return event\n"


def groups(mark: str) -> list[Path]:
    """Control groups of any tree with this in their name."""
    return [Path(folder, name) for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names if mark in name]


@pytest.mark.usefixtures("runtimes")
def test_no_control_group_of_a_container_outlives_it(tmp_path: Path) -> None:
    """Not after an order, and not after its agent was killed."""
    try:
        try_level("oci")
    except LevelFails as exc:
        pytest.skip(f"level oci: {exc} {exc.advice}")
    if find_cgroups() is None:
        pytest.skip("this user cannot make control groups")
    with running(tmp_path / "data", "--isolation", "oci", instance_poll="200ms") as server:
        publish_managed(server.aws, "any", SOURCE, create_provider(server.aws), slots=2)
        assert invoke(server.aws, "any", "there").payload == "there"
        (environment,) = server.environments("any")
        assert groups(environment["id"])
        (agent,) = server.agents()
        agent.kill()
        wait_for(lambda: not groups(environment["id"]), "the killed agent's groups are gone")
        replacement = wait_for(
            lambda: next((each for each in server.environments("any") if each["id"] != environment["id"]), None),
            "a replacement",
        )
        assert groups(replacement["id"])
        server.aws.delete_function(FunctionName="any")
        wait_for(lambda: not groups(replacement["id"]), "the ended environment's groups are gone")


@pytest.mark.usefixtures("runtimes")
def test_workers_that_cannot_be_counted_are_not_missed(tmp_path: Path) -> None:
    """Of gVisor's processes this machine sees others, and fewer."""
    try:
        try_level("gvisor")
    except LevelFails as exc:
        pytest.skip(f"level gvisor: {exc} {exc.advice}")
    with running(tmp_path / "data", "--isolation", "gvisor", instance_poll="200ms") as server:
        publish_managed(server.aws, "slow", SLOW, create_provider(server.aws), slots=6)
        calls = [server.clients.submit(invoke, server.aws, "slow", 1) for _ in range(6)]
        # Six workers, each at most one at a time: they only meet if every one is there.
        assert {each.result().payload for each in calls} == {6}
        (environment,) = server.environments("slow")
        assert environment["slots"] == 6


def test_containers_are_used_only_where_they_are_asked_for() -> None:
    assert strongest() in AUTOMATIC
    assert not {"oci", "gvisor"} & set(AUTOMATIC)


def test_the_containers_of_installed_programs_work() -> None:
    """A machine that could have the level must not skip its tests in silence."""
    if os.geteuid() != 0 or shutil.which("runc") is None:
        pytest.skip("runc is not installed, or this is not root: `apt install runc`")
    assert "containers of runc" in try_level("oci")
