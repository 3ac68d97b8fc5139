"""`lambstead top`: what runs, live: providers, instances, environments, slots; what waits, what was throttled, what was decided and why."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import RunningServer, require_server
from lambstead.cli.status import Status
from lambstead.cli.terminal import console

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from lambstead.cli.status import EnvironmentStatus, InstanceStatus, ProviderStatus, VersionScaling

DECISIONS_SHOWN = 8
BAR_COLUMNS = 10
_STYLES = {"Ready": "green", "Running": "green", "Active": "green", "Failed": "bold red"}


def top(
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.1, max=60, help="Between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once and end.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch instances, environments, slots and decisions.

    Refreshed every second until Ctrl-C. With --json the document of `lambstead status --json` is
    printed, one line each time.

    \b
    Examples:
      lambstead top
      lambstead top --interval 0.5
      lambstead top --once
      lambstead top --once --json
    """
    from lambstead.cli.server_api import fetch_json

    server = require_server(settings_for(data))

    def look() -> Status:
        return cast(Status, fetch_json(server, "/_lambstead/status"))  # our own server's document

    try:
        if as_json:
            print(json.dumps(look()), flush=True)
            while not once:
                time.sleep(interval)
                print(json.dumps(look()), flush=True)
        elif once:
            console().print(screen(server, look(), datetime.now(UTC)))
        else:
            _watch(server, look, interval)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None  # the usual end


def _watch(server: RunningServer, look: Callable[[], Status], interval: float) -> None:
    from rich.live import Live

    with Live(screen(server, look(), datetime.now(UTC)), console=console(), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(screen(server, look(), datetime.now(UTC)), refresh=True)


def screen(server: RunningServer, document: Status, now: datetime) -> "Group":
    """Everything at one moment. Nothing of the document is taken for markup."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | Table] = [Text(_headline(server, document, now), "bold")]
    if document.get("scaling"):
        parts += [_versions(document), Text()]
    if document["decisions"]:
        parts += [_decisions(document), Text()]
    # Last, because it is what grows beyond the terminal.
    parts.append(
        _machines(document) if document["providers"] else Text("No capacity provider, and nothing runs.", "dim")
    )
    return Group(*parts)


def _headline(server: RunningServer, document: Status, now: datetime) -> str:
    instances = [i for p in document["providers"] for i in p["instances"]]
    environments = [e for i in instances for e in i["environments"]]
    busy, slots = sum(e["busy"] for e in environments), sum(e["slots"] for e in environments)
    price = sum(i.get("usd_per_hour") or 0.0 for i in instances)
    waiting = sum(document.get("waiting", {}).values())
    return (
        f"Lambstead at {server.url} · {now:%H:%M:%S}Z · {len(instances)} instances (${price:.3f}/h on AWS) · "
        f"{len(environments)} environments · {busy}/{slots} slots in use · {waiting} waiting"
    )


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _machines(document: Status) -> "Table":
    table = _table("provider / instance / environment", "state", "slots", "in use", "CPU", "memory", "what")
    for provider in document["providers"]:
        table.add_row(*_provider(provider))
        for instance in provider["instances"]:
            table.add_row(*_instance(instance))
            for environment in instance["environments"]:
                table.add_row(*_environment(environment))
    return table


def _provider(provider: "ProviderStatus") -> list["Text"]:
    limit = f" of {provider['max_vcpus']}" if provider["max_vcpus"] is not None else ""
    price = sum(i.get("usd_per_hour") or 0.0 for i in provider["instances"])
    environments = [e for i in provider["instances"] for e in i["environments"]]
    what = f"{provider['vcpus']:g}{limit} vCPU" + (f" · ${price:.3f}/h" if price else "")
    slots, busy = sum(e["slots"] for e in environments), sum(e["busy"] for e in environments)
    return _row(provider["name"], provider["state"], busy, slots, None, None, what, style="bold")


def _instance(instance: "InstanceStatus") -> list["Text"]:
    slots = sum(e["slots"] for e in instance["environments"])
    busy = sum(e["busy"] for e in instance["environments"])
    price = instance.get("usd_per_hour")
    what = " · ".join([instance["type"], instance["zone"], *([f"${price:.3f}/h"] if price else [])])
    cpu, memory = instance["cpu_utilization"], instance["memory_bytes"]
    return _row(f"  {instance['id']}", instance["phase"], busy, slots, cpu, memory, what)


def _environment(environment: "EnvironmentStatus") -> list["Text"]:
    what = f"{environment['function']}:{environment['version']}"
    what += f" · {environment['because']}" if environment["because"] else ""
    cpu, memory = environment["cpu_utilization"], environment["memory_bytes"]
    name = f"    {environment['id']}"
    return _row(name, environment["phase"], environment["busy"], environment["slots"], cpu, memory, what, bar=True)


def _row(
    name: str,
    state: str,
    busy: int,
    slots: int,
    cpu: float | None,
    memory: int | None,
    what: str,
    *,
    style: str = "",
    bar: bool = False,
) -> list["Text"]:
    from rich.text import Text

    full = round(BAR_COLUMNS * busy / slots) if slots else 0
    used = "█" * full + "░" * (BAR_COLUMNS - full) if bar else ""
    return [
        Text(name, style),
        Text(state, _STYLES.get(state, "yellow")),
        Text(f"{busy}/{slots}", "bold red" if slots and busy >= slots else style),
        Text(used, "red" if full == BAR_COLUMNS else "cyan"),
        Text("" if cpu is None else f"{cpu:.0%}", "red" if cpu is not None and cpu >= 0.95 else style),
        Text("" if memory is None else f"{memory / 2**20:.0f} MB", style),
        Text(what, style or "dim"),
    ]


def _versions(document: Status) -> "Table":
    table = _table("version", "environments", "slots in use", "CPU", "waiting", "throttled", "why")
    for scaling in document.get("scaling", []):
        table.add_row(*_version(scaling, document.get("waiting", {})))
    return table


def _version(scaling: "VersionScaling", waiting: dict[str, int]) -> list["Text"]:
    from rich.text import Text

    name, obstacle, cpu = f"{scaling['function']}:{scaling['version']}", scaling["obstacle"], scaling["cpu_utilization"]
    throttles = ", ".join(f"{count} {cause}" for cause, count in scaling["throttles"].items())
    return [
        Text(name),
        Text(f"{scaling['ready']} of {scaling['desired']}", "" if scaling["ready"] >= scaling["desired"] else "yellow"),
        Text(f"{scaling['slots_in_use']:g}"),
        Text("" if cpu is None else f"{cpu:.0%}"),
        Text(str(waiting.get(name, 0))),
        Text(throttles, "red"),
        Text(obstacle["text"], "red") if obstacle else Text(scaling["because"], "dim"),
    ]


def _decisions(document: Status) -> "Table":
    from rich.text import Text

    table = _table("latest decisions", "", "because")
    for decision in reversed(document["decisions"][-DECISIONS_SHOWN:]):
        at = datetime.fromisoformat(decision["at"]).astimezone(UTC)
        table.add_row(Text(f"{at:%H:%M:%S}Z", "dim"), Text(decision["what"]), Text(decision["because"], "dim"))
    return table
