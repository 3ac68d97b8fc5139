"""Event invoke configs: what becomes of an asynchronous invocation that fails, grows old or ends.

A config belongs to one qualifier of a function: a version, an alias, or `$LATEST` for invocations that name none. Nothing is inherited
between qualifiers. The queue of asynchronous invocations reads it; the defaults of AWS stand here, beside the limits that the model has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.errors import DomainError, InvalidParameterValue

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


# --- destinations ---------------------------------------------------------------------------------------------------------

ON_SUCCESS_SERVICES = frozenset({"lambda", "sqs", "sns", "events"})
ON_FAILURE_SERVICES = ON_SUCCESS_SERVICES | {"s3"}
"""Records of failures may go to a bucket as well (Developer Guide, asynchronous invocation, destinations)."""


def check_destinations(
    function: str, on_success: str | None, on_failure: str | None, realm: Realm, exists: Callable[[str], bool]
) -> None:
    """Raise InvalidParameterValue for destinations that records of `function` cannot go to; `exists` knows the functions here."""
    for destination in (on_failure, on_success):
        if destination and _service(destination) == "lambda":
            _check_function(function, destination, realm, exists)
    if not (_is_possible(on_success, ON_SUCCESS_SERVICES) and _is_possible(on_failure, ON_FAILURE_SERVICES)):
        success = f"OnSuccess(destination={on_success})" if on_success else "null"
        failure = f"OnFailure(destination={on_failure})" if on_failure else "null"
        raise InvalidParameterValue(
            f"The provided destination config DestinationConfig(onSuccess={success}, onFailure={failure}) is invalid."
        )


def _check_function(function: str, destination: str, realm: Realm, exists: Callable[[str], bool]) -> None:
    try:
        name = FunctionRef.parse(destination, realm).name
    except DomainError as exc:
        raise InvalidParameterValue(f"The destination ARN {destination} is invalid.") from exc
    if not exists(name):
        raise InvalidParameterValue(f"The destination ARN {destination} is invalid.")
    if name == function:
        raise InvalidParameterValue("You can't specify the function as a destination for itself.")


def _is_possible(destination: str | None, services: frozenset[str]) -> bool:
    """True for no destination, and for one of these services; a queue or topic must not be FIFO."""
    if not destination:
        return True
    service = _service(destination)
    return service in services and not (service in ("sqs", "sns") and destination.endswith(".fifo"))


def _service(arn: str) -> str:
    """The service in an ARN; empty for what is no ARN, such as `kafka://topic`."""
    parts = arn.split(":")
    return parts[2] if parts[0] == "arn" and len(parts) > 5 else ""
