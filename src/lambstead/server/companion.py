"""The ASGI side of the companion: reads a request for a service that is not ours, whole, and sends the answer."""

from lambstead.companion.requests import ForeignRequest, Refusal
from lambstead.companion.services import MAX_BODY_BYTES, Companion
from lambstead.server.asgi import BodyTooLarge, Receive, Scope, Send, read_body
from lambstead.wire.gateway import HttpResponse


class CompanionPages:
    """See `server.aws.OtherServices`."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion

    async def __call__(self, scope: Scope, receive: Receive, send: Send, service: str, request_id: str) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, path, query = scope["method"], scope["raw_path"], scope["query_string"]
        request = ForeignRequest(service, method, path, query, headers, b"", request_id)
        try:
            body = await read_body(headers, receive, MAX_BODY_BYTES)
        except BodyTooLarge:
            refusal = Refusal(413, "EntityTooLarge", f"A request to the companion is at most {MAX_BODY_BYTES} bytes.")
            await _send(send, refusal.response(request), method)
            return
        request = ForeignRequest(service, method, path, query, headers, body, request_id)
        await _send(send, await self._companion.answer(request), method)


async def _send(send: Send, response: HttpResponse, method: str) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    # The answer to HEAD says how long the body of a GET would be, and has none.
    if method != "HEAD" and response.status not in (204, 304):
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})
