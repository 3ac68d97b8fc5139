"""Where AWS answers otherwise than its own model says, with the evidence beside each entry.

"Recorded" means: answers of AWS itself, recorded by the LocalStack project's AWS-validated snapshot tests and restated in this
project's reference on the Lambda API. Everything else names its source. What is not here follows the model.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from lambstead.core.errors import (
    DomainError,
    InvalidParameter,
    InvalidParameterValue,
    NotImplementedYet,
    ValidationError,
)
from lambstead.wire import java


@dataclass(frozen=True, slots=True)
class UnmodelledError:
    """An error that AWS answers although the service model has no shape for it."""

    status: int
    message_member: str = "message"


UNMODELLED: Mapping[str, UnmodelledError] = {
    # Recorded: 400 without `Type`, for every constraint of the model.
    "ValidationException": UnmodelledError(400),
    # Recorded: 403 without `Type`; text member as in AWS's list of common errors for Lambda (`Message`).
    "AccessDeniedException": UnmodelledError(403, "Message"),
    # Recorded: 413 without `Type`, for code uploads and for bodies as a whole.
    "RequestEntityTooLargeException": UnmodelledError(413),
    # awsJson and restJson services, measured by others on Athena, SQS, SES and DynamoDB: 400, text member `Message`.
    "SerializationException": UnmodelledError(400, "Message"),
    # restJson services answer 404 with this code to paths they do not have; json services answer 400, see `STATUS_IN_JSON`.
    "UnknownOperationException": UnmodelledError(404),
    # AWS's list of errors common to all services: credentials.
    "IncompleteSignatureException": UnmodelledError(400),
    "InvalidSignatureException": UnmodelledError(403),
    "MissingAuthenticationTokenException": UnmodelledError(403),
    "UnrecognizedClientException": UnmodelledError(403),
    "ExpiredTokenException": UnmodelledError(403),
    # AWS's list of common errors: the platform.
    "InternalFailure": UnmodelledError(500),
    "ServiceUnavailable": UnmodelledError(503),
    "ThrottlingException": UnmodelledError(400),
}

STATUS_IN_JSON: Mapping[str, int] = {
    # awsJson protocol tests of Smithy and answers of DynamoDB: an unknown X-Amz-Target is 400, the path always exists.
    "UnknownOperationException": 400,
}

FAULTS: Mapping[str, tuple[str, ...]] = {
    # `ServiceException` is Lambda's word for "our fault". Other services model theirs under another name; the first that exists
    # in the model is used, so that the client sees a modelled 5xx.
    "ServiceException": (
        "ServiceException",
        "InternalServerException",
        "InternalServiceError",
        "ServiceUnavailableException",
        "InternalFailure",
    ),
}

CONSTRAINT_ERRORS: Mapping[str, type[DomainError]] = {
    # CloudWatch Logs answers broken constraints with the same sentence as InvalidParameterException (Moto's and users' reports
    # agree: "An error occurred (InvalidParameterException) when calling the CreateLogGroup operation: 1 validation error
    # detected: Value …"). Operations that model ValidationException use that.
    "logs": InvalidParameter,
}


def constraint_error(service: str, modelled: frozenset[str]) -> type[DomainError]:
    """The error for broken constraints of an operation of this service whose model lists these errors."""
    if ValidationError.shape in modelled:
        return ValidationError
    return CONSTRAINT_ERRORS.get(service, ValidationError)


UNREPORTED_NULL: Mapping[str, frozenset[str]] = {
    # Recorded for `vpcConfig.subnetIds`: the list-member form without "Member must not be null", which it has for
    # architectures, layers and CORS methods.
    "lambda": frozenset({"SubnetIds"}),
}

UNREPORTED_NULL_KEYS: Mapping[str, frozenset[str]] = {
    # Recorded for `routingConfig.additionalVersionWeights`, whose values do report "Member must not be null". No other map's keys are
    # in any recording.
    "lambda": frozenset({"AdditionalVersionWeights"}),
}

WHOLE_LIST_ENUMS: Mapping[str, frozenset[str]] = {
    # Recorded for `compatibleRuntimes` of PublishLayerVersion: a bad member is answered as if the list were one value, and the value set
    # has the current runtimes only, although retired ones are accepted.
    "lambda": frozenset({"CompatibleRuntimes"}),
}

PRINTED_ORDER: Mapping[str, tuple[str, ...]] = {
    # Recorded: an order that no table of AWS's other sets explains.
    "EventSourcePosition": ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON"),
}
"""The order in which a value set is printed, by shape, where it is not that of a Java set."""

CONTENT_TYPES: Mapping[tuple[str, str], str] = {
    # The Invoke page of AWS's API reference and every SDK: the payload of an invocation is JSON.
    ("lambda", "Invoke"): "application/json",
}

UNTRANSLATED_PATTERNS: frozenset[str] = frozenset()
"""Patterns of served models that are not checked because Python cannot express them. None so far; a test keeps it exact."""

STATUS_OF_OURS: Mapping[type[DomainError], int] = {
    # AWS has no answer for an operation that it does not have. The shape is the service's own fault, which callers can catch; the status
    # is the one HTTP has for it, because SDKs repeat a 500 four times with growing pauses before they show the message.
    NotImplementedYet: HTTPStatus.NOT_IMPLEMENTED,
}

SPANNING_LABELS: Mapping[str, Mapping[str, re.Pattern[bytes]]] = {
    # ARNs of durable executions and callback ids contain slashes. SDKs encode them; people with curl send them as they are.
    "lambda": {
        "DurableExecutionArn": re.compile(rb"[^/]+/durable-execution/[^/]+/[^/]+"),
        "CallbackId": re.compile(rb"[A-Za-z0-9+/%]+={0,2}"),
    },
}

DEFAULT_MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_BODY_BYTES: Mapping[tuple[str, str], int] = {
    # Recorded: "Request must be smaller than 70167211 bytes for the CreateFunction operation"; the other uploads share the limit.
    ("lambda", "CreateFunction"): 70_167_211,
    ("lambda", "UpdateFunctionCode"): 70_167_211,
    ("lambda", "PublishLayerVersion"): 70_167_211,
    # The 6 MB of the quota page with AWS's own allowance, as recorded for responses (6291556).
    ("lambda", "Invoke"): 6_291_556,
    ("lambda", "InvokeAsync"): 6_291_556,
    ("lambda", "InvokeWithResponseStream"): 6_291_556,
    # A result of 6 MiB is legal in one update, and JSON may spell each of its characters with several bytes.
    ("lambda", "CheckpointDurableExecution"): 32 * 1024 * 1024,
}

OPERATION_NAMES_IN_MESSAGES: Mapping[tuple[str, str], str] = {
    # Users' reports of the 413: "Request must be smaller than 6291556 bytes for the InvokeFunction operation".
    ("lambda", "Invoke"): "InvokeFunction",
}

# --- members whose model is not the whole truth -----------------------------------------------------------------------

UNCHECKED_ENUMS: Mapping[str, frozenset[str]] = {
    # An unknown runtime is not a ValidationException; `check_runtime` answers it. In layers the enum is checked as modelled.
    "lambda": frozenset({"CreateFunction.Runtime", "UpdateFunctionConfiguration.Runtime"}),
}

RETIRED_RUNTIMES: frozenset[str] = frozenset(
    # Recorded as "no longer supported": java8, go1.x, provided, ruby2.7, nodejs14.x, nodejs12.x, python3.7, dotnetcore3.1.
    # The others were retired before those (AWS's table of deprecated runtimes).
    [
        "nodejs",
        "nodejs4.3",
        "nodejs4.3-edge",
        "nodejs6.10",
        "nodejs8.10",
        "nodejs10.x",
        "nodejs12.x",
        "nodejs14.x",
        "python2.7",
        "python3.6",
        "python3.7",
        "java8",
        "go1.x",
        "provided",
        "ruby2.5",
        "ruby2.7",
        "dotnetcore1.0",
        "dotnetcore2.0",
        "dotnetcore2.1",
        "dotnetcore3.1",
    ]
)
UNLISTED_RUNTIMES: frozenset[str] = frozenset({"custom"})
"""In the model's enum but in no recorded value set: not a runtime that a caller can name."""

