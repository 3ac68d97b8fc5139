"""One connection that is kept open: requests as bytes, without what AWS's client does around them. A control call costs about 2 ms."""

import http.client
from types import TracebackType
from urllib.parse import urlsplit

from lambstead.wire.gateway import HttpResponse


class RawClient:
    """Sends requests to a server one after the other; a connection that the server closed is opened again."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(self, method: str, path: bytes, query: bytes, headers: dict[str, str], body: bytes) -> HttpResponse:
        """The whole answer; a body that comes in chunks is put together."""
        target = path.decode() + (f"?{query.decode()}" if query else "")
        headers = {name: value for name, value in headers.items() if name != "content-length"}
        self._connection.request(method, target, body, headers)
        answer = self._connection.getresponse()
        return HttpResponse(answer.status, answer.getheaders(), answer.read())
