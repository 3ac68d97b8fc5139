"""A custom runtime that answers every event with itself: as many polls at once as the environment has slots, a thread and a connection for each."""

import http.client
import os
import threading


def serve() -> None:
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        connection.request("GET", "/2018-06-01/runtime/invocation/next")
        invocation = connection.getresponse()
        event = invocation.read()
        request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
        connection.request("POST", f"/2018-06-01/runtime/invocation/{request_id}/response", event)
        connection.getresponse().read()


for _ in range(int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1"))):
    threading.Thread(target=serve).start()
