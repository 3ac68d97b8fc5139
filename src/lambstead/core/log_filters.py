"""Filter patterns of CloudWatch Logs: which log events does a pattern let through?

    ERROR                          the text stands in the message; letter case counts
    "out of memory" -retry         one text stands in it, and the other does not
    ?WARN ?ERROR                   at least one of them stands in it
    { $.level = "ERROR" && $.attempt > 2 }
                                   the message is a JSON object with such members

Source: CloudWatch Logs user guide, "Filter pattern syntax". Regular expressions (`%…%`) and patterns for columns (`[a, b]`) are refused with an error that
says so. Not documented, and chosen here: a comparison with a member that is not there is false, `!=` included; nesting beyond
`MAX_DEPTH` is refused.
"""

import json
import re
from collections.abc import Callable
from fnmatch import translate
from typing import NoReturn

from lambstead.core.errors import InvalidParameter

Filter = Callable[[str], bool]
"""Whether a message is let through."""
MAX_DEPTH = 30
"""Parentheses inside each other."""

_Condition = Callable[[object], bool]
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*")
    |(?P<selector>\$(?:\.[A-Za-z0-9_\-@/:]+|\["[^"]*"\]|\['[^']*'\]|\[\d+\]|\[\*\])*)
    |(?P<sign>&&|\|\||!=|<=|>=|[=<>()])
    |(?P<word>[^\s"()&|=<>!{}]+)
    )""",
    re.VERBOSE,
)
_STEP = re.compile(r"""\.([A-Za-z0-9_\-@/:]+)|\["([^"]*)"\]|\['([^']*)'\]|\[(\d+|\*)\]""")
_TERM = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|(\S+))')
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_MISSING = object()


def compile_filter(pattern: str | None) -> Filter:
    """The filter that a pattern describes; without a pattern everything is let through. Raises InvalidParameter."""
    text = (pattern or "").strip()
    if not text:
        return lambda message: True
    if text.startswith("{"):
        return _json_filter(text)
    if text.startswith("["):
        _refuse("Lambstead does not read filter patterns for columns ([…]); use terms or a JSON pattern")
    return _term_filter(text)


def _refuse(why: str) -> NoReturn:
    raise InvalidParameter(f"Invalid filter pattern: {why}.")


def _refuse_expression() -> NoReturn:
    _refuse("Lambstead does not match regular expressions (%…%); use terms or a JSON pattern with * in its texts")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


# --- terms --------------------------------------------------------------------------------------------------------------------------


def _term_filter(text: str) -> Filter:
    wanted: dict[str, list[str]] = {"": [], "?": [], "-": []}
    for found in _TERM.finditer(text):
        sign, quoted, word = str(found[1]), found[2], str(found[3] or "")
        if word.startswith("%"):
            _refuse_expression()
        if '"' in word:
            _refuse("a quotation mark is not closed")
        wanted[sign].append(word if quoted is None else _unescaped(quoted))
    required, excluded = wanted[""], wanted["-"]
    # Source: user guide, "optional terms": beside required terms the optional ones have no effect.
    optional = [] if required else wanted["?"]

    def lets_through(message: str) -> bool:
        return (
            all(term in message for term in required)
            and (not optional or any(term in message for term in optional))
            and not any(term in message for term in excluded)
        )

    return lets_through


# --- JSON -----------------------------------------------------------------------------------------------------------------------------


def _json_filter(text: str) -> Filter:
    if not text.endswith("}"):
        _refuse("a JSON pattern ends with }")
    condition = _JsonPattern(text[1:-1]).read()

    def lets_through(message: str) -> bool:
        start = message.lstrip()
        if not start.startswith("{"):
            return False
        try:
            return condition(json.loads(start))
        except (ValueError, RecursionError):
            return False

    return lets_through


