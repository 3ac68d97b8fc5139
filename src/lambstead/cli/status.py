"""`lambstead status`: what exists and what runs, as a tree."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import require_server
from lambstead.cli.terminal import console

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

DECISIONS_SHOWN = 10


class EnvironmentStatus(TypedDict):
    id: str
    function: str
    version: str
    tenant: str | None
    phase: str
    slots: int
    busy: int
    because: str
    cpu_utilization: float | None
    memory_bytes: int | None


class InstanceStatus(TypedDict):
    id: str
    type: str
    zone: str
    phase: str
    vcpus: float | None
    memory_mb: int | None
    """None, as `vcpus`, where on-demand functions run: their instance has no size."""
    usd_per_hour: NotRequired[float | None]
    environments: list[EnvironmentStatus]
    cpu_utilization: float | None
    memory_bytes: int | None


class ProviderStatus(TypedDict):
    name: str
    state: str
    max_vcpus: int | None
    vcpus: float
    instances: list[InstanceStatus]


class VersionStatus(TypedDict):
    version: str
    state: str
    reason: str | None


class FunctionStatus(TypedDict):
    name: str
    runtime: str
    provider: str | None
    versions: list[VersionStatus]


class Decision(TypedDict):
    at: str
    what: str
    because: str


class EventsStatus(TypedDict):
    queued: int
    running: int
    dropped: dict[str, int]
    destination_delivery_failures: dict[str, int]
    dead_letter_errors: dict[str, int]


class ThrottleStatus(TypedDict):
    function: str
    version: str
    cause: str
    reason: str
    count: int


class GatewayStatus(TypedDict):
    number: int
    pid: int | None
    state: str
    restarts: int
    invocations: int


class Obstacle(TypedDict):
    code: str
    text: str


class VersionScaling(TypedDict):
    function: str
    version: str
    desired: int
    ready: int
    slots_in_use: float
    cpu_utilization: float | None
    because: str
    obstacle: Obstacle | None
    throttles: dict[str, int]


class DurableStatus(TypedDict):
    running: int
    suspended: int
    executions: dict[str, int]


class Status(TypedDict):
    """The document at `/_lambstead/status`."""

    server: dict[str, str | int | float]
    gateways: NotRequired[list[GatewayStatus]]
    """Empty where the server accepts requests itself."""
    providers: list[ProviderStatus]
    functions: list[FunctionStatus]
    events: NotRequired[EventsStatus]
    throttles: NotRequired[list[ThrottleStatus]]
    """Invocations refused with 429 since the server started."""
    scaling: NotRequired[list[VersionScaling]]
    durable: NotRequired[DurableStatus]
    waiting: NotRequired[dict[str, int]]
    """Invocations that wait for a slot, by function and version."""
    decisions: list[Decision]


_GOOD = frozenset({"Active", "ActiveNonInvocable", "Running", "Ready"})
_BAD = frozenset({"Failed"})
_UNENDED = frozenset({"RUNNING", "PAUSING", "PAUSED"})
"""Statuses of durable executions that have not ended."""


def status(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what exists, what runs, and why.

    Capacity providers with their instances and environments, functions with their versions, and the
    latest decisions of the control loops with their reasons.

    \b
    Examples:
      lambstead status
      lambstead status --json
    """
    from lambstead.cli.server_api import fetch_json

    server = require_server(settings_for(data))
    document = fetch_json(server, "/_lambstead/status")
    if as_json:
        print(json.dumps(document, indent=2))
        return
    title = f"Lambstead at {server.url} · profile {server.profile} · {server.region} · account {server.account}"
    tree = status_tree(title, cast(Status, document))  # our own server's document
    console().print(tree)


