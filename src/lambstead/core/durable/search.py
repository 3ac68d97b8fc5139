"""Which executions a search shows, over all functions. Beyond AWS, whose list is of one function."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lambstead.core.durable.model import ExecutionStatus
from lambstead.core.errors import InvalidParameterValue

_PATTERN = re.compile(r"[a-zA-Z0-9_*?-]{1,128}")


@dataclass(frozen=True, slots=True)
class ExecutionSearch:
    """Everything that is named must hold. Newest first."""

    function: str | None = None
    name_pattern: str | None = None
    """`*` stands for any characters, `?` for one."""
    statuses: tuple[ExecutionStatus, ...] = ()
    """Any of these; every one when empty."""
    started_after: datetime | None = None
    started_before: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def checked_pattern(text: str) -> str:
    """A pattern of names. Raises InvalidParameterValue for characters that no name has."""
    if not _PATTERN.fullmatch(text):
        raise InvalidParameterValue(
            f"{text[:80]!r} is not a pattern of names: letters, digits, - and _, with * for any characters and ? for one."
        )
    return text
