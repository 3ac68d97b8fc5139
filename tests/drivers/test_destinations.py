"""Messages to other services, as AWS's own client puts them on the wire."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.drivers.aws_stand_in import StandIn, stand_in

from lambstead.core.event_queue import DeadLetter, Delivery, DeliveryFailed
from lambstead.drivers.destinations import AwsDestinations

ACCOUNT = "us-east-1:000000000000"
QUEUE, TOPIC = f"arn:aws:sqs:{ACCOUNT}:q", f"arn:aws:sns:{ACCOUNT}:t"
BUS, BUCKET = f"arn:aws:events:{ACCOUNT}:event-bus/b", "arn:aws:s3:::records"
FUNCTION = f"arn:aws:lambda:{ACCOUNT}:function:f:$LATEST"
LETTER = DeadLetter('{"a": 1}', "id-1", "200", "went wrong")


@pytest.fixture
def elsewhere() -> Iterator[StandIn]:
    with stand_in() as service:
        yield service


def send(elsewhere: StandIn, target: str, *, letter: DeadLetter | None = None, is_success: bool = True) -> None:
    destinations = AwsDestinations(
        dict.fromkeys(("sqs", "sns", "events", "s3"), elsewhere.url), "us-east-1", "lambstead", "lambstead"
    )
    assert destinations.can_reach(target)
    at = datetime(2026, 11, 21, 10, 5, 6, tzinfo=UTC)
    body = letter.body if letter else '{"version":"1.0"}'
    asyncio.run(destinations.send(Delivery("id", "f", FUNCTION, target, body, is_success, at, letter)))


def test_a_queue_gets_the_record_as_its_body(elsewhere: StandIn) -> None:
    send(elsewhere, QUEUE)
    (got,) = elsewhere.got
    assert got.operation == "SendMessage"
    assert got.body["QueueUrl"] == f"{elsewhere.url}/000000000000/q"
    assert got.body["MessageBody"] == '{"version":"1.0"}'
    assert not got.body.get("MessageAttributes")


def test_a_dead_letter_queue_gets_the_event_and_three_attributes(elsewhere: StandIn) -> None:
    """Recorded: names and types."""
    send(elsewhere, QUEUE, letter=LETTER)
    (got,) = elsewhere.got
    assert got.body["MessageBody"] == '{"a": 1}'
    assert got.body["MessageAttributes"] == {
        "RequestID": {"DataType": "String", "StringValue": "id-1"},
        "ErrorCode": {"DataType": "Number", "StringValue": "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": "went wrong"},
    }


def test_a_topic_gets_records_and_dead_letters(elsewhere: StandIn) -> None:
    send(elsewhere, TOPIC)
    send(elsewhere, TOPIC, letter=LETTER)
    record, letter = elsewhere.got
    assert (record.operation, record.body["TopicArn"], record.body["Message"]) == (
        "Publish",
        TOPIC,
        '{"version":"1.0"}',
    )
    assert letter.body["Message"] == '{"a": 1}'
    assert letter.body["MessageAttributes.entry.1.Name"] == "RequestID"


@pytest.mark.parametrize(("is_success", "word"), [(True, "Success"), (False, "Failure")])
def test_a_bus_gets_an_event_of_lambda(elsewhere: StandIn, is_success: bool, word: str) -> None:
    """Recorded: source, detail type, resources."""
    send(elsewhere, BUS, is_success=is_success)
    (got,) = elsewhere.got
    assert got.operation == "PutEvents"
    assert got.body["Entries"] == [
        {
            "Source": "lambda",
            "DetailType": f"Lambda Function Invocation Result - {word}",
            "Resources": [BUS, FUNCTION],
            "EventBusName": BUS,
            "Detail": '{"version":"1.0"}',
        }
    ]


def test_a_bucket_gets_an_object_under_aws_s_key(elsewhere: StandIn) -> None:
    """Documentation: aws/lambda/async/<function>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<UUID>."""
    send(elsewhere, BUCKET, is_success=False)
    (got,) = elsewhere.got
    assert re.fullmatch(r"/records/aws/lambda/async/f/2026/11/21/2026-11-21T10\.05\.06-[0-9a-f-]{36}", got.path), (
        got.path
    )
    assert json.loads(got.body) == {"version": "1.0"}


def test_refusals_are_failures_that_say_why(elsewhere: StandIn) -> None:
    elsewhere.failed_entries = 1
    with pytest.raises(DeliveryFailed, match="Full: no room"):
        send(elsewhere, BUS)
    elsewhere.refuse = 1
    with pytest.raises(DeliveryFailed, match="500"):
        send(elsewhere, QUEUE)
    elsewhere.url = "http://127.0.0.1:1"
    with pytest.raises(DeliveryFailed, match="Could not connect"):
        send(elsewhere, TOPIC)


def test_nothing_is_reached_without_an_endpoint() -> None:
    destinations = AwsDestinations({"sqs": "http://127.0.0.1:1", "sns": ""}, "us-east-1", "a", "b")
    reached = {arn: destinations.can_reach(arn) for arn in (QUEUE, TOPIC, BUS, BUCKET, "kafka://topic", "")}
    assert reached == {QUEUE: True, TOPIC: False, BUS: False, BUCKET: False, "kafka://topic": False, "": False}
