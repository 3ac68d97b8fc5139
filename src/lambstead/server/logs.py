"""Reading what functions wrote: the log files of a function's environments, merged by file age, last lines first found."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

FOLLOW_POLL_S = 0.2
"""How often a followed log is looked at: people read it, and looking costs a stat per file."""
READ_BYTES = 1 << 20


def log_files(folder: Path, function: str, version: str | None) -> list[Path]:
    """The log files of a function, oldest first; of one version if given."""
    files = [path for path in (folder / function).glob("*.log") if version is None or f"[{version}]" in path.name]
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def last_lines(files: list[Path], count: int) -> list[bytes]:
    """The last `count` lines over all files, in file order. Reads from the ends, so size does not matter."""
    lines: list[bytes] = []
    for path in reversed(files):
        missing = count - len(lines)
        if missing <= 0:
            break
        lines = _tail(path, missing) + lines
    return lines[-count:] if count else []


def _tail(path: Path, count: int) -> list[bytes]:
    with path.open("rb") as file:
        position = file.seek(0, 2)
        data = b""
        while position > 0 and data.count(b"\n") <= count:
            step = min(READ_BYTES, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
    return data.splitlines(keepends=True)[-count:]


async def follow(folder: Path, function: str, version: str | None, tail: int) -> AsyncIterator[bytes]:
    """The last lines, then whatever is appended by any environment, new ones included, until the reader goes away."""
    files = await asyncio.to_thread(log_files, folder, function, version)
    positions = {path: path.stat().st_size for path in files}
    for line in await asyncio.to_thread(last_lines, files, tail):
        yield line
    while True:
        for path in await asyncio.to_thread(log_files, folder, function, version):
            appended = await asyncio.to_thread(_from, path, positions.get(path, 0))
            if appended:
                positions[path] = positions.get(path, 0) + len(appended)
                yield appended
        await asyncio.sleep(FOLLOW_POLL_S)


def _from(path: Path, position: int) -> bytes:
    """Whole lines after `position`, at most a megabyte."""
    with path.open("rb") as file:
        file.seek(position)
        data = file.read(READ_BYTES)
    return data[: data.rfind(b"\n") + 1]
