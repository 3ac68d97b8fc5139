"""Parity tables: conversations with the API, each step a request and what AWS answers to it, marked with where we know that from.

A conversation runs on functions of its own. In requests and answers `{F}` stands for the name of its function, `{A}` for the function's ARN,
`{G}` for the name of a second function, and `{name}` for what an earlier step kept.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from tests.harness import create_function, wait_active

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

REALM = "arn:aws:lambda:us-east-1:000000000000"
SOURCE = "def handler(event, context):\n    return event\n"


class Source(enum.Enum):
    """Where the truth of a step comes from."""

    MODEL = "the service model and its documentation strings"
    DOCUMENTATION = "AWS's developer guide or API reference"
    RECORDED = "answers of AWS recorded by others"
    OURS = "nothing is known of AWS: what we chose"


@dataclass(frozen=True)
class Like:
    """A volatile value, by its form."""

    pattern: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self.pattern, other) is not None

    def __hash__(self) -> int:
        return hash(self.pattern)


class Moment:
    """Any time stamp that botocore could read."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, datetime)

    def __hash__(self) -> int:
        return 0


UUID = Like(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STAMP = Like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+0000|Z)")


@dataclass(frozen=True)
class Answers:
    """A success: its status and every member of the answer; None says nothing of the members."""

    status: int
    members: Mapping[str, Any] | None = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)
    """Placeholder to the member that later steps find in it."""


@dataclass(frozen=True)
class Refuses:
    """A refusal: status, code, the whole text, and the member `Type` (None where AWS leaves it out)."""

    status: int
    code: str
    text: str
    type: str | None = "User"


@dataclass(frozen=True)
class Step:
    """One request and what is expected of it."""

    operation: str
    """Method of boto3's client."""
    request: Mapping[str, Any]
    expected: Answers | Refuses
    source: Source


def not_found(text: str, type: str | None = "User") -> Refuses:
    return Refuses(404, "ResourceNotFoundException", text, type)


def invalid(text: str, type: str | None = "User") -> Refuses:
    return Refuses(400, "InvalidParameterValueException", text, type)


def conflict(text: str) -> Refuses:
    return Refuses(409, "ResourceConflictException", text)


def constraint(value: str, path: str, constraint: str) -> Refuses:
    return Refuses(
        400,
        "ValidationException",
        f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: {constraint}",
        None,
    )


def converse(aws: "LambdaClient", function: str, steps: "list[Step]") -> None:
    """Deploy the conversation's functions and hold it."""
    other = f"{function}-other"
    for name in (function, other):
        create_function(aws, name, SOURCE)
        wait_active(aws, name, "$LATEST")
    hold(aws, steps, {"F": function, "A": f"{REALM}:function:{function}", "G": other})


def hold(client: Any, steps: "list[Step]", known: dict[str, str]) -> None:  # Any: boto3's client of any service
    """Hold a conversation with these placeholders."""
    for number, step in enumerate(steps):
        _take(client, step, known, f"step {number}, {step.operation} {str(step.request)[:200]}")


def _take(client: Any, step: Step, known: dict[str, str], where: str) -> None:
    try:
        response = getattr(client, step.operation)(**_filled(step.request, known))
    except ClientError as error:
        _compare_refusal(error, step, known, where)
        return
    assert isinstance(step.expected, Answers), f"{where}: not refused, but answered {response}"
    status = response.pop("ResponseMetadata")["HTTPStatusCode"]
    assert status == step.expected.status, where
    if step.expected.members is not None:
        assert response == _filled(step.expected.members, known), where
    known.update({name: response[member] for name, member in step.expected.keep.items()})


def _compare_refusal(error: ClientError, step: Step, known: Mapping[str, str], where: str) -> None:
    response: Any = error.response
    assert isinstance(step.expected, Refuses), f"{where}: refused with {response}"
    seen = Refuses(
        response["ResponseMetadata"]["HTTPStatusCode"],
        response["Error"]["Code"],
        response["Error"]["Message"],
        response.get("Type"),
    )
    assert seen == _filled(step.expected, known), where


def _filled(value: Any, known: Mapping[str, str]) -> Any:  # Any: requests and answers of the API
    match value:
        case str():
            for name, text in known.items():
                value = value.replace("{" + name + "}", text)
            return value
        case Mapping():
            return {_filled(key, known): _filled(item, known) for key, item in value.items()}
        case list():
            return [_filled(item, known) for item in value]
        case Refuses():
            return Refuses(value.status, value.code, _filled(value.text, known), value.type)
        case _:
            return value
