"""Where instances come from. A driver starts the agent of an instance and ends it; everything else goes over the agent's connection."""

from collections.abc import Callable
from typing import Protocol

from lambstead.core.fleet import Instance, Refusal


class CapacityRefused(Exception):
    """Such an instance cannot be had now; the reason has AWS's StateReasonCode. Asking for another type, or again later, may succeed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason.text)
        self.refusal = refusal


class Driver(Protocol):
    """Starts and ends agents. The agent of a launched instance connects to the server and names its instance."""

    async def launch(self, instance: Instance) -> None:
        """Start the instance's agent. Returns once it is being started, not once it reported. Raises CapacityRefused or OSError."""

    async def terminate(self, instance_id: str) -> None:
        """End the agent and everything it started; returns once nothing is left. An unknown instance is ended already."""

    async def kill(self, instance_id: str) -> None:
        """End the agent at once and without a word, as a machine does that loses its power. `on_ended` follows."""

    def on_ended(self, listener: Callable[[str, str], None]) -> None:
        """Call `listener` with the id of each instance whose agent ended, by order or not, and how it ended."""

    async def close(self) -> None:
        """End every agent."""
