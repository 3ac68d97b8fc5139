"""What a schedule invokes, and what follows when the target cannot be invoked.

A target is a function of ours: by its ARN, or by AWS's universal target `arn:aws:scheduler:::aws-sdk:lambda:invoke`, whose Input holds the parameters
of Invoke. An asynchronous invocation is delivered once it is in the queue of asynchronous invocations, where the function's own configuration rules; the
schedule's retry policy is about getting there.

Sources: EventBridge Scheduler User Guide, "Managing targets", "Using universal targets", "Context attributes", "Configuring a dead-letter queue"; API
reference, Target and RetryPolicy.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.errors import (
    AccessDenied,
    DomainError,
    DurableExecutionAlreadyStarted,
    InvalidParameterValue,
    InvalidRequestContent,
    RequestEntityTooLarge,
    ResourceNotFound,
    Serialization,
    ValidationError,
)
from lambstead.core.event_queue import MAX_ERROR_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, Delivery, RetryPolicy
from lambstead.core.tenancy import is_tenant_id

UNIVERSAL_INVOKE = "arn:aws:scheduler:::aws-sdk:lambda:invoke"
DEFAULT_EVENT_AGE = timedelta(days=1)
DEFAULT_RETRY_ATTEMPTS = 185
"""AWS's defaults, as GetSchedule answers them."""
SUPPORTED = (
    f"Lambstead schedules invoke its own functions: Arn is the ARN of a function, with or without a qualifier, or {UNIVERSAL_INVOKE} "
    "with FunctionName, InvocationType, Payload and Qualifier in Input."
)
_UNIVERSAL_MEMBERS = (
    *("FunctionName", "InvocationType", "Payload", "Qualifier", "ClientContext", "LogType", "DurableExecutionName"),
    "TenantId",
)
_LASTING = (
    AccessDenied,
    DurableExecutionAlreadyStarted,
    InvalidParameterValue,
    InvalidRequestContent,
    RequestEntityTooLarge,
    ResourceNotFound,
    Serialization,
    ValidationError,
)
"""Refusals that no retry ends. EventBridge, "Retrying failed deliveries": a target that does not exist is not tried again."""


@dataclass(frozen=True, slots=True)
class ScheduleTarget:
    """The target as it was asked for."""

    arn: str
    role_arn: str
    input: str | None = None
    dead_letter_target: str | None = None
    event_age: timedelta = DEFAULT_EVENT_AGE
    retry_attempts: int = DEFAULT_RETRY_ATTEMPTS


@dataclass(frozen=True, slots=True)
class TargetCall:
    """One call of Invoke."""

    ref: FunctionRef
    payload: bytes
    is_synchronous: bool = False
    client_context: str = ""
    """JSON text."""
    execution_name: str | None = None
    """Of the durable execution that is to be started."""
    tenant_id: str = ""


@dataclass(frozen=True, slots=True)
class ScheduledInvocation:
    """One scheduled time of a schedule on its way to the target. It outlives changes of its schedule."""

    id: str
    schedule_arn: str
    target: ScheduleTarget
    scheduled_at: datetime
    since: datetime
    """From when on its age counts."""
    attempts: int = 0
    """Attempts that failed."""

    def attributes(self, execution_id: str) -> Mapping[str, str]:
        """The context attributes of its next attempt, which has this id."""
        return {
            "aws.scheduler.schedule-arn": self.schedule_arn,
            "aws.scheduler.scheduled-time": _seconds(self.scheduled_at),
            "aws.scheduler.execution-id": execution_id,
            "aws.scheduler.attempt-number": str(self.attempts + 1),
        }

    def input_text(self, execution_id: str) -> str | None:
        """The input of its next attempt, context attributes replaced."""
        text = self.target.input
        if text is not None:
            for name, value in self.attributes(execution_id).items():
                text = text.replace(f"<{name}>", value)
        return text

    def call(self, execution_id: str, realm: Realm) -> TargetCall:
        """What its next attempt asks of the invoke path. Raises ValidationError."""
        text = self.input_text(execution_id)
        if self.target.arn == UNIVERSAL_INVOKE:
            return _universal_call(text, realm)
        payload = self._default_event(realm) if text is None else text
        return TargetCall(FunctionRef.parse(self.target.arn, realm), payload.encode())

    def _default_event(self, realm: Realm) -> str:
        """What a function gets that no Input was configured for."""
        return json.dumps(
            {
                "version": "0",
                "id": self.id,
                "detail-type": "Scheduled Event",
                "source": "aws.scheduler",
                "account": realm.account,
                "time": _seconds(self.scheduled_at),
                "region": realm.region,
                "resources": [self.schedule_arn],
                "detail": "{}",
            }
        )


def check_target(target: ScheduleTarget, other_parameters: tuple[str, ...], realm: Realm) -> None:
    """Raise ValidationError for a target that can never be invoked here. `other_parameters` are members that are for other services.

    Whether the function exists is not asked, as on AWS: it may come later.
    """
    if other_parameters:
        raise ValidationError(f"{', '.join(other_parameters)} does not apply to this target. {SUPPORTED}")
    if len((target.input or "").encode()) > MAX_PAYLOAD_BYTES:
        raise ValidationError(f"Input must be at most {MAX_PAYLOAD_BYTES} bytes.")
    if target.arn == UNIVERSAL_INVOKE:
        _universal_call(target.input, realm)
        return
    if not target.arn.startswith("arn:") or target.arn.split(":")[2:3] != ["lambda"]:
        raise ValidationError(f"The target {target.arn} is not supported. {SUPPORTED}")
    _ref(target.arn, None, realm)
    if target.input is not None:
        try:
            _json(target.input)
        except (ValueError, RecursionError) as exc:
            raise ValidationError(f"Input must be well-formed JSON for a function: {exc}") from exc