class _JsonPattern:
    """Reads the inside of `{…}`; `&&` binds stronger than `||`."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def read(self) -> _Condition:
        condition = self._either()
        if self._at < len(self._tokens):
            _refuse(f"{self._tokens[self._at][1]!r} is not expected where it stands")
        return condition

    def _either(self) -> _Condition:
        conditions = [self._both()]
        while self._taken("sign", "||"):
            conditions.append(self._both())
        return conditions[0] if len(conditions) == 1 else lambda document: any(test(document) for test in conditions)

    def _both(self) -> _Condition:
        conditions = [self._single()]
        while self._taken("sign", "&&"):
            conditions.append(self._single())
        return conditions[0] if len(conditions) == 1 else lambda document: all(test(document) for test in conditions)

    def _single(self) -> _Condition:
        if not self._taken("sign", "("):
            return self._comparison()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse(f"it has more than {MAX_DEPTH} parentheses inside each other")
        condition = self._either()
        if not self._taken("sign", ")"):
            _refuse("a parenthesis is not closed")
        self._depth -= 1
        return condition

    def _comparison(self) -> _Condition:
        select = _selector(self._next("selector", "a selector such as $.level"))
        if self._taken("word", "NOT"):
            self._next("word", "EXISTS after NOT", "EXISTS")
            return lambda document: not select(document)
        if self._taken("word", "EXISTS"):
            return lambda document: bool(select(document))
        if self._taken("word", "IS"):
            literal = self._next("word", "NULL, TRUE or FALSE after IS", "NULL", "TRUE", "FALSE")
            constant = {"NULL": None, "TRUE": True, "FALSE": False}[literal]
            return lambda document: any(value is constant for value in select(document))
        sign = self._next("sign", "a comparison", "=", "!=", "<", "<=", ">", ">=")
        kind, value = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind not in ("string", "word"):
            _refuse(f"a value is expected after {sign}")
        self._at += 1
        test = _test(sign, value, quoted=kind == "string")
        return lambda document: any(test(found) for found in select(document))

    def _taken(self, kind: str, text: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == (kind, text):
            self._at += 1
            return True
        return False

    def _next(self, kind: str, what: str, *allowed: str) -> str:
        found_kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if found_kind != kind or (allowed and text not in allowed):
            _refuse(f"{what} is expected{f', not {text!r}' if text else ' at the end'}")
        self._at += 1
        return text


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            _refuse(f"it cannot be read from {text[at:].strip()[:20]!r} on")
        kind = str(found.lastgroup)
        tokens.append((kind, _unescaped(found[kind][1:-1]) if kind == "string" else found[kind]))
        at = found.end()
    return tokens


def _selector(text: str) -> Callable[[object], list[object]]:
    """What a selector finds in a document; `[*]` can find several."""
    steps: list[str | int | None] = []
    for member, double, single, index in _STEP.findall(text):
        steps.append((None if index == "*" else int(index)) if index else member or double or single)

    def select(document: object) -> list[object]:
        found = [document]
        for step in steps:
            found = [inner for value in found for inner in _inner(value, step)]
        return found

    return select


def _inner(value: object, step: str | int | None) -> list[object]:
    if isinstance(value, dict) and isinstance(step, str):
        inner = value.get(step, _MISSING)
        return [] if inner is _MISSING else [inner]
    if isinstance(value, list) and not isinstance(step, str):
        return value if step is None else value[step : step + 1]
    return []


def _test(sign: str, value: str, *, quoted: bool) -> _Condition:
    if not quoted and value.startswith("%"):
        _refuse_expression()
    if not quoted and _NUMBER.fullmatch(value):
        return _number_test(sign, float(value))
    if sign not in ("=", "!="):
        _refuse(f"{sign} compares numbers, and {value!r} is none")
    matches = re.compile(translate(_only_stars(value))).match if "*" in value else value.__eq__
    wanted = sign == "="
    return lambda found: isinstance(found, str) and bool(matches(found)) is wanted


def _only_stars(value: str) -> str:
    """The wildcard pattern in which `*` is the only sign with a meaning."""
    return re.sub(r"[?\[]", r"[\g<0>]", re.sub(r"\*+", "*", value))


def _number_test(sign: str, number: float) -> _Condition:
    tests: dict[str, Callable[[float], bool]] = {
        "=": lambda found: found == number,
        "!=": lambda found: found != number,
        "<": lambda found: found < number,
        "<=": lambda found: found <= number,
        ">": lambda found: found > number,
        ">=": lambda found: found >= number,
    }
    test = tests[sign]
    return lambda found: isinstance(found, int | float) and not isinstance(found, bool) and test(found)