def status_tree(title: str, document: Status) -> "Tree":
    """The document as a tree under `title`. Nothing in it is taken for markup."""
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(title, "bold"))
    providers = tree.add(Text("Capacity providers" if document["providers"] else "No capacity providers"))
    for provider in document["providers"]:
        _add_provider(providers, provider)
    functions = tree.add(Text("Functions" if document["functions"] else "No functions"))
    for function in document["functions"]:
        _add_function(functions, function)
    for gateway in document.get("gateways", []):
        facts = f"process {gateway['pid']} · {gateway['invocations']} invocations · {gateway['restarts']} restarts"
        tree.add(_line(f"Gateway {gateway['number']}", gateway["state"], facts))
    for scaling in document.get("scaling", []):
        tree.add(Text(_scaling_line(scaling), "red" if scaling["obstacle"] else ""))
    for line in _events_lines(document.get("events")):
        tree.add(Text(line))
    durable = document.get("durable")
    if durable is not None and durable["executions"]:
        tree.add(Text(_durable_line(durable)))
    for throttle in document.get("throttles", []):
        name = ":".join(part for part in (throttle["function"], throttle["version"]) if part) or "others"
        tree.add(Text(f"{name}: {throttle['count']} invocations refused with 429, {throttle['cause']}"))
    if document["decisions"]:
        decisions = tree.add(Text("Latest decisions"))
        for decision in document["decisions"][-DECISIONS_SHOWN:]:
            at = datetime.fromisoformat(decision["at"]).astimezone(UTC)
            decisions.add(Text(f"{at:%Y-%m-%d %H:%M:%S}Z  {decision['what']}: {decision['because']}"))
    return tree


def _scaling_line(scaling: VersionScaling) -> str:
    """What one version has and wants, why, and whom it refused."""
    line = f"{scaling['function']}:{scaling['version']} has {scaling['ready']} of {scaling['desired']} environments: "
    line += scaling["obstacle"]["text"] if scaling["obstacle"] else scaling["because"]
    throttles = ", ".join(f"{count} by {cause}" for cause, count in scaling["throttles"].items())
    return f"{line} (throttled {throttles})" if throttles else line


def _events_lines(events: EventsStatus | None) -> list[str]:
    """What there is to say of asynchronous invocations; nothing while none is queued and nothing went wrong."""
    if events is None:
        return []
    lines = []
    if events["queued"]:
        lines.append(f"Asynchronous invocations: {events['queued']} queued, {events['running']} of them running")
    for what, counts in (
        ("events dropped, their function is gone", events["dropped"]),
        ("records reached no destination", events["destination_delivery_failures"]),
        ("dead letters reached no queue or topic", events["dead_letter_errors"]),
    ):
        lines += [f"{function}: {count} {what}" for function, count in sorted(counts.items())]
    return lines


def _durable_line(durable: DurableStatus) -> str:
    """Executions that go on, and how the others ended."""
    ended = [f"{count} {status}" for status, count in sorted(durable["executions"].items()) if status not in _UNENDED]
    head = f"Durable executions: {durable['running']} running, {durable['suspended']} suspended"
    return f"{head}; ended: {', '.join(ended)}" if ended else head


def _add_provider(tree: "Tree", provider: ProviderStatus) -> None:
    limit = "" if provider["max_vcpus"] is None else f" of {provider['max_vcpus']}"
    branch = tree.add(_line(provider["name"], provider["state"], f"{provider['vcpus']:g}{limit} vCPU"))
    for instance in provider["instances"]:
        leaf = branch.add(_line(instance["id"], instance["phase"], _size(instance)))
        for each in instance["environments"]:
            because = f" · {each['because']}" if each.get("because") else ""
            tenant = f" for {each['tenant']}" if each["tenant"] else ""
            slots = f"{each['function']}:{each['version']}{tenant} · {each['busy']} of {each['slots']} slots busy"
            facts = " · ".join([slots, *_taken(each)])
            leaf.add(_line(each["id"], each["phase"], facts + because))


def _taken(each: EnvironmentStatus | InstanceStatus) -> list[str]:
    """What was measured of an environment or an instance; nothing before the first reading."""
    if each["cpu_utilization"] is None or each["memory_bytes"] is None:
        return []
    return [f"CPU {each['cpu_utilization']:.0%}", f"{each['memory_bytes'] / 2**20:.0f} MB used"]


def _size(instance: InstanceStatus) -> str:
    facts = [instance["type"], instance["zone"]]
    if instance["vcpus"] is not None:
        facts.append(f"{instance['vcpus']:g} vCPU")
    if instance["memory_mb"] is not None:
        facts.append(f"{instance['memory_mb']} MB")
    facts += _taken(instance)
    return " · ".join(facts)


def _add_function(tree: "Tree", function: FunctionStatus) -> None:
    where = function["provider"] or "on demand"
    branch = tree.add(_line(function["name"], "", f"{function['runtime']} · {where}"))
    for version in function["versions"]:
        branch.add(_line(version["version"], version["state"], version.get("reason") or ""))


def _line(name: str, state: str, rest: str) -> "Text":
    from rich.text import Text

    style = "green" if state in _GOOD else "bold red" if state in _BAD else "yellow"
    return Text("  ").join(part for part in (Text(name), Text(state, style), Text(rest, "dim")) if part.plain)
