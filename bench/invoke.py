"""`make bench`: what an invocation costs, beside its limits and beside what somebody would pick instead, all in one run.

Every contender (`bench.contenders`, and with `--peers DIR` those of `bench.peers`) is started once; then they are loaded in turn, round after round
(A B C A B C …), so that what the machine does at one time hits all of them alike. A *cell* is a number of connections and a size of event. Of every
number the median of the rounds is shown with the lowest and highest, and how busy other processes kept the machine meanwhile.

The quick default takes less than two minutes: three cells of small events and one of 1 MB, three rounds. `--full` takes 1, 16, 64 and 256
connections with events of 100 B, 10 kB and 1 MB. Written to `bench/results/`: everything as JSON, a table in markdown, a plot. `--summary` also
replaces the measured part of `docs/performance.md`.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.contenders import OURS, Contender, Start, asgi
from bench.plot import plot
from bench.tables import Cell, Rounds

from bench import machine, peers, tables

RESULTS = Path(__file__).parent / "results"
SUMMARY = Path(__file__).parents[1] / "docs" / "performance.md"
WARM_UP_SECONDS = 0.5
"""The same for all before each run: in its turns a contender sleeps for the time of all others, and the kernel takes back what it does not touch."""
UNLIMITED = 10_000_000
"""Requests of a run that its time ends."""

Report = dict[str, Any]  # the JSON of bench.load.Report


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how often."""

    cells: Sequence[Cell]
    rounds: int
    seconds: float
    """Time of one run."""
    quiet_share: float
    """A run during which others used more of the machine than this is repeated, as long as patience lasts."""
    patience_s: float


QUICK = Plan((Cell(1, 100), Cell(16, 100), Cell(64, 100), Cell(1, 1_000_000)), 3, 1.0, 1.0, 0.0)
FULL = Plan([Cell(c, size) for size in (100, 10_000, 1_000_000) for c in (1, 16, 64, 256)], 5, 2.0, 1.0, 0.0)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the contenders are stopped too
    given = arguments()
    base = FULL if given.full else QUICK
    plan = Plan(base.cells, given.rounds or base.rounds, base.seconds, given.quiet, given.patience)
    starts = [*OURS, *([asgi, *peers.found(given.peers)] if given.full or given.peers else [])]
    machine.wait_until_quiet(given.quiet_load, given.patience)
    load_before = machine.load_average()
    rounds, ours = measured(starts, plan)
    conditions = machine.Conditions.now(load_before, load_command())
    files = keep(rounds, conditions, plan)
    print(tables.text(rounds, conditions))
    print(f"\nKept as {', '.join(str(file.relative_to(Path.cwd())) for file in files)}")
    if given.summary:
        tables.replace_measured_part(SUMMARY, tables.markdown(rounds, conditions))
        print(f"{SUMMARY.relative_to(Path.cwd())} is updated.")
    for name in ours:
        if failed := rounds.first_failure(name):
            sys.exit(f"Requests to {name} failed, so these numbers say little: {failed}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="all cells, five rounds, the bare ASGI app as well")
    parser.add_argument("--rounds", type=int, help="instead of three or five")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="measure what bench.peers installed there too")
    parser.add_argument(
        "--quiet", type=float, default=1.0, metavar="SHARE", help="repeat runs in which others used more"
    )
    parser.add_argument("--quiet-load", type=float, default=1e9, metavar="LOAD", help="begin below this load average")
    parser.add_argument("--patience", type=float, default=600.0, metavar="SECONDS", help="for --quiet and --quiet-load")
    parser.add_argument("--summary", action="store_true", help="write the tables into docs/performance.md")
    return parser.parse_args()


def load_command() -> str:
    return " ".join(["python -m bench.invoke", *sys.argv[1:]])


def measured(starts: Sequence[Start], plan: Plan) -> tuple[Rounds, list[str]]:
    """All runs, contenders in turn within each cell of each round, and the names of those that are ours.

    Every round starts them anew: some do not survive the largest cells.
    """
    rounds, ours = Rounds(), list[str]()
    patience_ends = time.monotonic() + plan.patience_s
    for number in range(plan.rounds):
        with ExitStack() as running:
            contenders = [contender for start in starts for contender in running.enter_context(start())]
            rounds.names = [contender.name for contender in contenders]
            ours = [contender.name for contender in contenders if contender.is_ours]
            for cell in plan.cells:
                print(f"round {number + 1} of {plan.rounds}: {cell}", file=sys.stderr)
                for contender in sorted(contenders, key=lambda each: bool(each.paced_by)):
                    rate = rounds.of(contender.paced_by, cell)[-1]["rate"] if contender.paced_by else 0.0
                    run = partial(load, contender, cell, plan.seconds, rate)
                    rounds.add(contender.name, cell, quietest(run, plan, patience_ends))
    return rounds, ours


def quietest(run: Callable[[], Report], plan: Plan, patience_ends: float) -> Report:
    """The first run in which others left the machine alone; the quietest one when patience ends."""
    best = run()
    while best["others_share"] > plan.quiet_share and time.monotonic() < patience_ends:
        best = min(best, run(), key=lambda report: report["others_share"])
    return best


def load(contender: Contender, cell: Cell, seconds: float, rate: float) -> Report:
    """One run of the load generator in its own process; as fast as it goes unless a rate is given."""
    counts = [
        "--connections",
        str(cell.connections),
        "--requests",
        str(UNLIMITED),
        "--body-bytes",
        str(cell.body_bytes),
    ]
    warm_up = ["--warm-up", str(UNLIMITED), "--warm-up-seconds", str(WARM_UP_SECONDS)]
    limits = ["--limit-seconds", str(seconds), "--rate", str(rate)]
    headers = [word for header in contender.headers for word in ("--header", header)]
    command = [
        sys.executable,
        "-m",
        "bench.load",
        contender.url,
        *counts,
        *warm_up,
        *limits,
        "--watch",
        str(contender.pid),
        *headers,
    ]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=10 * seconds + 60)
    report: Report = json.loads(result.stdout)
    return report


def keep(rounds: Rounds, conditions: machine.Conditions, plan: Plan) -> list[Path]:
    """Write the numbers with what they depend on; returns the files."""
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"invoke-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    files = [stem.with_suffix(suffix) for suffix in (".json", ".md", ".svg")]
    document = {"conditions": conditions.document(), "seconds": plan.seconds, "runs": rounds.documents()}
    files[0].write_text(json.dumps(document, indent=1) + "\n")
    files[1].write_text(tables.markdown(rounds, conditions))
    files[2].write_text(plot(rounds))
    return files


if __name__ == "__main__":
    main()
