"""Loops in trace headers: counts per function, whatever travels in between."""

from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.lineage import MAX_FUNCTIONS, MAX_LOOPS, arrive
from lambstead.core.traces import is_trace_header

ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def test_a_function_is_stopped_at_its_seventeenth_arrival() -> None:
    header = ROOT
    for arrival in range(1, MAX_LOOPS + 2):
        step = arrive(header, "arn:f")
        assert (step.arrivals, step.is_loop) == (arrival, arrival > MAX_LOOPS)
        header = step.trace_header
    assert header.startswith(ROOT + ";Lineage=")


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_each_function_of_a_chain_has_its_own_count_and_the_header_stays_one(chain: list[str]) -> None:
    header = ROOT
    for position, name in enumerate(chain):
        step = arrive(header, f"arn:{name}")
        assert step.arrivals == chain[: position + 1].count(name)
        header = step.trace_header
        assert is_trace_header(header)
        assert header.count("Lineage=") == 1


@given(st.lists(st.integers(0, 10_000), min_size=30, max_size=60, unique=True))
def test_long_chains_forget_their_oldest_functions_and_stay_short(chain: list[int]) -> None:
    header = ROOT
    for name in chain:
        header = arrive(header, str(name)).trace_header
    assert is_trace_header(header)
    assert header.partition("Lineage=")[2].count("|") == MAX_FUNCTIONS - 1
    assert arrive(header, str(chain[-1])).arrivals == 2
    assert arrive(header, str(chain[0])).arrivals == 1


@given(st.text(max_size=60))
def test_any_header_is_counted_from(header: str) -> None:
    assert arrive(header, "arn:f").arrivals >= 1


def test_counting_ends_for_functions_that_may_loop() -> None:
    header = ROOT
    for _ in range(1100):
        step = arrive(header, "arn:f")
        header = step.trace_header
    assert step.arrivals == 999
    assert is_trace_header(header)
