"""Concurrency of standard functions: who may start, what may be reserved, how aliases share what is provisioned."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lambstead.core.aliases import Alias
from lambstead.core.concurrency import (
    ConcurrencyLimits,
    Drawn,
    Exhausted,
    Held,
    Ledger,
    ProvisionedConcurrency,
    check_provisioned,
    check_reserved,
    refuse_provisioned_twice,
)
from lambstead.core.errors import IllegalTransition, InvalidParameterValue, ResourceConflict

FUNCTIONS, VERSIONS = ("f", "g"), ("$LATEST", "1", "2")


class Callers(RuleBasedStateMachine):
    """Invocations come and end while limits change; beside the ledger we keep the plain list of what it admitted."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.held: list[Held] = []
        self.limits = {function: ConcurrencyLimits() for function in FUNCTIONS}
        self.unreserved = 5

    def count(self, function: str, version: str | None = None, *drawn: Drawn) -> int:
        return sum(
            h.function == function and version in (None, h.version) and (not drawn or h.drawn in drawn)
            for h in self.held
        )

    @rule(
        function=st.sampled_from(FUNCTIONS),
        reserved=st.none() | st.integers(0, 6),
        provisioned=st.dictionaries(st.sampled_from(VERSIONS[1:]), st.integers(1, 3)),
    )
    def configure(self, function: str, reserved: int | None, provisioned: dict[str, int]) -> None:
        if reserved is None or sum(provisioned.values()) <= reserved:
            self.limits[function] = ConcurrencyLimits(reserved, provisioned)

    @rule(unreserved=st.integers(0, 8))
    def take_from_account(self, unreserved: int) -> None:
        self.unreserved = unreserved

    @rule(function=st.sampled_from(FUNCTIONS), version=st.sampled_from(VERSIONS))
    def invoke(self, function: str, version: str) -> None:
        limits = self.limits[function]
        own = self.count(function, version, Drawn.PROVISIONED) < limits.provisioned.get(version, 0)
        others = self.count(function, None, Drawn.RESERVED, Drawn.UNRESERVED)
        answer = self.ledger.admit(function, version, limits, self.unreserved)
        match answer:
            case Held(_, _, drawn):
                assert (drawn is Drawn.PROVISIONED) == own, "its own provisioned concurrency comes first"
                if drawn is Drawn.RESERVED:
                    assert limits.reserved is not None
                    assert others < limits.reserved - limits.total_provisioned
                if drawn is Drawn.UNRESERVED:
                    assert limits.reserved is None
                    assert self.in_the_open() < self.unreserved
                self.held.append(answer)
            case Exhausted.RESERVATION:
                assert not own
                assert limits.reserved is not None
                assert others >= limits.reserved - limits.total_provisioned, "refused although there was room"
            case Exhausted.ACCOUNT:
                assert not own
                assert limits.reserved is None
                assert self.in_the_open() >= self.unreserved, "refused although there was room"

    def in_the_open(self) -> int:
        return sum(h.drawn is Drawn.UNRESERVED for h in self.held)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.held:
            held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.ledger.settle(held)

    @rule(function=st.sampled_from(FUNCTIONS))
    def nothing_ends_that_did_not_begin(self, function: str) -> None:
        for drawn in Drawn:
            if not self.count(function, "never", drawn) and not self.count(function, None, drawn):
                before = self.ledger.running(function)
                if drawn is Drawn.PROVISIONED or not self.count(function, None, Drawn.RESERVED, Drawn.UNRESERVED):
                    with pytest.raises(IllegalTransition):
                        self.ledger.settle(Held(function, "never", drawn))
                assert self.ledger.running(function) == before

    @invariant()
    def counts_are_right(self) -> None:
        for function in FUNCTIONS:
            assert self.ledger.running(function) == self.count(function)

    def teardown(self) -> None:
        for held in self.held:
            self.ledger.settle(held)
        assert all(self.ledger.running(function) == 0 for function in FUNCTIONS)
        fresh = [self.ledger.admit("f", "1", ConcurrencyLimits(), 3) for _ in range(4)]
        assert Counter(type(answer) for answer in fresh) == {Held: 3, Exhausted: 1}, "what ended makes room again"


