"""Unix sockets of environments are in one folder per data directory, which the next start sweeps."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.harness import create_provider, invoke, marked_processes, publish_managed, running, start, wait_for

SOURCE = "def handler(event, context):\n    return event\n"
LONGEST = 107
"""Bytes of a Unix socket's path."""


def sockets(pid: int) -> set[Path]:
    """Of a process and its children."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        Path(str(each.laddr))
        for process in processes
        for each in process.net_connections("unix")
        if "/" in str(each.laddr)
    }


@pytest.fixture
def temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a short name, for the servers of a test alone."""
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


@pytest.mark.parametrize("depth", ["d", "/".join(["a-deep-folder"] * 8)], ids=["shallow", "deep"])
@pytest.mark.usefixtures("runtimes")
def test_what_a_killed_server_and_its_agents_leave_is_swept_at_the_next_start(temp: Path, depth: str) -> None:
    data = temp / "in" / depth
    server = start(data, agent_link="tcp")  # so that there is a socket for linked workers beside the one for logs
    publish_managed(server.aws, "any", SOURCE, create_provider(server.aws), slots=2)
    before = sockets(server.process.pid)
    assert {path.name for path in before} >= {"log.sock", "link.sock"}
    assert max(len(os.fsencode(path)) for path in before) <= LONGEST
    folder = next(path for path in before if path.name == "log.sock").parent
    server.process.send_signal(signal.SIGSTOP)  # or it would clear away after its agents
    for agent in server.agents():
        agent.kill()
    server.kill()
    wait_for(lambda: not marked_processes(data), "everything is gone")
    assert folder.is_dir()
    with running(data) as server:
        assert not folder.exists()
        invoke(server.aws, "any")
    assert not [*temp.rglob("log.sock"), *temp.rglob("link.sock")]
    assert {path.name for path in temp.iterdir()} <= {
        "in",
        *(path.name for path in temp.glob(f"lambstead-{os.getuid()}-*")),
    }
