"""What is wrong with an answer: read as botocore reads it, and held against the model member by member, which botocore does not do."""

import json
from collections.abc import Iterator
from typing import Any

from botocore.eventstream import EventStreamBuffer
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from tests.wire.strategies import received

from lambstead.wire.gateway import AwsApi, HttpResponse

UNMODELLED = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "SerializationException": 400,
    "RequestEntityTooLargeException": 413,
    "UnknownOperationException": 404,
}
"""Codes that AWS answers without modelling them, and their status. The last is for paths and methods that belong to no operation."""

BEYOND_THE_MODEL = {("LastUpdateStatusReasonCode", "Creating"), ("LastUpdateStatusReasonCode", "Updating")}
"""Values of enums that AWS answers without modelling them: recorded of updates. `Updating` is ours, by analogy."""
EMPTY_WITHOUT_A_CONFIG = "GetFunctionCodeSigningConfig"
"""Recorded: 200 without members where no config is set, although the model requires them."""

JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float, str),  # NaN and the infinities travel by name
    "double": (int, float, str),
    "boolean": bool,
    "timestamp": (int, float, str),
    "blob": str,
}


def code_of(response: HttpResponse) -> str | None:
    """The error code of an answer; None for a success."""
    headers = {name.lower(): value for name, value in response.headers}
    return headers.get("x-amzn-errortype") if response.status >= 400 else None


def faults(api: AwsApi, operation: OperationModel, response: HttpResponse) -> Iterator[str]:
    """Everything about the answer that the model of the operation does not allow."""
    if response.status >= 400:
        yield from _faults_of_error(api, operation, response)
    else:
        yield from _faults_of_success(operation, response)


def _faults_of_error(api: AwsApi, operation: OperationModel, response: HttpResponse) -> Iterator[str]:
    code = code_of(response)
    listed = {shape.name: shape for shape in operation.error_shapes}
    parsed = received(operation, response, operation.output_shape, stream=False)
    if parsed["Error"]["Code"] != code or not code:
        yield f"botocore reads the code {parsed['Error']['Code']!r}, the header says {code!r}"
        return
    if not parsed["Error"]["Message"] and code != "AccessDeniedException":
        yield f"{code} without a message"
    if code in listed:
        shape = listed[code]
        status = shape.metadata.get("error", {}).get("httpStatusCode", 500 if api.model.is_fault(code) else 400)
        yield from _faults_of_document(json.loads(response.body), shape, code)
    elif code in UNMODELLED:
        status = UNMODELLED[code]
    else:
        yield f"{code} is no error of {operation.name}: {parsed['Error']['Message']}"
        return
    if response.status != status:
        yield f"{code} with status {response.status} instead of {status}"
    if response.status >= 500:
        yield f"{response.status}: {parsed['Error']['Message']}"


def _faults_of_success(operation: OperationModel, response: HttpResponse) -> Iterator[str]:
    shape = operation.output_shape
    members = dict(shape.members) if shape else {}
    statuses = [name for name, member in members.items() if member.serialization.get("location") == "statusCode"]
    if not statuses and response.status != operation.http.get("responseCode", 200):
        yield f"status {response.status} instead of {operation.http.get('responseCode', 200)}"
    if shape is not None and shape.event_stream_name is not None and response.status != 204:
        buffer = EventStreamBuffer()
        buffer.add_data(response.body)
        names = [str(event.headers.get(":event-type")) for event in buffer]
        if not names or names[-1] != "InvokeComplete":
            yield f"the event stream ends with {names[-1:]}"
        return
    received(operation, response, shape, stream=operation.has_streaming_output)
    payload = shape.serialization.get("payload") if shape else None
    if payload is not None and not isinstance(members[payload], StructureShape):
        return
    if response.status == 204 or not (members.keys() - set(statuses)):
        if response.body not in (b"", b"{}"):
            yield f"a body where there is none: {response.body[:100]!r}"
        return
    if operation.name == EMPTY_WITHOUT_A_CONFIG and response.body == b"{}":
        return
    assert shape is not None
    yield from _faults_of_document(json.loads(response.body), members[payload] if payload else shape, operation.name)


def _faults_of_document(document: Any, shape: Shape, place: str) -> Iterator[str]:
    """Members that the shape does not have or lacks, values of another type, and enum values that no client knows."""
    match shape:
        case StructureShape():
            if not isinstance(document, dict):
                yield f"{place} is no object"
                return
            members = {
                member.serialization.get("name", name): (name, member)
                for name, member in shape.members.items()
                if "location" not in member.serialization
            }
            yield from (f"{place} has {name}, which is not in {shape.name}" for name in document.keys() - members)
            required = {wire for wire, (name, _) in members.items() if name in shape.required_members}
            yield from (f"{place} lacks {name}" for name in required - document.keys())
            for wire, (_, member) in members.items():
                if wire in document:
                    yield from _faults_of_document(document[wire], member, f"{place}.{wire}")
        case ListShape() | MapShape():
            kind = list if isinstance(shape, ListShape) else dict
            if not isinstance(document, kind):
                yield f"{place} is no {kind.__name__}"
                return
            inner = shape.member if isinstance(shape, ListShape) else shape.value
            for item in document.values() if isinstance(document, dict) else document:
                yield from _faults_of_document(item, inner, f"{place}[]")
        case _:
            wanted = JSON_TYPES[shape.type_name]
            if not isinstance(document, wanted) or (isinstance(document, bool) and shape.type_name != "boolean"):
                yield f"{place} is {document!r}, not of type {shape.type_name}"
            elif (
                document not in shape.metadata.get("enum", [document])
                and (shape.name, document) not in BEYOND_THE_MODEL
            ):
                yield f"{place} is {document!r}, not in {shape.metadata['enum']}"
