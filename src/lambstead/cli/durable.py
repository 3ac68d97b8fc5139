"""`lambstead durable …`: what can be done with durable executions beyond AWS's operations. Thin clients of `/_lambstead/durable`."""

import json
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lambstead.cli import durable_actions
from lambstead.cli.durable_client import (
    ROOT,
    AfterOption,
    AttributeOption,
    BeforeOption,
    ExecutionArgument,
    FunctionOption,
    NameOption,
    Search,
    StatusOption,
    path_of,
    post,
    show_json,
    show_table,
)
from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import require_server

CELL = 100
"""Characters of a payload that a table shows."""
app = typer.Typer(help="Search, redrive, fork, check and hurry durable executions.", no_args_is_help=True)


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


@app.command("signal")
def signal(
    execution: ExecutionArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the callback in the code.")],
    payload: Annotated[str, typer.Option("--payload", metavar="JSON", help="What the callback results in.")] = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Complete the callback of a name, open or next to come.

    The oldest open callback of that name is completed, or the next one that starts.

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
    """Show what an execution has come to so far.

    The latest result of every name, open callbacks with their ids, and waiting signals.

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
    """Let an execution skip time.

    From now on what it waits for is due at once, in order.

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
    """Have changes of status delivered to a function or URL.

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


app.command("stop")(durable_actions.stop)
app.command("redrive")(durable_actions.redrive)
app.command("fork")(durable_actions.fork)
app.command("replay-check")(durable_actions.replay_check)
