"""Provisioning with a real store, real packages and the real invoke path; machines are a driver that starts nothing.

What is seen here are the moments between plan and deed: a launch that fails, a package that is gone, an agent that ends in between.
"""

import asyncio
import io
import json
import shutil
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.samples import created, managed, provider, published, standard

from lambstead.control.provider_log import ProviderLog
from lambstead.control.provisioning import Provisioning
from lambstead.control.scaling import Scaling
from lambstead.control.settling import Settling
from lambstead.control.starting import Starting
from lambstead.core.arn import LATEST, LATEST_PUBLISHED, FunctionRef, Realm
from lambstead.core.capacity import ProviderState
from lambstead.core.demand import Pace
from lambstead.core.desired import Policy
from lambstead.core.egress import EgressRules
from lambstead.core.fleet import Instance, InstancePhase
from lambstead.core.functions import FunctionVersion, State, UpdateStatus
from lambstead.core.invocations import resolve
from lambstead.core.throttles import Throttles
from lambstead.dataplane.invoker import Invoker, Limits
from lambstead.dataplane.outcomes import Invocation
from lambstead.dataplane.records import PlatformRecords
from lambstead.dataplane.routes import Routes
from lambstead.link.messages import AgentHello, EnvironmentReady, StartEnvironment, ToAgent
from lambstead.store.packages import DiskPackages
from lambstead.store.port import Transaction
from lambstead.store.sqlite import SqliteStore

POLICY = Policy(
    default_minimum=1,
    standard_limit=4,
    idle_environment=timedelta(minutes=5),
    idle_instance=timedelta(minutes=2),
    drain_grace=timedelta(seconds=30),
)


@dataclass
class Machines:
    """A driver whose instances are what the test says of them."""

    launched: list[Instance] = field(default_factory=list)
    terminated: list[str] = field(default_factory=list)
    refusals: int = 0
    """How many launches fail before one succeeds."""
    ended: list[Callable[[str, str], None]] = field(default_factory=list)

    async def launch(self, instance: Instance) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError("no more processes")
        self.launched.append(instance)

    async def terminate(self, instance_id: str) -> None:
        self.terminated.append(instance_id)

    async def kill(self, instance_id: str) -> None:
        self.terminated.append(instance_id)

    def on_ended(self, listener: Callable[[str, str], None]) -> None:
        self.ended.append(listener)

    async def close(self) -> None: ...


@dataclass
class Letters:
    """The way to the agents: what they are told."""

    sent: list[tuple[str, ToAgent]] = field(default_factory=list)

    def send(self, instance_id: str, message: ToAgent) -> None:
        self.sent.append((instance_id, message))

    def forget(self, instance_id: str) -> None: ...

    async def open_door(self, environment_id: str) -> Path:
        return Path(f"{environment_id}.sock")

    def close_door(self, environment_id: str) -> None: ...


@dataclass
class Scene:
    store: SqliteStore
    packages: DiskPackages
    machines: Machines
    letters: Letters
    invoker: Invoker
    provisioning: Provisioning
    pokes: list[None]

    async def version(self, function: str = "f", version: str = LATEST_PUBLISHED) -> FunctionVersion:
        found = await self.store.read(lambda r: r.version(function, version))
        assert found is not None
        return found

    def starts(self) -> list[StartEnvironment]:
        return [message for _, message in self.letters.sent if isinstance(message, StartEnvironment)]


def play(tmp_path: Path, story: Callable[[Scene], Awaitable[None]]) -> None:
    async def played() -> None:
        store = await SqliteStore.open(tmp_path / "lambstead.db")
        for name in ("packages", "logs"):
            (tmp_path / name).mkdir()
        pokes: list[None] = []

        def poke() -> None:
            pokes.append(None)

        packages, machines, letters = DiskPackages(tmp_path / "packages"), Machines(), Letters()
        invoker = Invoker(Routes(store), Realm(), Limits(0.2, 5, 10), PlatformRecords(), Throttles(), poke)
        provisioning = Provisioning(
            store=store,
            settling=Settling(store, packages, Realm()),
            starting=Starting(
                packages=packages,
                doors=letters,
                records=PlatformRecords(),
                realm=Realm(),
                logs=tmp_path / "logs",
                endpoint_url="http://127.0.0.1:1",
                workers_on_link=True,
                egress=EgressRules(),
            ),
            provider_log=ProviderLog(tmp_path / "logs", Realm()),
            scaling=Scaling(invoker, POLICY, Pace()),
            driver=machines,
            agents=letters,
            slots=invoker,
            realm=Realm(),
            policy=POLICY,
            poke=poke,
        )
        try:
            scene = Scene(store, packages, machines, letters, invoker, provisioning, pokes)
            await asyncio.wait_for(story(scene), 30)
        finally:
            await store.close()

    asyncio.run(played())