def _universal_call(text: str | None, realm: Realm) -> TargetCall:
    try:
        given = _json(text or "{}")
    except (ValueError, RecursionError) as exc:
        raise ValidationError(f"Input of {UNIVERSAL_INVOKE} must be a JSON object: {exc}") from exc
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValidationError(
            f"Input of {UNIVERSAL_INVOKE} must be a JSON object of strings; Payload is a string that holds JSON."
        )
    unknown = sorted(set(given) - set(_UNIVERSAL_MEMBERS))
    if unknown or "FunctionName" not in given:
        what = f"has no parameter {unknown[0]}" if unknown else "needs FunctionName"
        raise ValidationError(f"Invoke {what}. Input takes {', '.join(_UNIVERSAL_MEMBERS)}.")
    kind = given.get("InvocationType", "RequestResponse")
    if kind not in ("Event", "RequestResponse"):
        raise ValidationError(f"InvocationType {kind} makes no sense in a schedule: use Event or RequestResponse.")
    if "DurableExecutionName" in given and kind != "Event":
        raise ValidationError("DurableExecutionName is taken from a schedule with InvocationType Event only.")
    if "TenantId" in given and not is_tenant_id(given["TenantId"]):
        raise ValidationError("TenantId takes 1 to 256 letters, digits, spaces and any of . _ : / = + - @.")
    payload = given.get("Payload", "")
    try:
        _json(payload or "{}")
        client_context = base64.b64decode(given.get("ClientContext", ""), validate=True).decode()
        _json(client_context or "{}")
    except (ValueError, RecursionError) as exc:
        raise ValidationError(f"Payload must hold JSON, and ClientContext Base64 of JSON: {exc}") from exc
    return TargetCall(
        _ref(given["FunctionName"], given.get("Qualifier"), realm),
        payload.encode(),
        kind == "RequestResponse",
        client_context,
        given.get("DurableExecutionName"),
        given.get("TenantId", ""),
    )


def _json(text: str) -> object:
    """The value of a JSON text. Raises ValueError, also for what only Python takes for JSON, and RecursionError."""

    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _ref(text: str, qualifier: str | None, realm: Realm) -> FunctionRef:
    try:
        return FunctionRef.parse(text, realm, qualifier)
    except DomainError as exc:
        raise ValidationError(f"The target {text} is not a function of this Lambstead: {exc.message}") from exc


# --- when the target could not be invoked -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The invocation waits until `due`."""

    invocation: ScheduledInvocation
    due: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The invocation ends; the dead-letter queue hears of it, if there is one."""

    invocation: ScheduledInvocation
    because: str
    dead_letter: Delivery | None


def after_refusal(
    invocation: ScheduledInvocation, error: DomainError, execution_id: str, policy: RetryPolicy, now: datetime
) -> TryAgain | GiveUp:
    """What becomes of an invocation whose attempt was refused with `error`. `policy` knows the pauses."""
    failed = replace(invocation, attempts=invocation.attempts + 1)
    body = invocation.input_text(execution_id)
    due = now + policy.refusal_delay(failed.attempts)
    if isinstance(error, _LASTING):
        return _give_up(failed, error.shape, error.message, None, execution_id, body)
    if failed.attempts > failed.target.retry_attempts:
        return _give_up(failed, error.shape, error.message, "MaximumRetryAttempts", execution_id, body)
    if due - failed.since > failed.target.event_age:
        return _give_up(failed, error.shape, error.message, "MaximumEventAgeInSeconds", execution_id, body)
    return TryAgain(failed, due)


def too_old(invocation: ScheduledInvocation, execution_id: str, now: datetime) -> GiveUp | None:
    """The end of an invocation that its retry policy does not want any more, for example of a schedule that was due while the server was down."""
    if now - invocation.since <= invocation.target.event_age:
        return None
    because = f"It was due at {_seconds(invocation.since)} and could not be delivered in time."
    body = invocation.input_text(execution_id)
    return _give_up(invocation, "EventAgeExceeded", because, "MaximumEventAgeInSeconds", execution_id, body)


def _give_up(
    invocation: ScheduledInvocation, code: str, message: str, exhausted: str | None, execution_id: str, body: str | None
) -> GiveUp:
    """`exhausted` is the part of the retry policy that ended it, `body` the input of the last attempt.

    The dead letter is the input, with the attributes of the User Guide's example.
    """
    target = invocation.target
    if target.dead_letter_target is None:
        return GiveUp(invocation, message, None)
    attributes = {
        "ERROR_CODE": code,
        "ERROR_MESSAGE": message.encode()[:MAX_ERROR_MESSAGE_BYTES].decode(errors="ignore"),
        "EXECUTION_ID": execution_id,
        "EXHAUSTED_RETRY_CONDITION": exhausted or "",
        "IS_PAYLOAD_TRUNCATED": "false",
        "RETRY_ATTEMPTS": str(max(0, invocation.attempts - 1)),
        "SCHEDULED_TIME": _seconds(invocation.scheduled_at),
        "SCHEDULE_ARN": invocation.schedule_arn,
        "TARGET_ARN": target.arn,
    }
    letter = Delivery(
        id=f"{invocation.id}/schedule",
        function=invocation.schedule_arn,
        function_arn=target.arn,
        target=target.dead_letter_target,
        body=body or "{}",
        is_success=False,
        accepted_at=invocation.since,
        attributes={name: value for name, value in attributes.items() if value},  # SQS refuses empty ones
    )
    return GiveUp(invocation, message, letter)


def _seconds(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
