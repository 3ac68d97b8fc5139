"""Asynchronous invokes: what AWS answers to the caller. What becomes of the event is tested in tests/control and tests/flows."""

from typing import TYPE_CHECKING

import pytest
from tests.harness import create_function, create_provider, on_provider, wait_active, wait_for
from tests.parity.steps import Answers, Refuses, Source, Step, converse, invalid, not_found

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS
EVENT = {"FunctionName": "{F}", "InvocationType": "Event"}
PAYLOAD_ERROR = "Could not parse request body into json: Could not parse payload into json: "

STEPS = [
    # The payload of the answer is empty: tests/flows reads it.
    Step("invoke", EVENT, Answers(202, None), RECORDED),
    Step("invoke", {**EVENT, "Payload": b'{"a": 1}'}, Answers(202, None), RECORDED),
    Step("invoke", {**EVENT, "Qualifier": "$LATEST"}, Answers(202, None), MODEL),
    Step("invoke", {**EVENT, "LogType": "Tail"}, Answers(202, None), DOCUMENTATION),
    Step("invoke_async", {"FunctionName": "{F}", "InvokeArgs": b"{}"}, Answers(202, {"Status": 202}), MODEL),
    Step(
        "invoke",
        {**EVENT, "FunctionName": "nobody"},
        not_found("Function not found: arn:aws:lambda:us-east-1:000000000000:function:nobody:$LATEST"),
        RECORDED,
    ),
    Step("invoke", {**EVENT, "Qualifier": "7"}, not_found("Function not found: {A}:7"), RECORDED),
    Step(
        "invoke_async",
        {"FunctionName": "nobody", "InvokeArgs": b"{}"},
        not_found("Function not found: arn:aws:lambda:us-east-1:000000000000:function:nobody:$LATEST"),
        OURS,
    ),
    Step(
        "invoke",
        {**EVENT, "Payload": b'"' + b"x" * 1_048_576 + b'"'},
        # The text as in users' reports of the older limits of 128 and 256 KB.
        Refuses(
            413,
            "RequestEntityTooLargeException",
            "1048578 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
            None,
        ),
        DOCUMENTATION,
    ),
    Step("invoke", {**EVENT, "Payload": b'"' + b"x" * 1_048_574 + b'"'}, Answers(202, None), DOCUMENTATION),
]


def test_asynchronous_invokes_are_answered_as_aws_does(aws: "LambdaClient") -> None:
    converse(aws, "events", STEPS)


@pytest.mark.parametrize("payload", [b"{", b"\x87", b"[1,]", b"nothing"])
def test_a_payload_that_is_not_json_is_refused_with_aws_s_prefix(aws: "LambdaClient", payload: bytes) -> None:
    """Recorded; what follows the prefix is the message of AWS's own JSON parser."""
    create_function(aws, f"no-json-{payload.hex()}", "def handler(e, c):\n    return 1\n")
    wait_active(aws, f"no-json-{payload.hex()}", "$LATEST")
    with pytest.raises(aws.exceptions.InvalidRequestContentException) as caught:
        aws.invoke(FunctionName=f"no-json-{payload.hex()}", InvocationType="Event", Payload=payload)
    assert caught.value.response["Error"]["Message"].startswith(PAYLOAD_ERROR)


MANAGED = [
    Step(
        "invoke",
        {**EVENT, "FunctionName": "unpublished"},
        Refuses(
            400,
            "NoPublishedVersionException",
            "The function can't be invoked because no published version exists. For functions with capacity provider "
            "configuration, either publish a version to $LATEST.PUBLISHED, or specify a published version qualifier.",
        ),
        RECORDED,
    ),
    Step(
        "publish_version", {"FunctionName": "unpublished", "PublishTo": "LATEST_PUBLISHED"}, Answers(201, None), MODEL
    ),
    Step(
        "invoke",
        {**EVENT, "FunctionName": "unpublished", "Qualifier": "$LATEST"},
        invalid(
            "Functions configured with capacity provider configuration can't be invoked with $LATEST qualifier. "
            "To invoke this function, specify a published version qualifier or $LATEST.PUBLISHED."
        ),
        RECORDED,
    ),
]


def test_managed_functions_refuse_events_as_they_refuse_calls(aws: "LambdaClient") -> None:
    provider = create_provider(aws, "events-pool")
    create_function(aws, "unpublished", "def handler(e, c):\n    return 1\n", **on_provider(provider))
    wait_for(
        lambda: aws.get_function_configuration(FunctionName="unpublished")["State"] == "ActiveNonInvocable",
        "the function is there",
    )
    converse(aws, "events-managed", MANAGED)
