"""What the commands of `lambstead durable` share: the pages that they ask, which executions a search means, tables and JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from lambstead.cli.running_server import RunningServer
from lambstead.cli.terminal import console

ROOT = "/_lambstead/durable"
PAGE = 1000

ExecutionArgument = Annotated[str, typer.Argument(metavar="EXECUTION", help="ARN of the execution, or its last part.")]


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
    def narrows(self) -> bool:
        """True when something but the status says which are meant."""
        return any((self.name, self.function, self.after, self.before, self.attribute))

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
