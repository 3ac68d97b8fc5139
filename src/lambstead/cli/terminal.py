"""Where rich output goes."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 400
"""A pipe has no width; rich would take 80 columns and cut what scripts look for."""


def console() -> "Console":
    """Standard output: wrapped to the terminal, or in long plain lines for a pipe."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
