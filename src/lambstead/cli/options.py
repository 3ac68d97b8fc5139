"""Options that several commands share, and the settings that follow from them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lambstead.config import Settings

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data directory (or LAMBSTEAD_DATA).  [default: ~/.lambstead]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
QualifierOption = Annotated[
    str | None,
    typer.Option("--qualifier", metavar="TEXT", help="A version, an alias or $LATEST.PUBLISHED."),
]


def settings_for(data: Path | None, **flags: object) -> Settings:
    """The settings of this call. Raises SettingsError, which `main` prints."""
    return Settings.load(os.environ, Path.home(), {"data_dir": data, **flags})
