"""Policy documents that callers write: what is accepted is kept as it was, everything else is refused with the reason."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from lambstead.core.policies import Grant, ResourcePolicy, compact, parsed

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=12,
)
ELEMENTS = ("Sid", "Effect", "Principal", "Action", "Resource", "Condition")
GOOD: dict[str, Any] = {
    "Sid": "a",
    "Effect": "Deny",
    "Principal": {"AWS": ["111111111111", "arn:aws:iam::111111111111:role/x"], "Service": "s3.amazonaws.com"},
    "Action": ["lambda:InvokeFunction", "lambda:Get*", "*"],
    "Resource": ARN,
    "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}},
}


def document(**members: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Id": "mine", "Statement": [{**GOOD, **members}]})


def test_a_document_is_kept_as_it_was_written() -> None:
    assert parsed(document(), ARN) == json.loads(document())
    alone = json.dumps({"Statement": GOOD})
    assert parsed(alone, ARN) == {"Statement": [GOOD]}


@given(text=st.text() | ANY_JSON.map(json.dumps))
def test_whatever_is_no_policy_is_refused_and_nothing_worse(text: str) -> None:
    with pytest.raises(InvalidParameterValue):
        parsed(text, ARN)


def answer(work: Callable[[], Any]) -> Any:  # Any: a document, or the text of its refusal
    """What `work` returns, or the refusal's text; any other exception fails the test."""
    try:
        return work()
    except InvalidParameterValue as error:
        return error.message


@given(element=st.sampled_from(ELEMENTS), value=ANY_JSON)
def test_an_element_of_any_form_is_accepted_or_refused(element: str, value: Any) -> None:
    text = document(**{element: value})
    found = answer(lambda: compact(parsed(text, ARN)))
    assert found == compact(json.loads(text)) or found.startswith("The policy document is not valid: ")


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidParameterValue):
        parsed("[" * 100_000, ARN)


@given(sids=st.lists(st.sampled_from("abcd"), max_size=8))
def test_statements_are_kept_in_the_order_of_addition_and_sids_stay_unique(sids: list[str]) -> None:
    policy: ResourcePolicy | None = None
    kept: list[str] = []
    for number, sid in enumerate(sids):
        before = policy or ResourcePolicy.empty("f", "")
        statement = Grant(sid, "lambda:InvokeFunction", "*").statement(ARN)
        if sid in kept:
            with pytest.raises(ResourceConflict):
                before.adding(statement, str(number))
            policy = before.removing(sid, str(number))
            kept.remove(sid)
        else:
            with pytest.raises(ResourceNotFound):
                before.removing(sid, str(number))
            policy = before.adding(statement, str(number))
            kept.append(sid)
        assert [s["Sid"] for s in policy.statements] == kept if policy else not kept


@given(principal=st.text(max_size=60) | st.from_regex(r"arn:aws:\w+::\d{12}:\w+", fullmatch=True))
def test_a_principal_is_of_a_known_form_or_refused(principal: str) -> None:
    found = answer(lambda: Grant("s", "*", principal).statement(ARN)["Principal"])
    refused = "The provided principal was invalid. Please check the principal and try again."
    assert found in ("*", refused) or (isinstance(found, dict) and set(found) <= {"AWS", "Service"})
