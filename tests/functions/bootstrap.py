"""A custom runtime in Python, with as many polls at once as the environment has slots, and the function of the runtime matrix in it."""

import http.client
import json
import os
import pathlib
import sys
import threading
import time
import traceback

PREFIX = "/2018-06-01/runtime"


def handle(event, request_id, headers):
    match event["do"]:
        case "echo":
            return event["value"]
        case "fail":
            raise ValueError(event["message"])
        case "variables":
            return dict(os.environ) | {"cwd": os.getcwd()}
        case "overstay":
            time.sleep(event["seconds"])
            return "late"
        case "meet":
            folder = pathlib.Path(event["folder"])
            (folder / f"in-{request_id}").touch()
            while not (folder / "open").exists():
                time.sleep(0.005)
            return request_id
        case "print":
            print(event["text"], flush=True)
        case "exit":
            os._exit(event["code"])
        case "context":
            return {"id": request_id, "arn": headers["Lambda-Runtime-Invoked-Function-Arn"]}


def serve():
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def call(method, path, document=None, **headers):
        body = None if document is None else json.dumps(document).encode()
        connection.request(method, PREFIX + path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()

    while True:
        answer, body = call("GET", "/invocation/next")
        if answer.status != 200:
            os._exit(1)
        request_id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        try:
            result = handle(json.loads(body), request_id, answer.headers)
        except Exception as exc:
            document = {
                "errorMessage": str(exc),
                "errorType": type(exc).__name__,
                "stackTrace": traceback.format_exc().splitlines(),
            }
            call(
                "POST",
                f"/invocation/{request_id}/error",
                document,
                **{"Lambda-Runtime-Function-Error-Type": "Function.Failed"},
            )
        else:
            call("POST", f"/invocation/{request_id}/response", result)


def main():
    if os.environ.get("BROKEN"):
        host = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
        document = json.dumps({"errorMessage": "no init today: 🧀", "errorType": "LookupError", "stackTrace": ["here"]})
        host.request(
            "POST", f"{PREFIX}/init/error", document.encode(), {"Lambda-Runtime-Function-Error-Type": "Runtime.Broken"}
        )
        host.getresponse().read()
        sys.exit(1)
    polls = [threading.Thread(target=serve) for _ in range(int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1")))]
    for poll in polls:
        poll.start()


main()
