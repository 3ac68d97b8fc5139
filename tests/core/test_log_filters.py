"""Filter patterns: what they let through, and what they refuse."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.errors import InvalidParameter
from lambstead.core.log_filters import MAX_DEPTH, compile_filter

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST/durable-execution/n/1"
RECORD = json.dumps(
    {
        "level": "ERROR",
        "executionArn": ARN,
        "attempt": 3,
        "ratio": 0.5,
        "gone": None,
        "ok": True,
        "user": {"id": 7, "roles": ["admin", "ops"]},
        "a key": "x",
    }
)


@pytest.mark.parametrize(
    ("pattern", "message", "expected"),
    [
        (None, "anything", True),
        ("", "anything", True),
        ("ERROR", "an ERROR happened", True),
        ("ERROR", "an error happened", False),
        ("ERROR memory", "memory ERROR", True),
        ("ERROR memory", "ERROR", False),
        ('"out of memory"', "ran out of memory", True),
        ('"out of memory"', "out of some memory", False),
        (r'"say \"no\""', 'they say "no"', True),
        ("ERROR -retry", "ERROR retry", False),
        ("ERROR -retry", "ERROR", True),
        ("?WARN ?ERROR", "WARN", True),
        ("?WARN ?ERROR", "INFO", False),
        ("INFO ?WARN", "INFO", True),
        ("-INFO", "INFO", False),
        ("-INFO", "WARN", True),
    ],
)
def test_terms(pattern: str | None, message: str, expected: bool) -> None:
    assert compile_filter(pattern)(message) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.level = "ERROR" }', True),
        ("{$.level=ERROR}", True),
        ('{ $.level != "ERROR" }', False),
        ('{ $.level = "ERR*" }', True),
        ('{ $.level = "*RO*" }', True),
        ('{ $.level = "E?ROR" }', False),
        ("{ $.level = ERR* }", True),
        (f'{{ ($.durableExecutionArn = "{ARN}") || ($.executionArn = "{ARN}") }}', True),
        ('{ ($.durableExecutionArn = "other") || ($.executionArn = "other") }', False),
        ("{ $.attempt = 3 }", True),
        ("{ $.attempt = 3.0 }", True),
        ("{ $.attempt > 2 && $.attempt <= 3 }", True),
        ("{ $.attempt >= 4 }", False),
        ("{ $.ratio < 5e-1 }", False),
        ("{ $.ratio <= 5e-1 }", True),
        ("{ $.attempt != 4 }", True),
        ('{ $.attempt = "3" }', False),
        ("{ $.ok = 1 }", False),
        ("{ $.ok IS TRUE }", True),
        ("{ $.ok IS FALSE }", False),
        ("{ $.gone IS NULL }", True),
        ("{ $.missing IS NULL }", False),
        ("{ $.missing NOT EXISTS }", True),
        ("{ $.gone NOT EXISTS }", False),
        ("{ $.gone EXISTS }", True),
        ("{ $.missing != 1 }", False),
        ("{ $.user.id = 7 }", True),
        ('{ $.user.roles[1] = "ops" }', True),
        ('{ $.user.roles[2] = "ops" }', False),
        ('{ $.user.roles[*] = "ops" }', True),
        ('{ $["a key"] = "x" }', True),
        ("{ $['user']['id'] = 7 }", True),
        ('{ $.level = "WARN" || $.attempt = 3 && $.ok IS TRUE }', True),
        ('{ ($.level = "WARN" || $.attempt = 3) && $.ok IS FALSE }', False),
    ],
)
def test_json_patterns(pattern: str, expected: bool) -> None:
    assert compile_filter(pattern)(RECORD) is expected


@pytest.mark.parametrize("message", ["level ERROR", "[1]", '{"level": ', "", "{" * 100_000])
def test_a_json_pattern_lets_nothing_through_that_is_no_json_object(message: str) -> None:
    assert not compile_filter("{ $.level NOT EXISTS }")(message)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{ $.level = ", "}"),
        ("{ }", "a selector"),
        ("{ $.level }", "a comparison"),
        ("{ $.level = }", "a value"),
        ("{ $.level > high }", "compares numbers"),
        ("{ ($.level = 1 }", "parenthesis"),
        ("{ $.a = 1 $.b = 2 }", "not expected"),
        ("{ $.a IS 3 }", "NULL, TRUE or FALSE"),
        ("{ " + "(" * (MAX_DEPTH + 1) + "$.a = 1" + ")" * (MAX_DEPTH + 1) + " }", "parentheses"),
        ("%ERR.*%", "regular expressions"),
        ("{ $.level = %ERR% }", "regular expressions"),
        ("[ip, user, status = 4*]", "columns"),
        ('"open', "quotation mark"),
    ],
)
def test_what_is_refused_says_why(pattern: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        compile_filter(pattern)
    assert refused.value.message.startswith("Invalid filter pattern: ")
    assert says in refused.value.message


@given(pattern=st.text('{}$.a1"%[]()&|=!<> *?-\\NOTEXISTU', max_size=40), message=st.text(max_size=20))
def test_every_pattern_is_read_or_refused(pattern: str, message: str) -> None:
    try:
        lets_through = compile_filter(pattern)
    except InvalidParameter:
        return
    assert isinstance(lets_through(message), bool)
