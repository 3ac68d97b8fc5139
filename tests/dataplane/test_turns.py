"""The server's turns on its core."""

from hypothesis import given
from hypothesis import strategies as st

from lambstead.dataplane.turns import TURN_S, Turns


@given(st.lists(st.floats(0, TURN_S * 3), min_size=1))
def test_a_turn_is_over_once_and_never_lasts_longer_than_a_turn(steps: list[float]) -> None:
    turns, now, offered = Turns(), 1.0, 0.0
    for step in steps:
        now += step
        if turns.is_over(now):
            assert now >= offered + TURN_S
            offered = now
        else:
            assert now < offered + TURN_S
