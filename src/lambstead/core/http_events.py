"""HTTP requests as events, and what functions return as HTTP responses: payload format 2.0, as function URLs use it.

Sources: the format from AWS's Developer Guide, "Invoking Lambda function URLs"; header names, the decoded path, the joining of repeated query
parameters, base64 of forms, compact JSON in responses and the raw answer of a function that does not stream behind a streaming URL as recorded
from AWS by others (reference on the Lambda API, §8); the prelude of streams from AWS's interface client for Node.js.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"
"""Content type of a stream that begins with a prelude."""
SEPARATOR = b"\0" * 8
"""Between the prelude and the body."""
MAX_PRELUDE_BYTES = 256 * 1024
"""Beyond that no separator is looked for; AWS's limit is not documented."""

Headers = Sequence[tuple[str, str]]

_TEXT = re.compile(r"text/.*|application/(.*\+)?(json|xml)|application/javascript")
_REMAPPED = frozenset(
    {
        *("connection", "content-length", "date", "keep-alive", "proxy-authenticate", "te", "trailer"),
        *("transfer-encoding", "upgrade", "www-authenticate"),
    }
)
"""Headers of the connection rather than of the answer: AWS sends them as `x-amzn-remapped-…` when a function sets them."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAKS = re.compile(r"[\0\r\n]")


class MalformedAnswer(Exception):
    """What the function returned is no HTTP response; the message says why."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to a URL of ours."""

    method: str
    path: str
    """As it was sent, without the query."""
    query: str
    """As it was sent, without the question mark."""
    headers: Headers
    """Lower-case names, in the order in which they were sent."""
    body: bytes
    protocol: str
    source_ip: str

    def header(self, name: str) -> str | None:
        """The first header of this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Front:
    """What the front that took a request knows of it."""

    api_id: str
    domain: str
    """The host that the client asked, as it stands in the Host header."""
    port: int
    request_id: str
    trace_id: str
    now: datetime
    account: str | None = None
    """The account of a caller who signed the request; None for anybody."""
    access_key: str | None = None
    """The access key id of a caller who signed the request."""


def event_of(request: HttpRequest, front: Front) -> bytes:
    """The event, as JSON."""
    headers: dict[str, str] = {}
    for name, value in (*request.headers, *_forwarded(request, front)):
        if name not in ("cookie", "connection"):
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    path = re.sub(r"\A/{2,}", "/", request.path)  # recorded: one slash, however many were sent
    event: dict[str, Any] = {  # Any: JSON
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.query,
    }
    cookies = [c for name, value in request.headers if name == "cookie" for c in re.split(r"; *", value) if c]
    if cookies:
        event["cookies"] = cookies
    event["headers"] = headers
    query = _query_parameters(request.query)
    if query:
        event["queryStringParameters"] = query
    event["requestContext"] = _context(request, front, unquote(path))
    event |= _body(request)
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _forwarded(request: HttpRequest, front: Front) -> Headers:
    """The headers that AWS adds, but those about TLS, which is not spoken here."""
    given = {name for name, _ in request.headers}
    added = [
        ("x-amzn-trace-id", front.trace_id.partition(";")[0]),
        ("x-forwarded-for", request.source_ip),
        ("x-forwarded-port", str(front.port)),
        ("x-forwarded-proto", "http"),
    ]
    return [(name, value) for name, value in added if name not in given or name == "x-forwarded-for"]


def _query_parameters(query: str) -> Mapping[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _context(request: HttpRequest, front: Front, path: str) -> Mapping[str, Any]:  # Any: JSON
    context: dict[str, Any] = {
        "accountId": front.account or "anonymous",
        "apiId": front.api_id,
        "domainName": front.domain,
        "domainPrefix": front.api_id,
        "http": {
            "method": request.method,
            "path": path,
            "protocol": request.protocol,
            "sourceIp": request.source_ip,
            "userAgent": request.header("user-agent") or "",
        },
        "requestId": front.request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": f"{front.now.astimezone(UTC):%d/%b/%Y:%H:%M:%S +0000}",
        "timeEpoch": int(front.now.timestamp() * 1000),
    }
    if front.account is not None:
        # Whose key it is nobody can say without IAM: the account itself.
        identity = {"accessKey": front.access_key, "accountId": front.account, "callerId": front.account}
        identity |= {"cognitoIdentity": None, "principalOrgId": None}
        identity |= {"userArn": f"arn:aws:iam::{front.account}:root", "userId": front.account}
        context["authorizer"] = {"iam": identity}
    return context


def _body(request: HttpRequest) -> Mapping[str, Any]:  # Any: JSON
    if not request.body:
        return {"isBase64Encoded": False}
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if _TEXT.fullmatch(kind) and not request.header("content-encoding"):
        try:
            return {"body": request.body.decode(), "isBase64Encoded": False}
        except UnicodeDecodeError:
            pass
    return {"body": base64.b64encode(request.body).decode(), "isBase64Encoded": True}


# --- answers -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A response without what the connection adds."""

    status: int
    headers: Headers
    """Lower-case names."""
    body: bytes = b""


