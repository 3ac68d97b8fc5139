"""The rounds of a benchmark as tables: the median of every number, with the lowest and highest in brackets."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import Conditions

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

Report = dict[str, Any]  # the JSON of bench.load.Report


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One situation that is measured."""

    connections: int
    body_bytes: int

    def __str__(self) -> str:
        return f"c = {self.connections}, {self.size}"

    @property
    def size(self) -> str:
        for unit, factor in (("MB", 1_000_000), ("kB", 1000)):
            if self.body_bytes >= factor:
                return f"{self.body_bytes / factor:g} {unit}"
        return f"{self.body_bytes} B"


@dataclass(slots=True)
class Rounds:
    """Every run, by contender and cell, in the order of the rounds."""

    names: list[str] = field(default_factory=list)
    """Of the contenders, in the order of the tables."""
    _runs: dict[tuple[str, Cell], list[Report]] = field(default_factory=dict)

    def add(self, name: str, cell: Cell, report: Report) -> None:
        self._runs.setdefault((name, cell), []).append(report)

    def of(self, name: str, cell: Cell) -> list[Report]:
        return self._runs.get((name, cell), [])

    def cells(self) -> list[Cell]:
        return sorted({cell for _, cell in self._runs}, key=lambda cell: (cell.body_bytes, cell.connections))

    def first_failure(self, name: str) -> str:
        return next(
            (r["first_failure"] for (n, _), runs in self._runs.items() if n == name for r in runs if r["failures"]), ""
        )

    def documents(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "connections": cell.connections, "body_bytes": cell.body_bytes, "rounds": runs}
            for (name, cell), runs in self._runs.items()
        ]


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over the rounds."""

    lowest: float
    median: float
    highest: float

    @classmethod
    def of(cls, reports: Sequence[Report], value: Callable[[Report], float]) -> "Spread":
        values = [value(report) for report in reports]
        return cls(min(values), statistics.median(values), max(values))

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.lowest)}–{number(self.highest)})"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def cpu_us(report: Report) -> float:
    """CPU of the whole watched tree, per request that was answered."""
    return float(sum(report["cpu_us"].values()))


def rate(report: Report) -> float:
    """Answered requests per second."""
    return float(report["rate"])


def failed_share(report: Report) -> float:
    return float(report["failures"] / max(1, report["requests"]))


COLUMNS: Sequence[tuple[str, Callable[[Report], float]]] = (
    ("requests/s", rate),
    ("p50 µs", lambda report: report["p50_us"]),
    ("p99 µs", lambda report: report["p99_us"]),
    ("p99.9 µs", lambda report: report["p999_us"]),
    ("CPU µs", cpu_us),
)


def markdown(rounds: Rounds, conditions: Conditions) -> str:
    """One table per cell. CPU is that of all processes of a contender; in brackets its parts, for Lambstead server + agent + workers."""
    lines = [f"{conditions.sentence()}. Command: `{conditions.command}`.", ""]
    for cell in rounds.cells():
        heads = ["", *(name for name, _ in COLUMNS), "server + agent + workers", "failed", "others"]
        lines += [f"**{cell.connections} connection{'s' * (cell.connections > 1)}, events of {cell.size}**", ""]
        lines += [row(heads), row(["---", *["---:"] * (len(heads) - 1)])]
        for name in rounds.names:
            if reports := rounds.of(name, cell):
                lines.append(row([name, *values(reports)]))
        lines.append("")
    return "\n".join(lines)


def values(reports: Sequence[Report]) -> list[str]:
    parts = " + ".join(
        number(statistics.median(report["cpu_us"].get(level, 0.0) for report in reports))
        for level in ("server", "agent", "workers")
    )
    failed = statistics.median(map(failed_share, reports))
    others = max(report["others_share"] for report in reports)
    spreads = [str(Spread.of(reports, value)) for _, value in COLUMNS]
    return [*spreads, parts, f"{failed:.1%}" if failed else "", f"≤ {others:.0%}"]


def row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def text(rounds: Rounds, conditions: Conditions) -> str:
    """Medians for the terminal, and the ratios that the project watches."""
    lines = [conditions.sentence()]
    width = max(map(len, rounds.names)) + 2
    for cell in rounds.cells():
        lines.append(f"\n{cell!s:{width}}" + "".join(f"{name:>12}" for name, _ in COLUMNS) + f"{'others':>9}")
        for name in rounds.names:
            if reports := rounds.of(name, cell):
                medians = "".join(f"{number(Spread.of(reports, value).median):>12}" for _, value in COLUMNS)
                others = max(report["others_share"] for report in reports)
                lines.append(f"{name:{width}}{medians}{others:9.0%}")
    return "\n".join(lines)


def replace_measured_part(page: Path, measured: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put the tables between two marks of a page. Raises ValueError if they are not there."""
    begin_mark, end_mark = marks
    before, begin, rest = page.read_text().partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ValueError(f"{page} has no place for what was measured, between {begin_mark} and {end_mark}.")
    page.write_text(f"{before}{begin}\n\n{measured}\n{end}{after}")
