"""Errors of the domain, named by cause.

A domain error carries its AWS shape's name, a sentence for the reader and the facts that AWS's shape has members for.
Status code, member spelling (`message` or `Message`) and the `Type` member are not known here: `wire` takes them from the
service model. `IllegalTransition` is different in kind: it is a bug of ours, never an answer to a user.
"""

import functools
from typing import ClassVar

Fact = str | int | float | bool | None


class IllegalTransition(Exception):
    """A state machine was given an event that its state does not allow: a bug in the caller."""


class DomainError(Exception):
    """A request that is refused or cannot be served; rendered as the AWS error shape named by `shape`."""

    shape: ClassVar[str]

    def __init__(self, message: str, **facts: Fact) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, Fact] = facts
        """Further members of the shape by their wire name, for example `Reason` or `retryAfterSeconds`. `Type` None leaves that member out."""


@functools.cache
def class_for(shape: str) -> type[DomainError]:
    """A domain error of this shape, for an error that comes from another process: the shape is all that its answer depends on."""
    return NeedsOrdinaryWay if shape == NeedsOrdinaryWay.shape else type(shape, (DomainError,), {"shape": shape})


class NeedsOrdinaryWay(DomainError):
    """Nothing was started: what was invoked is a durable function, whose invocations are operations of the API. Never an answer to a user."""

    shape = "NeedsOrdinaryWay"


class ValidationError(DomainError):
    """The request breaks a constraint of the service model. AWS answers it before anything else; the shape is unmodelled."""

    shape = "ValidationException"


class Serialization(DomainError):
    """The request cannot be read: malformed JSON, a value of the wrong JSON type, bad base64; unmodelled, as AWS answers it."""

    shape = "SerializationException"


class InvalidParameter(DomainError):
    """A parameter breaks a constraint or has no meaning, in the words of services such as CloudWatch Logs."""

    shape = "InvalidParameterException"


class InvalidParameterValue(DomainError):
    """A parameter is well-formed but has no meaning here."""

    shape = "InvalidParameterValueException"


class InvalidRequestContent(DomainError):
    """The body of the request is not what the operation reads, for example not JSON."""

    shape = "InvalidRequestContentException"


class ResourceNotFound(DomainError):
    """The named function, version, alias or capacity provider does not exist."""

    shape = "ResourceNotFoundException"


class ResourceConflict(DomainError):
    """The resource exists already, or its state does not allow the operation now."""

    shape = "ResourceConflictException"


class Conflict(DomainError):
    """The resource exists already, or a ClientToken was used for another request; the name that newer services give it."""

    shape = "ConflictException"


class ServiceQuotaExceeded(DomainError):
    """The account has as many of these resources as it may have; the name that newer services give it."""

    shape = "ServiceQuotaExceededException"


class PreconditionFailed(DomainError):
    """The caller's RevisionId is not the latest one."""

    shape = "PreconditionFailedException"


class RequestTooLarge(DomainError):
    """The request or the code package is larger than AWS accepts."""

    shape = "RequestTooLargeException"


class RequestEntityTooLarge(DomainError):
    """The request body or the zip file is larger than AWS accepts; unmodelled, as AWS answers it for code uploads."""

    shape = "RequestEntityTooLargeException"


class TooManyRequests(DomainError):
    """No slot came free in time, or a concurrency limit is reached. Facts: `Reason`, `Type`, `retryAfterSeconds`."""

    shape = "TooManyRequestsException"


class NoPublishedVersion(DomainError):
    """A capacity-provider function was invoked before any version was published."""

    shape = "NoPublishedVersionException"


class AccessDenied(DomainError):
    """The caller may not do this; unmodelled."""

    shape = "AccessDeniedException"


class CapacityProviderLimitExceeded(DomainError):
    """The account has as many capacity providers as it may have."""

    shape = "CapacityProviderLimitExceededException"


class FunctionVersionsPerCapacityProviderLimitExceeded(DomainError):
    """The capacity provider has as many function versions as it may have."""

    shape = "FunctionVersionsPerCapacityProviderLimitExceededException"


class CallbackTimeout(DomainError):
    """The callback of a durable execution is completed, timed out, or never was."""

    shape = "CallbackTimeoutException"


class DurableExecutionAlreadyStarted(DomainError):
    """A durable execution of this name was started with another input or version."""

    shape = "DurableExecutionAlreadyStartedException"


class CodeStorageExceeded(DomainError):
    """The account's code storage is used up."""

    shape = "CodeStorageExceededException"


class InvalidRuntime(DomainError):
    """The function's runtime cannot run on this machine; the message names what is missing."""

    shape = "InvalidRuntimeException"


class ServiceFailure(DomainError):
    """The platform failed to carry the request out; the message says which part, and repeating is safe to try."""

    shape = "ServiceException"


class UnknownOperation(DomainError):
    """No operation of any served API matches the request; unmodelled, as AWS answers it."""

    shape = "UnknownOperationException"


class NotImplementedYet(DomainError):
    """A real operation of the API that Lambstead does not answer yet; the message names it."""

    shape = "ServiceException"
