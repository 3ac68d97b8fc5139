"""Markers and page sizes of list operations.

A marker is the key of the last item of a page, so a list stays complete and in order while items come and go between two pages.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from lambstead.core.errors import InvalidParameterValue

T = TypeVar("T")
DEFAULT_PAGE = 50


def encode_marker(key: Sequence[str | int]) -> str:
    """The marker after the item with this key."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def decode_marker(marker: str | None, start: Sequence[str | int]) -> tuple[str | int, ...]:
    """The key in a marker, or `start` without one. Raises InvalidParameterValue for a marker that no page ended with."""
    if not marker:
        return tuple(start)
    try:
        key = json.loads(base64.urlsafe_b64decode(marker.encode()))
    except (ValueError, binascii.Error, UnicodeError) as exc:
        raise InvalidParameterValue("The Marker is not one that this operation returned.") from exc
    if (
        not isinstance(key, list)
        or [type(part) for part in key] != [type(part) for part in start]
        or any(isinstance(part, int) and abs(part) > 2**62 for part in key)
    ):
        raise InvalidParameterValue("The Marker is not one that this operation returned.")
    return tuple(key)


def page(items: Sequence[T], size: int, key: Callable[[T], Sequence[str | int]]) -> tuple[Sequence[T], str | None]:
    """The first `size` of `items`, which were read one beyond the page, and the marker if there are more."""
    if len(items) <= size:
        return items, None
    return items[:size], encode_marker(key(items[size - 1]))
