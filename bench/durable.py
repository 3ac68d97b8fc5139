"""Durable functions beside what somebody would pick instead, all in one run: part of `make bench`.

    python -m bench.durable                  # Lambstead alone, about a minute
    python -m bench.durable --peers DIR      # with Restate, DBOS and AWS's local runner, as bench.peers installed them

Two workflows: *ten steps*, and *step, wait 1 s, step*; one caller, and sixteen. A caller starts an execution and waits for its end. Our functions use AWS's unmodified
Python SDK. Engines take turns within each round; the median of the rounds is shown with the lowest and highest.

The second part is `bench.checkpoints`: the same server with simulated clients in place of the SDK, for what a checkpoint costs the server. Written to `bench/results/`;
`--summary` also replaces the measured part of `docs/performance.md` on durable functions.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from bench.contenders import lambstead
from bench.durable_engines import Engine, Report, all_engines
from bench.invoke import RESULTS, SUMMARY
from bench.tables import Spread, number, row

from bench import checkpoints, machine, tables

STEPS = {"ten": 10, "wait": 2}
NAMES = {"ten": "ten steps", "wait": "step, wait 1 s, step"}
MARKS = ("<!-- durable: begin -->", "<!-- durable: end -->")


@dataclass(frozen=True, slots=True)
class Cell:
    """One workflow with so many callers."""

    workflow: str
    callers: int

    def __str__(self) -> str:
        return f"{NAMES[self.workflow]}, {self.callers} caller{'s' * (self.callers > 1)}"


CELLS = [Cell(workflow, callers) for workflow in STEPS for callers in (1, 16)]


@dataclass(slots=True)
class Findings:
    """All that was measured in one run."""

    conditions: machine.Conditions
    engines: list[Engine] = field(default_factory=list)
    reports: dict[tuple[str, Cell], list[Report]] = field(default_factory=dict)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)

    def measure(self, rounds: int, seconds: float) -> None:
        """All engines in turn within each cell of each round."""
        for round_number in range(rounds):
            for cell in CELLS:
                print(f"round {round_number + 1} of {rounds}: {cell}", file=sys.stderr)
                for engine in self.engines:
                    report = engine.measure(cell.workflow, cell.callers, seconds)
                    self.reports.setdefault((engine.name, cell), []).append(report)

    def first_failure(self) -> str:
        """Of ours; a peer's failures are shown, and no more."""
        ours = {engine.name for engine in self.engines if engine.is_ours}
        failed = (r["first_failure"] for (name, _), reports in self.reports.items() if name in ours for r in reports)
        return next((each for each in failed if each), "")

    def document(self) -> dict[str, Any]:
        runs = [
            {"name": name, "workflow": cell.workflow, "callers": cell.callers, "rounds": reports}
            for (name, cell), reports in self.reports.items()
        ]
        return {"conditions": self.conditions.document(), "runs": runs, "checkpoints": self.checkpoints}

    def markdown(self) -> str:
        """One table per cell, and one of checkpoints."""
        lines = [f"{self.conditions.sentence()}. Command: `{self.conditions.command}`.", ""]
        heads = ["", "executions/s", "steps/s", "p50 ms", "p99 ms", "failed"]
        for cell in CELLS:
            lines += [f"**{cell}**", "", row(heads), row(["---", *["---:"] * 5])]
            lines += [row(self._values(engine.name, cell)) for engine in self.engines]
            lines.append("")
        heads = ["executions", "steps/s", "p50 µs", "p99 µs", "server CPU µs", "fsync alone µs", "others"]
        lines += ["**Checkpoints of one step each, simulated clients**", "", row(heads), row(["---:"] * 7)]
        for found in self.checkpoints:
            keys = ("executions", "steps_per_s", "p50_us", "p99_us", "server_cpu_us", "fsync_us")
            lines.append(row([*(number(found[key]) for key in keys), f"{found['others_share']:.0%}"]))
        return "\n".join([*lines, ""])

    def _values(self, name: str, cell: Cell) -> list[str]:
        reports = self.reports[name, cell]
        spreads = [
            Spread.of(reports, lambda report: report["rate"]),
            Spread.of(reports, lambda report: report["rate"] * STEPS[cell.workflow]),
            Spread.of(reports, lambda report: report["p50_us"] / 1000),
            Spread.of(reports, lambda report: report["p99_us"] / 1000),
        ]
        return [name, *map(str, spreads), str(sum(report["failures"] for report in reports) or "")]


def main(arguments: Sequence[str] | None = None) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the engines are stopped too
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="measure what bench.peers installed there too")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one run")
    parser.add_argument("--quiet-load", type=float, default=1e9, metavar="LOAD", help="begin below this load average")
    parser.add_argument("--patience", type=float, default=600.0, metavar="SECONDS", help="for --quiet-load")
    parser.add_argument("--summary", action="store_true", help="write the tables into docs/performance.md")
    given = parser.parse_args(arguments)
    machine.wait_until_quiet(given.quiet_load, given.patience)
    words = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python -m bench.durable", *words]).replace(str(given.peers), "DIR")
    findings = Findings(machine.Conditions.now(machine.load_average(), command))
    with ExitStack() as running:
        for start in all_engines(given.peers):
            findings.engines += running.enter_context(start())
        findings.measure(given.rounds, given.seconds)
    # The function of the simulated clients talks to this process, which only the level `process` lets it.
    with lambstead(isolation="process") as server:
        checkpoints.deploy_played(server, 16)
        for count in (1, 16):
            findings.checkpoints.append(uvloop.run(checkpoints.played(server, count, 2 * given.seconds)).document())
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"durable-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    stem.with_suffix(".json").write_text(json.dumps(findings.document(), indent=1) + "\n")
    stem.with_suffix(".md").write_text(findings.markdown())
    print(findings.markdown())
    if given.summary:
        tables.replace_measured_part(SUMMARY, findings.markdown(), MARKS)
    if failure := findings.first_failure():
        sys.exit(f"Executions of ours failed, so these numbers say little: {failure}")


if __name__ == "__main__":
    main()
