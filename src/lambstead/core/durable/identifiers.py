"""Opaque identifiers that the service mints: checkpoint tokens and callback ids. Both are base64 of what they stand for."""

import base64
import binascii

from lambstead.core.durable.model import Execution, LiveInvocation
from lambstead.core.errors import InvalidParameterValue

_SEPARATOR = "|"


def checkpoint_token(execution: Execution) -> str:
    """The token with which the live invocation may checkpoint next: bound to the execution, the invocation and its checkpoints so far.

    The execution has a live invocation.
    """
    live = execution.live
    assert live is not None
    return invocation_token(execution.id, live)


def invocation_token(execution_id: str, live: LiveInvocation) -> str:
    """The token for the next checkpoint of this invocation."""
    return _encoded(execution_id, live.request_id, str(live.sequence))


def execution_of_token(token: str) -> str | None:
    """Id of the execution that a token was made for; None if it is none of ours."""
    parts = _decoded(token)
    return parts[0] if parts is not None and len(parts) == 3 else None


def callback_id(execution_id: str, operation_id: str) -> str:
    """The id under which others complete a callback."""
    return _encoded(execution_id, operation_id)


def parse_callback_id(text: str) -> tuple[str, str]:
    """Execution and operation of a callback. Raises InvalidParameterValue for an id that was never minted."""
    parts = _decoded(text)
    if parts is None or len(parts) != 2:
        raise InvalidParameterValue("Invalid callback id")
    return parts[0], parts[1]


def _encoded(*parts: str) -> str:
    return base64.b64encode(_SEPARATOR.join(parts).encode()).decode()


def _decoded(text: str) -> list[str] | None:
    try:
        return base64.b64decode(text, validate=True).decode().split(_SEPARATOR)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
