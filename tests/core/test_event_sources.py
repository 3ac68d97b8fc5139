"""States of event source mappings, by a machine that also tries forbidden moves; and what a source's ARN says of its kind."""

from datetime import UTC, datetime

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lambstead.core.errors import IllegalTransition, InvalidParameterValue
from lambstead.core.event_sources import (
    KINDS,
    DeletionRequested,
    EventSourceMapping,
    Kind,
    ResourceInUse,
    Settled,
    State,
    Updated,
    apply,
    source_of,
)

AT = datetime(2026, 11, 21, 10, tzinfo=UTC)
ACCOUNT = "us-east-1:000000000000"


class Mapping(RuleBasedStateMachine):
    """A mapping settles into what was last asked for, and refuses changes while one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping: EventSourceMapping | None = None
        self.wanted = True

    @precondition(lambda self: self.mapping is None)
    @rule(enabled=st.booleans())
    def create(self, enabled: bool) -> None:
        self.mapping = EventSourceMapping(
            "id", Kind.SQS, "arn", "f", None, State.CREATING, AT, enabled, {"BatchSize": 1}
        )
        self.wanted = enabled

    @property
    def now(self) -> EventSourceMapping:
        assert self.mapping is not None
        return self.mapping

    @precondition(lambda self: self.mapping is not None)
    @rule(enabled=st.sampled_from([None, True, False]), size=st.integers(1, 2))
    def update(self, enabled: bool | None, size: int) -> None:
        event = Updated({"BatchSize": size}, self.now.ref, enabled, AT)
        if self.now.is_settling:
            with pytest.raises(ResourceInUse):
                apply(self.now, event)
            return
        before = self.now
        self.mapping = apply(before, event)
        self.wanted = self.wanted if enabled is None else enabled
        assert self.now.is_settling
        changed = before.parameters["BatchSize"] != size
        if not changed and enabled is not None and enabled != before.wants_enabled:
            assert self.now.state is (State.ENABLING if enabled else State.DISABLING)
        else:
            assert self.now.state is State.UPDATING

    @precondition(lambda self: self.mapping is not None)
    @rule()
    def delete(self) -> None:
        if self.now.is_settling:
            with pytest.raises(ResourceInUse):
                apply(self.now, DeletionRequested(AT))
        else:
            self.mapping = apply(self.now, DeletionRequested(AT))
            assert self.now.state is State.DELETING

    @precondition(lambda self: self.mapping is not None)
    @rule()
    def settle(self) -> None:
        if not self.now.is_settling:
            with pytest.raises(IllegalTransition):
                apply(self.now, Settled())
            return
        deleting = self.now.state is State.DELETING
        self.mapping = apply(self.now, Settled())
        assert (self.mapping is None) == deleting
        if self.mapping is not None:
            assert self.mapping.state is (State.ENABLED if self.wanted else State.DISABLED)

    @invariant()
    def identity_never_changes(self) -> None:
        if self.mapping is not None:
            assert (self.mapping.id, self.mapping.kind, self.mapping.source) == ("id", Kind.SQS, "arn")


TestMapping = Mapping.TestCase


@pytest.mark.parametrize(
    ("arn", "kind"),
    [
        (f"arn:aws:kinesis:{ACCOUNT}:stream/s", Kind.KINESIS),
        (f"arn:aws:kinesis:{ACCOUNT}:stream/s/consumer/c:1", Kind.KINESIS),
        (f"arn:aws:dynamodb:{ACCOUNT}:table/t/stream/2026-01-01T00:00:00.000", Kind.DYNAMODB),
        (f"arn:aws:sqs:{ACCOUNT}:q.fifo", Kind.SQS),
        (f"arn:aws:kafka:{ACCOUNT}:cluster/c/1-2", Kind.MSK),
        (f"arn:aws:kafka:{ACCOUNT}:vpc-connection/000000000000/c/1", Kind.MSK),
        (f"arn:aws:mq:{ACCOUNT}:broker:b:b-1", Kind.MQ),
        (f"arn:aws:rds:{ACCOUNT}:cluster:d", Kind.DOCUMENTDB),
        (f"arn:aws:dynamodb:{ACCOUNT}:table/t", None),
        (f"arn:aws:kinesis:{ACCOUNT}:s", None),
        (f"arn:aws:sqs:{ACCOUNT}:", None),
        ("arn:aws:s3:::bucket", None),
        ("arn", None),
    ],
)
def test_an_arn_tells_the_kind_of_its_source(arn: str, kind: Kind | None) -> None:
    if kind is None:
        with pytest.raises(InvalidParameterValue, match=r"^Unrecognized event source\.$"):
            source_of({"EventSourceArn": arn})
    else:
        assert source_of({"EventSourceArn": arn}) == (kind, arn)


def test_defaults_are_among_what_a_kind_accepts() -> None:
    for kind, rules in KINDS.items():
        assert set(rules.defaults) <= rules.accepted, kind
        assert set(rules.required) <= rules.accepted, kind
        assert bool(rules.starts) == ("StartingPosition" in rules.accepted), kind
