"""What a capacity provider's log group says about its instances.

Events, levels, members and the texts of Launched and LaunchFailed are AWS's (Developer Guide, monitoring; reference on managed instances, §3). The
other texts are ours, in their manner, and give the reason of the decision.
"""

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from lambstead.core.capacity import CapacityProvider
from lambstead.core.fleet import Instance


class InstanceEvent(enum.StrEnum):
    LAUNCHING = "Launching"
    LAUNCHED = "Launched"
    LAUNCH_FAILED = "LaunchFailed"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"
    HEALTH_CHECK_FAILED = "HealthCheckFailed"


FAILURES = frozenset({InstanceEvent.LAUNCH_FAILED, InstanceEvent.HEALTH_CHECK_FAILED})
"""Written at every level; the others at DEBUG and INFO."""


def record(
    event: InstanceEvent, instance: Instance, provider: CapacityProvider, arn: str, because: str, now: datetime
) -> Mapping[str, object] | None:
    """The line for an event; None where the provider's level leaves it out."""
    configured = (provider.telemetry or {}).get("LoggingConfig") or {}
    if event not in FAILURES and configured.get("SystemLogLevel") == "WARN":
        return None
    level: Literal["INFO", "WARN"] = "WARN" if event in FAILURES else "INFO"
    return {
        "timestamp": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "message": _text(event, instance, because),
        "metadata": {
            "instanceId": instance.id,
            "availabilityZones": [instance.zone],
            "instanceTypes": [instance.type.name],
            "capacityProviderArn": arn,
        },
    }


def _text(event: InstanceEvent, instance: Instance, because: str) -> str:
    kind, where = instance.type.name, f"{instance.id} in {instance.zone}"
    match event:
        case InstanceEvent.LAUNCHING:
            return f"Launching {kind} instance {where}: {because}"
        case InstanceEvent.LAUNCHED:
            return f"Successfully launched {kind} instance {where}"
        case InstanceEvent.LAUNCH_FAILED:
            return f"Failed to launch {kind} instance in {instance.zone}: {because} - the system will retry"
        case InstanceEvent.TERMINATING:
            return f"Terminating {kind} instance {where}: {because}"
        case InstanceEvent.TERMINATED:
            return f"Successfully terminated {kind} instance {where}"
        case InstanceEvent.HEALTH_CHECK_FAILED:
            return f"Health check failed for {kind} instance {where}: {because}"
