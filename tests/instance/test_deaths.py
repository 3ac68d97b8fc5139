"""Who dies takes along what it must, and nothing else; nobody is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.harness import FUNCTIONS, with_runtime
from tests.instance.harness import EnvironmentLink, Gateway, eventually, is_alive

from lambstead.core.log_streams import environment_mark, instance_mark, stream_of
from lambstead.instance.strays import MARKED_VARIABLE, find_strays, kill_strays
from lambstead.link.messages import EnvironmentDegraded, EnvironmentExited, Error, Reject, StopAgent, StopEnvironment

pytestmark = pytest.mark.anyio

BUSY = """
    import os, pathlib, subprocess, time

    def handler(event, context):
        match event:
            case {"touch": path}:
                pathlib.Path(path).write_text(str(os.getpid()))
                while True:
                    time.sleep(0.01)
            case {"stray": path}:
                # A child in a session of its own, out of reach of a group kill.
                child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
                return child.pid
            case {"exit": status}:
                raise SystemExit(status)
        return os.getpid()
"""


async def busy(environment: EnvironmentLink, tmp_path: Path) -> tuple[int, "asyncio.Future[object]"]:
    """A worker held busy: its process id and its invocation."""
    path = tmp_path / f"busy-{len(os.listdir(tmp_path))}"
    invocation = environment.send({"touch": str(path)})
    await eventually(lambda: path.exists() and path.read_text() != "", "the handler runs")
    return int(path.read_text()), invocation.answer  # type: ignore[return-value]  # any answer is an object


async def test_a_killed_idle_worker_takes_its_slot_along(gateway: Gateway) -> None:
    environment = await gateway.start(BUSY, max_concurrency=3)
    pid = (await environment.invoke()).json
    await environment.until_slots(3)
    os.kill(pid, signal.SIGKILL)
    await environment.until_slots(2)
    assert environment.slot_changes[-1] == -1
    degraded = await gateway.message(EnvironmentDegraded, environment.environment_id)
    assert degraded.slots_left == 2
    assert (await environment.invoke()).json != pid
    assert environment.is_open


async def test_a_killed_busy_worker_fails_its_own_invocation_only(gateway: Gateway, tmp_path: Path) -> None:
    environment = await gateway.start(BUSY, max_concurrency=3)
    victim, answer = await busy(environment, tmp_path)
    _, survivor = await busy(environment, tmp_path)
    os.kill(victim, signal.SIGKILL)
    failed = await answer
    assert failed.head == Error("Runtime.ExitError", "platform")  # type: ignore[attr-defined]
    assert failed.json["errorMessage"].endswith("Error: Runtime exited without providing a reason")  # type: ignore[attr-defined]
    assert (await gateway.message(EnvironmentDegraded, environment.environment_id)).slots_left == 2
    assert environment.slots == 1
    assert not survivor.done()


async def test_the_last_workers_death_ends_the_environment(gateway: Gateway) -> None:
    environment = await gateway.start(BUSY, max_concurrency=1)
    answer = await environment.invoke({"exit": 7})
    assert answer.head == Error("Runtime.ExitError", "platform")
    exited = await environment.exited()
    assert exited.error_type == "Runtime.ExitError"
    assert not any(isinstance(m, EnvironmentDegraded) for m in gateway.messages)
    assert gateway.processes() == []


@pytest.mark.parametrize("mode", ["on-demand", "linked"])
async def test_an_exit_in_a_handler_on_demand_names_the_status(gateway: Gateway, mode: str) -> None:
    environment = await gateway.start(BUSY, mode=mode)
    invocation = environment.send({"exit": 7})
    answer = await invocation.answer
    message = f"RequestId: {invocation.request_id} Error: Runtime exited with error: exit status 7"
    assert answer.json == {"errorType": "Runtime.ExitError", "errorMessage": message}
    exited = await environment.exited()
    assert (exited.error_type, exited.message) == ("Runtime.ExitError", "Runtime exited with error: exit status 7")
    assert message in environment.log()


@pytest.mark.parametrize(("mode", "concurrency"), [("managed-instances", 4), ("on-demand", 1), ("linked", 1)])
async def test_the_main_processs_death_ends_everything_in_the_environment(
    gateway: Gateway, tmp_path: Path, mode: str, concurrency: int
) -> None:
    environment = await gateway.start(BUSY, mode=mode, max_concurrency=concurrency)
    assert environment.ready is not None
    _, answer = await busy(environment, tmp_path)
    os.kill(environment.ready.pid, signal.SIGKILL)
    failed = await answer
    assert failed.head == Error("Runtime.ExitError", "platform")  # type: ignore[attr-defined]
    exited = await environment.exited()
    assert exited.error_type == "Runtime.ExitError"
    if mode != "managed-instances":
        assert exited.message == "Runtime exited with error: signal: killed"
    assert gateway.processes() == []
    await gateway.until(lambda: not environment.is_open, lambda: "the end of the link")


async def test_a_stop_order_ends_the_environment_and_what_left_its_session(gateway: Gateway, tmp_path: Path) -> None:
    environment = await gateway.start(BUSY, max_concurrency=2)
    stray = (await environment.invoke({"stray": ""})).json
    assert is_alive(stray)
    _, answer = await busy(environment, tmp_path)
    exited = await environment.stop()
    assert exited == EnvironmentExited(environment.environment_id, "", "the test is over")
    assert (await answer).head == Error("Runtime.ExitError", "platform")  # type: ignore[attr-defined]
    assert not is_alive(stray)
    assert gateway.processes() == []
    assert gateway.process is not None
    # The agent adopted the stray and reaps it: not even a zombie stays.
    await eventually(lambda: not os.path.exists(f"/proc/{stray}"), "the stray is reaped")


async def test_a_stop_order_during_init_ends_it(gateway: Gateway) -> None:
    message = gateway.start_message("import time; time.sleep(1000)")
    gateway.order(message)
    await eventually(lambda: bool(gateway.processes()), "the environment starts")
    gateway.order(StopEnvironment(message.environment_id, "changed my mind"))
    exited = await gateway.message(EnvironmentExited, message.environment_id)
    assert exited == EnvironmentExited(message.environment_id, "", "changed my mind")
    assert gateway.processes() == []


@pytest.mark.parametrize("mode", ["managed-instances", "on-demand", "linked"])
async def test_a_killed_agent_takes_its_environments_along(gateway: Gateway, tmp_path: Path, mode: str) -> None:
    """By the kernel's hand alone: workers, busy or idle, and the main process."""
    environment = await gateway.start(BUSY, mode=mode, max_concurrency=4)
    await busy(environment, tmp_path)
    assert gateway.process is not None
    assert len(gateway.processes()) == (5 if mode == "managed-instances" else 1)
    gateway.process.kill()
    await gateway.agent_gone()
    await eventually(lambda: not gateway.processes(), "the environment's processes are gone")


