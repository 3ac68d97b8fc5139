"""`lambstead chaos …`: break something on purpose, see what is broken, mend it."""

import json
from typing import Annotated, Any, TypedDict
from urllib.parse import quote

import typer

from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import require_server
from lambstead.cli.terminal import console

app = typer.Typer(
    help="""Break things on purpose, to see that nobody notices.

    Kills happen once; the other faults last until their duration is over or they are cleared. The
    server has to allow it: `lambstead up --chaos`. Tests can POST the same to /_lambstead/chaos.

    \b
    Examples:
      lambstead chaos kill-instance --provider pool
      lambstead chaos lose-zone us-east-1a --duration 30s
      lambstead chaos list
      lambstead chaos clear
    """,
    no_args_is_help=True,
)
PATH = "/_lambstead/chaos"


class ActiveFault(TypedDict):
    """One of those at work, as the server shows it; further members are the fault's own."""

    id: str
    fault: str
    until: str | None
    hits: int


ProviderOption = Annotated[str | None, typer.Option("--provider", metavar="NAME", help="Only of this provider.")]
ZoneOption = Annotated[str | None, typer.Option("--zone", metavar="ZONE", help="Only in this zone.")]
FunctionOption = Annotated[str | None, typer.Option("--function", metavar="NAME", help="Only with this function.")]
IdOption = Annotated[str | None, typer.Option("--id", metavar="ID", help="Exactly this one.  [default: at random]")]
CountOption = Annotated[int, typer.Option("--count", metavar="N", min=1, help="How many.")]
DurationOption = Annotated[
    str | None, typer.Option("--duration", metavar="TIME", help="500ms, 30s, 5m …  [default: until cleared]")
]


KILLS = {
    "kill-instance": """Kill instances, as machines end that lose their power.

    \b
    Examples:
      lambstead chaos kill-instance
      lambstead chaos kill-instance --zone us-east-1a --count 2
      lambstead chaos kill-instance --id i-0123456789abcdef0
    """,
    "kill-environment": """Kill the runtime of environments; their instances go on.

    \b
    Examples:
      lambstead chaos kill-environment --function orders
      lambstead chaos kill-environment --id env-0123456789abcdef0
    """,
    "kill-worker": """Kill one worker process in each of some environments; the other workers go on.

    Where workers are threads (Node.js), the runtime is killed.

    \b
    Examples:
      lambstead chaos kill-worker --function orders
    """,
}
"""Commands that kill, with their help: they take the same options."""


def kill(
    context: typer.Context,
    provider: ProviderOption = None,
    zone: ZoneOption = None,
    function: FunctionOption = None,
    id: IdOption = None,
    count: CountOption = 1,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    fault = str(context.command.name)
    _inflict(data, as_json, fault, provider=provider, zone=zone, function=function, id=id, count=count)


for _name, _help in KILLS.items():
    app.command(_name, help=_help)(kill)


@app.command("lose-zone")
def lose_zone(
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="An availability zone, as us-east-1a.")],
    provider: ProviderOption = None,
    duration: DurationOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Kill every instance in a zone, and let none be launched there.

    \b
    Examples:
      lambstead chaos lose-zone us-east-1a
      lambstead chaos lose-zone us-east-1a --provider pool --duration 30s
    """
    _inflict(data, as_json, "lose-zone", zone=zone, provider=provider, duration=duration)


@app.command("no-capacity")
def no_capacity(
    provider: ProviderOption = None,
    zone: ZoneOption = None,
    type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only this instance type, as 'c7i.*'.")
    ] = None,
    duration: DurationOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let EC2 have no instance to give; those that run go on.

    \b
    Examples:
      lambstead chaos no-capacity
      lambstead chaos no-capacity --provider pool --type 'c7i.*' --duration 1m
    """
    _inflict(data, as_json, "no-capacity", provider=provider, zone=zone, type=type, duration=duration)


@app.command("slow-start")
def slow_start(
    delay: Annotated[str, typer.Argument(metavar="DELAY", help="How much later things start: 2s, 1m …")],
    of: Annotated[str, typer.Option("--of", metavar="instance|environment", help="What starts late.")] = "instance",
    provider: ProviderOption = None,
    zone: ZoneOption = None,
    function: FunctionOption = None,
    duration: DurationOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let instances, or environments, start late.

    \b
    Examples:
      lambstead chaos slow-start 20s
      lambstead chaos slow-start 5s --of environment --function orders --duration 1m
    """
    _inflict(
        data,
        as_json,
        "slow-start",
        delay=delay,
        of=of,
        provider=provider,
        zone=zone,
        function=function,
        duration=duration,
    )


@app.command("throttle")
def throttle(
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="Name of the function.")],
    version: Annotated[
        str | None, typer.Option("--version", metavar="VERSION", help="A number or $LATEST.PUBLISHED.  [default: all]")
    ] = None,
    cause: Annotated[
        str | None,
        typer.Option(
            "--cause", metavar="REASON", help="Reason in the answer.  [default: ConcurrentInvocationLimitExceeded]"
        ),
    ] = None,
    duration: DurationOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer invocations of a function with 429.

    \b
    Examples:
      lambstead chaos throttle orders --duration 10s
      lambstead chaos throttle orders --cause CallerRateLimitExceeded
    """
    _inflict(data, as_json, "throttle", function=function, version=version, cause=cause, duration=duration)


@app.command("list")
def list_(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show the faults at work.

    \b
    Examples:
      lambstead chaos list
      lambstead chaos list --json
    """
    from lambstead.cli.server_api import fetch_json

    document = fetch_json(require_server(settings_for(data)), PATH)
    if as_json:
        print(json.dumps(document, indent=2))
    elif document["active"]:
        for each in document["active"]:
            console().print(_line(each), markup=False)
    else:
        print("No fault is at work.")


@app.command("clear")
def clear(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A fault's id.  [default: all]")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End one fault that lasts, or all of them.

    \b
    Examples:
      lambstead chaos clear
      lambstead chaos clear fault-0a1b2c3d
    """
    from lambstead.cli.server_api import fetch_json

    path = PATH if id is None else f"{PATH}/{quote(id, safe='')}"
    document = fetch_json(require_server(settings_for(data)), path, "DELETE")
    if as_json:
        print(json.dumps(document, indent=2))
        return
    for each in document["cleared"]:
        console().print(f"Cleared: {_line(each)}", markup=False)
    if not document["cleared"]:
        print("No fault was at work.")


def _inflict(data: Any, as_json: bool, fault: str, **members: str | int | None) -> None:  # Any: as DataOption
    from lambstead.cli.server_api import exchange, refused

    server = require_server(settings_for(data))
    given = {name: value for name, value in members.items() if value is not None}
    if given.get("count") == 1:
        del given["count"]
    answer = exchange(server, "POST", PATH, json.dumps({"fault": fault, **given}).encode())
    if answer.status >= 400:
        raise refused(server, answer)
    document = json.loads(answer.body)
    if as_json:
        print(json.dumps(document, indent=2))
        return
    for victim in document["killed"]:
        print(f"Killed {victim}" if fault != "kill-worker" else f"Killed a worker of {victim}")
    if document["active"]:
        console().print(_line(document["active"]), markup=False)


def _line(each: ActiveFault) -> str:
    known = {"id", "fault", "since", "until", "hits"}
    what = " ".join(f"{name}={value}" for name, value in each.items() if name not in known)
    until = f"until {each['until']}" if each["until"] else "until cleared"
    return f"{each['id']}  {each['fault']} {what}  {until}, {each['hits']} hits"
