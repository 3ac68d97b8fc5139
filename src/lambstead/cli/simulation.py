"""`lambstead simulate`: what scaling would do, without running anything."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import JsonOption
from lambstead.cli.terminal import console

if TYPE_CHECKING:
    from lambstead.simulation.run import Result


def simulate(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A TOML file; see examples/scenarios.")],
    as_json: JsonOption = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write a row per function and tick.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Also draw it, as .png or .svg.")] = None,
) -> None:
    """Play load and faults against the server's own scaling.

    The same decisions as in a running server, over a virtual clock: throttles, utilization, cost and scaling
    lag of fleets that no machine here could hold. Nothing is started and no server is needed.

    \b
    Examples:
      lambstead simulate examples/scenarios/doubling.toml
      lambstead simulate examples/scenarios/zone-loss.toml --plot zone-loss.png
      lambstead simulate examples/scenarios/daily.toml --json
      lambstead simulate examples/scenarios/step.toml --csv step.csv
    """
    from lambstead.simulation.report import document, rows_csv

    if plot is not None:
        _check_plot(plot)
    result = _run(scenario)
    if csv is not None:
        _write(csv, rows_csv(result))
    if plot is not None:
        from lambstead.simulation.plots import plot as draw

        try:
            draw(result, plot)
        except OSError as exc:
            raise CommandFailed(f"{plot} cannot be written: {exc}.", "Choose another file.") from exc
    if as_json:
        print(json.dumps(document(result), indent=2))
        return
    _show(result)


def _run(scenario: Path) -> "Result":
    from lambstead.simulation.run import simulate as run
    from lambstead.simulation.scenario import ScenarioError

    try:
        return run(scenario.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"{scenario} cannot be read: {exc}.", "Name a TOML file; see examples/scenarios.") from exc
    except ScenarioError as exc:
        raise CommandFailed(f"{scenario}: {exc}", "See examples/scenarios for scenarios that work.") from exc


def _check_plot(path: Path) -> None:
    """Say what is wrong before minutes are spent."""
    if path.suffix not in (".png", ".svg"):
        raise CommandFailed(f"{path} names no kind of picture.", "Let it end in .png or .svg.")
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise CommandFailed("Plots need matplotlib.", "Install it with: pip install 'lambstead[plots]'")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise CommandFailed(f"{path} cannot be written: {exc}.", "Choose another file.") from exc


def _show(result: "Result") -> None:
    from rich.table import Table
    from rich.text import Text

    from lambstead.simulation.report import NOTES_SHOWN, closing, headings, lines

    table = Table(*headings(), title=Text(result.title), box=None, header_style="bold", title_justify="left")
    for line in lines(result):
        table.add_row(*map(Text, line))
    out = console()
    out.print(table)
    out.print(Text(closing(result)))
    for note in result.notes[-NOTES_SHOWN:]:
        out.print(Text(f"{note.second:8.0f} s  {note.what}: {note.because}"))
