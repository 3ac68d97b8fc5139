"""Who hears of changes of an execution's status, and what they are told: EventBridge's `Durable Execution Status Change`.

AWS publishes these events on the default event bus. Here a subscriber is a function of ours or an HTTP address.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from lambstead.core.arn import Realm
from lambstead.core.durable.documents import status_change
from lambstead.core.durable.model import Change, Document, ExecutionStatus, StatusChanged
from lambstead.core.errors import InvalidParameterValue

PUBLISHED = frozenset(
    {
        ExecutionStatus.RUNNING,
        ExecutionStatus.SUCCEEDED,
        ExecutionStatus.FAILED,
        ExecutionStatus.STOPPED,
        ExecutionStatus.TIMED_OUT,
    }
)
"""Statuses that AWS publishes. Durable reference §14."""
GIVE_UP_AFTER = timedelta(hours=24)
"""How long a subscriber that does not take its event is tried: EventBridge's default."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscriber, and what it wants to hear of."""

    id: str
    target: str
    """An http or https URL, or name or ARN of a function."""
    function: str | None = None
    """Only of executions of this function."""
    statuses: tuple[ExecutionStatus, ...] = ()
    """Only of these; of every one when empty."""

    @property
    def is_url(self) -> bool:
        """False for a function."""
        return self.target.startswith(("http://", "https://"))

    def wants(self, function: str, status: ExecutionStatus) -> bool:
        """True when the subscriber is to hear of this."""
        return self.function in (None, function) and (not self.statuses or status in self.statuses)


@dataclass(frozen=True, slots=True)
class Notice:
    """An event on its way to one subscriber."""

    subscription: str
    event_id: str
    """The same for every subscriber, and for every attempt."""
    body: str
    since: datetime
    failures: int = 0

    def is_given_up(self, now: datetime) -> bool:
        """True when it was tried for too long."""
        return now - self.since >= GIVE_UP_AFTER


def checked_target(text: str) -> str:
    """A target as it is kept. Raises InvalidParameterValue for a URL without a host."""
    parts = urlsplit(text)
    if parts.scheme in ("http", "https"):
        try:
            usable = bool(parts.hostname) and (parts.port is None or parts.port > 0) and text.isascii()
        except ValueError:
            usable = False
        if not usable or any(each <= " " for each in text):
            raise InvalidParameterValue(f"{text[:200]!r} is not a URL that can be posted to.")
    return text


def statuses_of(change: Change) -> Iterator[ExecutionStatus]:
    """The statuses that a change takes its execution to and that are published, in order."""
    for effect in change.effects:
        if isinstance(effect, StatusChanged) and effect.status in PUBLISHED:
            yield effect.status


def interested(subscriptions: Sequence[Subscription], function: str, status: ExecutionStatus) -> Iterator[Subscription]:
    """Those who are to hear of this."""
    return (each for each in subscriptions if each.wants(function, status))


def status_event(change: Change, realm: Realm, status: ExecutionStatus, event_id: str, at: datetime) -> Document:
    """The event as EventBridge delivers it; `at` is the execution's own time."""
    return {
        "version": "0",
        "id": event_id,
        "detail-type": "Durable Execution Status Change",
        "source": "aws.lambda",
        "account": realm.account,
        "time": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "region": realm.region,
        "resources": [],
        "detail": status_change(change.execution, realm, status, at),
    }
