"""The read model behind `lambstead status`: providers with their instances and environments, functions, recent decisions."""

from collections.abc import Mapping

from lambstead.config import Settings
from lambstead.control.durable.engine import DurableEngine
from lambstead.control.event_invokes import EventInvokes
from lambstead.control.provisioning import Provisioning
from lambstead.core.admission import Load
from lambstead.core.arn import LATEST
from lambstead.core.capacity import CapacityProvider
from lambstead.core.durable.model import ExecutionStatus
from lambstead.core.event_queue import QueueTotals
from lambstead.core.fleet import Environment, Instance, Reading
from lambstead.core.functions import FunctionVersion
from lambstead.core.throttles import Throttled
from lambstead.dataplane.invoker import Invoker
from lambstead.store.port import Reader, Store

ALL = 1_000_000
STANDARD = "(standard functions)"


Stored = tuple[list[CapacityProvider], list[FunctionVersion], QueueTotals, Mapping[str, int]]


async def status(
    settings: Settings,
    url: str,
    store: Store,
    provisioning: Provisioning,
    invoker: Invoker,
    events: EventInvokes,
    durable: DurableEngine,
    gateways: list[dict[str, object]],
    throttles: list[Throttled],
) -> dict[str, object]:
    """The document of `/_lambstead/status`."""

    def work(reader: Reader) -> Stored:
        versions = list(reader.versions(("", -2), ALL))
        return list(reader.providers("", ALL)), versions, reader.queue_totals(), reader.durable_totals()

    providers, versions, totals, executions = await store.read(work)
    loads = invoker.loads()
    standard = provisioning.fleet.of_provider(None)
    documents = [
        {
            "name": provider.name,
            "state": provider.state,
            "max_vcpus": provider.scaling.max_vcpus,
            **_capacity(provisioning.fleet.of_provider(provider.name), provisioning, loads),
        }
        for provider in providers
    ]
    if standard:
        documents.append(
            {"name": STANDARD, "state": "Active", "max_vcpus": None, **_capacity(standard, provisioning, loads)}
        )
    return {
        "server": {
            "url": url,
            "profile": settings.profile,
            "region": settings.region,
            "account": settings.account_id,
            "data": str(settings.data_dir),
        },
        "gateways": gateways,
        "providers": documents,
        "functions": _functions(versions),
        "events": _events(totals, events),
        "scaling": _scaling(provisioning),
        "durable": _durable(executions, durable.live),
        "waiting": {f"{key.function}:{key.version}": count for key, count in invoker.waiting().items()},
        "throttles": [
            {
                "function": each.function,
                "version": each.version,
                "cause": each.cause,
                "reason": each.cause.reason,
                "count": each.count,
            }
            for each in throttles
        ],
        "decisions": [
            {"at": decision.at.isoformat(), "what": decision.what, "because": decision.because}
            for decision in provisioning.decisions
        ],
    }


def _events(totals: QueueTotals, events: EventInvokes) -> dict[str, object]:
    """The queue of asynchronous invocations, and what became of them since the server started."""
    counts = events.counts
    return {
        "queued": totals.events,
        "queued_bytes": totals.payload_bytes,
        "running": events.running,
        "ended": dict(counts.ended),
        "dropped": dict(counts.dropped),
        "destination_delivery_failures": dict(counts.destination_delivery_failures),
        "dead_letter_errors": dict(counts.dead_letter_errors),
    }


def _scaling(provisioning: Provisioning) -> list[dict[str, object]]:
    """How the scaling of every managed version that serves stands, and why."""
    documents = []
    for (function, version), scaling in sorted(provisioning.scaling.versions.items()):
        track, obstacle = scaling.track, provisioning.obstacles.get((function, version))
        reading = track.readings[-1]
        documents.append(
            {
                "function": function,
                "version": version,
                "desired": track.desired,
                "ready": reading.ready,
                "slots_in_use": reading.in_use,
                "cpu_utilization": reading.cpu,
                "because": track.because,
                "obstacle": obstacle and {"code": obstacle.code, "text": obstacle.text},
                "throttles": dict(scaling.throttled),
            }
        )
    return documents


def _durable(executions: Mapping[str, int], live: int) -> dict[str, object]:
    """Durable executions: those whose function runs now, those that wait for something, and all by their status."""
    unended = sum(count for status, count in executions.items() if not ExecutionStatus(status).is_closed)
    return {"running": live, "suspended": max(0, unended - live), "executions": dict(executions)}


def _capacity(instances: list[Instance], provisioning: Provisioning, loads: Mapping[str, Load]) -> dict[str, object]:
    owned = [instance for instance in instances if instance.provider is not None]
    return {
        "vcpus": sum(instance.type.vcpus for instance in owned),
        "instances": [_instance(instance, provisioning, loads) for instance in instances],
    }


def _instance(instance: Instance, provisioning: Provisioning, loads: Mapping[str, Load]) -> dict[str, object]:
    return {
        "id": instance.id,
        "type": instance.type.name,
        "zone": instance.zone,
        "phase": instance.phase,
        "vcpus": instance.type.vcpus if instance.provider is not None else None,
        "memory_mb": instance.type.memory_mb if instance.provider is not None else None,
        "usd_per_hour": instance.type.usd_per_hour if instance.provider is not None else None,
        **_reading(provisioning.fleet.reading(instance.id)),
        "environments": [
            _environment(environment, provisioning.notes.get(environment.id, ""), loads)
            for environment in provisioning.fleet.on(instance.id)
        ],
    }


def _environment(environment: Environment, note: str, loads: Mapping[str, Load]) -> dict[str, object]:
    load = loads.get(environment.id)
    return {
        "id": environment.id,
        "function": environment.key.function,
        "version": environment.key.version,
        "tenant": environment.key.tenant_id or None,
        "phase": environment.phase,
        "slots": environment.slots - environment.slots_lost,
        "busy": load.running if load else 0,
        **_reading(environment.reading),
        "because": note,
    }


def _reading(reading: Reading | None) -> dict[str, object]:
    """What agents measured; null until they have."""
    return {
        "cpu_seconds_total": reading.cpu_seconds_total if reading else None,
        "cpu_utilization": reading.cpu_utilization if reading else None,
        "memory_bytes": reading.memory_bytes if reading else None,
    }


def _functions(versions: list[FunctionVersion]) -> list[dict[str, object]]:
    by_function: dict[str, list[FunctionVersion]] = {}
    for version in versions:
        by_function.setdefault(version.function, []).append(version)
    return [_function(name, group) for name, group in by_function.items()]


def _function(name: str, versions: list[FunctionVersion]) -> dict[str, object]:
    latest = next((version for version in versions if version.version == LATEST), versions[0])
    managed = latest.configuration.managed
    return {
        "name": name,
        "runtime": latest.configuration.runtime or "container image",
        "provider": managed.provider if managed else None,
        "versions": [
            {
                "version": version.version,
                "state": version.state,
                "reason": (reason := version.state_reason or version.update_reason) and reason.text,
            }
            for version in versions
        ],
    }