@pytest.mark.parametrize("identifier", ["nodejs24.x", "provided.al2023"])
@pytest.mark.parametrize("mode", ["managed-instances", "on-demand", "linked"])
async def test_a_killed_agent_takes_every_kind_of_runtime_along(
    gateway: Gateway, tmp_path: Path, identifier: str, mode: str
) -> None:
    """What cannot confine itself is started by a launcher that asks the kernel for this."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "index.mjs").write_text("export const handler = async () => 1;")
    bootstrap = code / "bootstrap"
    bootstrap.write_text(f"#!{sys.executable} -ES\n{(FUNCTIONS / 'bootstrap.py').read_text()}")
    bootstrap.chmod(0o755)
    options = {"runtime": with_runtime(identifier), "handler": "index.handler", "code_path": str(code)}
    environment = await gateway.start(None, mode=mode, max_concurrency=2, **options)
    assert environment.ready is not None
    [main] = gateway.processes()
    status = Path(f"/proc/{main}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{main}/limits").read_text()
    files = " 4096 " if mode == "managed-instances" else " 1024 "
    assert any(line.startswith("Max open files") and files in line for line in limits.splitlines())
    assert gateway.process is not None
    gateway.process.kill()
    await gateway.agent_gone()
    await eventually(lambda: not gateway.processes(), "the environment's process is gone")


async def test_what_a_killed_agent_leaves_is_found_by_the_instances_id(gateway: Gateway) -> None:
    environment = await gateway.start(BUSY)
    stray = (await environment.invoke({"stray": ""})).json
    assert gateway.process is not None
    gateway.process.kill()
    await gateway.agent_gone()
    await eventually(lambda: gateway.processes() == [stray], "only the stray is left")
    assert kill_strays(instance_mark(gateway.instance_id)) == 1
    assert gateway.processes() == []
    assert not is_alive(stray)


async def test_a_stop_while_the_main_process_is_still_at_its_gate_is_an_end_like_any_other(gateway: Gateway) -> None:
    await gateway.start(BUSY)  # what is installed once is there now
    before = len(gateway.processes())
    for _ in range(10):  # the gate is open for milliseconds
        message = gateway.start_message(BUSY)
        gateway.order(message)
        await eventually(lambda: len(gateway.processes()) > before, "the main process is there")
        gateway.order(StopEnvironment(message.environment_id, "changed my mind"))
        await gateway.message(EnvironmentExited, message.environment_id)
        await eventually(lambda: len(gateway.processes()) == before, "nothing of it is left")
    assert "Traceback" not in gateway.agent_words()


async def test_the_servers_end_is_the_end_of_everything(gateway: Gateway, tmp_path: Path) -> None:
    environment = await gateway.start(BUSY, max_concurrency=4)
    await busy(environment, tmp_path)
    assert gateway.control is not None
    gateway.control.abort()
    assert await gateway.agent_gone() == 0
    assert gateway.processes() == []


async def test_the_end_of_an_environments_link_ends_that_environment(gateway: Gateway) -> None:
    environment, other = await gateway.start(BUSY), await gateway.start(BUSY)
    environment.link.abort()
    assert "link" in (await environment.exited()).message
    assert isinstance((await other.invoke()).json, int)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_agent_and_all_it_has(gateway: Gateway, tmp_path: Path, signum: int) -> None:
    environment = await gateway.start(BUSY, max_concurrency=4)
    await busy(environment, tmp_path)
    assert gateway.process is not None
    gateway.process.send_signal(signum)
    assert await gateway.agent_gone() == 0
    assert gateway.processes() == []
    assert list((gateway.folder / "state").rglob("tmp")) == []


async def test_a_stop_order_to_the_agent_ends_it_after_its_environments(gateway: Gateway, tmp_path: Path) -> None:
    environment = await gateway.start(BUSY)
    await busy(environment, tmp_path)
    gateway.order(StopAgent("the fleet shrinks"))
    await environment.exited()
    assert await gateway.agent_gone() == 0
    assert gateway.processes() == []


async def test_slots_as_a_gateway_counts_them_survive_a_storm_of_deaths(gateway: Gateway) -> None:
    """Kills race with invocations; whatever wins, every invocation is answered once and the count is right in the end."""
    environment = await gateway.start(BUSY, max_concurrency=8)
    pids = {(await environment.invoke()).json for _ in range(3)}
    invocations = []
    for pid in pids:
        invocations += [environment.send() for _ in range(4)]
        os.kill(pid, signal.SIGKILL)
    answers = [await invocation.answer for invocation in invocations]
    for answer in answers:
        assert isinstance(answer.head, Reject) or answer.payload
    await environment.until_slots(8 - len(pids))
    assert (await environment.invoke()).json not in pids


def test_strays_are_found_by_exactly_their_marks() -> None:
    mine, foreign = f"i-{os.getpid()}", f"i-{os.getpid()}0"
    started = datetime(2026, 11, 21, tzinfo=UTC)

    def child(instance: str, environment: str, variable: str = MARKED_VARIABLE) -> subprocess.Popen[bytes]:
        environ = os.environ | {variable: stream_of(instance, environment, "$LATEST", started)}
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environ)

    sought, neighbour = child(mine, "env-1"), child(mine, "env-10")
    others = [child(foreign, "env-1"), child(mine, "env-1", "SOME_STREAM")]
    try:
        assert find_strays(environment_mark(mine, "env-1")) == [sought.pid]
        assert sorted(find_strays(instance_mark(mine))) == sorted((sought.pid, neighbour.pid))
        assert kill_strays(instance_mark(mine)) == 2
        assert [each.wait(10) for each in (sought, neighbour)] == [-signal.SIGKILL] * 2
        assert [each.poll() for each in others] == [None, None]
        assert kill_strays(instance_mark(mine)) == 0
    finally:
        for each in (sought, neighbour, *others):
            each.kill()
            each.wait()
