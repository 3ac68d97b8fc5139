"""From method and raw path to the operation, by a trie over path segments.

The path is matched as it came over the wire, before percent-decoding: a label may hold an encoded slash (botocore and the other
SDKs send an ARN as `arn%3Aaws%3A…%2Frole`), which must not split it. Labels are decoded one by one afterwards, as UTF-8.

    node ── literal segment ──► node      tried first
         ── label `{Name}` ───► node      one segment, never empty
         ── label `{Key+}` ───► node      one or more segments, the longest first
         ── spanning label ───► node      like `{Name}`, but more segments if nothing else fits and they look like its values

A route is chosen segment by segment from the left, the more specific branch first. Among routes of one node and method the
one with most fixed query parts (`?find=LayerVersion`, `?List=ALL`) wins. One trailing slash is ignored: older SDKs send
`/2015-03-31/functions/`. The answer says whether the path is unknown or merely known with other methods.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from lambstead.core.errors import Serialization

Query = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Routed:
    """The operation and its decoded path labels, by their name in the URI template."""

    operation: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class OtherMethods:
    """The path exists, with these methods only."""

    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoSuchPath:
    """No operation of the service has such a path."""


@dataclass(frozen=True, slots=True)
class _Route:
    operation: str
    labels: tuple[str, ...]
    query: tuple[tuple[str, str | None], ...]

    def admits(self, query: Query) -> bool:
        return all(name in query and (value is None or value in query[name]) for name, value in self.query)


@dataclass(slots=True)
class _Node:
    literals: dict[bytes, "_Node"] = field(default_factory=dict)
    label: "_Node | None" = None
    greedy: "_Node | None" = None
    spans: re.Pattern[bytes] | None = None
    """What the label looks like, raw, when it holds slashes as they are; None where it never does."""
    routes: dict[str, list[_Route]] = field(default_factory=dict)


class Router:
    """The routes of one service."""

    def __init__(
        self, templates: Iterable[tuple[str, str, str]], spanning: Mapping[str, re.Pattern[bytes]] | None = None
    ) -> None:
        """`templates` are (operation, method, URI template) as the service model gives them.

        `spanning` says what labels look like that clients may send with slashes as they are.
        """
        self._root = _Node()
        self._spanning = spanning or {}
        for operation, method, uri in templates:
            self._add(operation, method, uri)

    def _add(self, operation: str, method: str, uri: str) -> None:
        path, _, fixed = uri.partition("?")
        node, labels = self._root, []
        for segment in _segments(path.encode()):
            text = segment.decode()
            if text.startswith("{") and text.endswith("+}"):
                labels.append(text[1:-2])
                node.greedy = node = node.greedy or _Node()
            elif text.startswith("{") and text.endswith("}"):
                labels.append(text[1:-1])
                node.spans = self._spanning.get(text[1:-1], node.spans)
                node.label = node = node.label or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
        routes = node.routes.setdefault(method, [])
        routes.append(_Route(operation, tuple(labels), tuple(_fixed_parts(fixed))))
        routes.sort(key=lambda route: -len(route.query))

    def route(self, method: str, raw_path: bytes, query: Query) -> Routed | OtherMethods | NoSuchPath:
        """Find the operation. Raises Serialization if a label is not UTF-8 after percent-decoding."""
        segments = _segments(raw_path)
        allowed: set[str] = set()
        for node, values in _walk(self._root, segments, 0):
            for route in node.routes.get(method, ()):
                if route.admits(query):
                    return Routed(route.operation, dict(zip(route.labels, map(_decoded, values), strict=True)))
            allowed.update(node.routes)
        allowed.discard(method)
        return OtherMethods(tuple(sorted(allowed))) if allowed else NoSuchPath()


def _segments(path: bytes) -> list[bytes]:
    segments = path.split(b"/")[1:]
    if segments and not segments[-1]:
        segments.pop()
    return segments


def _fixed_parts(query: str) -> Iterator[tuple[str, str | None]]:
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        yield name, value if equals else None


def _walk(node: _Node, segments: list[bytes], at: int) -> Iterator[tuple[_Node, tuple[bytes, ...]]]:
    """Every node that the rest of the path leads to, most specific first, with the raw labels on the way."""
    if at == len(segments):
        if node.routes:
            yield node, ()
        return
    segment = segments[at]
    if (literal := node.literals.get(segment)) is not None:
        yield from _walk(literal, segments, at + 1)
    if node.label is not None and segment:
        for end, values in _walk(node.label, segments, at + 1):
            yield end, (segment, *values)
        if node.spans is not None:
            for stop in range(at + 2, len(segments) + 1):
                raw = b"/".join(segments[at:stop])
                if node.spans.fullmatch(raw):
                    for end, values in _walk(node.label, segments, stop):
                        yield end, (raw, *values)
    if node.greedy is not None and segment:
        for stop in range(len(segments), at, -1):
            for end, values in _walk(node.greedy, segments, stop):
                yield end, (b"/".join(segments[at:stop]), *values)


def _decoded(label: bytes) -> str:
    try:
        return unquote_to_bytes(label).decode() if b"%" in label else label.decode()
    except UnicodeDecodeError as exc:
        raise Serialization("The path of the request is not UTF-8 after percent-decoding.") from exc
