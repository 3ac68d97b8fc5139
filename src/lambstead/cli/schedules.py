"""`lambstead schedule`: schedules that invoke functions, through EventBridge Scheduler's API; and what an expression means."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import RunningServer, require_server
from lambstead.cli.terminal import console
from lambstead.config import Settings

if TYPE_CHECKING:
    from lambstead.core.schedules import Timing

app = typer.Typer(help="Invoke functions at times: at(…), rate(…) and cron(…).", no_args_is_help=True)

Document = dict[str, Any]  # Any: documents of AWS's API
GroupOption = Annotated[str, typer.Option("--group", metavar="NAME", help="The schedule group.")]
TimezoneOption = Annotated[
    str, typer.Option("--timezone", metavar="ZONE", help="Where at and cron are read, for example Europe/Berlin.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
_NEXT_STEPS = {
    "ConflictException": "Choose another name, or delete it first: lambstead schedule delete NAME",
    "ResourceNotFoundException": "See what there is with: lambstead schedule list",
}


@app.command("create")
def create(
    name: NameArgument,
    expression: Annotated[
        str, typer.Option("--expression", metavar="EXPR", help="at(…), rate(…) or cron(…); see: schedule next --help")
    ],
    function: Annotated[
        str, typer.Option("--function", metavar="NAME[:QUALIFIER]|ARN", help="The function to invoke asynchronously.")
    ],
    event: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE|-", help="The event; - reads standard input.")
    ] = None,
    timezone: TimezoneOption = "UTC",
    group: GroupOption = "default",
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="For people.")] = "",
    start: Annotated[
        str | None, typer.Option("--start", metavar="TIME", help="Not before, as 2026-12-01T09:00:00Z.")
    ] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="Not after.")] = None,
    window: Annotated[
        int | None, typer.Option("--window", metavar="MINUTES", help="Flexible: at a random time this long.")
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Create it without running it.")] = False,
    delete_after: Annotated[
        bool, typer.Option("--delete-after", help="The schedule deletes itself after its last time.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a schedule that invokes a function.

    \b
    Examples:
      lambstead schedule create nightly --expression 'cron(0 3 * * ? *)' --timezone Europe/Berlin --function report
      lambstead schedule create pulse --expression 'rate(5 minutes)' --function ping:live --input '{"n": 1}'
      lambstead schedule create once --expression 'at(2026-12-24T18:00:00)' --function greet --delete-after --json
    """
    from lambstead.core.schedules import first_upcoming

    settings = settings_for(data)
    timing = _timing(expression, timezone, datetime.now(UTC))
    server = require_server(settings)
    target: Document = {
        "Arn": _function_arn(server, function),
        "RoleArn": f"arn:aws:iam::{server.account}:role/lambstead",
    }
    if event is not None:
        target["Input"] = _text_of(event)
    flexible: Document = {"Mode": "OFF"} if window is None else {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": window}
    request: Document = {
        "GroupName": group,
        "ScheduleExpression": expression,
        "ScheduleExpressionTimezone": timezone,
        "Target": target,
        "FlexibleTimeWindow": flexible,
        "State": "DISABLED" if disabled else "ENABLED",
        "ActionAfterCompletion": "DELETE" if delete_after else "NONE",
    }
    optional = {"Description": description or None, "StartDate": _epoch(start), "EndDate": _epoch(end)}
    request |= {member: value for member, value in optional.items() if value is not None}
    answer = _call(settings, server, "POST", f"/schedules/{quote(name, safe='')}", request)
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    print(f"Created {answer['ScheduleArn']}.")
    if not disabled and first_upcoming(timing, datetime.now(UTC), 0) is None:
        print("No time of it lies ahead: it will not run.", file=sys.stderr)


@app.command("list")
def list_(
    group: Annotated[str | None, typer.Option("--group", metavar="NAME", help="Only of this group.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="TEXT", help="Only names that begin so.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the schedules.

    \b
    Examples:
      lambstead schedule list
      lambstead schedule list --group reports --prefix nightly --json
    """
    from lambstead.cli.server_api import with_query

    settings = settings_for(data)
    server = require_server(settings)
    found: list[Document] = []
    token: str | None = None
    while True:
        path = with_query("/schedules", {"ScheduleGroup": group, "NamePrefix": prefix, "NextToken": token})
        page = _call(settings, server, "GET", path)
        found += page["Schedules"]
        token = page.get("NextToken")
        if token is None:
            break
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("schedule", "group", "state", "target", box=None, header_style="bold")
    for each in found:
        table.add_row(*map(Text, (each["Name"], each["GroupName"], each["State"], each["Target"]["Arn"])))
    console().print(table)


@app.command("show")
def show(
    name: NameArgument, group: GroupOption = "default", data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show one schedule.

    \b
    Examples:
      lambstead schedule show nightly
      lambstead schedule show nightly --group reports --json
    """
    settings = settings_for(data)
    document = _call(settings, require_server(settings), "GET", _path(name, group))
    if as_json:
        print(json.dumps(document, indent=2))
        return
    target, flexible = document["Target"], document["FlexibleTimeWindow"]
    lines = {
        "schedule": document["Arn"],
        "state": document["State"],
        "expression": f"{document['ScheduleExpression']} in {document['ScheduleExpressionTimezone']}",
        "window": f"{flexible['MaximumWindowInMinutes']} minutes" if "MaximumWindowInMinutes" in flexible else "off",
        "from": _moment(document.get("StartDate")),
        "until": _moment(document.get("EndDate")),
        "target": target["Arn"],
        "input": target.get("Input", ""),
        "dead letters": target.get("DeadLetterConfig", {}).get("Arn", ""),
        "at its end": "deletes itself" if document["ActionAfterCompletion"] == "DELETE" else "",
        "description": document.get("Description", ""),
    }
    for what, text in lines.items():
        if text:
            print(f"{what:<13} {text}")


@app.command("delete")
def delete(
    name: NameArgument, group: GroupOption = "default", data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Delete a schedule.

    \b
    Examples:
      lambstead schedule delete nightly
      lambstead schedule delete nightly --group reports --json
    """
    settings = settings_for(data)
    _call(settings, require_server(settings), "DELETE", _path(name, group))
    print(json.dumps({"deleted": name, "group": group}) if as_json else f"Deleted {name}.")


@app.command("next")
def next_(
    expression: Annotated[str, typer.Argument(metavar="EXPR", help="at(…), rate(…) or cron(…).")],
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=1000, help="How many times.")] = 5,
    timezone: TimezoneOption = "UTC",
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="TIME", help="From when on, as 2026-12-01T09:00:00Z.  [default: now]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show when an expression is due next. Needs no server.

    \b
    Cron has six fields: minutes hours day-of-month month day-of-week year. One of the day fields is ?.
    Examples:
      lambstead schedule next 'cron(0 9 ? * MON-FRI *)' --timezone Europe/Berlin
      lambstead schedule next 'cron(0 0 L * ? *)' --count 12 --json
      lambstead schedule next 'rate(90 minutes)' --after 2026-12-01T09:00:00Z
    """
    from zoneinfo import ZoneInfo

    begin = datetime.now(UTC).replace(microsecond=0) if after is None else _time_of(after)
    timing = _timing(expression, timezone, begin)
    moments: list[datetime] = []
    moment = begin
    while len(moments) < count and (found := timing.occurrence_after(moment)) is not None:
        moments.append(found)
        moment = found
    local = [each.astimezone(ZoneInfo(timezone)) for each in moments]
    if as_json:
        print(json.dumps([each.isoformat() for each in local], indent=2))
        return
    for each in local:
        print(f"{each:%a %Y-%m-%d %H:%M:%S %Z}".rstrip())
    if not local:
        print(f"{expression} is never due after {begin.isoformat()}.", file=sys.stderr)
        raise typer.Exit(1)


# --- the API ----------------------------------------------------------------------------------------------------------------


def _path(name: str, group: str) -> str:
    from lambstead.cli.server_api import with_query

    return with_query(f"/schedules/{quote(name, safe='')}", {"groupName": group})


def _call(
    settings: Settings, server: RunningServer, method: str, path: str, request: Document | None = None
) -> Document:
    from lambstead.cli.server_api import exchange, signed_headers

    headers = {**signed_headers(server, settings.access_key_id, "scheduler"), "Content-Type": "application/json"}
    answer = exchange(server, method, path, b"" if request is None else json.dumps(request).encode(), headers)
    if answer.status >= 400:
        error = answer.headers.get("x-amzn-errortype", str(answer.status)).partition(":")[0]
        raise CommandFailed(f"{error}: {answer.sentence}", _NEXT_STEPS.get(error, ""))
    document: Document = json.loads(answer.body or b"{}")
    return document


def _timing(expression: str, timezone: str, anchor: datetime) -> "Timing":
    """What is asked for, checked here, where the reason can be told: AWS's own answer has none."""
    from lambstead.core.errors import ValidationError
    from lambstead.core.schedules import InvalidExpression, Timing, parse_expression, zone_of

    try:
        parse_expression(expression)
        zone_of(timezone)
    except InvalidExpression as exc:
        raise CommandFailed(exc.message, f"The reason: {exc.reason}.") from exc
    except ValidationError as exc:
        raise CommandFailed(exc.message) from exc
    return Timing(expression, anchor=anchor, timezone=timezone)


def _function_arn(server: RunningServer, function: str) -> str:
    from lambstead.core.arn import FunctionRef, Realm
    from lambstead.core.errors import DomainError

    realm = Realm(server.region, server.account)
    try:
        return FunctionRef.parse(function, realm).arn(realm)
    except DomainError as exc:
        raise CommandFailed(exc.message) from exc


def _text_of(event: str) -> str:
    """The text that `--input` means."""
    if event == "-":
        return sys.stdin.read()
    if not event.startswith("@"):
        return event
    try:
        return Path(event[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"The input file {event[1:]} cannot be read: {exc}.") from exc


def _time_of(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise CommandFailed(f"{text} is no time: {exc}.", "Write it as 2026-12-01T09:00:00Z") from exc
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _epoch(text: str | None) -> float | None:
    return None if text is None else _time_of(text).timestamp()


def _moment(epoch: float | None) -> str:
    return "" if epoch is None else f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%SZ}"
