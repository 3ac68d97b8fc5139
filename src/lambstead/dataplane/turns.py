"""When a busy server lets others have its core.

Whom the server wakes does not interrupt it (decision 0047), and a server that always finds more to do never sleeps. Without a word from it, the worker that
was queued behind it on its core waits for the scheduler's next tick, four milliseconds on many kernels.
"""

TURN_S = 0.001
"""How long the server goes on while others wait: long enough to serve what gathered, short beside what a caller would notice."""


class Turns:
    """The server's turns on its core. Belongs to one event loop."""

    def __init__(self) -> None:
        self._over = 0.0

    def is_over(self, now: float) -> bool:
        """True once a turn: the server shall offer its core to whoever waits for it. `now` is in seconds, of a clock that does not go back."""
        if now < self._over:
            return False
        self._over = now + TURN_S
        return True
