"""An answer of the ordinary way reaches its client in one piece: a kill of the server leaves the whole of it or nothing."""

import socket
from urllib.parse import urlsplit

from tests.harness import Server

LIST = b"GET /2015-03-31/functions HTTP/1.1\r\nHost: x\r\n\r\n"
END_OF_HEAD = b"\r\n\r\n"


def test_head_and_body_arrive_together(server: Server) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as connection:
        for _ in range(100):
            connection.sendall(LIST)
            # Written as one piece, so small an answer is also received as one.
            head, end, body = connection.recv(65536).partition(END_OF_HEAD)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert end == END_OF_HEAD
            assert body.endswith(b"}"), "the body comes with its head"


def test_answers_to_pipelined_requests_keep_their_order_and_a_closed_connection_has_its_answer(server: Server) -> None:
    parts = urlsplit(server.url)
    missing = b"GET /2015-03-31/functions/missing HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as connection:
        connection.sendall(LIST + missing + END_OF_HEAD[2:] + LIST + missing + b"Connection: close\r\n\r\n")
        received = b""
        while piece := connection.recv(65536):
            received += piece
    statuses = [each.split()[0] for each in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200", b"404"]
    assert received.endswith(b"}")
