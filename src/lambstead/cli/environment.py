"""`lambstead env`: what a shell has to know so that AWS clients talk to Lambstead."""

import enum
import json
import sys
from typing import Annotated

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import RunningServer, find_server
from lambstead.config import Settings


class Shell(enum.StrEnum):
    """Whose syntax to print."""

    POSIX = "posix"
    FISH = "fish"
    POWERSHELL = "powershell"


_LINES = {
    Shell.POSIX: "export {name}='{value}'",
    Shell.FISH: "set -gx {name} '{value}'",
    Shell.POWERSHELL: "$Env:{name} = '{value}'",
}
# The settings allow no quote in any value, so quoting cannot be broken out of.


def env(
    data: DataOption = None,
    shell: Annotated[Shell, typer.Option("--shell", help="Syntax: posix fits sh, bash and zsh.")] = Shell.POSIX,
    as_json: JsonOption = False,
) -> None:
    """Print the variables that AWS clients need, for eval.

    \b
    Examples:
      eval "$(lambstead env)"
      lambstead env --shell fish | source
      lambstead env --shell powershell | Invoke-Expression
      lambstead env --json
    """
    settings = settings_for(data)
    server = find_server(settings.data_dir)
    variables = aws_variables(settings, server)
    if server is None:
        note = "these values fit one started with: lambstead up"
        print(f"No Lambstead server is running on {settings.data_dir}; {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(variables, indent=2))
        return
    for name, value in variables.items():
        print(_LINES[shell].format(name=name, value=value))


def aws_variables(settings: Settings, server: RunningServer | None) -> dict[str, str]:
    """Environment variables for AWS clients: of the running server, else of the one these settings would start."""
    if server is None and settings.port == 0:
        raise CommandFailed(
            "No Lambstead server is running, and port 0 means that the port is chosen at start.",
            "Start it first with: lambstead up",
        )
    region = server.region if server else settings.region
    return {
        "AWS_ENDPOINT_URL": server.url if server else f"http://{settings.authority}",
        "AWS_ACCESS_KEY_ID": settings.access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
    }
