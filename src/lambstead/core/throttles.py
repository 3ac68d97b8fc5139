"""Why invocations are refused with 429: each cause with AWS's words for it, and how often it happened.

AWS counts every throttle under exactly one cause (Developer Guide, monitoring managed instances). Its API names causes by `Reason`; the values are those of the service
model's ThrottleReason. That a reservation's refusal says "Rate Exceeded." and nothing more is recorded from AWS (reference on the Lambda API, §9); `Retry-After`
is given where waiting a second helps: in front of a line.
"""

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from lambstead.core.errors import DomainError, Fact, TooManyRequests

MAX_COUNTED = 10_000
"""Counters that are kept; beyond that, throttles of further versions are counted together, under no name."""
RETRY_AFTER_S = "1"


class Cause(enum.StrEnum):
    """What was missing."""

    RESERVED_CONCURRENCY = "reserved-concurrency"
    """The function's own reservation is used up."""
    ACCOUNT_CONCURRENCY = "account-concurrency"
    """The account's unreserved concurrency is used up."""
    NO_SLOT = "no-slot"
    """No slot came free while the invocation waited for one."""
    LINE_FULL = "line-full"
    """As many wait for a slot already as may wait."""
    EVENT_QUEUE_FULL = "event-queue-full"
    """The queue of asynchronous invocations has no room."""

    @property
    def reason(self) -> str:
        """AWS's word for it: `Reason` in the answer."""
        return _REASONS[self]


_REASONS = {
    Cause.RESERVED_CONCURRENCY: "ReservedFunctionConcurrentInvocationLimitExceeded",
    Cause.ACCOUNT_CONCURRENCY: "ConcurrentInvocationLimitExceeded",
    Cause.NO_SLOT: "ConcurrentInvocationLimitExceeded",
    Cause.LINE_FULL: "ConcurrentInvocationLimitExceeded",
    Cause.EVENT_QUEUE_FULL: "CallerRateLimitExceeded",
}


class Room(NamedTuple):
    """What an invocation was refused for want of: of one sort there may be some again at any end of an invocation."""

    cause: Cause
    function: str = ""
    """Empty for the account's."""


class NoRoom(TooManyRequests):
    """A refusal that says what was missing."""

    def __init__(self, cause: Cause, message: str, **facts: Fact) -> None:
        super().__init__(message, **facts)
        self.cause = cause


def room_for(error: DomainError, function: str) -> Room | None:
    """What an invocation of the function was refused for want of; None when it was refused for another reason."""
    match error:
        case NoRoom(cause=Cause.RESERVED_CONCURRENCY as cause):
            return Room(cause, function)
        case NoRoom(cause=Cause.ACCOUNT_CONCURRENCY as cause):
            return Room(cause)
        case NoRoom(cause=Cause.NO_SLOT | Cause.LINE_FULL):
            return Room(Cause.NO_SLOT, function)
        case _:
            return None


def throttled(cause: Cause, because: str = "") -> NoRoom:
    """The answer; `because` says in our words what AWS's do not."""
    message = f"Rate Exceeded. ({because})" if because else "Rate Exceeded."
    after = None if cause in (Cause.RESERVED_CONCURRENCY, Cause.ACCOUNT_CONCURRENCY) else RETRY_AFTER_S
    return NoRoom(cause, message, Reason=cause.reason, Type="User", retryAfterSeconds=after)


@dataclass(frozen=True, slots=True)
class Throttled:
    """So many invocations of a version were refused for one cause."""

    function: str
    version: str
    """Empty where none was chosen yet."""
    cause: Cause
    count: int


@dataclass(slots=True)
class Throttles:
    """The counter. Mutable like `admission.Pool`, and for the same reason."""

    _counts: Counter[tuple[str, str, Cause]] = field(default_factory=Counter)

    def add(self, function: str, version: str, cause: Cause) -> None:
        """One invocation was refused."""
        key = (function, version, cause)
        if key not in self._counts and len(self._counts) >= MAX_COUNTED:
            key = ("", "", cause)
        self._counts[key] += 1

    def counted(self) -> list[Throttled]:
        """Since the server started, by function, version and cause."""
        return [Throttled(*key, count) for key, count in sorted(self._counts.items())]
