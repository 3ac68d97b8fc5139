"""A plot of a benchmark as SVG, written without a plotting library: per size of event, rate and CPU over the number of connections.

Both axes are logarithmic in what they show: connections stand at even distances, values by powers of ten. Lines join the medians, bars go from the
lowest to the highest round.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.tables import Cell, Report, Rounds, Spread, cpu_us, rate

COLOURS = ("#888888", "#0b62a4", "#7cb5ec", "#555555", "#c0392b", "#e08e0b", "#8e44ad", "#27ae60", "#16a085", "#2c3e50")
PANEL_WIDTH, PANEL_HEIGHT, MARGIN, LEGEND_LINE = 420, 260, 60, 18
STYLE = "font-family: sans-serif; font-size: 12px; background: white"


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: its title, its place, what it shows, and from which power of ten to which."""

    title: str
    left: int
    top: int
    cells: Sequence[Cell]
    value: Callable[[Report], float]
    low: int
    high: int

    def x(self, cell: Cell) -> float:
        steps = max(1, len(self.cells) - 1)
        return self.left + MARGIN + self.cells.index(cell) * (PANEL_WIDTH - 2 * MARGIN) / steps

    def y(self, value: float) -> float:
        share = (math.log10(max(value, 10**self.low)) - self.low) / (self.high - self.low)
        return self.top + PANEL_HEIGHT - MARGIN / 2 - share * (PANEL_HEIGHT - MARGIN)

    def frame(self) -> list[str]:
        left, right = self.left + MARGIN - 10, self.left + PANEL_WIDTH - MARGIN + 10
        parts = [text(self.left + MARGIN, self.top + 14, self.title, "font-weight: bold")]
        for power in range(self.low, self.high + 1):
            y = self.y(10.0**power)
            parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
            parts.append(text(left - 6, y + 4, f"{10**power:,}", "text-anchor: end"))
        bottom = self.top + PANEL_HEIGHT - 8
        return parts + [
            text(self.x(cell), bottom, f"c = {cell.connections}", "text-anchor: middle") for cell in self.cells
        ]

    def line(self, rounds: Rounds, name: str, colour: str) -> list[str]:
        points = [(cell, Spread.of(rounds.of(name, cell), self.value)) for cell in self.cells if rounds.of(name, cell)]
        parts = []
        for cell, spread in points:
            x = self.x(cell)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(spread.lowest):.1f}" y2="{self.y(spread.highest):.1f}" stroke="{colour}"/>'
                f'<circle cx="{x:.1f}" cy="{self.y(spread.median):.1f}" r="3" fill="{colour}"/>'
            )
        path = " ".join(f"{self.x(cell):.1f},{self.y(spread.median):.1f}" for cell, spread in points)
        return [*parts, f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']


def plot(rounds: Rounds) -> str:
    """The whole picture."""
    panels = [panel for number, size in enumerate(sizes(rounds)) for panel in panels_of(rounds, size, number)]
    parts = [part for panel in panels for part in panel.frame()]
    for number, name in enumerate(rounds.names):
        colour = COLOURS[number % len(COLOURS)]
        parts += [part for panel in panels for part in panel.line(rounds, name, colour)]
    bottom = PANEL_HEIGHT * len(sizes(rounds))
    parts += legend(rounds.names, bottom)
    width, height = 2 * PANEL_WIDTH, bottom + LEGEND_LINE * (len(rounds.names) + 1)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" style="{STYLE}">\n{body}\n</svg>\n'
    )


def sizes(rounds: Rounds) -> list[int]:
    return sorted({cell.body_bytes for cell in rounds.cells()})


def panels_of(rounds: Rounds, size: int, number: int) -> list[Panel]:
    cells = [cell for cell in rounds.cells() if cell.body_bytes == size]
    shown = (("requests per second", rate), ("CPU µs per request", cpu_us))
    found = []
    for column, (title, value) in enumerate(shown):
        values = [value(report) for name in rounds.names for cell in cells for report in rounds.of(name, cell)]
        low = math.floor(math.log10(max(1.0, min(values))))
        high = max(low + 1, math.ceil(math.log10(max(values))))
        title = f"{title}, events of {cells[0].size}"
        found.append(Panel(title, column * PANEL_WIDTH, number * PANEL_HEIGHT, cells, value, low, high))
    return found


def legend(names: Sequence[str], top: int) -> list[str]:
    parts = []
    for number, name in enumerate(names):
        y = top + LEGEND_LINE * (number + 1)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<line x1="{MARGIN}" x2="{MARGIN + 24}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(text(MARGIN + 32, y, name))
    return parts


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{escape(words)}</text>'
