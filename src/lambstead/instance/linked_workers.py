"""Workers that speak the link themselves, as their main process reports them over a pipe (see `runtimes.python_link`)."""

import asyncio
import os
from collections.abc import Callable


class LinkedWorkers:
    """The workers of one environment."""

    def __init__(self, status_fd: int, slots: int, progress: Callable[[], None], lost: Callable[[int], None]) -> None:
        """`progress` hears of every report, `lost` of a worker that is gone for good, with the number of those that are left."""
        self._fd = status_fd
        self._slots = slots
        self._progress = progress
        self._lost = lost
        self._ready = 0
        os.set_blocking(status_fd, False)
        asyncio.get_running_loop().add_reader(status_fd, self._readable)

    @property
    def is_initialized(self) -> bool:
        """True once every worker that did not die at init is ready, and there is one."""
        return self._ready > 0 and self._ready >= self._slots

    def close(self) -> None:
        """Listen no more."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        words = os.read(self._fd, 4096)
        if not words:
            self.close()
            return
        for word in words.decode():
            match word:
                case "+":
                    self._ready += 1
                case "-":
                    self._ready -= 1
                case _:
                    self._slots -= 1
                    self._lost(self._slots)
        self._progress()
