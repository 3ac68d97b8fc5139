"""Durations as operators write and read them."""

import re
from datetime import timedelta

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?")
_SECONDS_PER_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TOO_LONG_S = timedelta(days=1_000_000).total_seconds()
"""Far beyond every limit here, and far below what a timedelta refuses."""


def parse_duration(text: str) -> timedelta | None:
    """What an operator wrote: `500ms`, `2s`, `10m`, `1h`, or a number of seconds; None for anything else."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS_PER_UNIT[match[2] or "s"] if match else _TOO_LONG_S
    return timedelta(seconds=seconds) if seconds < _TOO_LONG_S else None


def duration_text(value: timedelta) -> str:
    """The duration as an operator would write it: `500ms`, `2s`, `10m`, `1h`."""
    seconds = value.total_seconds()
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:g}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds / 60:g}m"
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"
