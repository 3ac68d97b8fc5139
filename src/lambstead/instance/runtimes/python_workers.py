"""The worker processes of a managed Python environment whose workers speak the link (`python_link`).

Runs inside the environment, loaded by `python_bootstrap`: standard library and AWS's client only. The main process forks the workers as AWS's client does, and forks a new
one for each that dies after it was ready, which AWS's client does not. It tells the agent over a pipe, one byte a fact: `+` a worker is ready, `-` a ready worker died and
is being replaced, `!` a worker died before it was ready and is not.
"""

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from awslambdaric import bootstrap  # type: ignore[import-not-found]  # lives in the environment's client folder, not here
from awslambdaric.lambda_multi_concurrent_utils import (  # type: ignore[import-not-found]  # see above
    MultiConcurrentRunner,
)


@dataclass(frozen=True)
class LinkArguments:
    """What the agent passes: where events come from, for which environment, and where to report workers."""

    path: str
    environment_id: str
    status_fd: int


def run(
    handler: str, runtime_api: str, slots: int, log_socket: str, clients: Any, link: LinkArguments
) -> None:  # Any: the module `python_link`, which has no name by which it could be imported here
    """Fork the workers, and a new one for each that dies after it was ready; return when none is left."""
    MultiConcurrentRunner._emit_worker_pool_event(slots)
    _Workers(handler, runtime_api, log_socket, clients, link).keep(slots)


class _Workers:
    """The worker processes of one environment, watched by the main process."""

    def __init__(
        self, handler: str, runtime_api: str, log_socket: str, clients: Any, link: LinkArguments
    ) -> None:  # Any: see `run`
        self._arguments = (handler, runtime_api, log_socket, clients)
        self._link = link
        self._context = multiprocessing.get_context("fork")
        self._living: dict[int, Any] = {}  # Any: multiprocessing's process objects by their sentinel
        self._ready: set[int] = set()
        self._reader, self._writer = os.pipe()

    def keep(self, slots: int) -> None:
        for _ in range(slots):
            self._fork()
        while self._living:
            for event in wait([*self._living, self._reader]):
                if event == self._reader:
                    self._hear()
                elif isinstance(event, int):
                    self._hear()  # what the dead one said last
                    self._bury(event)

    def _fork(self) -> None:
        link = LinkArguments(self._link.path, self._link.environment_id, self._writer)
        process = self._context.Process(target=_work, args=(*self._arguments, link))
        process.start()
        self._living[process.sentinel] = process

    def _hear(self) -> None:
        """Workers that are ready say so with their pid."""
        while wait([self._reader], 0):
            for line in os.read(self._reader, 65536).decode().split():
                self._ready.add(int(line[1:]))
                self._tell(b"+")

    def _bury(self, sentinel: int) -> None:
        process = self._living.pop(sentinel)
        process.join()
        if process.pid in self._ready:
            self._ready.discard(process.pid)
            self._tell(b"-")
            self._fork()
        else:
            self._tell(b"!")
        process.close()

    def _tell(self, word: bytes) -> None:
        try:
            os.write(self._link.status_fd, word)
        except BrokenPipeError:
            sys.exit(0)  # the agent is gone


def _work(handler: str, runtime_api: str, log_socket: str, clients: Any, link: LinkArguments) -> None:  # Any: see `run`
    """One worker, from its fork to its end."""
    if log_socket:
        MultiConcurrentRunner._redirect_output(log_socket)
    try:
        client = clients.WorkerClient(runtime_api, link.path, link.environment_id, link.status_fd)
        bootstrap.run(handler, client)
    except clients.LinkClosed:
        sys.exit(0)
