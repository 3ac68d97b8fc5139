"""The smallest ASGI app that does the same work: it answers every request with its body. Run by uvicorn with its defaults."""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:  # Any: ASGI's own types
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
