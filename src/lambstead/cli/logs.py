"""`lambstead logs`: what a function printed, or what became of a capacity provider's instances."""

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, QualifierOption, settings_for
from lambstead.cli.running_server import require_server


def logs(
    function: Annotated[str | None, typer.Argument(metavar="[FUNCTION]", help="Name of the function.")] = None,
    qualifier: QualifierOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N lines of what there is.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="The system log of a capacity provider instead.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Print the log lines of a function, or a provider.

    \b
    Examples:
      lambstead logs fibonacci
      lambstead logs fibonacci --tail 20 --follow
      lambstead logs fibonacci --qualifier 3
      lambstead logs --provider pool --follow
    """
    from lambstead.cli.server_api import stream, with_query

    if (function is None) == (provider is None) or (provider is not None and qualifier is not None):
        raise CommandFailed(
            "Name a function, or a capacity provider with --provider and no qualifier.",
            "Examples: lambstead logs fibonacci; lambstead logs --provider pool",
        )
    page = "logs" if provider is None else "provider-logs"
    path = with_query(
        f"/_lambstead/{page}/{quote(function or provider or '', safe='')}",
        {"qualifier": qualifier, "follow": int(follow), "tail": tail},
    )
    try:
        for piece in stream(require_server(settings_for(data)), path):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the usual end of --follow
