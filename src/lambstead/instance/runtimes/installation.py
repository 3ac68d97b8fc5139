"""Folders of the runtimes directory: complete or not there.

Each holds what some pins name, for example one version of an interface client. It is filled beside its place and moved there whole; a file lock lets one
process install at a time; other pins than the folder's mean a new installation.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STAMP_NAME = "lambstead-client.json"
INSTALL_TIMEOUT_SECONDS = 600.0
KEPT_OUTPUT_LINES = 3

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Installation:
    """One folder. `pins` say exactly what it is made from."""

    runtimes_dir: Path
    name: str
    pins: tuple[str, ...]

    @property
    def place(self) -> Path:
        return self.runtimes_dir / self.name

    def found(self) -> Path | None:
        """The folder, if it is there and made from these pins."""
        try:
            stamp = json.loads((self.place / STAMP_NAME).read_text())
        except (OSError, ValueError):
            return None
        return self.place if isinstance(stamp, dict) and stamp.get("requirements") == list(self.pins) else None

    def ensure(self, what: str, fill: Callable[[Path], None], report: Report) -> Path:
        """The folder, filled by `fill` if need be. Blocks as long as that takes; `report` hears of begin and end.

        What `fill` raises goes to the caller and leaves nothing behind.
        """
        found = self.found()
        if found is not None:
            return found
        self.runtimes_dir.mkdir(parents=True, exist_ok=True)
        with _install_lock(self.runtimes_dir):
            # Another process may have installed it while we waited for the lock.
            found = self.found()
            if found is not None:
                return found
            report(f"Installing {what}: {', '.join(self.pins)}.")
            self._fill(fill)
            report(f"Installed {what}.")
        return self.place

    def _fill(self, fill: Callable[[Path], None]) -> None:
        fresh = Path(tempfile.mkdtemp(dir=self.runtimes_dir, prefix=f".{self.name}-"))
        try:
            fill(fresh)
            (fresh / STAMP_NAME).write_text(json.dumps({"requirements": list(self.pins)}))
            fresh.chmod(0o755)
            self._swap_in(fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _swap_in(self, fresh: Path) -> None:
        """What stood in the place is moved aside first: environments that run from it keep their open files."""
        if self.place.exists():
            old = Path(tempfile.mkdtemp(dir=self.runtimes_dir, prefix=".old-"))
            os.replace(self.place, old / "client")
            os.replace(fresh, self.place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(fresh, self.place)


def run_installer(argv: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run an installer to its end; one that does not come to it counts as failed."""
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=INSTALL_TIMEOUT_SECONDS,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", f"no result within {INSTALL_TIMEOUT_SECONDS:.0f} seconds.")


def last_words(result: "subprocess.CompletedProcess[str]") -> str:
    """What an installer that failed said last, on one line."""
    return " ".join(result.stderr.strip().splitlines()[-KEPT_OUTPUT_LINES:])


@contextmanager
def _install_lock(runtimes_dir: Path) -> Iterator[None]:
    with open(runtimes_dir / ".install.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
