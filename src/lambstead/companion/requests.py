"""A request for a service that is not ours, and refusals in the form that its clients read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lambstead.wire.gateway import HttpResponse

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class ForeignRequest:
    """As it came, whole. `service` is the signing name; header names are lower case."""

    service: str
    method: str
    raw_path: bytes
    query_string: bytes
    headers: Mapping[str, str]
    body: bytes
    request_id: str

    @property
    def target(self) -> str:
        """Path and query, as in the request line."""
        query = "?" + self.query_string.decode("latin-1") if self.query_string else ""
        return self.raw_path.decode("latin-1") + query

    @property
    def is_form(self) -> bool:
        """True in the query protocols."""
        return self.headers.get("content-type", "").startswith(_FORM)


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """What is answered instead: AWS's code, a sentence, a status."""

    status: int
    code: str
    message: str

    def response(self, request: ForeignRequest) -> HttpResponse:
        """In the protocol that the request speaks."""
        code, message, request_id = escape(self.code), escape(self.message), escape(request.request_id)
        if request.service == "ec2":
            error = f"<Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            return self._xml(f"<Response>{error}<RequestID>{request_id}</RequestID></Response>", request)
        if request.service == "s3":
            return self._xml(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", request)
        if request.is_form:
            kind = "Receiver" if self.status >= 500 else "Sender"
            error = f"<Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            return self._xml(f"<ErrorResponse>{error}<RequestId>{request_id}</RequestId></ErrorResponse>", request)
        headers = [
            ("Content-Type", "application/json"),
            ("x-amzn-RequestId", request.request_id),
            ("x-amzn-ErrorType", self.code),
        ]
        body = json.dumps({"__type": self.code, "message": self.message}).encode()
        return HttpResponse(self.status, headers, b"" if request.method == "HEAD" else body)

    def _xml(self, text: str, request: ForeignRequest) -> HttpResponse:
        headers = [("Content-Type", "text/xml"), ("x-amzn-RequestId", request.request_id)]
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
        return HttpResponse(self.status, headers, b"" if request.method == "HEAD" else body)