_RUNTIME_ARN = re.compile(r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:runtime/.+")
MAX_FUNCTION_NAME_LENGTH = 64


def check_function_name(parameters: Mapping[str, Any], enums: Mapping[str, list[str]]) -> None:
    """Recorded on CreateFunction: a *name* above 64 characters gets the usual sentence under another code.

    The model allows 140, because an ARN may stand in its place; the rule is about the name inside it.
    """
    name = _function_name(parameters["FunctionName"])
    if len(name) > MAX_FUNCTION_NAME_LENGTH:
        raise InvalidParameterValue(
            f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: "
            f"Member must have length less than or equal to {MAX_FUNCTION_NAME_LENGTH}"
        )


def _function_name(name_or_arn: str) -> str:
    parts = name_or_arn.split(":")
    return parts[parts.index("function") + 1] if "function" in parts[:-1] else parts[0]


def check_runtime(parameters: Mapping[str, Any], enums: Mapping[str, list[str]]) -> None:
    """Recorded: an unknown or upper-case runtime, and a retired one, are InvalidParameterValueException."""
    runtime = parameters.get("Runtime")
    if runtime is None or _RUNTIME_ARN.fullmatch(runtime):
        return
    if runtime in RETIRED_RUNTIMES:
        raise InvalidParameterValue(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    current = current_runtimes(enums["Runtime"])
    if runtime not in current:
        raise InvalidParameterValue(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(java.set_order(current))}] or be a valid ARN"
        )


def current_runtimes(modelled: Iterable[str]) -> list[str]:
    """Of the runtimes of the model, those that a function can be created with."""
    return [known for known in modelled if known not in RETIRED_RUNTIMES | UNLISTED_RUNTIMES]


Check = Callable[[Mapping[str, Any], Mapping[str, list[str]]], None]
"""Takes valid parameters and the enums of the input's top-level members; raises the DomainError that AWS answers."""

CHECKS: Mapping[tuple[str, str], tuple[Check, ...]] = {
    ("lambda", "CreateFunction"): (check_function_name, check_runtime),
    ("lambda", "UpdateFunctionConfiguration"): (check_runtime,),
}
