"""Plain HTTP to a running server: its own pages under `/_lambstead/` and the AWS APIs.

The commands are thin clients, so one connection per command and the standard library are enough. What the server refuses,
and a server that does not answer, become CommandFailed with the server's own sentence.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from lambstead.cli.failures import CommandFailed
from lambstead.cli.running_server import RunningServer

CONNECT_SECONDS = 5.0
READ_SECONDS = 930.0
"""A synchronous invocation may take 15 minutes."""
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP response. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        """What the server says, for people: the message of an error document, or the text itself."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return self.body.decode("utf-8", "replace").strip()
        if isinstance(document, dict):
            return str(document.get("message") or document.get("Message") or document.get("error") or document)
        return str(document)


def fetch_json(server: RunningServer, path: str, method: str = "GET") -> Any:  # JSON: each command knows its document
    """The JSON document at a path of the server. Raises CommandFailed for any status from 400 up."""
    answer = exchange(server, method, path)
    if answer.status >= 400:
        raise refused(server, answer)
    try:
        return json.loads(answer.body)
    except ValueError as exc:
        raise CommandFailed(
            f"{server.url}{path} did not answer with JSON.", "Is another program on this port?"
        ) from exc


def exchange(
    server: RunningServer, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request and read the whole response. Raises CommandFailed if the server cannot be reached."""
    connection = _connect(server)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    except (OSError, http.client.HTTPException) as exc:
        raise _silent(server, exc) from exc
    finally:
        connection.close()


def signed_headers(server: RunningServer, access_key_id: str, service: str) -> dict[str, str]:
    """The headers by which the server sees which AWS service a request is for. Their form is enough: it accepts any credentials."""
    now = datetime.now(UTC)
    scope = f"{access_key_id}/{now:%Y%m%d}/{server.region}/{service}/aws4_request"
    return {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
        "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
    }


def stream(server: RunningServer, path: str) -> Iterator[bytes]:
    """The body at a path, piece by piece as it comes, until the server ends it. Raises CommandFailed as `fetch_json`."""
    connection = _connect(server)
    try:
        connection.request("GET", path)
        if connection.sock is not None:
            connection.sock.settimeout(None)  # following a quiet function may take hours
        response = connection.getresponse()
        if response.status >= 400:
            raise refused(server, Answer(response.status, {}, response.read()))
        while piece := response.read1(CHUNK_BYTES):
            yield piece
    except (OSError, http.client.HTTPException) as exc:
        raise _silent(server, exc) from exc
    finally:
        connection.close()


def with_query(path: str, parameters: Mapping[str, str | int | None]) -> str:
    """The path with those parameters that have a value."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def refused(server: RunningServer, answer: Answer) -> CommandFailed:
    """The failure that reports an error status."""
    return CommandFailed(f"The server at {server.url} refused ({answer.status}): {answer.sentence}")


def _connect(server: RunningServer) -> http.client.HTTPConnection:
    """A connection with a short limit on connecting and a long one on the answer."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
    except OSError as exc:
        raise _silent(server, exc) from exc
    connection.sock.settimeout(READ_SECONDS)
    return connection


def _silent(server: RunningServer, exc: Exception) -> CommandFailed:
    return CommandFailed(
        f"The server at {server.url} (process {server.pid}) does not answer: {str(exc) or type(exc).__name__}.",
        "It may be starting or stopping; try again, or stop it with: lambstead down",
    )
