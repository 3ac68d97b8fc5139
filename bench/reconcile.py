"""What a reconcile round costs in CPU: 100 versions with three environments each on one provider, and larger fleets.

    python -m bench.reconcile

Rounds: the first plan places everything on an empty fleet, the second looks at a fleet where nothing is to be done, which is what nearly every round
finds. CPU time of this process, the least of several runs: it is what the server spends while invocations wait for its event loop.
"""

import itertools
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from lambstead.core.capacity import CapacityProvider, InstanceRequirements, ProviderScaling, ProviderState, Sizing
from lambstead.core.configurations import CodePackage, Configuration, Logging, ManagedInstances
from lambstead.core.desired import Desired, Policy
from lambstead.core.fleet import Fleet
from lambstead.core.functions import CapacityReady, FunctionVersion, State, apply
from lambstead.core.orders import LaunchInstance, NoteReady, Order, StartEnvironment
from lambstead.core.reconcile import plan

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
    print(f"{'versions':>9}{'environments':>14}{'instances':>11}{'first plan ms':>15}{'next plan ms':>14}   (CPU)")
    for versions, environments in ((100, 3), (100, 30), (100, 100)):
        show(versions, environments)


def show(versions: int, environments: int) -> None:
    desired = world(versions, environments)
    first, orders = timed(desired, Fleet())
    fleet, settled = carried_out(desired, orders)
    second, left = timed(settled, fleet)
    assert left == [], "a plan that was carried out leaves nothing to do"
    counts = f"{versions:9}{len(fleet.environments):14}{len(fleet.instances):11}"
    print(f"{counts}{first:15.1f}{second:14.1f}")


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


if __name__ == "__main__":
    main()
