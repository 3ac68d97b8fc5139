"""`lambstead doctor`: what works on this machine, and what to do about the rest."""

import json
from typing import Literal, TypedDict, cast

import typer

from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import require_server
from lambstead.cli.terminal import console


class Check(TypedDict):
    """One line of the server's diagnosis."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    advice: str


_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check the machine and the running server.

    The exit code is 1 if a check failed.

    \b
    Examples:
      lambstead doctor
      lambstead doctor --json
    """
    from lambstead.cli.server_api import fetch_json

    document = fetch_json(require_server(settings_for(data)), "/_lambstead/doctor")
    checks = cast(list[Check], document["checks"])  # our own server's document
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        _print(checks)
    if any(check["state"] == "failed" for check in checks):
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    from rich.text import Text

    output = console()
    width = max((len(check["name"]) for check in checks), default=0)
    for check in checks:
        state = (f"{check['state']:<8}", _STYLES.get(check["state"], ""))
        output.print(Text.assemble(state, f" {check['name']:<{width}}  ", check["detail"]))
        if check.get("advice"):
            output.print(Text(f"{'':9}{'':{width}}  → {check['advice']}", "dim"))
