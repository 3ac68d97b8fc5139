"""Posts JSON to HTTP addresses, with the standard library: one request per connection, no redirects, a limit on time."""

import asyncio
import http.client
import ssl
from urllib.parse import urlsplit

from lambstead.core.event_queue import DeliveryFailed

TIMEOUT_S = 10
"""Connecting, and each wait for the answer."""
MAX_ANSWER_BYTES = 64 * 1024


class HttpWebhooks:
    """See `control.durable.notices.Webhooks`."""

    async def post(self, url: str, body: bytes) -> None:
        await asyncio.to_thread(_post, url, body)


def _post(url: str, body: bytes) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", "User-Agent": "Lambstead"})
        answer = connection.getresponse()
        answer.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise DeliveryFailed(f"{url} does not answer: {exc}") from exc
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise DeliveryFailed(f"{url} answered {answer.status}")
