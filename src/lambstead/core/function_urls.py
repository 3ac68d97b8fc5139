"""Function URL configs: the HTTP endpoint of a function or of one of its aliases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BUFFERED = "BUFFERED"


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
    cors: Mapping[str, Any] | None = None  # Any: the Cors document of the API, which has no rule here

    @property
    def effective_invoke_mode(self) -> str:
        return self.invoke_mode or BUFFERED
