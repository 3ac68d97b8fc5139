"""A custom runtime that sends one large answer and ends at once, without waiting for anything."""

import os
import socket

NEWLINE = b"\r\n"

host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
api = socket.create_connection((host, int(port)))
api.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
head = b""
while NEWLINE + NEWLINE not in head:
    head += api.recv(65536)
headers = dict(line.lower().split(b": ", 1) for line in head.split(NEWLINE) if b": " in line)
path = b"/2018-06-01/runtime/invocation/%b/response" % headers[b"lambda-runtime-aws-request-id"]
body = b'"%b"' % (b"x" * 400_000)
api.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body))
os._exit(0)
