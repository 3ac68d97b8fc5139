"""Domain errors on the wire: status, member spelling and headers from the service model.

A `DomainError` names its shape; everything else is looked up, first in the service's model, then in the overlay of errors that AWS
answers without modelling them. Faults of ours (`ServiceException`) take the name that the service has for them. A shape that none of
them knows is a mistake in our code and raises UnknownErrorShape: a made-up code would mislead clients for years.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from botocore.model import StructureShape

from lambstead.core.errors import DomainError
from lambstead.wire import json_protocols, json_values, models, overlay
from lambstead.wire.json_protocols import Headers, TextWriter


class UnknownErrorShape(LookupError):
    """The error names a shape, or a fact names a member, that neither the service's model nor the overlay has."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How errors of one shape are written."""

    code: str
    status: int
    message_member: str
    type: str | None
    """`User` or `Service` where the shape has a member `Type`."""
    members: Mapping[str, str] | None
    """Member to wire name; None if the shape is unmodelled and takes every fact."""
    headers: Mapping[str, tuple[str, TextWriter]]


class ErrorWriter:
    """Writes the errors of one service."""

    def __init__(self, model: models.Model) -> None:
        self._service = str(model.service_name)
        self._is_json_rpc = models.protocol(model) == "json"
        self._content_type = (
            f"application/x-amz-json-{model.metadata['jsonVersion']}" if self._is_json_rpc else "application/json"
        )
        self._model = model
        self._shapes = frozenset(model.shape_names)
        self._forms: dict[str, _Form] = {}

    def write(self, error: DomainError) -> tuple[int, Headers, bytes]:
        """Status, headers and body of an error. Raises UnknownErrorShape."""
        form = self._forms.get(error.shape) or self._forms.setdefault(error.shape, self._form(error.shape))
        headers: Headers = [] if self._is_json_rpc else [("x-amzn-ErrorType", form.code)]
        document: dict[str, Any] = {"__type": form.code} if self._is_json_rpc else {}
        # A fact `Type` None says that AWS leaves the member out of this answer, although the shape has it.
        if form.type is not None and error.facts.get("Type", form.type) is not None:
            document["Type"] = form.type
        document[form.message_member] = error.message
        for name, fact in error.facts.items():
            if fact is None:
                continue
            if (header := form.headers.get(name)) is not None:
                headers.append((header[0], json_protocols.header_text(header[1](fact))))
            else:
                document[_member(form, name, error.shape)] = fact
        headers.append(("Content-Type", self._content_type))
        status = overlay.STATUS_OF_OURS.get(type(error), form.status)
        return status, headers, json_values.dump(document)

    def _form(self, shape: str) -> _Form:
        for name in overlay.FAULTS.get(shape, (shape,)):
            found = self._model.shape_for(name) if name in self._shapes else None
            if isinstance(found, StructureShape) and found.metadata.get("exception"):
                return _modelled(found, fault=self._model.is_fault(name))
        for name in (shape, *overlay.FAULTS.get(shape, ())):
            if (unmodelled := overlay.UNMODELLED.get(name)) is not None:
                status = overlay.STATUS_IN_JSON.get(name, unmodelled.status) if self._is_json_rpc else unmodelled.status
                return _Form(name, status, unmodelled.message_member, None, None, {})
        raise UnknownErrorShape(f"{self._service} has no error {shape}, and neither has the overlay")


def _modelled(shape: StructureShape, *, fault: bool) -> _Form:
    error = shape.metadata.get("error", {})
    status = int(error.get("httpStatusCode", HTTPStatus.INTERNAL_SERVER_ERROR if fault else HTTPStatus.BAD_REQUEST))
    located = {name: member.serialization.get("location") for name, member in shape.members.items()}
    return _Form(
        code=str(error.get("code", shape.name)),
        status=status,
        message_member=_message_member(shape.members),
        type=("Service" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "User") if "Type" in shape.members else None,
        members={
            name: str(member.serialization.get("name", name))
            for name, member in shape.members.items()
            if located[name] is None
        },
        headers={
            name: (str(member.serialization.get("name", name)), json_protocols.header_writer(member))
            for name, member in shape.members.items()
            if located[name] == "header"
        },
    )


def _message_member(members: Iterable[str]) -> str:
    """`Message` or `message`, as the shape spells it; shapes without one (CloudWatch Logs) are answered with `message`."""
    return next((name for name in members if name.lower() == "message"), "message")


def _member(form: _Form, fact: str, shape: str) -> str:
    if form.members is None:
        return fact
    try:
        return form.members[fact]
    except KeyError as exc:
        raise UnknownErrorShape(f"{shape} has no member {fact}") from exc
