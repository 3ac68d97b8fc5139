"""Writes docs/operations.md: every operation, what it does not do, and the tests that ask it. `python -m tests.operations_page`, or `make docs`.

Whether an operation is answered is what the registry says, its gaps stand beside the registry; tests are found by how they name the operation, as a
method of boto3, a command of the CLI or by its own name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from botocore import xform_name

from lambstead.api import gaps, operations
from lambstead.api.context import Operation
from lambstead.api.gaps import Gaps
from lambstead.wire.gateway import AwsApi

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "operations.md"
GENERATED = "tests/generated/test_generated_requests.py"
FIRST = ("tests/parity/", "tests/clients/", "tests/flows/")
"""Folders whose tests say most about an operation."""
MOST_TESTS = 3


@dataclass(frozen=True)
class Served:
    """One API that the server answers."""

    title: str
    api: AwsApi
    registry: Mapping[str, Operation]
    gaps: Mapping[str, Gaps]
    lists_all: bool
    """False where the model is much larger than what we mean to answer: then only what is answered has a row."""


SERVED = (
    Served("AWS Lambda", AwsApi.load("lambda"), operations.LAMBDA, gaps.LAMBDA, lists_all=True),
    Served("Amazon CloudWatch Logs", AwsApi.load("logs"), operations.LOGS, gaps.LOGS, lists_all=False),
)


@cache
def _sources() -> dict[str, str]:
    files = sorted((CHECKOUT / "tests").glob("*/**/test_*.py"))
    return {str(path.relative_to(CHECKOUT)): path.read_text() for path in files}


def tests_of(operation: str) -> list[str]:
    """The test files that name the operation, the most telling ones first."""
    method = xform_name(operation)
    names = "|".join((operation, method, method.replace("_", "-")))
    named = re.compile(rf"""["'.](?:{names})\b""")
    found = [path for path, source in _sources().items() if named.search(source)]
    return sorted(found, key=lambda path: (not path.startswith(FIRST), path))


def state_of(served: Served, operation: str) -> str:
    """One of the words that the page explains."""
    found = served.gaps.get(operation)
    if operation not in served.registry:
        return "refused: not built"
    if found is None:
        return "complete"
    return "recorded only" if found.is_recorded_only else "complete but for [gaps](#gaps)"


def text() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Operations"
    yield ""
    yield "Made by `make docs` from the registry of operations, the gaps written down beside it, and the tests. Do not edit it by hand."
    yield ""
    yield "- **complete**: answers and acts as AWS does, as far as is known."
    yield "- **complete but for gaps**: so, except for the members listed under [gaps](#gaps)."
    yield "- **recorded only**: answers as AWS does, keeps and shows what it is given, and nothing follows from it."
    yield "- **refused**: answers with an error that names the operation, status 501."
    yield ""
    yield f"Every operation of Lambda is also asked by the [generated requests](../{GENERATED}), at least 20 right and 20 wrong ones each."
    for served in SERVED:
        yield from ("", f"## {served.title}", "")
        every = sorted(served.api.operations if served.lists_all else served.registry)
        if not served.lists_all:
            yield f"The other {len(served.api.operations) - len(every)} operations of the model are refused: not built."
            yield ""
        yield "| operation | state | tests |"
        yield "| --- | --- | --- |"
        yield from (f"| {name} | {state_of(served, name)} | {_links(tests_of(name))} |" for name in every)
    yield from ("", "## Gaps", "")
    for served in SERVED:
        for operation, found in sorted(served.gaps.items()):
            yield f"- **{operation}**"
            yield from (f"  - `{member}` is recorded only: {why}." for member, why in found.recorded.items())
            yield from (f"  - `{member}` is refused: {why}." for member, why in found.refused.items())


def _links(paths: list[str]) -> str:
    if not paths:
        return "the generated requests only"
    shown = [f"[{Path(path).stem}](../{path})" for path in paths[:MOST_TESTS]]
    rest = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


if __name__ == "__main__":
    PAGE.write_text(text())
