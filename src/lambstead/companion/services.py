"""Services of AWS that are not ours, behind the same port: which of Moto, another endpoint or a refusal answers.

The service is the one that the request is signed for. What is ours never goes anywhere else, nor does CloudFormation: Moto's would create functions in a Lambda of its own.
"""

import asyncio
import http.client
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from lambstead.companion.ec2 import ManagedEc2
from lambstead.companion.requests import ForeignRequest, Refusal
from lambstead.core.managed_ec2 import ManagedInstance
from lambstead.wire.gateway import HttpResponse

log = logging.getLogger(__name__)

OURS = frozenset({"lambda", "logs", "scheduler", "cloudformation"})
"""Never answered by others, whether we answer them already or not."""
MAX_BODY_BYTES = 256 * 1024 * 1024
"""Of a request for another service: an object for S3 at most, which is held in memory."""
TIMEOUT_S = 60
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length", "expect", "host"}
)


class Services(Protocol):
    """What stands in for AWS: Moto."""

    async def answer(self, request: ForeignRequest) -> HttpResponse: ...
    def close(self) -> None: ...


class Companion:
    """See the module."""

    def __init__(
        self,
        moto: Services | None,
        why_not: str,
        endpoints: Mapping[str, str],
        instances: Callable[[], Awaitable[list[ManagedInstance]]],
        account_id: str,
    ) -> None:
        """`moto` is None where it is off or not installed, `why_not` says so; `endpoints` are real ones by signing name."""
        self._moto = moto
        self._why_not = why_not
        self._endpoints = endpoints
        self._ec2 = ManagedEc2(self._elsewhere, instances, account_id)
        self._asked: set[str] = set()

    def serves(self, service: str) -> bool:
        """True if somebody would answer requests for the service."""
        return service not in OURS and (self._moto is not None or service in self._endpoints)

    @property
    def may_have_subnets(self) -> bool:
        """False while nobody can have made any, or heard of any: asking for them would only load what stands in for EC2, which takes seconds."""
        return "ec2" in self._endpoints or not self._asked.isdisjoint(("ec2", "cloudformation"))

    async def answer(self, request: ForeignRequest) -> HttpResponse:
        """Never raises."""
        self._asked.add(request.service)
        try:
            if request.service in OURS:
                raise Refusal(501, "NotImplemented", f"Lambstead does not answer {request.service} yet.")
            if request.service == "ec2" and request.is_form:
                return await self._ec2.answer(request)
            return await self._elsewhere(request)
        except Refusal as refusal:
            return refusal.response(request)
        except Exception:  # the boundary of a request: Moto raises what it likes
            log.exception("companion-failed", extra={"request_id": request.request_id, "service": request.service})
            broken = (
                f"The companion's {request.service} broke; the server's log has the details of {request.request_id}."
            )
            return Refusal(500, "InternalFailure", broken).response(request)

    def close(self) -> None:
        if self._moto is not None:
            self._moto.close()

    async def _elsewhere(self, request: ForeignRequest) -> HttpResponse:
        endpoint = self._endpoints.get(request.service)
        if endpoint is not None:
            return await asyncio.to_thread(_forward, endpoint, request)
        if self._moto is None:
            raise Refusal(501, "NotImplemented", f"No {request.service} is served here: {self._why_not}")
        return await self._moto.answer(request)


def _forward(endpoint: str, request: ForeignRequest) -> HttpResponse:
    """The answer of another endpoint. The signature is passed on as it is; it names our host."""
    parts = urlsplit(endpoint)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        connection.request(request.method, request.target, request.body, headers)
        answer = connection.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP - {"host"}]
        return HttpResponse(answer.status, kept, answer.read())
    except (OSError, http.client.HTTPException) as exc:
        raise Refusal(
            503, "ServiceUnavailable", f"{endpoint}, where {request.service} is said to be, does not answer: {exc}."
        ) from exc
    finally:
        connection.close()
