"""The `lambstead` command: which commands there are, and how a failure looks.

Every command is a function in a module named after its noun. These modules import only the standard library and typer at
the top; whatever is heavy (rich, psutil, the server itself) is imported by the function that needs it, because `--help`
and `env` run in shell start-up files and must answer at once.

Exit codes: 0 it worked; 1 it worked and the answer is bad news (a function error, a failed check, a refused question);
2 it could not be done.
"""

import sys

import typer

from lambstead.cli import (
    chaos,
    diagnosis,
    durable,
    environment,
    invocation,
    lifecycle,
    logs,
    runtimes,
    schedules,
    simulation,
    status,
    top,
)
from lambstead.cli.failures import CommandFailed
from lambstead.config import SettingsError

app = typer.Typer(
    name="lambstead",
    help="AWS Lambda Managed Instances on machines you own.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help is read at once, and costs half the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("up")(lifecycle.up)
app.command("down")(lifecycle.down)
app.command("env")(environment.env)
app.command("status")(status.status)
app.command("top")(top.top)
app.command("logs")(logs.logs)
app.command("invoke")(invocation.invoke)
app.command("doctor")(diagnosis.doctor)
app.add_typer(runtimes.app, name="runtime")
app.command("simulate")(simulation.simulate)
app.add_typer(schedules.app, name="schedule")
app.add_typer(durable.app, name="durable")
app.add_typer(chaos.app, name="chaos")
app.command("reset")(lifecycle.reset)


def main() -> None:
    """Run the command of `sys.argv` and exit. A user's mistake ends in two lines on stderr, never in a traceback."""
    try:
        app()
    except CommandFailed as failed:
        _complain(failed.fact, failed.next_step)
        sys.exit(failed.exit_code)
    except SettingsError as wrong:
        _complain(str(wrong), "")
        sys.exit(2)


def _complain(fact: str, next_step: str) -> None:
    for line in filter(None, (fact, next_step)):
        print(line, file=sys.stderr)
