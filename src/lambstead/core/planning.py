"""One planning: what it looks at, and the orders that it gives. Every order changes the draft, so that later decisions see earlier ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lambstead.core.catalogue import InstanceType
from lambstead.core.configurations import Publication
from lambstead.core.desired import Desired, Policy
from lambstead.core.draft import Draft
from lambstead.core.fleet import Environment, Instance
from lambstead.core.orders import (
    DrainEnvironment,
    LaunchInstance,
    Order,
    StartEnvironment,
    StopEnvironment,
    TerminateInstance,
)
from lambstead.core.placement import Demand


@dataclass(slots=True)
class Planning:
    """See the module. `ids` yields fresh ids for instances and environments."""

    desired: Desired
    draft: Draft
    policy: Policy
    ids: Iterator[str]
    now: datetime
    orders: list[Order] = field(default_factory=list)

    def launch(self, provider: str | None, kind: InstanceType, zone: str, because: str) -> Instance:
        instance = Instance(f"i-{next(self.ids)}", provider, kind, zone, self.now)
        self.draft.launched(instance)
        self.orders.append(LaunchInstance(instance, because))
        return instance

    def start(
        self,
        instance: Instance,
        demand: Demand,
        publication: Publication,
        because: str,
        *,
        provisioned: bool = False,
    ) -> None:
        environment = Environment(
            id=f"env-{next(self.ids)}",
            instance_id=instance.id,
            key=demand.key,
            slots=demand.slots,
            vcpus=demand.vcpus,
            memory_mb=demand.memory_mb,
            since=self.now,
            timeout=timedelta(seconds=publication.configuration.timeout_s),
            provisioned=provisioned,
        )
        self.draft.placed(environment)
        self.orders.append(StartEnvironment(environment, publication, because))

    def drain(self, environment: Environment, because: str) -> None:
        self.draft.draining(environment, self.now)
        self.orders.append(DrainEnvironment(environment.id, because))

    def stop(self, environment: Environment, because: str) -> None:
        self.draft.stopping(environment)
        self.orders.append(StopEnvironment(environment.id, because))

    def terminate(self, instance: Instance, because: str) -> None:
        self.draft.terminating(instance)
        self.orders.append(TerminateInstance(instance.id, because))
