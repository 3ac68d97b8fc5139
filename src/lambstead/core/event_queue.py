"""The life of an asynchronous invocation: queued, run, tried again, ended, reported.

    accepted ─► queued ─► runs ─┬─► ended: Success                                        ─► on-success destination
                  ▲             ├─► ended: RetriesExhausted, EventAgeExceeded, …            ─► on-failure destination, dead-letter queue
                  └── delay ────┘

An event that the function answered with an error is run again after a minute and then after two (AWS's numbers; `RetryPolicy`). One that could
not be run at all, because of a throttle or a failure of the platform, comes again after a growing pause and costs no attempt. Whoever is older
than its maximum age ends. Every decision is taken here, as a value; the queue's rows and the deliveries are carried out by `control.event_invokes`.

Sources: Developer Guide, asynchronous invocation; recorded destination records and dead-letter messages (reference on the Lambda API, §10).
"""

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

from lambstead.core.arn import LATEST, LATEST_PUBLISHED, FunctionRef
from lambstead.core.errors import DomainError, RequestEntityTooLarge, ResourceNotFound
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.throttles import Cause, throttled

MAX_PAYLOAD_BYTES = 1_048_576
"""1 MB, the quota of asynchronous payloads (quotas page, since October 2025)."""
MAX_QUEUED_EVENTS = 100_000
MAX_QUEUED_BYTES = 4 * 1024**3
"""AWS names no such limits. Beyond them callers get 429 rather than a full disk."""
MAX_DELIVERY_ATTEMPTS = 6
"""How often a message to another service is tried before it counts as failed: the last try comes half a minute after the first."""
MAX_ERROR_MESSAGE_BYTES = 1024
"""A dead-letter message carries the first kilobyte of the error message (Developer Guide)."""


class DeliveryFailed(Exception):
    """A message did not reach its destination; the text says why."""


class Condition(enum.StrEnum):
    """Why an event ended, as destination records spell it."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"
    ZERO_RESERVED_CONCURRENCY = "ZeroReservedConcurrency"
    RECURSION = "RecursiveInvocation"
    """The event came too often round a loop. AWS sends it to the same places; how its record spells the condition is not published."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long events wait before they are run again. The defaults are AWS's."""

    after_error: timedelta = timedelta(minutes=1)
    """After the first function error; twice as long after the second."""
    after_refusal_first: timedelta = timedelta(seconds=1)
    after_refusal_most: timedelta = timedelta(minutes=5)
    """Throttles and failures of the platform: the pause doubles from the first to the most."""

    def error_delay(self, attempts: int) -> timedelta:
        """The pause after the function failed `attempts` times."""
        return self.after_error * (1 << (attempts - 1))

    def refusal_delay(self, refusals: int) -> timedelta:
        """The pause after the event could not be run `refusals` times in a row."""
        doublings = min(refusals - 1, int(math.log2(self.after_refusal_most / self.after_refusal_first)) + 1)
        return min(self.after_refusal_first * (1 << doublings), self.after_refusal_most)


@dataclass(frozen=True, slots=True)
class Response:
    """What a function answered to an event."""

    executed_version: str
    payload: str
    """JSON text."""
    is_error: bool


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An asynchronous invocation that was acknowledged and has not ended. Its payload is kept beside it."""

    request_id: str
    """The same over all attempts, as on AWS."""
    function: str
    qualifier: str | None
    """As the caller gave it. What it stands for is looked up at every attempt."""
    accepted_at: datetime
    trace_id: str = ""
    client_context: str = ""
    tenant_id: str = ""
    attempts: int = 0
    """How often the function ran to an error."""
    refusals: int = 0
    """How often the event could not be run since then."""
    last: Response | None = None
    """The error of the last attempt."""
    is_looping: bool = False
    """It came too often round a loop of functions: it ends without being run."""

    @property
    def ref(self) -> FunctionRef:
        return FunctionRef(self.function, self.qualifier)


# --- how a run of an event ends, and what follows ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """The function ran and answered, with a result or an error."""

    response: Response


@dataclass(frozen=True, slots=True)
class Refused:
    """The event could not be run now: a throttle, a version that is not active, an environment that was lost."""

    because: str


@dataclass(frozen=True, slots=True)
class Unwanted:
    """The function, or the version or alias that the event names, does not exist any more."""

    because: str


RunEnd = Answered | Refused | Unwanted


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The event stays in the queue until `due`."""

    event: QueuedEvent
    due: datetime
    because: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The event leaves the queue; destinations hear of it."""

    event: QueuedEvent
    condition: Condition
    invoke_count: int
    """How often the function was run for it."""
    response: Response | None

    @property
    def is_success(self) -> bool:
        return self.condition is Condition.SUCCESS


@dataclass(frozen=True, slots=True)
class Drop:
    """The event leaves the queue and nobody hears of it."""

    event: QueuedEvent
    because: str


Decision = TryAgain | Finish | Drop


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is configured for an event's function at the moment."""

    config: EventInvokeConfig
    function_arn: str
    """Qualified, as records name it."""
    dead_letter_target: str | None = None
    reserved_concurrency: int | None = None
    may_loop: bool = False
    """Recursive loops are allowed."""


