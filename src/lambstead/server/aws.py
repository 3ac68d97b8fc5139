"""The AWS side of the port: an ASGI application that matches, reads, dispatches and answers requests of the AWS APIs.

Every failure becomes an answer in AWS's form: domain errors as modelled, anything unexpected as the API's own server error, with the request id
that our log carries too. Bodies are read up to the limit of the operation that was matched, so an oversize upload is refused before it is in
memory.
"""

import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from lambstead.api.context import Call, Request, Response
from lambstead.core.errors import DomainError, ServiceFailure, UnknownOperation
from lambstead.server.asgi import BodyTooLarge, Receive, Scope, Send, TruncatedBody, read_body, send_parts, send_whole
from lambstead.wire.gateway import AwsApi, HttpResponse, Match, choose, signed_for

log = logging.getLogger(__name__)

Operation = Callable[[Request, Call], Awaitable[Response]]
"""An operation with its context."""


class OtherServices(Protocol):
    """Whoever answers for the services that are not ours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send, service: str, request_id: str) -> None: ...


class AwsGateway:
    """ASGI application for the AWS APIs that Lambstead serves itself."""

    def __init__(self, served: Mapping[AwsApi, Mapping[str, Operation]], others: OtherServices) -> None:
        """`others` answers what is signed for a service that is not among those `served`."""
        self._others = others
        self._served = served
        self._apis = list(served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = str(uuid.UUID(int=secrets.randbits(128), version=4))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            service = signed_for(scope["query_string"], headers)
            if service is not None and all(api.signing_name != service for api in self._apis):
                await self._others(scope, receive, send, service, request_id)
                return
            response = await self._answer(scope, headers, receive, request_id)
        except TruncatedBody:
            log.info("request-truncated", extra={"request_id": request_id, "path": scope["path"]})
            return
        if response.parts is None:
            await send_whole(send, response)
        else:
            await send_parts(receive, send, response, response.parts)

    async def _answer(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, request_id: str
    ) -> HttpResponse:
        method, path, query = scope["method"], scope["raw_path"], scope["query_string"]
        api = choose(self._apis, method, path, query, headers)
        if api is None:
            error = UnknownOperation(
                f"No API of Lambstead answers {method} {scope['path']}. "
                "It serves AWS Lambda here; see /_lambstead/health for the server itself."
            )
            return self._apis[0].fail(None, error, request_id)
        match: Match | None = None
        try:
            match = api.match(method, path, query, headers)
            body = await _read_body(api, match, headers, receive)
        except DomainError as error:
            return api.fail(match.operation if match else None, error, request_id)
        except TruncatedBody:
            raise
        except Exception:  # the boundary of a request: log what happened, answer as AWS does
            log.exception("request-failed", extra={"request_id": request_id, "operation": match and match.operation})
            return _broken(api, match.operation if match else None, request_id)
        return await self.answer(api, match, headers, body, request_id)

    async def answer(
        self, api: AwsApi, match: Match, headers: Mapping[str, str], body: bytes, request_id: str
    ) -> HttpResponse:
        """The answer to a request that was matched, and whose body is complete."""
        return await self._carry_out(api, match.operation, lambda: api.parse(match, headers, body), headers, request_id)

    async def carry_out(
        self,
        api: AwsApi,
        operation: str,
        request: Mapping[str, Any],  # Any: documents typed by the model
        headers: Mapping[str, str],
        request_id: str,
    ) -> HttpResponse:
        """The answer to a request that was read already."""
        return await self._carry_out(api, operation, lambda: request, headers, request_id)

    async def _carry_out(
        self, api: AwsApi, operation: str, read: Callable[[], Request], headers: Mapping[str, str], request_id: str
    ) -> HttpResponse:
        try:
            request = read()
            function = self._served[api].get(operation)
            if function is None:
                raise api.not_built(operation)
            result = await function(request, Call(request_id, headers))
            return api.respond(operation, result, request_id)
        except DomainError as error:
            return api.fail(operation, error, request_id)
        except Exception:  # the boundary of a request, as above
            log.exception("request-failed", extra={"request_id": request_id, "operation": operation})
            return _broken(api, operation, request_id)


def _broken(api: AwsApi, operation: str | None, request_id: str) -> HttpResponse:
    """The answer when something broke that should not."""
    failure = ServiceFailure(f"Lambstead failed to carry out the request; its log has the details of {request_id}.")
    return api.fail(operation, failure, request_id)


async def _read_body(api: AwsApi, match: Match, headers: Mapping[str, str], receive: Receive) -> bytes:
    try:
        return await read_body(headers, receive, api.facts(match.operation).max_body_bytes)
    except BodyTooLarge as exc:
        raise api.too_large(match.operation) from exc
