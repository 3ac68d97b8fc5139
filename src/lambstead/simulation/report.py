"""A simulation's result as a document, as comma-separated rows, and as text for a terminal."""

import csv
import io
from dataclasses import asdict, astuple, fields

from lambstead.simulation.run import Result, Row

NOTES_SHOWN = 8


def document(result: Result) -> dict[str, object]:
    """Everything, as JSON has it."""
    return asdict(result)


def rows_csv(result: Result) -> str:
    """One line per function and tick."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([each.name for each in fields(Row)])
    writer.writerows(astuple(row) for row in result.rows)
    return out.getvalue()


def headings() -> tuple[str, ...]:
    return ("function", "requests", "throttled", "cause", "lost", "most environments", "slots used", "scaling lag")


def lines(result: Result) -> list[tuple[str, ...]]:
    """The summary, a line per function, as under `headings`."""
    return [
        (
            each.function,
            f"{each.requests:,.0f}",
            f"{each.throttled / each.requests:.2%}" if each.requests else "–",
            ", ".join(f"{cause} {count:,.0f}" for cause, count in each.throttles.items()) or "–",
            f"{each.lost:,.0f}",
            f"{each.most_environments:,}",
            f"{each.mean_slot_utilization:.0%}",
            f"{each.scaling_lag:.0f} s",
        )
        for each in result.functions
    ]


def closing(result: Result) -> str:
    """What all of it took together."""
    minutes = result.duration / 60
    time = f"{minutes:.3g} min" if minutes < 120 else f"{minutes / 60:.3g} h"
    return f"{result.most_instances:,} instances at most; {result.usd:,.2f} USD in {time}, management fee and requests included."
