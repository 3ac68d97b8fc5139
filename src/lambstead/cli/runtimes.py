"""`lambstead runtime list|install`: which runtimes this machine has.

The only place of the command line that knows the runtime catalogue; it works on the runtimes directory itself, so no
server needs to run.
"""

import dataclasses
import json
import sys
from typing import Annotated

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.terminal import console

app = typer.Typer(help="List and install the runtimes that functions run on.", no_args_is_help=True)


@app.command("list")
def list_(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show every runtime and whether functions can use it here.

    \b
    Examples:
      lambstead runtime list
      lambstead runtime list --json
    """
    from lambstead.instance.runtimes.catalogue import list_runtimes

    runtimes = list_runtimes(settings_for(data).runtimes_dir)
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in runtimes], indent=2, default=str))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("runtime", "state", "runs on", "client", "note", box=None, header_style="bold")
    for each in runtimes:
        cells = (each.identifier, each.state, each.engine, each.client, each.advice)
        table.add_row(*map(Text, cells))  # Text: nothing in it is markup
    console().print(table)


@app.command("install")
def install(
    runtime: Annotated[str, typer.Argument(metavar="RUNTIME", help="AWS's name, for example nodejs24.x.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Install what a runtime needs on this machine.

    \b
    Examples:
      lambstead runtime install python3.13
      lambstead runtime install nodejs24.x --json
    """
    from lambstead.instance.runtimes import catalogue
    from lambstead.instance.runtimes.runtime import RuntimeNotAvailable

    settings = settings_for(data)
    try:
        installed = catalogue.install(settings.runtimes_dir, runtime, lambda step: print(step, file=sys.stderr))
    except RuntimeNotAvailable as exc:
        raise CommandFailed(str(exc), "See what there is with: lambstead runtime list") from exc
    if as_json:
        document = {"runtime": runtime, "engine": installed.engine, "client": installed.client, "note": installed.note}
        print(json.dumps(document))
        return
    client = f", {installed.client}" if installed.client else ""
    print(f"{runtime} is ready: {installed.engine}{client}.")
    if installed.note:
        print(installed.note)
