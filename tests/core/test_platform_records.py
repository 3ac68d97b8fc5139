"""Platform records: their times and levels."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.platform_records import reported, started, timestamp, timestamp_of


@given(st.integers(0, 4_000_000_000_000))
def test_both_ways_to_a_timestamp_agree(milliseconds: int) -> None:
    # Half a millisecond more, so that the float on the way does not decide which millisecond it is.
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000 + 500)
    assert timestamp_of(milliseconds / 1000 + 0.0005) == timestamp(moment)


def test_a_record_is_written_with_time_type_and_members() -> None:
    assert started("id", "1", "arn").document(timestamp_of(1_790_000_000.25)) == {
        "time": "2026-09-21T14:13:20.250Z",
        "type": "platform.start",
        "record": {"requestId": "id", "version": "1", "functionArn": "arn"},
    }


def test_only_failures_are_shown_at_warn() -> None:
    assert not started("id", "1", "arn").is_shown("WARN")
    assert not reported("id", "success", 1.0).is_shown("WARN")
    assert reported("id", "error", 1.0).is_shown("warn")
    assert started("id", "1", "arn").is_shown("anything unknown counts as INFO")
