"""Event invoke configs: what becomes of an asynchronous invocation that fails, grows old or ends.

A config belongs to one qualifier of a function: a version, an alias, or `$LATEST` for invocations that name none. Nothing is inherited
between qualifiers. The queue of asynchronous invocations reads it; the defaults of AWS stand here, beside the limits that the model has.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

DEFAULT_RETRY_ATTEMPTS = 2
DEFAULT_EVENT_AGE = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class EventInvokeConfig:
    """What a caller configured; None where nothing was, which means AWS's default or no destination."""

    maximum_retry_attempts: int | None = None
    """Further attempts after the first, 0 to 2."""
    maximum_event_age: timedelta | None = None
    """How long an event may be kept before it is given up, 60 s to 6 h."""
    on_success: str | None = None
    """ARN that gets a record of every invocation that succeeded."""
    on_failure: str | None = None
    """ARN that gets a record of every event that was given up."""
    last_modified: datetime | None = None
    """When it was last put or updated; None only for configs that were never stored."""

    @property
    def retry_attempts(self) -> int:
        """Further attempts after the first, AWS's default included."""
        return DEFAULT_RETRY_ATTEMPTS if self.maximum_retry_attempts is None else self.maximum_retry_attempts

    @property
    def event_age(self) -> timedelta:
        """How long an event may be kept, AWS's default included."""
        return DEFAULT_EVENT_AGE if self.maximum_event_age is None else self.maximum_event_age
