"""What goes into an invocation and what comes out of it.

Tuples, like all that is made anew for every invocation: a frozen dataclass takes two and a half times as long to make.
"""

from typing import NamedTuple


class Invocation(NamedTuple):
    """One event to run, as the API took it."""

    request_id: str
    payload: bytes
    trace_id: str = ""
    client_context: str = ""
    """JSON text."""
    tenant_id: str = ""


class Outcome(NamedTuple):
    """How an invocation ended for its caller."""

    payload: bytes
    executed_version: str
    environment_id: str
    is_error: bool = False
    """The payload is an error document, of the function or of the platform on its behalf."""
    error_type: str = ""
    content_type: str = "application/json"
    """What the runtime says the payload is; also of an answer that came in parts."""
