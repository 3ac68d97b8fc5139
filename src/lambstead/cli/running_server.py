"""Finding the server of a data directory.

A running server describes itself in `<data>/server.json` and removes the file at a clean stop. After a crash the file
stays, and its process id may belong to a stranger by now. A stranger was started after the server wrote the file, so the
start time of the process tells them apart; `down` would otherwise stop somebody else's program.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lambstead.cli.failures import CommandFailed
from lambstead.config import Settings
from lambstead.data_directory import RECORD

CLOCK_TOLERANCE = timedelta(seconds=2)
"""The kernel's start times are rounded and shift a little when the clock is set."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What `server.json` says of a process that is alive."""

    pid: int
    url: str
    region: str
    account: str
    profile: str
    started_at: datetime


def find_server(data_dir: Path) -> RunningServer | None:
    """The server that serves this data directory now, or None."""
    try:
        document = json.loads((data_dir / RECORD).read_text(encoding="utf-8"))
        started_at = datetime.fromisoformat(document["started_at"])
        server = RunningServer(
            pid=int(document["pid"]),
            url=str(document["url"]),
            region=str(document["region"]),
            account=str(document["account"]),
            profile=str(document["profile"]),
            started_at=started_at if started_at.tzinfo else started_at.replace(tzinfo=UTC),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return server if _is_alive(server) else None


def require_server(settings: Settings) -> RunningServer:
    """The server of these settings' data directory. Raises CommandFailed when none is running."""
    server = find_server(settings.data_dir)
    if server is None:
        raise CommandFailed(
            f"No Lambstead server is running on {settings.data_dir}.",
            "Start one with: lambstead up (add --data DIR if its data is elsewhere)",
        )
    return server


def _is_alive(server: RunningServer) -> bool:
    import psutil

    try:
        process = psutil.Process(server.pid)
        started = datetime.fromtimestamp(process.create_time(), UTC)
        return process.status() != psutil.STATUS_ZOMBIE and started <= server.started_at + CLOCK_TOLERANCE
    except (psutil.Error, ValueError, OverflowError):
        return False
