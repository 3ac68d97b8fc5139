"""Sends invocation records and dead letters to queues, topics, event buses and buckets of other services, through AWS's own client.

A service is reached only if an endpoint is configured for it; nothing is ever sent to AWS because of a default. Clients are made when first
needed, since importing botocore's machinery for a service takes longer than starting a server should.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from lambstead.core.event_queue import Delivery, DeliveryFailed

TIMEOUT_S = 10
"""Connecting, and reading an answer, each."""

Client = Any  # Any: botocore's clients are made at run time
SERVICES: Mapping[str, str] = {"sqs": "sqs", "sns": "sns", "events": "events", "s3": "s3"}
"""The service in an ARN, and botocore's name for it."""


class AwsDestinations:
    """See `control.event_invokes.Destinations`. `endpoints` are URLs by the service's name in ARNs; empty ones do not count."""

    def __init__(self, endpoints: Mapping[str, str], region: str, access_key_id: str, secret_access_key: str) -> None:
        self._endpoints = {service: url for service, url in endpoints.items() if url}
        self._region = region
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._clients: dict[str, Client] = {}

    def can_reach(self, arn: str) -> bool:
        return _service(arn) in self._endpoints

    async def send(self, delivery: Delivery) -> None:
        await asyncio.to_thread(self._send, delivery)

    def _send(self, delivery: Delivery) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        service = _service(delivery.target)
        try:
            _SENDERS[service](self._client(service), delivery)
        except (BotoCoreError, ClientError) as exc:
            raise DeliveryFailed(str(exc)) from exc

    def _client(self, service: str) -> Client:
        client = self._clients.get(service)
        if client is None:
            import botocore.config
            import botocore.session

            client = self._clients[service] = botocore.session.Session().create_client(
                SERVICES[service],
                region_name=self._region,
                endpoint_url=self._endpoints[service],
                aws_access_key_id=self._access_key_id,
                aws_secret_access_key=self._secret_access_key,
                config=botocore.config.Config(
                    connect_timeout=TIMEOUT_S,
                    read_timeout=TIMEOUT_S,
                    retries={"max_attempts": 0},  # the queue of deliveries tries again, and counts
                    s3={"addressing_style": "path"},
                ),
            )
        return client


def _service(arn: str) -> str:
    parts = arn.split(":")
    return parts[2] if len(parts) > 5 and parts[0] == "arn" else ""


def _to_queue(client: Client, delivery: Delivery) -> None:
    account, name = delivery.target.split(":")[4:6]
    url = client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody=delivery.body, MessageAttributes=_attributes(delivery))


def _to_topic(client: Client, delivery: Delivery) -> None:
    client.publish(TopicArn=delivery.target, Message=delivery.body, MessageAttributes=_attributes(delivery))


def _attributes(delivery: Delivery) -> dict[str, dict[str, str]]:
    """What a dead letter says beside the event (names and types as recorded); records have none."""
    letter = delivery.dead_letter
    if letter is None:
        return {name: {"DataType": "String", "StringValue": value} for name, value in delivery.attributes.items()}
    return {
        "RequestID": {"DataType": "String", "StringValue": letter.request_id},
        "ErrorCode": {"DataType": "Number", "StringValue": letter.error_code},
        "ErrorMessage": {"DataType": "String", "StringValue": letter.error_message},
    }


def _to_bus(client: Client, delivery: Delivery) -> None:
    result = "Success" if delivery.is_success else "Failure"
    answer = client.put_events(
        Entries=[
            {
                "Source": "lambda",
                "DetailType": f"Lambda Function Invocation Result - {result}",
                "Resources": [delivery.target, delivery.function_arn],
                "EventBusName": delivery.target,
                "Detail": delivery.body,
            }
        ]
    )
    if answer.get("FailedEntryCount"):
        entry = answer["Entries"][0]
        raise DeliveryFailed(f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}")


def _to_bucket(client: Client, delivery: Delivery) -> None:
    bucket = delivery.target.split(":")[5]
    client.put_object(
        Bucket=bucket,
        Key=object_key(delivery.function, delivery.accepted_at, uuid.uuid4()),
        Body=delivery.body.encode(),
    )


def object_key(function: str, at: datetime, unique: uuid.UUID) -> str:
    """The key of a failure's record in a bucket (Developer Guide, asynchronous invocation, Amazon S3 destinations)."""
    return f"aws/lambda/async/{function}/{at:%Y/%m/%d}/{at:%Y-%m-%dT%H.%M.%S}-{unique}"


_SENDERS: Mapping[str, Callable[[Client, Delivery], None]] = {
    "sqs": _to_queue,
    "sns": _to_topic,
    "events": _to_bus,
    "s3": _to_bucket,
}
