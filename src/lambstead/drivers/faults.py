"""A driver whose instances cannot be had, or come late, as the faults at work say. Only there when chaos is enabled."""

import asyncio
from collections.abc import Callable

from lambstead.core.chaos import ActiveFaults
from lambstead.core.fleet import Instance
from lambstead.drivers.port import CapacityRefused, Driver


class FaultyDriver:
    """See `drivers.port.Driver`. Everything that is not hit goes to `driver` as it is."""

    def __init__(self, driver: Driver, faults: ActiveFaults) -> None:
        self._driver = driver
        self._faults = faults
        self._waiting: dict[str, asyncio.Task[None]] = {}
        """Instances whose launch is put off."""
        self._launching: dict[str, asyncio.Task[None]] = {}
        """Those whose time has come; they are launched to the end, so that they can be ended."""
        self._listeners: list[Callable[[str, str], None]] = []

    async def launch(self, instance: Instance) -> None:
        self._refuse(instance)
        delay = self._faults.instance_delay(instance).total_seconds()
        if delay:
            task = asyncio.create_task(self._launch_late(instance, delay), name=f"late launch {instance.id}")
            self._waiting[instance.id] = task
        else:
            await self._driver.launch(instance)

    def _refuse(self, instance: Instance) -> None:
        refusal = self._faults.launch_refusal(instance)
        if refusal is not None:
            raise CapacityRefused(refusal)

    async def _launch_late(self, instance: Instance, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self._launching[instance.id] = self._waiting.pop(instance.id)
        try:
            self._refuse(instance)
            await self._driver.launch(instance)
        except (CapacityRefused, OSError) as exc:
            self._ended(instance.id, f"the error that it could not be started: {exc}")
        finally:
            del self._launching[instance.id]

    async def terminate(self, instance_id: str) -> None:
        if not await self._called_off(instance_id):
            await self._driver.terminate(instance_id)

    async def kill(self, instance_id: str) -> None:
        if not await self._called_off(instance_id):
            await self._driver.kill(instance_id)

    async def _called_off(self, instance_id: str) -> bool:
        """True if the instance had not begun to start and never will; else it has started now."""
        waiting = self._waiting.pop(instance_id, None)
        if waiting is not None:
            waiting.cancel()
            self._ended(instance_id, "an order before it was started")
            return True
        launching = self._launching.get(instance_id)
        if launching is not None:
            await asyncio.wait([launching])
        return False

    def on_ended(self, listener: Callable[[str, str], None]) -> None:
        self._listeners.append(listener)
        self._driver.on_ended(listener)

    def _ended(self, instance_id: str, how: str) -> None:
        for listener in self._listeners:
            listener(instance_id, how)

    async def close(self) -> None:
        for instance_id in [*self._waiting, *self._launching]:
            await self._called_off(instance_id)
        await self._driver.close()
