"""`lambstead durable …`: what can be done with durable executions beyond AWS's operations. Thin clients of `/_lambstead/durable`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import RunningServer, require_server
from lambstead.cli.terminal import console

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


def show_json(document: Any) -> None:  # Any: JSON
    """Print a document for scripts."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


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
    from rich.table import Table
    from rich.text import Text

    table = Table("#", "time", "event", "operation", "details", box=None, header_style="bold")
    for event in events:
        details = json.dumps(event.get(f"{event['EventType']}Details", {}), ensure_ascii=False)
        shown = details if len(details) <= 100 else details[:99] + "…"
        cells = (str(event["EventId"]), event["EventTimestamp"], event["EventType"], event.get("Name", ""), shown)
        table.add_row(*map(Text, cells))  # Text: nothing in it is markup
    console().print(table)


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
