"""Which machine it was, what it ran, and how busy it was: what a number means nothing without."""

import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONS_OF = ("lambstead", "uvloop", "httptools", "uvicorn", "msgspec")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which the numbers were taken."""

    at: str
    command: str
    cpu: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    load_before: float
    """The one-minute load average before anything was started."""

    @classmethod
    def now(cls, load_before: float, command: str) -> "Conditions":
        versions = {}
        for name in VERSIONS_OF:
            with suppress(PackageNotFoundError):
                versions[name] = version(name)
        return cls(
            at=datetime.now(UTC).isoformat(timespec="minutes"),
            command=command,
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            versions=versions,
            load_before=load_before,
        )

    def sentence(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.at} · {self.cpu}, {self.cores} cores · {self.system} · Python {self.python} · {versions} · "
            f"load average before: {self.load_before:.2f}"
        )

    def document(self) -> dict[str, Any]:
        return asdict(self)


def load_average() -> float:
    return os.getloadavg()[0]


def wait_until_quiet(load: float, patience_s: float) -> None:
    """Return once the one-minute load average is below `load`, or patience ends."""
    ends = time.monotonic() + patience_s
    while load_average() > load and time.monotonic() < ends:
        time.sleep(1)


def cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
