"""Plots of a simulation. Needs matplotlib, which the extra `plots` installs; it is imported only here, when a plot is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from lambstead.simulation.run import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 600
"""Of a curve, at most: more than that is not seen, and makes large files."""


def plot(result: Result, path: Path) -> None:
    """Load, environments and utilization of every function over time, as PNG or SVG by the name of the file.

    Raises ModuleNotFoundError without matplotlib, ValueError for a kind of file that it cannot write.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "lambstead"  # the same run gives the same file
    figure = Figure(figsize=(8, 2.9 * len(result.functions) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(result.title, fontsize=11)
    for number, function in enumerate(result.functions):
        rows = [row for row in result.rows if row.function == function.function]
        step = max(1, len(rows) // POINTS)
        _draw(figure.add_subplot(len(result.functions), 1, number + 1), function.function, rows[::step])
    figure.savefig(path, dpi=90, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axes: "Axes", name: str, rows: list[Row]) -> None:
    unit, label = (3600.0, "hours") if rows[-1].second > 2 * 3600 else (60.0, "minutes")
    times = [row.second / unit for row in rows]
    axes.set_title(name, fontsize=9, loc="left")
    axes.set_xlabel(label)
    axes.set_ylabel("environments")
    axes.step(times, [row.desired for row in rows], where="post", color="tab:blue", ls=":", label="wanted")
    axes.step(times, [row.ready for row in rows], where="post", color="tab:blue", label="ready")
    axes.set_ylim(bottom=0)
    share = axes.twinx()
    share.set_ylabel("share")
    share.set_ylim(0, 1.05)
    share.plot(times, [row.slot_utilization for row in rows], color="tab:orange", lw=0.9, label="slots used")
    if any(row.cpu_utilization for row in rows):
        share.plot(times, [row.cpu_utilization for row in rows], color="tab:green", lw=0.9, label="CPU")
    arrived = [row.served + row.throttled for row in rows]
    throttled = [row.throttled / all_ if all_ else 0.0 for row, all_ in zip(rows, arrived, strict=True)]
    if any(throttled):
        share.fill_between(times, throttled, color="tab:red", alpha=0.35, label="throttled")
    load = axes.twinx()
    load.set_ylim(0, 1.05 * max(row.rate for row in rows) or 1)
    load.plot(times, [row.rate for row in rows], color="0.6", lw=0.9, label="load")
    load.set_yticks([])
    handles = [h for each in (axes, share, load) for h in each.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, fontsize=7, loc="upper right", ncols=len(handles), framealpha=0.8)