def package(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr(name, b"")
    return file.getvalue()


async def save(scene: Scene, *versions: FunctionVersion) -> None:
    def work(tx: Transaction) -> None:
        for version in versions:
            tx.save_version(version)
        tx.save_provider(provider())

    await scene.store.write(work)


def test_a_launch_that_fails_is_tried_again(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        code = await scene.packages.put(package("a.py"))
        await save(scene, published(managed(code=code)))
        scene.machines.refusals = 1
        await scene.provisioning.reconcile()
        assert scene.provisioning.fleet.instances == {}, "an instance that was never started is not waited for"
        assert scene.pokes
        await scene.provisioning.reconcile()
        assert [i.id for i in scene.machines.launched] == list(scene.provisioning.fleet.instances)
        assert len(scene.starts()) == 1

    play(tmp_path, story)


def test_the_providers_log_tells_what_becomes_of_its_instances(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        code = await scene.packages.put(package("a.py"))
        await save(scene, published(managed(code=code)))
        scene.machines.refusals = 1
        await scene.provisioning.reconcile()
        await scene.provisioning.reconcile()
        (instance,) = scene.machines.launched
        scene.provisioning.agent_reported(instance.id, AgentHello(1, instance.id, 1))
        scene.machines.ended[0](instance.id, "signal SIGKILL")
        (file,) = (tmp_path / "logs" / "capacity.providers").glob("*-[[]cp].log")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["level"] for line in lines] == ["INFO", "WARN", "INFO", "INFO", "WARN"]
        kind = f"{instance.type.name} instance"
        messages = [line["message"] for line in lines]
        assert messages[0].startswith(f"Launching {kind} i-")
        assert messages[1].startswith(f"Failed to launch {kind} in {instance.zone}: ")
        assert messages[1].endswith(" - the system will retry")
        assert messages[3] == f"Successfully launched {kind} {instance.id} in {instance.zone}"
        assert messages[4].startswith(f"Health check failed for {kind} {instance.id}")
        assert lines[3]["metadata"] == {
            "instanceId": instance.id,
            "availabilityZones": [instance.zone],
            "instanceTypes": [instance.type.name],
            "capacityProviderArn": Realm().capacity_provider_arn("cp"),
        }

    play(tmp_path, story)


def test_at_level_warn_a_providers_log_has_failures_only(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        code = await scene.packages.put(package("a.py"))
        await save(scene, published(managed(code=code)))
        quiet = provider(telemetry={"LoggingConfig": {"SystemLogLevel": "WARN"}})
        await scene.store.write(lambda tx: tx.save_provider(quiet))
        scene.machines.refusals = 1
        await scene.provisioning.reconcile()
        await scene.provisioning.reconcile()
        (file,) = (tmp_path / "logs" / "capacity.providers").glob("*.log")
        (line,) = file.read_text().splitlines()
        assert "Failed to launch" in line

    play(tmp_path, story)


def test_a_provider_that_is_deleted_while_it_is_checked_stays_deleted(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        pending = provider("hasty", state=ProviderState.PENDING)
        await scene.store.write(lambda tx: tx.save_provider(pending))
        checking = asyncio.ensure_future(scene.provisioning.reconcile())
        await asyncio.sleep(0)  # it is reading what is pending
        await scene.store.write(lambda tx: tx.save_provider(replace(pending, state=ProviderState.DELETING)))
        await checking
        await scene.provisioning.reconcile()
        assert await scene.store.read(lambda r: r.provider("hasty")) is None

    play(tmp_path, story)


def test_a_package_that_is_gone_fails_its_version_and_stops_nobody_else(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        gone, there = await scene.packages.put(package("a.py")), await scene.packages.put(package("b.py"))
        scene.packages.archive(gone).unlink()
        shutil.rmtree(tmp_path / "packages" / scene.packages.archive(gone).stem)
        await save(
            scene,
            published(managed(code=gone), function="f"),
            published(managed(code=there), function="g"),
            created(standard(code=gone), "h"),
            created(standard(code=there), "i"),
        )
        await scene.provisioning.reconcile()
        assert [start.function_name for start in scene.starts()] == ["g"]
        assert (await scene.version("h", LATEST)).state is State.PENDING
        assert (await scene.version("i", LATEST)).state is State.ACTIVE
        await scene.provisioning.reconcile()
        failed = await scene.version("f")
        assert (failed.state, failed.update_status) == (State.FAILED, UpdateStatus.FAILED)
        assert failed.state_reason is not None
        assert failed.state_reason.code == "InternalError"
        assert "Its code cannot be had" in failed.state_reason.text
        assert {e.key.function for e in scene.provisioning.fleet.environments.values()} == {"g"}

    play(tmp_path, story)


def test_a_standard_invocation_is_answered_when_its_package_is_gone(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        code = await scene.packages.put(package("a.py"))
        await save(scene, created(standard(code=code)))
        await scene.provisioning.reconcile()
        scene.packages.archive(code).unlink()
        shutil.rmtree(await scene.packages.unpacked(code))
        snapshot = await scene.store.read(lambda r: r.function("f"))
        target = resolve(snapshot, FunctionRef("f"), Realm(), 0.0)
        answer = asyncio.ensure_future(scene.invoker.invoke(target, Invocation("r", b"{}")))
        await asyncio.sleep(0)  # it stands in line now
        await scene.provisioning.reconcile()
        outcome = await answer
        assert outcome.is_error
        assert b"Its code cannot be had" in outcome.payload

    play(tmp_path, story)


@pytest.mark.parametrize("order", ["disconnect first", "exit first"])
def test_an_agent_that_ends_is_forgotten_whichever_news_comes_first(tmp_path: Path, order: str) -> None:
    async def story(scene: Scene) -> None:
        code = await scene.packages.put(package("a.py"))
        await save(scene, published(managed(code=code)))
        await scene.provisioning.reconcile()
        (instance,) = scene.machines.launched
        scene.provisioning.agent_reported(instance.id, AgentHello(1, instance.id, 1))
        (start,) = scene.starts()
        scene.provisioning.agent_reported(instance.id, EnvironmentReady(start.environment_id, 1.0, 1))
        news: list[Callable[[], None]] = [
            lambda: scene.provisioning.agent_disconnected(instance.id),
            lambda: scene.machines.ended[0](instance.id, "signal SIGKILL"),
        ]
        for tell in news if order == "disconnect first" else reversed(news):
            tell()
        assert instance.id not in scene.provisioning.fleet.instances
        await scene.provisioning.reconcile()
        assert len(scene.machines.launched) == 2
        phases = [i.phase for i in scene.provisioning.fleet.instances.values()]
        assert phases == [InstancePhase.LAUNCHING]

    play(tmp_path, story)