def before_run(event: QueuedEvent, circumstances: Circumstances, now: datetime) -> Finish | None:
    """Why the event is not to be run any more; None if it is."""
    if event.is_looping and not circumstances.may_loop:
        return Finish(event, Condition.RECURSION, event.attempts, event.last)
    if circumstances.reserved_concurrency == 0:
        return Finish(event, Condition.ZERO_RESERVED_CONCURRENCY, event.attempts, event.last)
    if now - event.accepted_at >= circumstances.config.event_age:
        return Finish(event, Condition.EVENT_AGE_EXCEEDED, event.attempts, event.last)
    return None


def after_run(
    event: QueuedEvent, end: RunEnd, config: EventInvokeConfig, policy: RetryPolicy, now: datetime
) -> Decision:
    """What becomes of an event whose run ended so."""
    match end:
        case Answered(response) if not response.is_error:
            return Finish(event, Condition.SUCCESS, event.attempts + 1, response)
        case Answered(response):
            return _after_error(event, response, config, policy, now)
        case Refused(because):
            again = replace(event, refusals=event.refusals + 1)
            # One more try at the very end of its age, rather than to end it early by a whole pause.
            due = min(now + policy.refusal_delay(again.refusals), event.accepted_at + config.event_age)
            return TryAgain(again, due, because)
        case Unwanted(because):
            return Drop(event, because)
        case _:
            assert_never(end)


def _after_error(
    event: QueuedEvent, response: Response, config: EventInvokeConfig, policy: RetryPolicy, now: datetime
) -> Decision:
    failed = replace(event, attempts=event.attempts + 1, refusals=0, last=response)
    if failed.attempts > config.retry_attempts:
        return Finish(failed, Condition.RETRIES_EXHAUSTED, failed.attempts, response)
    due = now + policy.error_delay(failed.attempts)
    # Recorded: an event that would be too old at its next attempt ends now, not then.
    if due - event.accepted_at > config.event_age:
        return Finish(failed, Condition.EVENT_AGE_EXCEEDED, failed.attempts, response)
    return TryAgain(failed, due, "the function answered with an error")


def refusal_of(error: DomainError) -> Refused | Unwanted:
    """What it means for an event that the invoke path refused it with `error`."""
    return Unwanted(error.message) if isinstance(error, ResourceNotFound) else Refused(error.message)


# --- acceptance ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueueTotals:
    """How full the queue is."""

    events: int
    payload_bytes: int


