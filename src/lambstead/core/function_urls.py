"""Function URLs: the HTTP endpoint of a function or of one of its aliases, who may use it, and what browsers are told (CORS).

Sources: Developer Guide, "Control access to Lambda function URLs" (both permissions since October 2025) and "Creating and managing function URLs"
(CORS); refusals as recorded from AWS by others (reference on the Lambda API, §8).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambstead.core.policies import ResourcePolicy

BUFFERED = "BUFFERED"
RESPONSE_STREAM = "RESPONSE_STREAM"
AWS_IAM = "AWS_IAM"

_CREDENTIAL = re.compile(r"(?P<key>[\w]{1,128})/\d{8}/[a-z0-9-]+/lambda/aws4_request")
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<credential>[^ ,]+), *SignedHeaders=[a-z0-9;-]+, *Signature=[0-9a-f]{64}"
)


@dataclass(frozen=True, slots=True)
class FunctionUrl:
    """The URL config of one qualifier."""

    function: str
    qualifier: str
    """An alias; empty for the unqualified function."""
    url_id: str
    """First label of the URL's host; never given out twice."""
    auth_type: str
    created: str
    modified: str
    invoke_mode: str | None = None
    """None until a caller names one, which means BUFFERED; AWS shows the difference in the answers of create and update."""
    cors: Mapping[str, Any] | None = None  # Any: the Cors document of the API

    @property
    def effective_invoke_mode(self) -> str:
        return self.invoke_mode or BUFFERED


def address(url_id: str, region: str, port: int) -> str:
    """The host of a URL, with its port. Names below `localhost` mean the loopback address (RFC 6761), which has no names below it itself."""
    return f"{url_id}.lambda-url.{region}.localhost:{port}"


def url_id_of(host: str, region: str) -> str | None:
    """The id in a host of the form `<url-id>.lambda-url.<region>.<anything>`; None for any other host."""
    url_id, marker, rest = host.lower().partition(".lambda-url.")
    return url_id if marker and rest.partition(".")[0] == region and url_id else None


# --- who may ---------------------------------------------------------------------------------------------------------------------


def signing_key(authorization: str | None, query: Mapping[str, str]) -> str | None:
    """The access key id of a request that is signed (Signature Version 4, service `lambda`), in its header or its query; None if it is not.

    Whether the signature is right is not examined: any credentials are accepted here.
    """
    header = _SIGNED.fullmatch(authorization or "")
    if header is not None:
        credential = header["credential"]
    elif query.get("X-Amz-Algorithm") == "AWS4-HMAC-SHA256" and re.fullmatch(
        r"[0-9a-f]{64}", query.get("X-Amz-Signature", "")
    ):
        credential = query.get("X-Amz-Credential", "")
    else:
        return None
    found = _CREDENTIAL.fullmatch(credential)
    return found["key"] if found else None


def may_invoke(url: FunctionUrl, policy: ResourcePolicy | None, caller: str | None, *, needs_both: bool) -> bool:
    """Whether the caller may use the URL; `caller` is the ARN of one who signed the request, None for anybody.

    Anybody needs `lambda:InvokeFunctionUrl` from the policy of the URL's qualifier and, if `needs_both`, `lambda:InvokeFunction` too. Who signed belongs to
    the account here and has both from it; the policy can only deny them.
    """
    keys = {"lambda:FunctionUrlAuthType": url.auth_type, "lambda:InvokedViaFunctionUrl": "true"}
    actions = ["lambda:InvokeFunctionUrl", *(["lambda:InvokeFunction"] if needs_both else [])]
    if policy is not None and any(policy.denies(action, keys, caller) for action in actions):
        return False
    if url.auth_type == AWS_IAM:
        return caller is not None
    return policy is not None and all(policy.allows_anybody(action, keys) for action in actions)


# --- cross-origin requests -------------------------------------------------------------------------------------------------------

Headers = Sequence[tuple[str, str]]


def is_preflight(method: str, origin: str | None, requested_method: str | None) -> bool:
    """Whether a browser asks what it may ask; answered without the function, and without a permission, where CORS is configured."""
    return method == "OPTIONS" and origin is not None and requested_method is not None


def preflight_headers(cors: Mapping[str, Any], origin: str, requested_method: str) -> Headers:
    """What the browser may send; nothing for an origin or a method that is not allowed."""
    headers = [*_origin_headers(cors, origin)]
    methods = [str(method).upper() for method in cors.get("AllowMethods") or []]
    if len(headers) < 2 or not ({"*", requested_method.upper()} & set(methods)):
        return [("vary", "Origin")]
    headers.append(("access-control-allow-methods", ",".join(methods)))
    if allowed := cors.get("AllowHeaders"):
        headers.append(("access-control-allow-headers", ",".join(allowed)))
    if (age := cors.get("MaxAge")) is not None:
        headers.append(("access-control-max-age", str(age)))
    return headers


def answer_headers(cors: Mapping[str, Any], origin: str | None, given: Headers) -> Headers:
    """The headers of an answer with those of the configuration, which replace the function's own of the same kind."""
    kept = [(name, value) for name, value in given if not name.startswith("access-control-")]
    if origin is None:
        return kept
    added = [*_origin_headers(cors, origin)]
    if len(added) > 1 and (exposed := cors.get("ExposeHeaders")):
        added.append(("access-control-expose-headers", ",".join(exposed)))
    return [*kept, *added]


def _origin_headers(cors: Mapping[str, Any], origin: str) -> Headers:
    """Whether scripts of this origin may read; only `Vary` if they may not."""
    allowed = [str(each).lower() for each in cors.get("AllowOrigins") or []]
    with_credentials = cors.get("AllowCredentials") is True
    vary = ("vary", "Origin")
    if origin.lower() in allowed or ("*" in allowed and with_credentials):
        shown = origin
    elif "*" in allowed:
        shown = "*"
    else:
        return [vary]
    headers = [("access-control-allow-origin", shown), vary]
    return [*headers, ("access-control-allow-credentials", "true")] if with_credentials else headers
