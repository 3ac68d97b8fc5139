"""The bandwidth of streamed responses."""

from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.streaming import BURST_BYTES, REFILL_EVERY_S, Allowance

sends = st.lists(st.tuples(st.integers(0, 4 * BURST_BYTES), st.floats(0, 30)), max_size=30)


@given(bytes_per_s=st.integers(32 * 1024, 64 * 1024 * 1024), sends=sends)
def test_whoever_waits_as_told_sends_no_more_than_burst_and_rate_allow(
    bytes_per_s: int, sends: list[tuple[int, float]]
) -> None:
    now = 0.0
    allowance = Allowance.full(bytes_per_s, now)
    sent = 0
    for size, pause in sends:
        now += allowance.wait_s + pause
        # What was sent before this moment fits into the burst and the time that passed.
        assert sent <= BURST_BYTES + bytes_per_s * now + 1
        allowance = allowance.spend(size, now)
        sent += size
        assert allowance.left <= BURST_BYTES


def test_the_burst_is_free_and_then_whole_refills_are_awaited() -> None:
    rate = 2 * 1024 * 1024
    allowance = Allowance.full(rate, 10.0).spend(BURST_BYTES, 10.0)
    assert allowance.wait_s == 0
    assert allowance.spend(1, 10.0).wait_s == REFILL_EVERY_S
    assert allowance.spend(rate, 10.0).wait_s == 1.0
    assert allowance.spend(rate, 11.0).wait_s == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance.full(1_000, 10.0).spend(BURST_BYTES, 10.0)
    assert allowance.spend(0, 5.0).left == 0
