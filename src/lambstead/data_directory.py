"""The data directory as the running server has it: held by one at a time, described for commands, with its sockets."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lambstead.config import Settings, SettingsError

RECORD = "server.json"
MAX_SOCKET_FOLDER = 60
"""Unix socket paths are limited to 107 bytes; a deep data directory gets its sockets below the system's temporary folder.

Longest below it: `sockets/<instance id>/<8 characters>/link.sock`, 47 bytes with the slash before it."""


class ServerAlreadyRunning(Exception):
    """Another server holds the data directory; the message says which and what to do."""


def made(path: Path) -> Path:
    """The folder, which is there afterwards."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def agents_socket(data: Path) -> Path:
    """Where agents find the server; its folder is made. Raises SettingsError."""
    folder = made(data / "run")
    if len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER:
        return folder / "agents.sock"
    name = f"lambstead-{os.getuid()}-{hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > MAX_SOCKET_FOLDER:
        folder = Path("/tmp") / name
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat(follow_symlinks=False).st_uid != os.getuid():
        raise SettingsError(
            f"{folder}, where the sockets of {data} would be, belongs to somebody else. Choose a data directory with a shorter path."
        )
    return folder / "agents.sock"


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data directory; the kernel lets go of it however we end."""
    with (data / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ServerAlreadyRunning(
                f"Another Lambstead uses {data}{_whose(data)}. Stop it with `lambstead down --data {data}`, "
                "or choose another data directory with --data."
            ) from exc
        yield


def _whose(data: Path) -> str:
    try:
        record = json.loads((data / RECORD).read_text())
        return f" (process {record['pid']} at {record['url']})"
    except (OSError, ValueError, KeyError):
        return ""


def write_record(settings: Settings, url: str) -> None:
    """How commands find the running server. Appears whole, by rename."""
    path = settings.data_dir / RECORD
    record = {
        "pid": os.getpid(),
        "url": url,
        "region": settings.region,
        "account": settings.account_id,
        "profile": settings.profile,
        "started_at": datetime.now(UTC).isoformat(),
    }
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(record))
    staged.replace(path)


def remove_record(settings: Settings) -> None:
    """No server runs here any more."""
    (settings.data_dir / RECORD).unlink(missing_ok=True)
