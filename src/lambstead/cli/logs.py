"""`lambstead logs`: what a function printed."""

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from lambstead.cli.options import DataOption, QualifierOption, settings_for
from lambstead.cli.running_server import require_server


def logs(
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="Name of the function.")],
    qualifier: QualifierOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N lines of what there is.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Print the log lines of a function.

    \b
    Examples:
      lambstead logs fibonacci
      lambstead logs fibonacci --tail 20 --follow
      lambstead logs fibonacci --qualifier 3
    """
    from lambstead.cli.server_api import stream, with_query

    path = with_query(
        f"/_lambstead/logs/{quote(function, safe='')}",
        {"qualifier": qualifier, "follow": int(follow), "tail": tail},
    )
    try:
        for piece in stream(require_server(settings_for(data)), path):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the usual end of --follow
