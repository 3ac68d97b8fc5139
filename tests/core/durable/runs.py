"""An execution in the middle of an invocation, and short ways to checkpoint on it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from lambstead.core.durable import lifecycle, triggers
from lambstead.core.durable.checkpoints import Checkpointed, CheckpointRequest, checkpoint
from lambstead.core.durable.identifiers import checkpoint_token
from lambstead.core.durable.lifecycle import Backoff, InvocationEnd, Returned, Start
from lambstead.core.durable.model import Change, DurableConfig, Event, State
from lambstead.core.durable.updates import OperationUpdate, Target

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
PENDING = Returned(b'{"Status":"PENDING"}')


class Run:
    """One execution with its history; every method is one thing that happens to it."""

    def __init__(self, input_payload: str = "{}", *, timeout_s: int = 3600, is_synchronous: bool = False) -> None:
        self.now = BEGINNING
        self.events: list[Event] = []
        self.requests = 0
        config = DurableConfig(timeout_s)
        start = Start("e-1", "order", "fn", "1", config, input_payload, is_synchronous=is_synchronous)
        self.state: State
        self.state, change = lifecycle.start(start, self.now)
        self.events += change.events

    def take(self, change: Change | None) -> None:
        """Apply a change."""
        if change is not None:
            self.state = change.applied_to(self.state)
            self.events += change.events

    def invoked(self) -> "Run":
        """Begin the next invocation."""
        self.requests += 1
        self.take(lifecycle.begin_invocation(self.state, f"r-{self.requests}", self.now))
        return self

    def checkpointed(
        self, *updates: Mapping[str, object], token: str | None = None, targets: Mapping[str, Target] | None = None
    ) -> Checkpointed:
        """Checkpoint, with the current token unless another is given."""
        request = CheckpointRequest(
            token or checkpoint_token(self.state.execution), None, [OperationUpdate.of(each) for each in updates]
        )
        done = checkpoint(self.state, request, targets or {}, self.now)
        self.take(done.change)
        return done

    def ended(self, end: InvocationEnd = PENDING) -> None:
        """End the live invocation."""
        self.take(lifecycle.invocation_ended(self.state, f"r-{self.requests}", end, Backoff(), self.now))

    def later(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.now += timedelta(seconds=seconds)
        self.take(triggers.fire_due(self.state, self.now))

    def status(self) -> str:
        """Of the execution, now."""
        return self.state.execution.status

    def types(self) -> list[str]:
        """Types of all events so far."""
        return [event.type for event in self.events]
