"""What environments take is measured and told to the server."""

import pytest
from tests.instance.harness import Gateway

from lambstead.instance.readings import Meter, Usage
from lambstead.link.messages import EnvironmentReading, InstanceReading

pytestmark = pytest.mark.anyio

WORK = """
    import time
    held = []

    def handler(event, context):
        match event:
            case {"hold_mb": size}:
                held.append(b"x" * (size << 20))
            case {"burn_s": seconds}:
                end = time.process_time() + seconds
                while time.process_time() < end:
                    pass
"""


async def reading(gateway: Gateway, environment_id: str, after: int) -> EnvironmentReading:
    """The latest reading of an environment in the messages since `after`."""

    def found() -> list[EnvironmentReading]:
        readings = [m for m in gateway.messages[after:] if isinstance(m, InstanceReading)]
        return [each for m in readings for each in m.environments if each.environment_id == environment_id]

    await gateway.until(lambda: bool(found()), lambda: "a reading")
    return found()[-1]


@pytest.mark.parametrize("mode", ["managed-instances", "on-demand", "linked"])
async def test_processor_time_and_memory_of_each_environment_are_reported(gateway: Gateway, mode: str) -> None:
    busy = await gateway.start(WORK, mode=mode)
    idle = await gateway.start(WORK, mode=mode)
    before = await reading(gateway, busy.environment_id, 0)
    for event in ({"hold_mb": 64}, {"burn_s": 1.0}):
        await busy.until_slots(1)
        assert (await busy.invoke(event)).json is None
    mark = len(gateway.messages)
    after = await reading(gateway, busy.environment_id, mark)
    other = await reading(gateway, idle.environment_id, mark)
    assert after.cpu_seconds_total >= before.cpu_seconds_total + 1.0
    assert after.memory_bytes >= before.memory_bytes + (60 << 20)
    assert other.memory_bytes < 60 << 20
    assert other.cpu_utilization < after.cpu_utilization <= 1.0


def test_utilization_is_a_share_of_the_grant() -> None:
    meter = Meter(cores=0.5)
    assert meter.read(Usage(3.0, 0, 1), now=100.0).cpu_utilization == 0.0
    assert meter.read(Usage(3.25, 0, 1), now=101.0).cpu_utilization == 0.5
    assert meter.read(Usage(9.0, 0, 1), now=102.0).cpu_utilization == 1.0


def test_the_total_never_falls() -> None:
    meter = Meter(cores=1.0)
    meter.read(Usage(3.0, 0, 2), now=100.0)
    metered = meter.read(Usage(1.0, 0, 1), now=101.0)
    assert (metered.cpu_seconds_total, metered.cpu_utilization) == (3.0, 0.0)
