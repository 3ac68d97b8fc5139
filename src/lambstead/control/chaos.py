"""Carries faults out: kills what is to be killed, begins and ends what lasts, and says what is at work.

Only there when chaos is enabled (setting `chaos`). Lasting faults are kept in memory: a restart ends them.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from lambstead.control.provisioning import Orders
from lambstead.core import chaos
from lambstead.core.chaos import Active, ActiveFaults, Fault, Kill, KillEnvironment, KillInstance, KillWorker, LostZone
from lambstead.core.errors import InvalidParameterValue
from lambstead.core.fleet import Fleet, Instance
from lambstead.link import messages
from lambstead.link.messages import ToAgent

log = logging.getLogger(__name__)


class Provisions(Protocol):
    """Provisioning as chaos sees it."""

    @property
    def fleet(self) -> Fleet: ...
    def forget_refusals(self) -> None: ...


class Machines(Protocol):
    """The driver as chaos sees it."""

    async def kill(self, instance_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Inflicted:
    """What a fault did at once, and what of it lasts."""

    killed: tuple[str, ...] = ()
    """Ids of instances, or of environments of which the runtime or one worker was killed."""
    active: Active | None = None


class Chaos:
    """See the module."""

    def __init__(self, faults: ActiveFaults, provisioning: Provisions, driver: Machines, agents: Orders) -> None:
        self._faults = faults
        self._provisioning = provisioning
        self._driver = driver
        self._agents = agents
        self._ends: dict[str, asyncio.TimerHandle] = {}

    @property
    def active(self) -> list[Active]:
        """Lasting faults at work, oldest first."""
        self._faults.sweep()
        return list(self._faults.active.values())

    async def inflict(self, fault: Fault, duration: timedelta | None) -> Inflicted:
        """Do it. Kills are under way when this returns, what lasts is in force.

        Raises InvalidParameterValue for what makes no sense, ResourceNotFound if nothing is there to be hit.
        """
        chaos.check(fault)
        fleet = self._provisioning.fleet
        match fault:
            case KillInstance() | KillEnvironment() | KillWorker():
                if duration is not None:
                    raise InvalidParameterValue("A kill takes no time: leave duration out.")
                return await self._kill(fault, chaos.victims(fault, fleet, random.sample))
            case _:
                active = self._faults.add(f"fault-{secrets.token_hex(4)}", fault, duration)
        if duration is not None:
            later = asyncio.get_running_loop().call_later(duration.total_seconds(), self._over, active.id)
            self._ends[active.id] = later
        log.warning("fault-begun", extra={"fault": str(fault), "id": active.id})
        killed = tuple(chaos.in_lost_zone(fault, fleet)) if isinstance(fault, LostZone) else ()
        await self._kill_instances(killed)
        return Inflicted(killed, active)

    def clear(self, id: str | None) -> list[Active]:
        """End one lasting fault, or all. Raises ResourceNotFound for an id that is none."""
        cleared = self._faults.clear(id)
        for each in cleared:
            timer = self._ends.pop(each.id, None)
            if timer is not None:
                timer.cancel()
            log.warning("fault-cleared", extra={"fault": str(each.fault), "id": each.id})
        self._provisioning.forget_refusals()
        return cleared

    def _over(self, id: str) -> None:
        self._ends.pop(id, None)
        self._faults.sweep()
        self._provisioning.forget_refusals()
        log.warning("fault-over", extra={"id": id})

    async def _kill(self, kill: Kill, victims: list[str]) -> Inflicted:
        log.warning("killed", extra={"fault": str(kill), "victims": victims})
        if isinstance(kill, KillInstance):
            await self._kill_instances(tuple(victims))
            return Inflicted(tuple(victims))
        order = messages.KillEnvironment if isinstance(kill, KillEnvironment) else messages.KillWorker
        environments = self._provisioning.fleet.environments
        for victim in victims:
            self._agents.send(environments[victim].instance_id, order(victim))
        return Inflicted(tuple(victims))

    async def _kill_instances(self, victims: tuple[str, ...]) -> None:
        await asyncio.gather(*(self._driver.kill(victim) for victim in victims))


class LateOrders:
    """The way to the agents, on which orders to start an environment are put off as the faults at work say."""

    def __init__(
        self, agents: Orders, faults: ActiveFaults, instance: Callable[[str], Instance | None] | None = None
    ) -> None:
        self._agents = agents
        self._faults = faults
        self.instance: Callable[[str], Instance | None] = instance or (lambda _: None)
        """The instance of an id; set once there is somebody who knows."""
        self._held: dict[str, tuple[str, asyncio.TimerHandle, ToAgent]] = {}

    def send(self, instance_id: str, message: ToAgent) -> None:
        match message:
            case messages.StartEnvironment():
                delay = self._faults.environment_delay(message.function_name, self.instance(instance_id))
                if delay:
                    later = asyncio.get_running_loop().call_later(
                        delay.total_seconds(), self._release, message.environment_id
                    )
                    self._held[message.environment_id] = (instance_id, later, message)
                    return
            case messages.StopEnvironment():
                # The agent answers for the end of an environment, so it has to hear of its beginning.
                self._release(message.environment_id)
            case _:
                pass
        self._agents.send(instance_id, message)

    def forget(self, instance_id: str) -> None:
        for environment_id, (where, later, _) in list(self._held.items()):
            if where == instance_id:
                later.cancel()
                del self._held[environment_id]
        self._agents.forget(instance_id)

    def _release(self, environment_id: str) -> None:
        held = self._held.pop(environment_id, None)
        if held is not None:
            instance_id, later, message = held
            later.cancel()
            self._agents.send(instance_id, message)
