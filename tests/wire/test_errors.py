"""Errors on the wire: what the model says of a shape, what the overlay adds, and that every domain error can be rendered."""

import json
from typing import Any

import pytest

from lambstead.core import errors
from lambstead.core.errors import DomainError
from lambstead.wire.errors import UnknownErrorShape
from lambstead.wire.gateway import AwsApi, HttpResponse

LAMBDA = AwsApi.load("lambda")
LOGS = AwsApi.load("logs")
GATEWAY = AwsApi.load("apigateway")
SCHEDULER = AwsApi.load("scheduler")
OF_LOGS = {errors.InvalidParameter}
OF_SCHEDULER = {errors.Conflict, errors.ServiceQuotaExceeded}
NEVER_ANSWERED = {errors.NeedsOrdinaryWay}
"""Between our own processes only."""
OF_LAMBDA = [error for error in DomainError.__subclasses__() if error not in OF_LOGS | OF_SCHEDULER | NEVER_ANSWERED]


def header(response: HttpResponse, name: str) -> str | None:
    return next((value for key, value in response.headers if key.lower() == name.lower()), None)


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        # recorded: `Message` for ResourceNotFound, `message` for the next three, all with Type
        (errors.ResourceNotFound("m"), 404, {"Type": "User", "Message": "m"}),
        (errors.InvalidParameterValue("m"), 400, {"Type": "User", "message": "m"}),
        (errors.ResourceConflict("m"), 409, {"Type": "User", "message": "m"}),
        (errors.PreconditionFailed("m"), 412, {"Type": "User", "message": "m"}),
        # recorded: no Type
        (errors.ValidationError("m"), 400, {"message": "m"}),
        (errors.RequestEntityTooLarge("m"), 413, {"message": "m"}),
        (errors.AccessDenied("m"), 403, {"Message": "m"}),
        # recorded: Reason
        (
            errors.TooManyRequests("m", Reason="ConcurrentInvocationLimitExceeded"),
            429,
            {"Type": "User", "message": "m", "Reason": "ConcurrentInvocationLimitExceeded"},
        ),
        (errors.TooManyRequests("m", Type="Service", Reason=None), 429, {"Type": "Service", "message": "m"}),
        (errors.NoPublishedVersion("m"), 400, {"Type": "User", "Message": "m"}),
        (errors.InvalidRuntime("m"), 502, {"Type": "Service", "Message": "m"}),
        (errors.ServiceFailure("m"), 500, {"Type": "Service", "Message": "m"}),
        (errors.Serialization("m"), 400, {"Message": "m"}),
        (errors.UnknownOperation("m"), 404, {"message": "m"}),
    ],
)
def test_lambda_errors_have_the_status_and_members_of_their_shape(
    error: DomainError, status: int, body: dict[str, Any]
) -> None:
    response = LAMBDA.fail("Invoke", error, "request-1")
    assert response.status == status
    assert json.loads(response.body) == body
    assert header(response, "x-amzn-ErrorType") == error.shape
    assert header(response, "x-amzn-RequestId") == "request-1"
    assert header(response, "Content-Type") == "application/json"


def test_a_fact_whose_member_travels_in_a_header_goes_there() -> None:
    response = LAMBDA.fail("Invoke", errors.TooManyRequests("m", retryAfterSeconds=2), "r")
    assert header(response, "Retry-After") == "2"
    assert "retryAfterSeconds" not in json.loads(response.body)


def test_the_json_protocol_names_the_error_in_the_body() -> None:
    response = LOGS.fail("GetLogEvents", errors.ResourceNotFound("The specified log group does not exist."), "r")
    assert response.status == 400
    assert json.loads(response.body) == {
        "__type": "ResourceNotFoundException",
        "message": "The specified log group does not exist.",
    }
    assert header(response, "Content-Type") == "application/x-amz-json-1.1"
    assert header(response, "x-amzn-ErrorType") is None
    assert LOGS.fail(None, errors.UnknownOperation("m"), "r").status == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ValidationError("m"), 400),
        (errors.ResourceNotFound("m"), 404),
        (errors.Conflict("m"), 409),
        (errors.ServiceQuotaExceeded("m"), 402),
        (errors.ServiceFailure("m"), 500),
    ],
)
def test_scheduler_errors_are_those_of_its_model(error: DomainError, status: int) -> None:
    response = SCHEDULER.fail(None, error, "r")
    assert (response.status, json.loads(response.body)) == (status, {"Message": "m"})


@pytest.mark.parametrize("error", OF_LAMBDA, ids=lambda error: error.__name__)
def test_every_domain_error_that_lambda_raises_can_be_rendered_by_lambda(error: type[DomainError]) -> None:
    assert 400 <= LAMBDA.fail(None, error("m"), "r").status < 600


@pytest.mark.parametrize("api", [LAMBDA, LOGS, GATEWAY, SCHEDULER], ids=lambda api: api.service)
@pytest.mark.parametrize(
    "error",
    [
        errors.ValidationError,
        errors.Serialization,
        errors.UnknownOperation,
        errors.AccessDenied,
        errors.RequestEntityTooLarge,
        errors.ServiceFailure,
        errors.NotImplementedYet,
    ],
)
def test_errors_that_belong_to_no_service_can_be_rendered_by_every_service(
    api: AwsApi, error: type[DomainError]
) -> None:
    response = api.fail(None, error("m"), "r")
    server_side = error in (errors.ServiceFailure, errors.NotImplementedYet)
    assert (500 <= response.status < 600) == server_side
    assert "m" in json.loads(response.body).values()


@pytest.mark.parametrize(
    ("api", "code"),
    [(LAMBDA, "ServiceException"), (LOGS, "InternalServerException"), (GATEWAY, "ServiceUnavailableException")],
    ids=lambda value: getattr(value, "service", str(value)),
)
def test_an_operation_that_is_not_built_is_named_in_the_services_own_fault(api: AwsApi, code: str) -> None:
    operation = sorted(api.operations)[0]
    response = api.fail(operation, api.not_built(operation), "r")
    assert response.status == 501, "which clients do not repeat"
    assert operation.encode() in response.body
    assert code in (header(response, "x-amzn-ErrorType"), json.loads(response.body).get("__type"))


class Unheard(DomainError):
    shape = "NobodyKnowsThisException"


def test_a_shape_or_a_fact_that_nobody_knows_is_a_bug_of_ours() -> None:
    with pytest.raises(UnknownErrorShape, match="NobodyKnowsThisException"):
        LAMBDA.fail("Invoke", Unheard("m"), "r")
    with pytest.raises(UnknownErrorShape, match="Colour"):
        LAMBDA.fail("Invoke", errors.ResourceNotFound("m", Colour="red"), "r")


def test_a_structure_that_is_no_exception_is_not_an_error_shape() -> None:
    class NotAnError(DomainError):
        shape = "FunctionConfiguration"

    with pytest.raises(UnknownErrorShape):
        LAMBDA.fail("Invoke", NotAnError("m"), "r")
