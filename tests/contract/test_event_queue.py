"""What every store must do with the queue of asynchronous invocations, with layers and with event source mappings."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.kept import Kept
from tests.samples import latest, standard

from lambstead.core.configurations import CodePackage, Layer
from lambstead.core.event_queue import DeadLetter, Delivery, QueuedEvent, QueueTotals, Response
from lambstead.core.event_sources import EventSourceMapping, Kind, State
from lambstead.core.layers import LayerPolicy, LayerVersion
from lambstead.store.port import Transaction

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "store.db")
    yield kept
    kept.close()


def event(name: str, function: str = "f") -> QueuedEvent:
    return QueuedEvent(name, function, "live", NOW, "Root=1", "{}", "tenant", 1, 2, Response("3", '{"é": 1}', True))


def claim(store: Kept, owner: str, at: datetime = NOW, limit: int = 10, function: str = "f") -> list[str]:
    taken = store.write(lambda tx: tx.claim_events(function, owner, at, at + timedelta(minutes=5), limit))
    return sorted(each.request_id for each, _ in taken)


def test_an_event_survives_a_restart_with_every_member_and_its_payload(store: Kept) -> None:
    payload = bytes(range(256))
    store.write(lambda tx: tx.enqueue_event(event("a"), payload, NOW))
    store.reopen()
    assert store.read(lambda reader: reader.queue_totals()) == QueueTotals(1, 256)
    taken = store.write(lambda tx: tx.claim_events("f", "me", NOW, LATER, 1))
    assert list(taken) == [(event("a"), payload)]


def test_an_event_is_claimed_once_until_its_lease_ends(store: Kept) -> None:
    store.write(lambda tx: tx.enqueue_event(event("a"), b"{}", NOW))
    assert claim(store, "me", NOW - timedelta(seconds=1)) == []
    assert claim(store, "me") == ["a"]
    assert claim(store, "you") == []
    store.write(lambda tx: tx.extend_event("a", "you", LATER + timedelta(hours=1)))
    assert claim(store, "you", LATER) == ["a"], "only its owner can extend a lease"
    assert not store.write(lambda tx: tx.delete_event("a", "me"))
    store.write(lambda tx: tx.extend_event("a", "you", LATER + timedelta(hours=1)))
    assert claim(store, "me", LATER + timedelta(minutes=59)) == []


def test_a_claim_takes_those_due_longest_up_to_its_limit_and_of_its_function_only(store: Kept) -> None:
    def work(tx: Transaction) -> None:
        for number in range(5):
            tx.enqueue_event(event(f"e{number}"), b"{}", NOW - timedelta(seconds=number))
        tx.enqueue_event(event("other", "g"), b"{}", NOW - timedelta(hours=1))

    store.write(work)
    assert store.read(lambda reader: list(reader.next_events())) == [
        ("f", NOW - timedelta(seconds=4)),
        ("g", NOW - timedelta(hours=1)),
    ]
    assert claim(store, "me", limit=2) == ["e3", "e4"]
    assert claim(store, "me") == ["e0", "e1", "e2"]


def test_a_rescheduled_event_comes_again_as_it_was_put_back(store: Kept) -> None:
    store.write(lambda tx: tx.enqueue_event(event("a"), b"[1]", NOW))
    claim(store, "me")
    again = replace(event("a"), attempts=2, refusals=0)
    assert not store.write(lambda tx: tx.reschedule_event(again, "you", LATER))
    assert store.write(lambda tx: tx.reschedule_event(again, "me", LATER))
    assert claim(store, "you", LATER - timedelta(milliseconds=1)) == []
    assert list(store.write(lambda tx: tx.claim_events("f", "you", LATER, LATER, 1))) == [(again, b"[1]")]


def test_released_leases_can_be_claimed_and_waiting_events_keep_their_time(store: Kept) -> None:
    def work(tx: Transaction) -> None:
        tx.enqueue_event(event("taken"), b"{}", NOW)
        tx.enqueue_event(event("waiting"), b"{}", LATER)

    store.write(work)
    claim(store, "dead")
    store.write(lambda tx: tx.release_leases(NOW))
    assert claim(store, "me") == ["taken"]


def test_totals_follow_every_change_and_a_reset(store: Kept) -> None:
    for name, size in (("a", 10), ("b", 20)):
        store.write(lambda tx, n=name, s=size: tx.enqueue_event(event(n), bytes(s), NOW))  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
    claim(store, "me")
    assert store.write(lambda tx: tx.delete_event("a", "me"))
    assert not store.write(lambda tx: tx.delete_event("a", "me"))
    assert store.read(lambda reader: reader.queue_totals()) == QueueTotals(1, 20)
    store.write(lambda tx: tx.delete_everything())
    assert store.read(lambda reader: reader.queue_totals()) == QueueTotals(0, 0)
    assert list(store.read(lambda reader: reader.next_events())) == []


def test_messages_are_kept_once_and_claimed_like_events(store: Kept) -> None:
    letter = DeadLetter("{}", "id", "200", "é")
    message = Delivery("a/dead-letter", "f", "arn", "target", "{}", False, NOW, letter)
    store.write(lambda tx: tx.enqueue_delivery(message, NOW))
    store.write(lambda tx: tx.enqueue_delivery(replace(message, body="other"), LATER))
    assert store.read(lambda reader: reader.next_delivery()) == NOW
    assert list(store.write(lambda tx: tx.claim_deliveries("me", NOW, LATER, 5))) == [message]
    assert list(store.write(lambda tx: tx.claim_deliveries("you", NOW, LATER, 5))) == []
    failed = replace(message, attempts=1)
    store.write(lambda tx: tx.reschedule_delivery(failed, "you", NOW))
    assert list(store.write(lambda tx: tx.claim_deliveries("you", NOW, LATER, 5))) == [], "it was not theirs"
    store.write(lambda tx: tx.reschedule_delivery(failed, "me", NOW))
    assert list(store.write(lambda tx: tx.claim_deliveries("you", NOW, LATER, 5))) == [failed]
    store.write(lambda tx: tx.delete_delivery(message.id, "you"))
    assert store.read(lambda reader: reader.next_delivery()) is None


# --- layers ---------------------------------------------------------------------------------------------------------------------


def code(letter: str) -> CodePackage:
    return CodePackage(letter * 43 + "=", 5)


def layer(number: int, name: str = "l") -> LayerVersion:
    policy = LayerPolicy("r", ({"Sid": "s", "Principal": {"AWS": "x"}},))
    return LayerVersion(name, number, code("A"), "2026", "d", "MIT", ("python3.13",), (), policy)


def test_layer_numbers_are_never_given_out_twice(store: Kept) -> None:
    first = store.write(lambda tx: tx.next_layer_number("l"))
    store.write(lambda tx: tx.save_layer_version(layer(first)))
    store.write(lambda tx: tx.delete_layer_version("l", first))
    store.reopen()
    assert (first, store.write(lambda tx: tx.next_layer_number("l"))) == (1, 2)
    assert store.write(lambda tx: tx.next_layer_number("m")) == 1


def test_layers_survive_with_every_member_and_are_listed_newest_first(store: Kept) -> None:
    for number in (1, 2, 3):
        assert store.write(lambda tx: tx.next_layer_number("l")) == number
        store.write(lambda tx, n=number: tx.save_layer_version(layer(n)))  # type: ignore[misc]  # as above
    store.reopen()
    assert store.read(lambda reader: reader.layer_version("l", 2)) == layer(2)
    assert store.read(lambda reader: reader.layer_version("l", 4)) is None
    assert [v.number for v in store.read(lambda reader: reader.layer_versions("l", 9, 2))] == [3, 2]
    assert [v.number for v in store.read(lambda reader: reader.layer_versions("l", 2, 2))] == [1]
    assert list(store.read(lambda reader: reader.layer_names("", 5))) == ["l"]
    assert list(store.read(lambda reader: reader.layer_names("l", 5))) == []


def test_packages_of_layers_are_in_use_while_a_layer_or_a_function_has_them(store: Kept) -> None:
    layers = (Layer("arn:b", code("B")), Layer("arn:a", code("A")))

    def work(tx: Transaction) -> None:
        tx.next_layer_number("l")
        tx.save_layer_version(layer(1))
        tx.save_version(latest(standard(layers=layers)))
        tx.save_version(latest(standard(), "without"))

    store.write(work)
    assert set(store.read(lambda reader: reader.layer_packages())) == {code("A").sha256, code("B").sha256}
    assert list(store.read(lambda reader: reader.layer_stacks())) == [[code("B"), code("A")]]
    assert store.read(lambda reader: reader.usage()).code_bytes == 205
    store.write(lambda tx: tx.delete_layer_version("l", 1))
    assert set(store.read(lambda reader: reader.layer_packages())) == {code("A").sha256, code("B").sha256}
    store.write(lambda tx: tx.delete_version("f", "$LATEST"))
    assert list(store.read(lambda reader: reader.layer_packages())) == []
    assert list(store.read(lambda reader: reader.layer_stacks())) == []


# --- event source mappings ----------------------------------------------------------------------------------------------------------


def mapping(name: str, function: str = "f", source: str = "arn", state: State = State.ENABLED) -> EventSourceMapping:
    return EventSourceMapping(name, Kind.SQS, source, function, "live", state, NOW, False, {"BatchSize": 5, "T": [1.5]})


def test_mappings_survive_a_function_and_a_restart_and_are_found_by_function_and_source(store: Kept) -> None:
    def work(tx: Transaction) -> None:
        tx.save_version(latest(standard()))
        for each in (mapping("c"), mapping("a", source="other"), mapping("b", "g")):
            tx.save_event_source_mapping(each)
        tx.delete_version("f", "$LATEST")

    store.write(work)
    store.reopen()
    assert store.read(lambda reader: reader.event_source_mapping("c")) == mapping("c")

    def ids(
        after: str = "", limit: int | None = None, source: str | None = None, function: str | None = None
    ) -> list[str]:
        return [m.id for m in store.read(lambda r: r.event_source_mappings(after, limit, source, function))]

    assert ids() == ["a", "b", "c"]
    assert ids("a", 1) == ["b"]
    assert ids(function="f") == ["a", "c"]
    assert ids(source="arn", function="f") == ["c"]
    store.write(lambda tx: tx.delete_event_source_mapping("c"))
    assert ids() == ["a", "b"]


def test_mappings_in_the_middle_of_a_change_are_found(store: Kept) -> None:
    for name, state in (("a", State.CREATING), ("b", State.ENABLED), ("c", State.DELETING)):
        store.write(lambda tx, n=name, s=state: tx.save_event_source_mapping(mapping(n, state=s)))  # type: ignore[misc]  # as above
    assert [m.id for m in store.read(lambda reader: reader.unsettled_event_source_mappings(9))] == ["a", "c"]
    store.write(lambda tx: tx.save_event_source_mapping(mapping("a")))
    assert [m.id for m in store.read(lambda reader: reader.unsettled_event_source_mappings(9))] == ["c"]
