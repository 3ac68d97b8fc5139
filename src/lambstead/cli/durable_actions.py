"""`lambstead durable stop|redrive|fork|replay-check`: what is done with one execution, or with all that a search finds."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer

from lambstead.cli.durable_client import (
    AfterOption,
    AttributeOption,
    BeforeOption,
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
from lambstead.cli.running_server import RunningServer, require_server

AT_ONCE = 4
"""Requests under way at once."""
PROGRESS_EVERY = 25
"""Executions between two lines of progress."""

Row = dict[str, Any]  # Any: JSON
SomeExecutions = Annotated[
    list[str] | None, typer.Argument(metavar="[EXECUTION]…", help="ARNs of executions, or their last parts.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show which executions are meant.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before doing it to what a search found.")]


def stop(
    executions: SomeExecutions = None,
    status: StatusOption = None,
    name: NameOption = None,
    function: FunctionOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    attribute: AttributeOption = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Message of the error.")] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop the executions that are named, or that a search finds.

    \b
    Examples:
      lambstead durable stop "$ARN" --reason "wrong input"
      lambstead durable stop --function orders --before 2026-11-01 --dry-run
      lambstead durable stop --attribute customer=42 --yes
    """
    server = require_server(settings_for(data))
    search = Search(status or ["RUNNING", "PAUSING", "PAUSED"], name, function, after, before, attribute)
    rows = _meant(server, executions, search, is_search=bool(status or search.narrows))
    error = None if reason is None else {"ErrorMessage": reason, "ErrorType": "Stopped"}
    _each(server, "stop", rows, {"Error": error}, is_search=not executions, dry_run=dry_run, yes=yes, as_json=as_json)


def redrive(
    executions: SomeExecutions = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="OPERATION", help="Id or name of the failed operation; may be repeated."),
    ] = None,
    status: StatusOption = None,
    name: NameOption = None,
    function: FunctionOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    attribute: AttributeOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let failed executions go on from the operation that failed.

    For those that FAILED, TIMED_OUT or were STOPPED. What succeeded is kept and not run again. An execution keeps its ARN and name, and has its whole
    timeout again. Names executions, or takes all that a search finds.

    \b
    Examples:
      lambstead durable redrive "$ARN"
      lambstead durable redrive "$ARN" --from charge-card
      lambstead durable redrive --function orders --status FAILED --after 2026-11-20 --yes
    """
    server = require_server(settings_for(data))
    search = Search(status or ["FAILED", "TIMED_OUT", "STOPPED"], name, function, after, before, attribute)
    rows = _meant(server, executions, search, is_search=bool(status or search.narrows))
    body = {"From": origin or []}
    _each(server, "redrive", rows, body, is_search=not executions, dry_run=dry_run, yes=yes, as_json=as_json)


def fork(
    execution: Annotated[str, typer.Argument(metavar="EXECUTION", help="ARN of the source, or its last part.")],
    up_to: Annotated[
        str | None, typer.Option("--up-to", metavar="OPERATION", help="Last operation that is copied: its id or name.")
    ] = None,
    qualifier: Annotated[
        str | None,
        typer.Option("--qualifier", metavar="TEXT", help="Version or alias to run.  [default: the source's]"),
    ] = None,
    input_json: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Another input.  [default: the source's]")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the fork.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a new execution with a part of another one's log.

    The source stays as it is.

    Without --up-to everything is copied that ended, except the failures that made the source fail.

    \b
    Examples:
      lambstead durable fork "$ARN" --qualifier 7
      lambstead durable fork "$ARN" --up-to reserve-stock --input '{"order": 42}' --name order-42-again
    """
    body = {"UpTo": up_to, "Qualifier": qualifier, "Input": input_json, "Name": name}
    found = post(require_server(settings_for(data)), path_of(execution, "fork"), body)
    if as_json:
        show_json(found)
    else:
        print(found["DurableExecutionArn"])


