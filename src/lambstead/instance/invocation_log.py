"""The platform's lines about invocations, in batches: START, END and REPORT on demand, their records in JSON.

A line costs its invocation a place in a queue. The queue is written a few milliseconds later, or as soon as anything else is to be written, and before
that: so every line stands where it would stand if it were written at once, with the time that it is of. The largest size of the runtime is looked up once per batch; what
it grew to in an invocation is in that invocation's report, and may be in those of the same batch before it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from lambstead.instance.platform_log import Ended, PlatformLog

FLUSH_SECONDS = 0.01
"""How long a line waits at most; whoever asks for the tail of a log waits as long."""


class Output(Protocol):
    """The environment's log file and what feeds it: `log_capture.LogCapture`."""

    def write_lines(self, lines: Sequence[tuple[int, str]]) -> None: ...
    def drain(self) -> None: ...
    def precede_by(self, write: Callable[[], None]) -> None: ...


class InvocationLog:
    """The lines of one environment's invocations. Belongs to the agent's event loop."""

    def __init__(self, log: PlatformLog, output: Output, memory_high_water: Callable[[], int]) -> None:
        """`memory_high_water` looks up the largest resident size of the runtime so far, in bytes; 0 once it is gone."""
        self._log = log
        self._output = output
        self._memory_high_water = memory_high_water
        self._memory = 0
        self._queue: list[tuple[float, str | Ended]] = []
        """What is to be written with its time: an id that started, or how one ended."""
        self._flush: asyncio.TimerHandle | None = None
        output.precede_by(self.write_now)

    def started(self, request_id: str) -> None:
        """An invocation begins."""
        self._add(request_id)

    def ended(self, ended: Ended) -> None:
        """An invocation ended."""
        if self._log.is_per_invocation:
            # What the function printed before it answered stands before END, as its caller's log tail expects.
            self._output.drain()
            if ended.status != "success":
                self._look_up()  # soon there may be nobody to ask
        self._add(ended)

    def runtime_exited(self, message: str, error_type: str) -> None:
        """The end of the runtime or of a worker, in the platform's words."""
        self._log.runtime_exited(message, error_type)

    def write_now(self) -> None:
        """Write everything that is queued."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if not self._queue:
            return
        queue, self._queue = self._queue, []
        if self._log.is_per_invocation and any(isinstance(each, Ended) for _, each in queue):
            self._look_up()
        lines: list[tuple[int, str]] = []
        for at, each in queue:
            if isinstance(each, Ended):
                found = self._log.end_lines(each, at, self._memory)
            else:
                found = self._log.start_lines(each, at)
            lines += [(int(at * 1000), line) for line in found]
        self._output.write_lines(lines)

    def _add(self, line: str | Ended) -> None:
        self._queue.append((time.time(), line))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.write_now)

    def _look_up(self) -> None:
        self._memory = max(self._memory, self._memory_high_water())
