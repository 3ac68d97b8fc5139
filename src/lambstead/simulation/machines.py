"""The simulated machines: they carry out the orders of `core.reconcile`, each after its time, and die when they are told to.

Rules of the fleet stay the fleet's: every change goes through `core.fleet.Fleet`, of the one instance that it concerns, because a fleet of ten
thousand would be copied for each.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import assert_never

from lambstead.core.fleet import Environment, Failure, Fleet, Instance, Phase, PublicationKey
from lambstead.core.orders import (
    DrainEnvironment,
    LaunchInstance,
    StartEnvironment,
    StopEnvironment,
    TerminateInstance,
)

FleetOrder = LaunchInstance | StartEnvironment | DrainEnvironment | StopEnvironment | TerminateInstance
STOPPING = timedelta(seconds=2)
"""AWS's budget for the shutdown of an environment."""
TERMINATING = timedelta(seconds=5)


class Machines:
    """See the module."""

    def __init__(self, instance_start: timedelta, environment_start: timedelta) -> None:
        self._instance_start = instance_start
        self._environment_start = environment_start
        self._instances: dict[str, Instance] = {}
        self._environments: dict[str, Environment] = {}
        self._on: dict[str, set[str]] = {}
        self._launch_failures: dict[tuple[str | None, str], Failure] = {}
        self._serving: dict[PublicationKey, int] = {}
        self._agenda: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._numbers = itertools.count()
        self._dark: dict[str, datetime] = {}
        self.usd_per_hour = 0.0
        """What all instances cost together, without fees."""

    @property
    def fleet(self) -> Fleet:
        return Fleet(self._instances, self._environments, launch_failures=self._launch_failures)

    def ids(self) -> Iterator[str]:
        return (str(number) for number in self._numbers)

    def ready(self, key: PublicationKey) -> int:
        """Environments of a publication that take invocations."""
        return self._serving.get(key, 0)

    # --- time --------------------------------------------------------------------------------------------------------------

    def advance(self, now: datetime) -> bool:
        """Let happen what is due; False if nothing was."""
        happened = False
        while self._agenda and self._agenda[0][0] <= now:
            at, _, what = heapq.heappop(self._agenda)
            what(at)
            happened = True
        return happened

    def _later(self, at: datetime, what: Callable[[datetime], None]) -> None:
        heapq.heappush(self._agenda, (at, next(self._numbers), what))

    # --- orders ------------------------------------------------------------------------------------------------------------

    def carry_out(self, order: FleetOrder, now: datetime) -> None:
        match order:
            case LaunchInstance(instance, _):
                self._instances[instance.id] = instance
                self._on[instance.id] = set()
                self.usd_per_hour += instance.type.usd_per_hour
                self._later(now + self._instance_start, lambda at: self._came_up(instance.id, at))
            case StartEnvironment(environment, _, _):
                self._change(environment.instance_id, lambda fleet: fleet.placed(environment))
                waits = self._instances[environment.instance_id].since + self._instance_start
                self._later(max(now, waits) + self._environment_start, lambda at: self._is_ready(environment.id, at))
            case DrainEnvironment(environment_id, _):
                self._of(environment_id, lambda fleet: fleet.draining(environment_id, now))
            case StopEnvironment(environment_id, _):
                self._of(environment_id, lambda fleet: fleet.phase(environment_id, Phase.STOPPING))
                self._later(now + STOPPING, lambda at: self._stopped(environment_id, at))
            case TerminateInstance(instance_id, _):
                self._change(instance_id, lambda fleet: fleet.terminating(instance_id))
                self._later(now + TERMINATING, lambda at: self.dies(instance_id, at))
            case _:
                assert_never(order)

    def _came_up(self, instance_id: str, at: datetime) -> None:
        instance = self._instances.get(instance_id)
        if instance is None:
            return
        if self._dark.get(instance.zone, at) > at:
            self.dies(instance_id, at)
        else:
            self._change(instance_id, lambda fleet: fleet.instance_running(instance_id))

    def _is_ready(self, environment_id: str, at: datetime) -> None:
        if environment_id in self._environments:
            self._of(environment_id, lambda fleet: fleet.environment_ready(environment_id, at))

    def _stopped(self, environment_id: str, at: datetime) -> None:
        if environment_id in self._environments:
            self._of(environment_id, lambda fleet: fleet.environment_gone(environment_id, at, failed=False))

    # --- faults ------------------------------------------------------------------------------------------------------------

    def dies(self, instance_id: str, at: datetime) -> None:
        """The instance is gone, and with it what was on it."""
        instance = self._instances.get(instance_id)
        if instance is not None:
            self._change(instance_id, lambda fleet: fleet.instance_gone(instance_id, at))
            self.usd_per_hour -= instance.type.usd_per_hour

    def lose_zone(self, letter: str, at: datetime, until: datetime) -> None:
        """Every instance of the zone dies, and none comes up in it before `until`."""
        for zone in {i.zone for i in self._instances.values() if i.zone.endswith(letter)}:
            self._dark[zone] = until
        for instance in [i for i in self._instances.values() if i.zone.endswith(letter)]:
            self.dies(instance.id, at)

    def kill(self, count: int, at: datetime) -> None:
        """The oldest `count` instances die."""
        for instance in sorted(self._instances.values(), key=lambda i: (i.since, i.id))[:count]:
            self.dies(instance.id, at)

    # --- the fleet's rules, one instance at a time -----------------------------------------------------------------------------

    def _of(self, environment_id: str, change: Callable[[Fleet], Fleet]) -> None:
        self._change(self._environments[environment_id].instance_id, change)

    def _change(self, instance_id: str, change: Callable[[Fleet], Fleet]) -> None:
        there = {key: self._environments[key] for key in self._on[instance_id]}
        before = Fleet({instance_id: self._instances[instance_id]}, there, launch_failures=self._launch_failures)
        after = change(before)
        self._launch_failures = dict(after.launch_failures)
        for key, environment in there.items():
            self._serving[environment.key] = self._serving.get(environment.key, 0) - environment.is_ready
            if key not in after.environments:
                del self._environments[key]
        for environment in after.environments.values():
            self._serving[environment.key] = self._serving.get(environment.key, 0) + environment.is_ready
        self._environments.update(after.environments)
        if instance_id in after.instances:
            self._instances[instance_id] = after.instances[instance_id]
            self._on[instance_id] = set(after.environments)
        else:
            del self._instances[instance_id], self._on[instance_id]
