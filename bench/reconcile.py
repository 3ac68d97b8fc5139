"""What a reconcile round costs in CPU: 100 versions with three environments each on one provider, and larger fleets.

    python -m bench.reconcile

The first plan places everything on an empty fleet, the next one looks at a fleet where nothing is to be done, which is what nearly every round
finds. The whole round is that of the server: the versions are read from a store on disk, readings of a load on every environment are taken and decided
on, and the plan finds nothing to do. Only the agents are missing; what they would report is told. CPU time of this process with all its threads, the
least of several runs: it is what the server spends while invocations wait for its event loop.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lambstead.control.provider_log import ProviderLog
from lambstead.control.provisioning import Provisioning
from lambstead.control.scaling import Scaling
from lambstead.control.settling import Settling
from lambstead.control.starting import Starting
from lambstead.core.admission import Load
from lambstead.core.arn import Realm
from lambstead.core.capacity import CapacityProvider, InstanceRequirements, ProviderScaling, ProviderState, Sizing
from lambstead.core.configurations import CodePackage, Configuration, Logging, ManagedInstances
from lambstead.core.demand import Counts, Pace
from lambstead.core.desired import Desired, Policy, key_of
from lambstead.core.egress import EgressRules
from lambstead.core.fleet import Fleet, Instance, PublicationKey, Reading
from lambstead.core.functions import CapacityReady, FunctionVersion, State, apply
from lambstead.core.orders import LaunchInstance, NoteReady, Order, StartEnvironment
from lambstead.core.reconcile import plan
from lambstead.dataplane.records import PlatformRecords
from lambstead.link.messages import ToAgent
from lambstead.store.packages import DiskPackages
from lambstead.store.port import Transaction
from lambstead.store.sqlite import SqliteStore

RUNS = 5
NOW = datetime(2026, 11, 21, tzinfo=UTC)
POLICY = Policy(
    default_minimum=3,
    standard_limit=100,
    idle_environment=timedelta(minutes=10),
    idle_instance=timedelta(minutes=5),
    drain_grace=timedelta(seconds=30),
)


def main() -> None:
    columns = f"{'versions':>9}{'environments':>14}{'instances':>11}{'first plan ms':>15}{'next plan ms':>14}"
    print(f"{columns}{'whole round ms':>16}   (CPU)")
    for versions, environments in ((100, 3), (100, 30), (100, 100)):
        show(versions, environments)


def show(versions: int, environments: int) -> None:
    desired = world(versions, environments)
    first, orders = timed(desired, Fleet())
    fleet, settled = carried_out(desired, orders)
    second, left = timed(settled, fleet)
    assert left == [], "a plan that was carried out leaves nothing to do"
    counts = f"{versions:9}{len(fleet.environments):14}{len(fleet.instances):11}"
    whole = asyncio.run(whole_round(settled, fleet))
    print(f"{counts}{first:15.1f}{second:14.1f}{whole:16.1f}")


def timed(desired: Desired, fleet: Fleet) -> tuple[float, list[Order]]:
    """Milliseconds of CPU, and the orders."""
    costs, orders = [], list[Order]()
    for _ in range(RUNS):
        began = time.process_time()
        orders = plan(desired, fleet, POLICY, (str(n) for n in itertools.count()), NOW)
        costs.append(time.process_time() - began)
    return min(costs) * 1000, orders


def world(versions: int, environments: int) -> Desired:
    configuration = Configuration(
        "python3.13",
        "app.handler",
        "role",
        CodePackage("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", 100),
        Logging("JSON", "/aws/lambda/f", "INFO", "INFO"),
        memory_mb=2048,
        managed=ManagedInstances("pool", Sizing(16)),
    )
    provider = CapacityProvider(
        "pool",
        ProviderState.ACTIVE,
        ("subnet-1", "subnet-2", "subnet-3"),
        (),
        "role",
        "",
        InstanceRequirements(),
        ProviderScaling(15_000),
    )
    functions = [
        FunctionVersion(f"f{n}", "1", configuration, State.PENDING, "revision", "", target=1) for n in range(versions)
    ]
    wanted = {(f.function, f.version): environments for f in functions}
    return Desired(tuple(functions), {"pool": provider}, "us-east-1", {}, scaled=wanted)


def carried_out(desired: Desired, orders: Iterable[Order]) -> tuple[Fleet, Desired]:
    """The fleet once everything is up, and the versions once they know."""
    fleet = Fleet()
    for order in orders:
        match order:
            case LaunchInstance(instance, _):
                fleet = fleet.with_instance(instance).instance_running(instance.id)
            case StartEnvironment(environment, _, _):
                fleet = fleet.placed(environment).environment_ready(environment.id, NOW)
            case _:
                raise AssertionError(order)
    versions = {(v.function, v.version): v for v in desired.versions}
    for order in plan(desired, fleet, POLICY, iter(()), NOW):
        assert isinstance(order, NoteReady)
        name = (order.key.function, order.key.version)
        versions[name] = apply(versions[name], CapacityReady(order.key.number, order.bounds, "ready", order.asked))
    settled = Desired(tuple(versions.values()), desired.providers, desired.region, {}, scaled=desired.scaled)
    return fleet, settled


# --- the whole round ------------------------------------------------------------------------------------------------------


class NoMachines:
    """A driver, and a way to agents, that nobody needs: in the rounds that are measured there is nothing to do."""

    async def launch(self, instance: Instance) -> None:
        raise AssertionError(f"{instance} was launched")

    async def terminate(self, instance_id: str) -> None:
        raise AssertionError(f"{instance_id} was terminated")

    kill = terminate

    def on_ended(self, listener: object) -> None: ...

    async def close(self) -> None: ...

    def send(self, instance_id: str, message: ToAgent) -> None:
        raise AssertionError(message)

    def forget(self, instance_id: str) -> None: ...

    async def open_door(self, environment_id: str) -> Path | None:
        return None

    def close_door(self, environment_id: str) -> None: ...


class Busy:
    """An invoke path on which every environment serves one invocation after the other."""

    def __init__(self, keys: Iterable[PublicationKey], environments: Iterable[str]) -> None:
        self._keys, self._environments = list(keys), list(environments)
        self._served = 0

    def demand(self) -> dict[PublicationKey, int]:
        return {}

    def loads(self) -> dict[str, Load]:
        self._served += 1
        return {each: Load(1, self._served) for each in self._environments}

    def counts(self) -> dict[PublicationKey, Counts]:
        return {key: Counts(1, 0, self._served, 0) for key in self._keys}

    def expect(self, environment_id: str, key: PublicationKey, zone: str, *, managed: bool) -> None: ...
    def drain(self, environment_id: str) -> None: ...
    def ended(self, environment_id: str, error_type: str, story: str) -> None: ...
    def forget(self, environment_id: str) -> None: ...
    def init_failed(self, environment_id: str, error_type: str, document: bytes) -> None: ...


async def whole_round(desired: Desired, fleet: Fleet) -> float:
    """Milliseconds of CPU of a round of the server in which nothing is to be done."""
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-") as folder:
        data = Path(folder)
        store = await SqliteStore.open(data / "lambstead.db")
        try:
            await store.write(lambda tx: _stored(tx, desired))
            busy = Busy((key_of(v, v.publication) for v in desired.versions), fleet.environments)
            provisioning = _provisioning(data, store, busy, next(iter(desired.scaled.values())))
            provisioning.fleet = _measured(fleet)
            costs = []
            for number in range(RUNS + 1):
                began = time.process_time()
                await provisioning.reconcile()
                if number:  # the first one opens files
                    costs.append(time.process_time() - began)
            assert not provisioning.decisions, provisioning.decisions[0]
            return min(costs) * 1000
        finally:
            await store.close()


def _stored(tx: Transaction, desired: Desired) -> None:
    for provider in desired.providers.values():
        tx.save_provider(provider)
    for version in desired.versions:
        tx.save_version(version)


def _measured(fleet: Fleet) -> Fleet:
    """The fleet with a reading of every environment, started now, so that nothing is due for its age."""
    now = datetime.now(UTC)
    instances = {key: replace(each, since=now) for key, each in fleet.instances.items()}
    aged = replace(fleet, instances=instances)
    return aged.measured({key: Reading(now, 1.0, 0.3, 1 << 20) for key in fleet.environments})


def _provisioning(data: Path, store: SqliteStore, busy: Busy, environments: int) -> Provisioning:
    for name in ("packages", "logs"):
        (data / name).mkdir()
    packages, machines, realm = DiskPackages(data / "packages"), NoMachines(), Realm()
    policy = replace(POLICY, default_minimum=environments)
    return Provisioning(
        store=store,
        settling=Settling(store, packages, realm),
        starting=Starting(
            packages=packages,
            doors=machines,
            records=PlatformRecords(),
            realm=realm,
            logs=data / "logs",
            endpoint_url="http://127.0.0.1:1",
            workers_on_link=True,
            egress=EgressRules(),
        ),
        provider_log=ProviderLog(data / "logs", realm),
        # Readings are taken and decided on in every round, not every five seconds.
        scaling=Scaling(busy, policy, replace(Pace(), evaluation=timedelta(0))),
        driver=machines,
        agents=machines,
        slots=busy,
        realm=realm,
        policy=policy,
        poke=lambda: None,
    )


if __name__ == "__main__":
    main()
