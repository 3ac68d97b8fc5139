"""What containers leave on the machine, and who gets them."""

import os
import shutil
from pathlib import Path

import pytest
from tests.harness import create_provider, invoke, publish_managed, running, wait_for

from lambstead.instance.cgroups import find_cgroups
from lambstead.instance.isolation import AUTOMATIC
from lambstead.instance.levels import LevelFails, strongest, try_level

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


def test_containers_are_used_only_where_they_are_asked_for() -> None:
    assert strongest() in AUTOMATIC
    assert not {"oci", "gvisor"} & set(AUTOMATIC)


def test_the_containers_of_installed_programs_work() -> None:
    """A machine that could have the level must not skip its tests in silence."""
    if os.geteuid() != 0 or shutil.which("runc") is None:
        pytest.skip("runc is not installed, or this is not root: `apt install runc`")
    assert "containers of runc" in try_level("oci")
