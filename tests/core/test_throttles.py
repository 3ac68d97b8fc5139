"""The counter of throttles, and the refusal of a full queue."""

import pytest

from lambstead.core.errors import TooManyRequests
from lambstead.core.event_queue import MAX_QUEUED_BYTES, MAX_QUEUED_EVENTS, QueueTotals, check_room
from lambstead.core.throttles import MAX_COUNTED, Cause, Throttled, Throttles


def test_every_throttle_has_exactly_one_cause() -> None:
    throttles = Throttles()
    for cause in (Cause.NO_SLOT, Cause.NO_SLOT, Cause.LINE_FULL):
        throttles.add("f", "1", cause)
    throttles.add("f", "2", Cause.NO_SLOT)
    assert throttles.counted() == [
        Throttled("f", "1", Cause.LINE_FULL, 1),
        Throttled("f", "1", Cause.NO_SLOT, 2),
        Throttled("f", "2", Cause.NO_SLOT, 1),
    ]


def test_a_counter_without_room_loses_the_name_and_not_the_throttle() -> None:
    throttles = Throttles()
    for number in range(MAX_COUNTED + 5):
        throttles.add(f"f{number}", "1", Cause.NO_SLOT)
    throttles.add("f0", "1", Cause.NO_SLOT)
    counted = {(each.function, each.version): each.count for each in throttles.counted()}
    assert counted["", ""] == 5
    assert counted["f0", "1"] == 2
    assert sum(counted.values()) == MAX_COUNTED + 6


@pytest.mark.parametrize(("events", "size_bytes"), [(MAX_QUEUED_EVENTS, 0), (1, MAX_QUEUED_BYTES)])
def test_a_full_queue_of_events_is_a_throttle_of_the_caller(events: int, size_bytes: int) -> None:
    with pytest.raises(TooManyRequests) as caught:
        check_room(QueueTotals(events, size_bytes), b"1")
    assert caught.value.facts == {"Reason": "CallerRateLimitExceeded", "Type": "User", "retryAfterSeconds": "1"}
