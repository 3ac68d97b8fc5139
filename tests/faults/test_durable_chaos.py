"""Durable executions of every kind while everything around them is killed. `make soak` runs the whole: 1,000 executions, 200 kills."""

import os
import time
from pathlib import Path

import pytest
from tests.faults.durable_chaos import Chaos
from tests.harness import marked_processes, wait_for

SOAK = os.environ.get("LAMBSTEAD_SOAK", "")


def survived(folder: Path, executions: int, kills: int) -> Chaos:
    """A run that found nothing wrong; prints its figures."""
    seed = int.from_bytes(os.urandom(4))
    began = time.monotonic()
    chaos = Chaos(folder, executions, kills, seed)
    chaos.run()
    print(
        f"{executions} executions in {time.monotonic() - began:.0f} s (seed {seed}): ended {dict(chaos.ended)}, killed {dict(chaos.killed)}, "
        f"{chaos.events} events, {chaos.repeated_effects} effects repeated"
    )
    assert chaos.violations == []
    assert chaos.ended.total() == executions
    assert chaos.killed.total() == kills
    assert min(chaos.killed[victim] for victim in ("server", "agent", "worker")) >= 1
    wait_for(lambda: not marked_processes(folder / "data"), "no process outlives the server")
    return chaos


@pytest.mark.timeout(300)
def test_executions_end_as_their_code_says_while_everything_is_killed(runtimes: Path, tmp_path: Path) -> None:
    survived(tmp_path, executions=22, kills=4)


@pytest.mark.skipif(not SOAK, reason="the whole run takes minutes: make soak")
@pytest.mark.timeout(3600)
def test_a_thousand_executions_survive_two_hundred_kills(runtimes: Path, tmp_path: Path) -> None:
    chaos = survived(tmp_path, executions=1000, kills=200)
    assert min(chaos.killed[victim] for victim in ("server", "agent", "worker")) >= 10
