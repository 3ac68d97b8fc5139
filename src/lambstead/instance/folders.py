"""The folders of one environment on this machine: its own, and a short one for Unix sockets, whose paths end at 107 bytes."""

import asyncio
import shutil
import tempfile
from pathlib import Path


class Folders:
    """Made when they are needed; `remove` at the end."""

    def __init__(self, environments_dir: Path, sockets_dir: Path, environment_id: str) -> None:
        """`sockets_dir` is short, and may not be there yet."""
        self.own = environments_dir / environment_id
        self._sockets_dir = sockets_dir
        self._sockets: Path | None = None

    def make_temp(self) -> Path:
        """The folder that stands in for `/tmp` where the environment has no root of its own."""
        temp = self.own / "tmp"
        temp.mkdir(parents=True, mode=0o700)
        return temp

    def socket(self, name: str) -> Path:
        """Where a Unix socket of this name may be made."""
        if self._sockets is None:
            self._sockets_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._sockets = Path(tempfile.mkdtemp(prefix="", dir=self._sockets_dir))
        return self._sockets / name

    async def remove(self) -> None:
        """Whatever is in them."""
        for folder in (self.own, self._sockets):
            if folder is not None:
                await asyncio.to_thread(shutil.rmtree, folder, True)
