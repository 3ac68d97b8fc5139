"""A custom runtime that streams its answers with bare sockets, and the function in it: streaming.mjs in Python."""

import base64
import json
import os
import socket
import threading
import time

HOST, PORT = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
INVOCATION = "/2018-06-01/runtime/invocation"


def read_answer(file):
    status = int(file.readline().split()[1])
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, file.read(int(headers.get("content-length", 0)))


def wait_for(file):
    while file and not os.path.exists(file):
        time.sleep(0.005)


def parts(event):
    match event["do"]:
        case "wait":
            yield event["first"].encode()
            wait_for(event["file"])
            yield event["second"].encode()
        case "many":
            for n in range(event["count"]):
                yield b"%08d" % n + b"x" * (event["size"] - 8)
        case "report":
            for n in range(1, event["count"] + 1):
                yield b"x" * event["size"]
                with open(event["file"] + ".new", "w") as file:
                    file.write(str(n))
                os.replace(event["file"] + ".new", event["file"])
        case "break":
            yield event["first"].encode()
            wait_for(event.get("file"))
            raise RuntimeError
        case "exit":
            yield event["first"].encode()
            wait_for(event.get("file"))
            os._exit(1)


def respond(connection, request_id, event):
    connection.sendall(
        f"POST {INVOCATION}/{request_id}/response HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: text/plain\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n"
        "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n".encode()
    )
    trailers = ""
    try:
        for part in parts(event):
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    except RuntimeError:
        document = base64.b64encode(json.dumps({"errorType": "RangeError", "errorMessage": "broken off: 🧀"}).encode())
        trailers = (
            "Lambda-Runtime-Function-Error-Type: Function.Broken\r\n"
            f"Lambda-Runtime-Function-Error-Body: {document.decode()}\r\n"
        )
    connection.sendall(f"0\r\n{trailers}\r\n".encode())


def serve():
    connection = socket.create_connection((HOST, int(PORT)))
    file = connection.makefile("rb")
    while True:
        connection.sendall(f"GET {INVOCATION}/next HTTP/1.1\r\nHost: api\r\n\r\n".encode())
        status, headers, body = read_answer(file)
        if status != 200:
            return
        respond(connection, headers["lambda-runtime-aws-request-id"], json.loads(body))
        read_answer(file)


for _ in range(int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1"))):
    threading.Thread(target=serve).start()