def replay_check(
    executions: SomeExecutions = None,
    qualifier: Annotated[
        str, typer.Option("--qualifier", metavar="TEXT", help="Version or alias whose code is checked.")
    ] = "$LATEST",
    status: StatusOption = None,
    name: NameOption = None,
    function: FunctionOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    attribute: AttributeOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many of a search.")] = 1000,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay stored executions against another version of the code.

    Each execution is replayed as a shadow that is never stored. Exits with 1 when one diverges or
    could not be run. A step that is not in the log may run before its checkpoint is refused.

    \b
    Examples:
      lambstead durable replay-check --function orders --qualifier 8
      lambstead durable replay-check "$ARN" --qualifier candidate --json
    """
    server = require_server(settings_for(data))
    search = Search(status, name, function, after, before, attribute)
    rows = _meant(server, executions, search, is_search=search.narrows or bool(status), limit=limit)
    body = {"Qualifier": qualifier}
    found = _asked(server, rows, lambda row: post(server, path_of(row["Id"], "replay-check"), body))
    bad = [each for each in found if each.get("Verdict", "NOT_RUN") in ("DIVERGED", "NOT_RUN")]
    if as_json:
        show_json(found)
    else:
        show_table(
            ("verdict", "execution", "operation", "because"),
            [
                (
                    each.get("Verdict", "NOT_RUN"),
                    each["DurableExecutionName"],
                    each.get("OperationName") or each.get("OperationId") or "",
                    each.get("Because") or each.get("Error", ""),
                )
                for each in found
            ],
        )
        print(f"{len(found)} checked against {qualifier}, {len(bad)} not as recorded.", file=sys.stderr)
    if bad:
        raise typer.Exit(1)


def _meant(
    server: RunningServer, executions: list[str] | None, search: Search, *, is_search: bool, limit: int | None = None
) -> list[Row]:
    """The executions that are named, or those that are searched for. Raises CommandFailed unless it is one of both."""
    if executions and is_search:
        raise CommandFailed("Executions are named and searched for at once.", "Do one of both.")
    if executions:
        names = [each.rpartition("/")[2] for each in executions]
        return [{"Id": each, "DurableExecutionName": each} for each in names]
    if not is_search:
        raise CommandFailed(
            "No execution is named.", "Name one, or search, for example with --function orders; --name '*' means all."
        )
    return search.found(server, limit)


def _each(
    server: RunningServer,
    action: str,
    rows: list[Row],
    body: Row,
    *,
    is_search: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Do it to every execution; exits with 1 when one refused."""
    if dry_run:
        if as_json:
            show_json(rows)
        else:
            heads = ("status", "function", "name", "id")
            show_table(
                heads, [(r.get("Status", ""), r.get("Function", ""), r["DurableExecutionName"], r["Id"]) for r in rows]
            )
            print(f"{len(rows)} executions would be meant.", file=sys.stderr)
        return
    if is_search and rows and not yes and not typer.confirm(f"{action} {len(rows)} executions?"):
        raise typer.Exit(1)
    if not is_search and len(rows) == 1:
        found = [post(server, path_of(rows[0]["Id"], action), body)]
    else:
        found = _asked(server, rows, lambda row: post(server, path_of(row["Id"], action), body))
    refused = [each for each in found if "Error" in each]
    if as_json:
        show_json(found if is_search or len(found) != 1 else found[0])
    else:
        for each in found:
            print(_line(action, each))
        if is_search or len(found) > 1:
            print(f"{action}: {len(found) - len(refused)} done, {len(refused)} refused.", file=sys.stderr)
    if refused:
        raise typer.Exit(1)


def _line(action: str, found: Row) -> str:
    if "Error" in found:
        return f"{found['DurableExecutionName']}: {found['Error']}"
    if action == "stop":
        return f"{found['DurableExecutionArn']} ended at {found['StopTimestamp']}."
    names = ", ".join(f"{each['Type']} {each['Name'] or each['Id']}" for each in found["Reopened"])
    return f"{found['DurableExecutionArn']} goes on from {names or 'where it ended'}."


def _asked(server: RunningServer, rows: Sequence[Row], ask: Callable[[Row], Row]) -> list[Row]:
    """Ask for every execution, a few at once, with progress on stderr; a refusal becomes `Error`."""

    def one(row: Row) -> Row:
        try:
            return ask(row)
        except CommandFailed as failed:
            return {**row, "Error": failed.fact}

    found: list[Row] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for each in pool.map(one, rows):
            found.append(each)
            if len(found) % PROGRESS_EVERY == 0:
                print(f"{len(found)} of {len(rows)}", file=sys.stderr)
    return found
