"""`lambstead durable …`: what can be done with durable executions beyond AWS's operations. Thin clients of `/_lambstead/durable`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import RunningServer, require_server
from lambstead.cli.terminal import console

PAGE = 1000
CELL = 100
"""Characters of a payload that a table shows."""
ROOT = "/_lambstead/durable"
app = typer.Typer(help="Search, redrive, fork, check and hurry durable executions.", no_args_is_help=True)

ExecutionArgument = Annotated[str, typer.Argument(metavar="EXECUTION", help="ARN of the execution, or its last part.")]


def path_of(execution: str, *rest: str) -> str:
    """The page of an execution."""
    return "/".join([ROOT, "executions", quote(execution.rpartition("/")[2], safe=""), *rest])


def post(server: RunningServer, path: str, body: Any = None, method: str = "POST") -> Any:  # Any: JSON
    """Send a JSON document and return the one that comes back. Raises CommandFailed for a refusal."""
    from lambstead.cli.server_api import exchange, refused

    answer = exchange(server, method, path, b"" if body is None else json.dumps(body).encode())
    if answer.status >= 400:
        raise refused(server, answer)
    return json.loads(answer.body)


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: nothing in it is markup
    console().print(table)


def show_json(document: Any) -> None:  # Any: JSON
    """Print a document for scripts."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


