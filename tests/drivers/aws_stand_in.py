"""An HTTP server that stands where SQS, SNS, EventBridge and S3 would: keeps what AWS's client sends, answers in each protocol's form."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

PUBLISHED = (
    '<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>m</MessageId>'
    "</PublishResult></PublishResponse>"
)


@dataclass(frozen=True)
class Got:
    """One request: the operation, and its body as the protocol carries it."""

    operation: str
    body: Any  # Any: JSON, form fields or text
    path: str


@dataclass
class StandIn:
    url: str = ""
    got: list[Got] = field(default_factory=list)
    refuse: int = 0
    """So many requests are answered with a 500."""
    failed_entries: int = 0
    """What PutEvents says of its entries."""

    def answer(self, method: str, path: str, target: str, body: bytes) -> tuple[int, str]:
        if self.refuse:
            self.refuse -= 1
            return 500, "{}"
        operation = target.partition(".")[2]
        if operation == "GetQueueUrl":
            asked = json.loads(body)
            return 200, json.dumps({"QueueUrl": f"{self.url}/{asked['QueueOwnerAWSAccountId']}/{asked['QueueName']}"})
        if operation:
            self.got.append(Got(operation, json.loads(body), path))
            entry = {"ErrorCode": "Full", "ErrorMessage": "no room"} if self.failed_entries else {"EventId": "e"}
            return 200, json.dumps({"FailedEntryCount": self.failed_entries, "Entries": [entry], "MessageId": "m"})
        if method == "PUT":
            self.got.append(Got("PutObject", body.decode(), path))
            return 200, ""
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.got.append(Got(form["Action"], form, path))
        return 200, PUBLISHED


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """A running one."""
    service = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            if self.headers.get("content-encoding") == "aws-chunked" or "aws-chunked" in self.headers.get(
                "x-amz-content-sha256", ""
            ):
                raise AssertionError("the client sends chunks of its own")
            status, answer = service.answer(self.command, self.path, self.headers.get("x-amz-target", ""), body)
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        do_POST = do_PUT = _handle  # noqa: N815 - the names that the base class looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
