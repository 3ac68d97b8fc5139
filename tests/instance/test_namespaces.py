"""An agent in a network namespace of its own, as on another host: reached over TCP, missed when the cable is pulled."""

import asyncio
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.instance.harness import running_agent

from lambstead.link.messages import AgentHello, Error, Result

pytestmark = pytest.mark.anyio

SOURCE = """
def handler(event, context):
    if event == "fail":
        raise KeyError(event)
    return event
"""


@dataclass(frozen=True)
class Namespace:
    """A network namespace, joined to ours by a pair of interfaces."""

    name: str
    here: str
    """Our address on the pair."""
    cable: str
    """Our end of the pair."""

    @property
    def enter(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made here: {' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need iproute2's `ip` and root")
    mark = uuid.uuid4().hex[:6]
    name, cable, there = f"lamb-{mark}", f"la{mark}", f"lb{mark}"
    net = f"10.{int(mark[:2], 16)}.{int(mark[2:4], 16)}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", there, "netns", name)
        run("ip", "addr", "add", f"{net}.1/30", "dev", cable)
        run("ip", "link", "set", cable, "up")
        run("ip", "-n", name, "addr", "add", f"{net}.2/30", "dev", there)
        run("ip", "-n", name, "link", "set", there, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield Namespace(name, f"{net}.1", cable)
    finally:
        subprocess.run(["ip", "link", "del", cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.parametrize("relays_workers", [False, True], ids=["http", "relayed workers"])
async def test_invocations_cross_the_namespaces(
    namespace: Namespace, tmp_path: Path, runtimes: Path, *, relays_workers: bool
) -> None:
    async with running_agent(tmp_path, runtimes, namespace.here, namespace.enter) as gateway:
        hello = gateway.messages[0]
        assert isinstance(hello, AgentHello)
        assert hello.token == gateway.token
        environment = await gateway.start(SOURCE, relays_workers=relays_workers)
        await environment.until_slots(1)
        big = "x" * (6 * 1024 * 1024 - 100)
        for event in ("small", big, "after"):
            answer = await environment.invoke(event)
            assert isinstance(answer.head, Result)
            assert answer.json == event
            await environment.until_slots(1)
        failed = await environment.invoke("fail")
        assert isinstance(failed.head, Error)
        assert failed.json["errorType"] == "KeyError"
        await environment.stop()


async def test_a_pulled_cable_ends_the_instance(namespace: Namespace, tmp_path: Path, runtimes: Path) -> None:
    async with running_agent(tmp_path, runtimes, namespace.here, namespace.enter) as gateway:
        environment = await gateway.start(SOURCE, relays_workers=True)
        await environment.until_slots(1)
        await asyncio.to_thread(run, "ip", "link", "set", namespace.cable, "down")
        # No packet says so: keep-alive finds out, on both ends.
        await gateway.until(lambda: not environment.is_open, lambda: "the end of the environment's connection")
        assert await gateway.agent_gone() == 0
        assert not gateway.processes(), "what ran there ended with its agent"
