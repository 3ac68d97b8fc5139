"""What an ASGI cycle writes in one step of the event loop goes out in one piece.

uvicorn writes the head of an answer and its body one after the other. As two pieces they are two system calls, often two packets and two wake-ups of
the client; and a server that is killed between them leaves a head without its body, which AWS's client for Python takes for an answer with nothing in it.
"""

import asyncio

FLUSH_BYTES = 64 * 1024
"""From here on nothing is held back, so that the transport can say that its client does not keep up."""


class JoinedWrites:
    """The part of a transport that a cycle uses. Belongs to the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write with whatever else this step of the loop writes."""
        if not self._held:
            asyncio.get_running_loop().call_soon(self._flush)
        self._held.append(data)
        self._size += len(data)
        if self._size >= FLUSH_BYTES:
            self._flush()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Close once everything is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held, self._size = self._held, [], 0
        if not held or self._transport.is_closing():
            return
        self._transport.write(held[0] if len(held) == 1 else b"".join(held))