def answer_of(payload: bytes, content_type: str = "application/json") -> HttpAnswer:
    """The response that a function's whole result means. Raises MalformedAnswer.

    A document with `statusCode` says all of it; anything else is the body of a 200, a string without its quotes.
    """
    if content_type == HTTP_INTEGRATION:
        prelude, separator, body = payload.partition(SEPARATOR)
        if not separator:
            raise MalformedAnswer("the stream has a prelude by its content type, but no separator after it")
        head = prelude_answer(prelude)
        return HttpAnswer(head.status, head.headers, body)
    document = _parsed(payload)
    if not isinstance(document, dict) or "statusCode" not in document:
        text = document if isinstance(document, str) else _compact(document)
        return HttpAnswer(200, [("content-type", "application/json")], text.encode("utf-8", "replace"))
    return HttpAnswer(_status(document), _headers(document, "application/json"), _answer_body(document))


def prelude_answer(prelude: bytes) -> HttpAnswer:
    """Status and headers from the prelude of a stream. Raises MalformedAnswer."""
    document = _parsed(prelude)
    if not isinstance(document, dict):
        raise MalformedAnswer("the prelude is not a JSON object")
    return HttpAnswer(_status(document), _headers(document, "application/octet-stream"))


def _parsed(payload: bytes) -> Any:  # Any: JSON
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise MalformedAnswer(f"the result is not JSON ({exc})") from exc


def _compact(document: Any) -> str:  # Any: JSON
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _status(document: Mapping[str, Any]) -> int:
    given = document.get("statusCode", 200)
    text = str(given)
    if isinstance(given, bool) or not re.fullmatch(r"[1-9][0-9][0-9]", text) or int(text) < 200:
        raise MalformedAnswer(f"statusCode {_shown(given)} is not a number from 200 to 999")
    return int(text)


def _headers(document: Mapping[str, Any], default_type: str) -> Headers:
    given = document.get("headers")
    cookies = document.get("cookies")
    if not isinstance(given, dict | None) or not isinstance(cookies, list | None):
        raise MalformedAnswer("headers is not a map, or cookies is not a list")
    headers: list[tuple[str, str]] = []
    for name, value in (given or {}).items():
        if value is not None:
            lower = name.lower()
            headers.append((f"x-amzn-remapped-{lower}" if lower in _REMAPPED else lower, _text(value, name)))
    headers += [("set-cookie", _text(cookie, "cookies")) for cookie in cookies or []]
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or _BREAKS.search(value):
            raise MalformedAnswer(f"{_shown(name)} is not a header name, or its value has a line break")
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", default_type))
    return headers


def _text(value: object, name: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        # Header values are bytes to HTTP: UTF-8 goes through as it is.
        return str(value).encode("utf-8", "replace").decode("latin-1")
    raise MalformedAnswer(f"the value of {_shown(name)} is neither a string nor a number")


def _answer_body(document: Mapping[str, Any]) -> bytes:
    body = document.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        return _compact(body).encode("utf-8", "replace")
    if document.get("isBase64Encoded") is not True:
        return body.encode("utf-8", "replace")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedAnswer(f"isBase64Encoded is true, but body is not base64 ({exc})") from exc


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
