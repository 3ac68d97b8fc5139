"""The Fibonacci example keeps its contract for every event that JSON can express."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = Path(__file__).parents[2] / "examples" / "fibonacci-terraform"
REQUIRED = "Input parameter 'n' is required"
NO_INTEGER = "Input must be an integer"
NEGATIVE = "Input must be a non-negative integer"
TOO_LARGE = "Input must not exceed 1000"


def load_function() -> ModuleType:
    """The function as Lambda imports it: from its own file, outside every package."""
    spec = importlib.util.spec_from_file_location("fibonacci", EXAMPLE / "function" / "fibonacci.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUNCTION = load_function()


def invoke(event: object) -> tuple[int, Any]:  # the body is whatever JSON the function wrote
    """Status code and decoded body; the event and the answer go through JSON as they do in Lambda."""
    answer = json.loads(json.dumps(FUNCTION.handler(json.loads(json.dumps(event)), None)))
    assert answer["headers"] == {"Content-Type": "application/json"}
    assert isinstance(answer["body"], str)
    return answer["statusCode"], json.loads(answer["body"])


def test_ten_is_the_documented_answer() -> None:
    answer = FUNCTION.handler({"n": 10}, None)
    assert answer == {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": '{"n": 10, "sequence": [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55]}',
    }


def test_event_file_is_the_event_of_the_walk_through() -> None:
    assert json.loads((EXAMPLE / "event.json").read_text()) == {"n": 10}


@pytest.mark.parametrize(("n", "expected"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 1]), (3, [0, 1, 1, 2])])
def test_small_n(n: int, expected: list[int]) -> None:
    assert invoke({"n": n}) == (200, {"n": n, "sequence": expected})


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({}, REQUIRED),
        ({"N": 10}, REQUIRED),
        ({"n": None}, REQUIRED),
        (None, REQUIRED),
        (10, REQUIRED),
        (True, REQUIRED),
        ("n", REQUIRED),
        ([], REQUIRED),
        (["n"], REQUIRED),
        ([{"n": 10}], REQUIRED),
        ({"n": True}, NO_INTEGER),
        ({"n": False}, NO_INTEGER),
        ({"n": 10.0}, NO_INTEGER),
        ({"n": 10.5}, NO_INTEGER),
        ({"n": -0.0}, NO_INTEGER),
        ({"n": 1e300}, NO_INTEGER),
        ({"n": float("inf")}, NO_INTEGER),
        ({"n": float("nan")}, NO_INTEGER),
        ({"n": "10"}, NO_INTEGER),
        ({"n": ""}, NO_INTEGER),
        ({"n": [10]}, NO_INTEGER),
        ({"n": {"n": 10}}, NO_INTEGER),
        ({"n": -1}, NEGATIVE),
        ({"n": -(10**400)}, NEGATIVE),
        ({"n": 1001}, TOO_LARGE),
        ({"n": 10**400}, TOO_LARGE),
    ],
    ids=lambda value: str(value)[:24],
)
def test_bad_input_gets_the_sensible_error(event: object, error: str) -> None:
    assert invoke(event) == (400, {"error": error})


def binet(n: int) -> int:
    """The n-th Fibonacci number from the closed formula, exact: powers of (1 + √5)/2 as pairs of integers a + b√5."""
    a, b = 1, 0
    for _ in range(n):
        a, b = a + 5 * b, a + b
    return (2 * b) >> n


@given(st.integers(min_value=0, max_value=1000))
def test_every_member_agrees_with_the_closed_formula(n: int) -> None:
    status, body = invoke({"n": n})
    assert (status, body["n"], len(body["sequence"])) == (200, n, n + 1)
    assert body["sequence"][-1] == binet(n)
    assert body["sequence"][n // 2] == binet(n // 2)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.one_of(any_json, any_json.map(lambda value: {"n": value})))
def test_every_event_gets_a_member_of_the_contract(event: object) -> None:
    status, body = invoke(event)
    if status == 200:
        assert set(body) == {"n", "sequence"}
    else:
        assert status == 400
        assert body["error"] in {REQUIRED, NO_INTEGER, NEGATIVE, TOO_LARGE}
        assert set(body) == {"error"}