StatusOption = Annotated[
    list[str] | None, typer.Option("--status", metavar="STATUS", help="RUNNING, FAILED, …; may be repeated.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="PATTERN", help="Name; * stands for any characters, ? for one.")
]
FunctionOption = Annotated[str | None, typer.Option("--function", metavar="NAME", help="Only of this function.")]
AfterOption = Annotated[str | None, typer.Option("--after", metavar="TIME", help="Started after, ISO 8601.")]
BeforeOption = Annotated[str | None, typer.Option("--before", metavar="TIME", help="Started before, ISO 8601.")]
AttributeOption = Annotated[
    list[str] | None, typer.Option("--attribute", metavar="NAME=VALUE", help="Custom attribute; may be repeated.")
]


@dataclass(frozen=True)
class Search:
    """Which executions are meant."""

    status: list[str] | None
    name: str | None
    function: str | None
    after: str | None
    before: str | None
    attribute: list[str] | None

    @property
    def is_empty(self) -> bool:
        return not any((self.status, self.name, self.function, self.after, self.before, self.attribute))

    def found(self, server: RunningServer, limit: int | None = None) -> list[dict[str, Any]]:  # Any: JSON
        """The executions, newest first; all of them without a limit."""
        from lambstead.cli.server_api import fetch_json

        given = [
            *(("status", each) for each in self.status or ()),
            *(("attribute", each) for each in self.attribute or ()),
            *((key, value) for key in ("name", "function", "after", "before") if (value := getattr(self, key))),
        ]
        executions: list[dict[str, Any]] = []
        marker: str | None = ""
        while marker is not None and (limit is None or len(executions) < limit):
            size = PAGE if limit is None else min(PAGE, limit - len(executions))
            query = [*given, ("limit", size), *([("marker", marker)] if marker else [])]
            page = fetch_json(server, f"{ROOT}/executions?{urlencode(query)}")
            executions += page["Executions"]
            marker = page["NextMarker"]
        return executions


@app.command("list")
def list_(
    status: StatusOption = None,
    name: NameOption = None,
    function: FunctionOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    attribute: AttributeOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the executions of all functions, newest first.

    \b
    Examples:
      lambstead durable list
      lambstead durable list --status FAILED --function orders --after 2026-11-01
      lambstead durable list --name 'order-2026-*' --attribute customer=42 --json
    """
    search = Search(status, name, function, after, before, attribute)
    found = search.found(require_server(settings_for(data)), limit)
    if as_json:
        show_json(found)
        return
    show_table(
        ("status", "function", "version", "name", "started", "id"),
        [
            (
                each["Status"],
                each["Function"],
                each["Version"],
                each["DurableExecutionName"],
                each["StartTimestamp"],
                each["Id"],
            )
            for each in found
        ],
    )
    if len(found) == limit:
        print(f"There may be more: this is --limit {limit}.", file=sys.stderr)


@app.command("attributes")
def attributes(
    execution: ExecutionArgument,
    pairs: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]…", help="What to set.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="What to remove; may be repeated.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set, remove and show the custom attributes of an execution.

    \b
    Examples:
      lambstead durable attributes "$ARN"
      lambstead durable attributes "$ARN" customer=42 region=eu --remove draft
    """
    for each in pairs or ():
        if "=" not in each:
            raise CommandFailed(f"{each!r} is not NAME=VALUE.", "An example is customer=42.")
    changes: dict[str, str | None] = {name: value for name, _, value in (each.partition("=") for each in pairs or ())}
    changes |= dict.fromkeys(remove or ())
    server = require_server(settings_for(data))
    found = post(server, path_of(execution, "attributes"), {"Attributes": changes})["Attributes"]
    if as_json:
        show_json(found)
    else:
        show_table(("name", "value"), list(found.items()))


@app.command("show")
def show(execution: ExecutionArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show one execution.

    \b
    Examples:
      lambstead durable show 019aa5e3-77b2-7c1a-9d0e-2f6a4c1b8e55
      lambstead durable show "$ARN" --json
    """
    from lambstead.cli.server_api import fetch_json

    document = fetch_json(require_server(settings_for(data)), path_of(execution))
    if as_json:
        show_json(document)
        return
    width = max(map(len, document))
    for name, value in document.items():
        print(f"{name:{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@app.command("history")
def history(execution: ExecutionArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Print the history of an execution.

    \b
    Examples:
      lambstead durable history "$ARN"
      lambstead durable history "$ARN" --json
    """
    from lambstead.cli.server_api import fetch_json, with_query

    server = require_server(settings_for(data))
    events: list[dict[str, Any]] = []  # Any: JSON
    after: int | None = 0
    while after is not None:
        page = fetch_json(server, with_query(path_of(execution, "history"), {"after": after}))
        events += page["Events"]
        after = page["NextAfter"]
    if as_json:
        show_json(events)
        return
    rows = []
    for event in events:
        details = json.dumps(event.get(f"{event['EventType']}Details", {}), ensure_ascii=False)
        shown = details if len(details) <= CELL else f"{details[: CELL - 1]}…"
        rows.append((str(event["EventId"]), event["EventTimestamp"], event["EventType"], event.get("Name", ""), shown))
    show_table(("#", "time", "event", "operation", "details"), rows)


@app.command("redrive")
def redrive(
    execution: ExecutionArgument,
    origin: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="OPERATION", help="Id or name of the failed operation; may be repeated."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a failed, timed out or stopped execution go on from the operation that failed.

    What succeeded is kept and not run again. The execution keeps its ARN and name, and has its whole timeout again.

    \b
    Examples:
      lambstead durable redrive "$ARN"
      lambstead durable redrive "$ARN" --from charge-card
    """
    found = post(require_server(settings_for(data)), path_of(execution, "redrive"), {"From": origin or []})
    if as_json:
        show_json(found)
        return
    names = ", ".join(f"{each['Type']} {each['Name'] or each['Id']}" for each in found["Reopened"])
    print(f"{found['DurableExecutionArn']} goes on from {names or 'where it ended'}.")


@app.command("signal")
def signal(
    execution: ExecutionArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the callback in the code.")],
    payload: Annotated[str, typer.Option("--payload", metavar="JSON", help="What the callback results in.")] = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a signal: it completes the oldest open callback of that name, or the next one that starts.

    Signals of one name are kept in order, survive a crash, and are taken once each.

    \b
    Examples:
      lambstead durable signal "$ARN" approval --payload '{"approved": true}'
      lambstead durable signal "$ARN" item-added --payload '"book"'
    """
    body = {"Name": name, "Data": payload}
    found = post(require_server(settings_for(data)), path_of(execution, "signal"), body)
    if as_json:
        show_json(found)
    elif found["CompletedCallbackId"] is None:
        print(f"No callback {name} is open; the signal waits for the next one.")
    else:
        print(f"The signal completed the callback {found['CompletedCallbackId']}.")


@app.command("query")
def query(
    execution: ExecutionArgument,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only what has this name.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an execution has come to so far: the latest result of every name, open callbacks, waiting signals.

    \b
    Examples:
      lambstead durable query "$ARN"
      lambstead durable query "$ARN" progress --json
    """
    from lambstead.cli.server_api import fetch_json, with_query

    path = with_query(path_of(execution, "query"), {"name": name})
    found = fetch_json(require_server(settings_for(data)), path)
    if as_json:
        show_json(found)
        return
    print(f"The execution is {found['Status']}.")
    if found["Results"]:
        show_table(
            ("name", "type", "status", "result"),
            [(each["Name"], each["Type"], each["Status"], outcome_text(each)) for each in found["Results"]],
        )
    for each in found["Callbacks"]:
        print(f"Open callback {' / '.join(each['Names']) or '(without a name)'}: {each['CallbackId']}")
    for each in found["Signals"]:
        print(f"Waiting signal {each['Name']}: {each['Data']}")


def outcome_text(result: dict[str, Any]) -> str:  # Any: JSON
    """Result or error in one cell."""
    error = result["Error"]
    text = json.dumps(error, ensure_ascii=False) if error else result["Result"] or ""
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"


@app.command("skip")
def skip(execution: ExecutionArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Let an execution skip time: from now on what it waits for is due at once, in order.

    \b
    Examples:
      lambstead durable skip "$ARN"
    """
    found = post(require_server(settings_for(data)), path_of(execution, "skip"))
    if as_json:
        show_json(found)
    else:
        print(f"{found['DurableExecutionArn']} skips time from now on.")


@app.command("subscribe")
def subscribe(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="http or https URL, or name or ARN of a function.")],
    function: FunctionOption = None,
    status: StatusOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have every change of an execution's status delivered, as EventBridge would.

    Events are delivered at least once; what is not taken comes again with growing pauses for a day.

    \b
    Examples:
      lambstead durable subscribe http://127.0.0.1:8080/changes
      lambstead durable subscribe on-failure --function orders --status FAILED --status TIMED_OUT
    """
    body = {"Target": target, "Function": function, "Statuses": status or []}
    found = post(require_server(settings_for(data)), f"{ROOT}/subscriptions", body)
    if as_json:
        show_json(found)
    else:
        print(f"Subscription {found['Id']} delivers to {found['Target']}.")


@app.command("subscriptions")
def subscriptions(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show who is subscribed to changes of status.

    \b
    Examples:
      lambstead durable subscriptions --json
    """
    from lambstead.cli.server_api import fetch_json

    found = fetch_json(require_server(settings_for(data)), f"{ROOT}/subscriptions")["Subscriptions"]
    if as_json:
        show_json(found)
        return
    show_table(
        ("id", "target", "function", "statuses"),
        [
            (each["Id"], each["Target"], each["Function"] or "any", ", ".join(each["Statuses"]) or "any")
            for each in found
        ],
    )


@app.command("unsubscribe")
def unsubscribe(
    subscription: Annotated[str, typer.Argument(metavar="ID", help="Id of the subscription.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a subscription; what was not delivered yet is dropped.

    \b
    Examples:
      lambstead durable unsubscribe 5f0289de-3f0c-4a55-9a3e-0d7e51d77da1
    """
    post(require_server(settings_for(data)), f"{ROOT}/subscriptions/{quote(subscription, safe='')}", method="DELETE")
    if as_json:
        show_json({"Id": subscription})
    else:
        print(f"Subscription {subscription} has ended.")
