"""What goes into an invocation and what comes out of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Invocation:
    """One event to run, as the API took it."""

    request_id: str
    payload: bytes
    trace_id: str = ""
    client_context: str = ""
    """JSON text."""
    tenant_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended for its caller."""

    payload: bytes
    executed_version: str
    environment_id: str
    is_error: bool = False
    """The payload is an error document, of the function or of the platform on its behalf."""
    error_type: str = ""
    content_type: str = "application/json"
    """What the runtime says the payload is; also of an answer that came in parts."""
