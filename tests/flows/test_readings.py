"""Status tells what agents measured."""

from typing import Any

from tests.harness import Server, create_provider, invoke, publish_managed, wait_for

BURN = """
import time

def handler(event, context):
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
"""


def test_status_tells_what_environments_and_instances_take(server: Server) -> None:
    publish_managed(server.aws, "burner", BURN, create_provider(server.aws, "measured"))
    assert invoke(server.aws, "burner").error is None

    def measured() -> dict[str, Any] | None:
        [provider] = [p for p in server.status()["providers"] if p["name"] == "measured"]
        [instance] = [i for i in provider["instances"] if i["environments"]]
        return instance if (instance["cpu_seconds_total"] or 0) >= 0.5 else None

    instance = wait_for(measured, "half a second of processor time is seen")
    [environment] = instance["environments"]
    assert environment["memory_bytes"] == instance["memory_bytes"] > 1 << 20
    assert 0 <= instance["cpu_utilization"] <= environment["cpu_utilization"] <= 1
