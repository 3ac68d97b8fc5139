"""What AWS's answers inherit from Java: printed values, the order of sets, regular expressions."""

import datetime
import re
import struct
import unicodedata
from typing import Any

import pytest
from botocore.model import Shape, ShapeResolver
from hypothesis import given
from hypothesis import strategies as st

from lambstead.wire import java

# The published stubs type the argument as shapes; what botocore reads is the JSON of a model.
DESCRIPTIONS: Any = {
    "Text": {"type": "string"},
    "Secret": {"type": "string", "sensitive": True},
    "Texts": {"type": "list", "member": {"shape": "Text"}},
    "Weights": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Double"}},
    "Double": {"type": "double"},
    "Blob": {"type": "blob"},
    "Flag": {"type": "boolean"},
    "Time": {"type": "timestamp"},
    "OnFailure": {"type": "structure", "members": {"Destination": {"shape": "Text"}, "Key": {"shape": "Secret"}}},
}
SHAPES = ShapeResolver(DESCRIPTIONS)


def shape(name: str) -> Shape:
    return SHAPES.get_shape_by_name(name)


@pytest.mark.parametrize(
    ("value", "name", "printed"),
    [
        (["a", "b"], "Texts", "[a, b]"),
        ([], "Texts", "[]"),
        ([None], "Texts", "[null]"),
        ({"2": 2.0, "3": 0.25}, "Weights", "{2=2.0, 3=0.25}"),
        (b"abc", "Blob", "java.nio.HeapByteBuffer[pos=0 lim=3 cap=3]"),
        (True, "Flag", "true"),
        (datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.UTC), "Time", "Thu Feb 29 01:02:03 UTC 2024"),
        ("hush", "Secret", "***Sensitive Data Redacted***"),
        (
            {"Destination": "d", "Key": "hush"},
            "OnFailure",
            "OnFailure(destination=d, key=***Sensitive Data Redacted***)",
        ),
        ({"Destination": "d"}, "OnFailure", "OnFailure(destination=d, key=null)"),
    ],
)
def test_values_print_as_in_java(value: object, name: str, printed: str) -> None:
    assert java.text(value, shape(name)) == printed


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (2.0, "2.0"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (0.001, "0.001"),
        (0.0001, "1.0E-4"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (1.5e10, "1.5E10"),
        (-123456789.25, "-1.2345678925E8"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_doubles_print_as_in_java(number: float, printed: str) -> None:
    assert java.double_text(number) == printed


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_double_reads_back_as_the_same_bits(number: float) -> None:
    assert struct.pack("d", float(java.double_text(number))) == struct.pack("d", number)


@pytest.mark.parametrize(
    "recorded",
    [
        "RESPONSE_STREAM, BUFFERED",
        "Terminate, Allow",
        "PublishedVersions, None",
        "x86_64, arm64",
        # a value set of 2024, printed in many bug reports
        "nodejs20.x, provided.al2023, python3.12, java17, nodejs16.x, dotnet8, python3.10, java11, python3.11, dotnet6, java21, "
        "nodejs18.x, provided.al2, ruby3.3, java8.al2, ruby3.2, python3.8, python3.9",
    ],
)
def test_value_sets_print_in_the_order_recorded_from_aws(recorded: str) -> None:
    model_order = [
        "nodejs16.x",
        "nodejs18.x",
        "nodejs20.x",
        "java8.al2",
        "java11",
        "java17",
        "java21",
        "python3.8",
        "python3.9",
        "python3.10",
        "python3.11",
    ]
    values = recorded.split(", ")
    from_model = sorted(values, key=lambda v: (model_order.index(v) if v in model_order else len(model_order), v))
    assert java.set_order(from_model) == values


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"[\w-_]*", ["", "a-_9"], ["a b", "é"]),
        (
            r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)",
            ["", "Straße 1", "日本", "a\u00a0b", "½", "a-b@c"],
            ["a\nb", "a#", "\u200b"],
        ),
        (r"^!?\*?([\p{L}\p{Z}\p{N}_.:/=+\-@]*)\*?$", ["!*é*", "*"], ["a*b!"]),
        (r"\P{L}+", ["123", "½"], ["a", "é"]),
        (r"\d{12}", ["123456789012"], ["١٢٣٤٥٦٧٨٩٠١٢", "1"]),
        (r".*", ["abc", ""], ["a\nb", "a\u2028b", "a\x85b", "a\rb"]),
        (r"[\s\S]*", ["a\nb\u2028"], []),
        (r"[+--/]", ["+", ",", "-", "/"], ["."]),
        (r"[a-z&~|]+", ["a&b~c|"], ["A"]),
        (r"(?<word>\p{Alpha}+)-\k<word>", ["ab-ab"], ["ab-ac", "éa-éa"]),
        (r"\x41\u0042\x{43}", ["ABC"], ["ABD"]),
        (r"\Qa.b\E+", ["a.b", "a.bb"], ["axb"]),
        (r"a++b", ["aab"], ["b"]),
        (r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)", ["2024-01-02", "a"], ["2024", "a\n"]),
        (r"\h+\v", [" \t\u3000\n"], ["\n "]),
        (r"[^a-c]", ["d", "é"], ["a", ""]),
    ],
)
def test_java_patterns_match_as_in_java(pattern: str, matching: list[str], other: list[str]) -> None:
    compiled = java.JavaPattern(pattern)
    assert [value for value in matching if not compiled.matches(value)] == []
    assert [value for value in other if compiled.matches(value)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-z&&[^b]]",
        r"[a[b]]",
        r"\p{IsLatin}",
        r"\G",
        r"\R",
        "[a",
        "(a",
        r"a\\"[:-1],
        r"\y",
        "[]",
        "a{99999999999}",
        "[z-a]",
        "(?u)a",
    ],
)
def test_what_cannot_be_translated_says_so(pattern: str) -> None:
    with pytest.raises(java.Untranslatable):
        java.JavaPattern(pattern).matches("a")


@given(st.text(max_size=12))
def test_translation_ends_in_a_pattern_or_in_untranslatable_whatever_the_text(text: str) -> None:
    try:
        compiled = java.JavaPattern(text).ascii
    except java.Untranslatable:
        return
    assert isinstance(compiled, re.Pattern)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
def test_the_expression_for_ascii_agrees_with_the_one_for_everything(value: str) -> None:
    pattern = java.JavaPattern(r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)")
    if value.isascii():
        assert (pattern.ascii.fullmatch(value) is None) == (pattern.full.fullmatch(value) is None)
    admitted = all(unicodedata.category(c)[0] in "LZN" or c in "_.:/=+-@" for c in value)
    assert pattern.matches(value) == admitted
