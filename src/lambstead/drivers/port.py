"""Where instances come from. A driver starts the agent of an instance and ends it; everything else goes over the agent's connection."""

from collections.abc import Callable
from typing import Protocol

from lambstead.core.fleet import Instance


class Driver(Protocol):
    """Starts and ends agents. The agent of a launched instance connects to the server and names its instance."""

    async def launch(self, instance: Instance) -> None:
        """Start the instance's agent. Returns once it was started, not once it reported."""

    async def terminate(self, instance_id: str) -> None:
        """End the agent and everything it started; returns once nothing is left. An unknown instance is ended already."""

    def on_ended(self, listener: Callable[[str, str], None]) -> None:
        """Call `listener` with the id of each instance whose agent ended, by order or not, and how it ended."""

    async def close(self) -> None:
        """End every agent."""