def check_payload_size(payload: bytes) -> None:
    """Raise RequestEntityTooLarge for a payload above 1 MB, in AWS's words."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RequestEntityTooLarge(
            f"{len(payload)} byte payload is too large for the Event invocation type (limit {MAX_PAYLOAD_BYTES} bytes)"
        )


def check_room(totals: QueueTotals, payload: bytes) -> None:
    """Raise TooManyRequests when the queue has no room for this payload."""
    if totals.events >= MAX_QUEUED_EVENTS or totals.payload_bytes + len(payload) > MAX_QUEUED_BYTES:
        raise throttled(
            Cause.EVENT_QUEUE_FULL,
            f"{totals.events} asynchronous invocations of {totals.payload_bytes} bytes are queued already",
        )


# --- what destinations are told -----------------------------------------------------------------------------------------------


def effective_qualifier(event: QueuedEvent, *, managed: bool) -> str:
    """The qualifier whose event invoke config applies and that records name: as given, else what an unqualified invocation runs."""
    return event.qualifier or (LATEST_PUBLISHED if managed else LATEST)


def destination_record(finish: Finish, function_arn: str, payload: str, now: datetime) -> str:
    """The invocation record for a destination, as JSON text. Payloads stand in it as they came, digit by digit."""
    context = {
        "requestId": finish.event.request_id,
        "functionArn": function_arn,
        "condition": finish.condition,
        "approximateInvokeCount": finish.invoke_count,
    }
    parts = [
        '"version":"1.0"',
        f'"timestamp":"{_record_time(now)}"',
        f'"requestContext":{_compact(context)}',
        f'"requestPayload":{payload}',
    ]
    if finish.response is not None:
        answered: dict[str, object] = {"statusCode": 200, "executedVersion": finish.response.executed_version}
        if finish.response.is_error:
            answered["functionError"] = "Unhandled"
        parts += [f'"responseContext":{_compact(answered)}', f'"responsePayload":{finish.response.payload}']
    return "{" + ",".join(parts) + "}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message for a dead-letter queue or topic: the event as body, and what went wrong as attributes."""

    body: str
    request_id: str
    error_code: str
    """HTTP status of the last answer: 200 for an error of the function, 429 when it was never run."""
    error_message: str


def dead_letter(finish: Finish, payload: str) -> DeadLetter:
    """The dead-letter message of an event that was given up."""
    if finish.response is None:
        return DeadLetter(payload, finish.event.request_id, "429", f"The event was not run: {finish.condition}")
    message = _error_message(finish.response.payload).encode()[:MAX_ERROR_MESSAGE_BYTES].decode(errors="ignore")
    return DeadLetter(payload, finish.event.request_id, "200", message)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to a destination or a dead-letter queue in another service."""

    id: str
    function: str
    function_arn: str
    target: str
    """ARN of a queue, a topic, an event bus or a bucket."""
    body: str
    is_success: bool
    accepted_at: datetime
    dead_letter: DeadLetter | None = None
    """Set when this is a dead-letter message and no invocation record."""
    attempts: int = 0
    """Attempts that failed."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Of a schedule's dead letter: message attributes beside the body, all of them texts."""

    @property
    def is_dead_letter(self) -> bool:
        return self.dead_letter is not None or bool(self.attributes)

    @property
    def is_over(self) -> bool:
        """True when it has failed as often as it may."""
        return self.attempts >= MAX_DELIVERY_ATTEMPTS


def messages_of(finish: Finish, circumstances: Circumstances, payload: str, now: datetime) -> tuple[Delivery, ...]:
    """Everything that is to be told of the end of an event: the destination's record, and the dead letter of one that was given up."""
    event, config, function_arn = finish.event, circumstances.config, circumstances.function_arn

    def message(kind: str, target: str, body: str, letter: DeadLetter | None = None) -> Delivery:
        return Delivery(
            f"{event.request_id}/{kind}", event.function, function_arn, target, body, finish.is_success, now, letter
        )

    found: list[Delivery] = []
    target = config.on_success if finish.is_success else config.on_failure
    if target:
        record = destination_record(finish, function_arn, payload, now)
        found.append(message("destination", target, record))
    if circumstances.dead_letter_target and not finish.is_success:
        letter = dead_letter(finish, payload)
        found.append(message("dead-letter", circumstances.dead_letter_target, letter.body, letter))
    return tuple(found)


def json_text(payload: bytes) -> str:
    """The payload if it is JSON, else a JSON string of it: records must stay readable whatever a runtime posted."""
    text = payload.decode(errors="replace")
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(text)
    return text


def _error_message(payload: str) -> str:
    document = json.loads(payload)
    message = document.get("errorMessage") if isinstance(document, dict) else None
    # SQS and SNS refuse empty attributes.
    return str(message) if message else payload


def _record_time(now: datetime) -> str:
    utc = now.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


def _compact(document: dict[str, object]) -> str:
    return json.dumps(document, separators=(",", ":"))