TestCallers = Callers.TestCase
TestCallers.settings = settings(stateful_step_count=60, deadline=None)


def test_provisioned_and_the_rest_of_a_reservation_add_up_to_the_reservation() -> None:
    ledger, limits = Ledger(), ConcurrencyLimits(3, {"1": 2})
    answers = [ledger.admit("f", version, limits, 0) for version in ("1", "$LATEST", "1", "1", "2", "$LATEST")]
    assert [a.drawn if isinstance(a, Held) else a for a in answers] == [
        Drawn.PROVISIONED,
        Drawn.RESERVED,
        Drawn.PROVISIONED,
        *[Exhausted.RESERVATION] * 3,
    ]


# --- what may be asked for -----------------------------------------------------------------------------------------------------


@given(limit=st.integers(1, 2000), others=st.integers(0, 2000), mine=st.integers(0, 2000), asked=st.integers(0, 2000))
def test_reserving_never_takes_the_account_below_its_minimum(limit: int, others: int, mine: int, asked: int) -> None:
    unreserved = limit - others - mine
    try:
        check_reserved(asked, 0, unreserved, limit - others)
    except InvalidParameterValue:
        assert limit - others - asked < 100
        assert asked > mine, "giving something back is always possible"
    else:
        assert limit - others - asked >= 100 or asked <= mine


@pytest.mark.parametrize(
    ("asked", "others", "reserved", "unreserved", "text"),
    [
        (2, 0, 2, 0, None),
        (1, 2, 2, 500, "should not be greater than the reservedConcurrentExecution"),
        (1001, 0, None, 1000, "greater than account's unreserved concurrency [1000]"),
        (901, 0, None, 1000, "below its minimum value of [100]"),
        (900, 5, None, 1000, None),
    ],
)
def test_provisioning_stays_within_the_reservation_or_the_account(
    asked: int, others: int, reserved: int | None, unreserved: int, text: str | None
) -> None:
    if text is None:
        check_provisioned(asked, others, reserved, unreserved)
        return
    with pytest.raises(InvalidParameterValue) as caught:
        check_provisioned(asked, others, reserved, unreserved)
    assert text in caught.value.message


LIVE = Alias("f", "live", "1", "r")
BOTH = replace(LIVE, second="2", second_weight=0.5)


@pytest.mark.parametrize(
    ("qualifier", "alias", "taken", "refused"),
    [
        ("live", LIVE, [], None),
        ("live", LIVE, ["live"], None),
        ("live", LIVE, ["2"], None),
        ("live", LIVE, ["1"], "Alias can't be used"),
        ("live", BOTH, ["2"], "Alias can't be used"),
        ("1", LIVE, ["1"], None),
        ("1", LIVE, ["live"], "Version is pointed"),
        ("2", LIVE, ["live"], None),
        ("2", BOTH, ["live"], "Version is pointed"),
    ],
)
def test_a_version_is_provisioned_by_itself_or_by_an_alias(
    qualifier: str, alias: Alias, taken: list[str], refused: str | None
) -> None:
    if refused is None:
        refuse_provisioned_twice(qualifier, {"live": alias}, taken)
        return
    with pytest.raises(ResourceConflict, match=refused):
        refuse_provisioned_twice(qualifier, {"live": alias}, taken)


@given(requested=st.integers(1, 1000), weight=st.floats(0, 1))
def test_shares_of_an_alias_add_up_and_follow_the_weight(requested: int, weight: float) -> None:
    config = ProvisionedConcurrency("f", "live", requested, "")
    shares = config.shares(replace(LIVE, second="2", second_weight=weight))
    assert sum(shares.values()) == requested
    assert all(share >= 0 for share in shares.values())
    assert abs(shares["2"] - requested * weight) <= 0.5


def test_limits_add_up_what_several_qualifiers_give_a_version() -> None:
    configs = [ProvisionedConcurrency("f", "live", 4, ""), ProvisionedConcurrency("f", "3", 1, "")]
    other = Alias("f", "other", "2", "r")
    configs.append(ProvisionedConcurrency("f", "other", 1, ""))
    limits = ConcurrencyLimits.of(7, configs, {"live": BOTH, "other": other})
    assert limits.provisioned == {"1": 2, "2": 3, "3": 1}
    assert limits.total_provisioned == 6
