"""Limits of streamed responses: how much, and how fast.

The numbers are AWS's (Developer Guide, response streaming, and the agent of its interface emulator): 200 MB at most; the first 6 MiB as fast as they
come, then 2 MiB a second, granted eight times a second.
"""

from dataclasses import dataclass
from math import ceil

MAX_STREAMED_BYTES = 200 * 1024 * 1024
BURST_BYTES = 6 * 1024 * 1024
BYTES_PER_SECOND = 2 * 1024 * 1024
REFILL_EVERY_S = 0.125


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one response may still send at once. Below zero, it has to wait."""

    bytes_per_s: int
    left: float
    at: float
    """When `left` was true, in seconds."""

    @classmethod
    def full(cls, bytes_per_s: int, now: float) -> "Allowance":
        """The allowance of a response that begins now."""
        return cls(bytes_per_s, BURST_BYTES, now)

    def spend(self, size_bytes: int, now: float) -> "Allowance":
        """So many bytes were sent. Time that passed since the last ones has refilled it, never beyond the burst."""
        refilled = min(BURST_BYTES, self.left + self.bytes_per_s * max(0.0, now - self.at))
        return Allowance(self.bytes_per_s, refilled - size_bytes, now)

    @property
    def wait_s(self) -> float:
        """How long after `at` the next bytes may be sent: whole refills, 0 if now."""
        if self.left >= 0:
            return 0.0
        return ceil(-self.left / (self.bytes_per_s * REFILL_EVERY_S)) * REFILL_EVERY_S
