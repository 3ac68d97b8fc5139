"""What a capacity provider's log group says about its instances.

Events, levels, members and the texts of Launched and LaunchFailed are AWS's (Developer Guide, monitoring; reference on managed instances, §3). The
other texts are ours, in their manner, and give the reason of the decision.
"""

import enum
import zlib
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


def log_group(provider: CapacityProvider) -> str:
    """Where the provider's log goes: the group it names, or its own."""
    configured = (provider.telemetry or {}).get("LoggingConfig") or {}
    return str(configured.get("LogGroup") or f"/aws/lambda/capacity-provider/{provider.name}")


def log_stream(provider: CapacityProvider, now: datetime) -> str:
    """One a day; another one in a group that is not the provider's own. AWS does not say how it names them."""
    group = log_group(provider)
    own = group == f"/aws/lambda/capacity-provider/{provider.name}"
    return f"{now.astimezone(UTC):%Y/%m/%d}/[{provider.name}]{'' if own else f'{zlib.crc32(group.encode()):08x}'}"


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
