"""What a start of an execution may ask for beyond AWS, by headers of Invoke that AWS's clients let their users add."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lambstead.core.errors import InvalidParameterValue

TIME_SKIP_HEADER = "x-lambstead-time-skip"
ATTRIBUTES_HEADER = "x-lambstead-attributes"
MAX_ATTRIBUTES = 50
MAX_ATTRIBUTE_NAME = 128
"""Characters."""
MAX_ATTRIBUTE_VALUE = 1024
"""Characters."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Options of one start."""

    skips_time: bool | None = None
    """None leaves it to the server's setting."""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> "StartOptions":
        """From a request's headers, names in lower case. Raises InvalidParameterValue, which names the header."""
        skips: bool | None = None
        asked = headers.get(TIME_SKIP_HEADER)
        if asked is not None:
            if asked.lower() not in ("true", "false"):
                raise InvalidParameterValue(f"{TIME_SKIP_HEADER}: {asked[:80]!r} is neither true nor false.")
            skips = asked.lower() == "true"
        text = headers.get(ATTRIBUTES_HEADER)
        if text is None:
            return cls(skips)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise InvalidParameterValue(f"{ATTRIBUTES_HEADER} is not JSON: {text[:80]!r}.") from exc
        try:
            return cls(skips, checked_attributes(document))
        except InvalidParameterValue as exc:
            raise InvalidParameterValue(f"{ATTRIBUTES_HEADER}: {exc.message}") from exc


def checked_attributes(document: object) -> dict[str, str]:
    """Custom attributes of an execution. Raises InvalidParameterValue for anything but a small object of strings."""
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise InvalidParameterValue('Attributes are a JSON object of strings, for example {"customer": "42"}.')
    if len(document) > MAX_ATTRIBUTES:
        raise InvalidParameterValue(f"An execution has at most {MAX_ATTRIBUTES} attributes, not {len(document)}.")
    for name, value in document.items():
        if not 1 <= len(name) <= MAX_ATTRIBUTE_NAME or "=" in name or not _is_text(name):
            raise InvalidParameterValue(
                f"{name[:80]!r} is not the name of an attribute: 1 to {MAX_ATTRIBUTE_NAME} characters without '='."
            )
        if len(value) > MAX_ATTRIBUTE_VALUE or not _is_text(value):
            raise InvalidParameterValue(
                f"The attribute {name!r} is not text of at most {MAX_ATTRIBUTE_VALUE} characters."
            )
    return document


def _is_text(value: str) -> bool:
    """JSON can spell halves of characters, which no store keeps."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
