"""The contract of `store.port.Store`, run against every adapter.

An adapter joins by adding to `ADAPTERS` how one opens its store on a fresh place, and opens it again on the same one. What is asked of each:
lists are ordered and complete while items come and go, a write is all or nothing and durable when it is acknowledged, work that raises undoes only
itself, listeners hear before writers do, and nothing that was accepted is lost by closing or by a killed process.
"""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.samples import AT, created, latest, managed, provider, published, serving, standard

from lambstead.core.aliases import Alias
from lambstead.core.arn import LATEST, LATEST_PUBLISHED
from lambstead.core.capacity import CapacityProvider, InstanceRequirements, ProviderScaling, ProviderState
from lambstead.core.configurations import CodePackage
from lambstead.core.functions import (
    BoundsRequested,
    CapacityFailed,
    DeletionRequested,
    FunctionVersion,
    Reason,
    Republished,
    Updated,
    apply,
    ordinal_of,
)
from lambstead.core.scaling import ScalingBounds
from lambstead.store.port import Position, Reader, Store, Transaction
from lambstead.store.sql import load_migrations
from lambstead.store.sqlite import SchemaTooNew, SqliteStore, connect, migrate

T = TypeVar("T")
EVERYTHING = 1_000_000
START: Position = ("", -2)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is kept, and how its adapter opens it."""

    open: Callable[[], Awaitable[Store]]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        store = await self.open()
        try:
            yield store
        finally:
            await store.close()

    def run(self, story: Callable[[Store], Awaitable[T]]) -> T:
        """The story's result, with a store that is closed afterwards."""

        async def told() -> T:
            async with self.opened() as store:
                return await asyncio.wait_for(story(store), 60)

        return asyncio.run(told())


def _sqlite(folder: Path) -> Place:
    return Place(lambda: SqliteStore.open(folder / "lambstead.db"))


ADAPTERS: dict[str, Callable[[Path], Place]] = {"sqlite": _sqlite}


@pytest.fixture(params=ADAPTERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return ADAPTERS[request.param](tmp_path)


def save(*things: FunctionVersion | Alias | CapacityProvider) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        for thing in things:
            match thing:
                case FunctionVersion():
                    tx.save_version(thing)
                case Alias():
                    tx.save_alias(thing)
                case CapacityProvider():
                    tx.save_provider(thing)

    return work


def alias(name: str, function: str = "f", version: str = LATEST, second: str | None = None) -> Alias:
    return Alias(function, name, version, "r", second=second, second_weight=0.5 if second else 0.0)


def names(versions: Iterable[FunctionVersion]) -> list[tuple[str, str]]:
    return [(v.function, v.version) for v in versions]


# --- what is written is read, whole ---------------------------------------------------------------------------------------------

FULL = managed(
    description='ünïcode \u2028 "quotes" \'',
    variables={"A": "b\n", "": "empty"},
    timeout_s=5400,
    recorded={"TracingConfig": {"Mode": "Active"}, "Deep": {"list": [1, 2.5, None, True, {"x": "y"}]}},
)
NO_ROOM = Reason("CapacityProviderScalingLimitExceeded", "no room")


@pytest.mark.parametrize(
    "version",
    [
        created(standard()),
        latest(standard(variables={})),
        latest(FULL),
        published(FULL),
        serving(managed(), "17"),
        apply(published(managed()), CapacityFailed(1, NO_ROOM, "r")),
        apply(serving(managed()), Republished(FULL, AT, "r")),
        apply(serving(managed()), BoundsRequested(ScalingBounds(2, 7))),
        apply(serving(managed()), BoundsRequested(None)),
        apply(latest(managed()), DeletionRequested()),
        latest(standard(), target=2**53),
    ],
    ids=lambda v: f"{v.version}-{v.state}-{v.update_status}",
)
def test_a_version_is_read_as_it_was_saved(place: Place, version: FunctionVersion) -> None:
    async def story(store: Store) -> None:
        await store.write(save(version))
        assert await store.read(lambda r: r.version("f", version.version)) == version
        again = replace(version, revision_id="another")
        await store.write(save(again))
        assert await store.read(lambda r: r.version("f", version.version)) == again

    place.run(story)


def test_an_alias_and_a_provider_are_read_as_they_were_saved(place: Place) -> None:
    full = provider(
        requirements=InstanceRequirements("arm64", excluded=("m7g.*",)),
        scaling=ProviderScaling(12, "Manual", ({"PredefinedMetricType": "x", "TargetValue": 50.5},)),
        kms_key_arn="arn",
        propagated_tags={"Mode": "Explicit", "ExplicitTags": {"a": "b"}},
        telemetry={"LoggingConfig": {"LogGroup": "g"}},
    )

    async def story(store: Store) -> None:
        await store.write(save(latest(standard()), alias("live", second="2"), full))
        assert await store.read(lambda r: r.alias("f", "live")) == alias("live", second="2")
        assert await store.read(lambda r: r.provider("cp")) == full
        await store.write(save(replace(full, state=ProviderState.DELETING), alias("live")))
        assert await store.read(lambda r: r.alias("f", "live")) == alias("live")
        assert (await store.read(lambda r: r.provider("cp"))) == replace(full, state=ProviderState.DELETING)

    place.run(story)


def test_what_was_never_saved_is_not_there(place: Place) -> None:
    async def story(store: Store) -> None:
        def work(r: Reader) -> list[object]:
            return [r.function("f"), r.version("f", LATEST), r.alias("f", "a"), r.provider("cp")]

        assert await store.read(work) == [None] * 4
        assert await store.read(lambda r: (dict(r.tags("arn")), list(r.packages()), list(r.unsettled()))) == (
            {},
            [],
            [],
        )

        def forget(tx: Transaction) -> None:
            tx.delete_version("f", "1")
            tx.delete_alias("f", "a")
            tx.delete_provider("cp")
            tx.remove_tags("arn", ["x"])
            tx.remove_tags("arn")
            tx.delete_everything()

        await store.write(forget)

    place.run(story)


@pytest.mark.parametrize("name", ["0", "01", "001", "٣", "²", "9" * 40, "-1", "live", "", "1 ", "$latest"])
def test_only_a_versions_own_name_finds_it(place: Place, name: str) -> None:
    async def story(store: Store) -> None:
        await store.write(save(latest(managed()), serving(managed()), serving(managed(), "1"), serving(managed(), "3")))
        assert await store.read(lambda r: r.version("f", name)) is None
        assert names([v for n in (LATEST, LATEST_PUBLISHED, "1") if (v := await _version(store, n))]) == [
            ("f", LATEST),
            ("f", LATEST_PUBLISHED),
            ("f", "1"),
        ]

    place.run(story)


async def _version(store: Store, name: str) -> FunctionVersion | None:
    return await store.read(lambda r: r.version("f", name))


def test_a_function_is_its_versions_and_aliases(place: Place) -> None:
    versions = (latest(managed()), serving(managed()), serving(managed(), "2"))

    async def story(store: Store) -> None:
        await store.write(save(*versions, alias("b"), alias("a"), latest(standard(), "g"), alias("x", "g")))
        snapshot = await store.read(lambda r: r.function("f"))
        assert snapshot is not None
        assert snapshot.name == "f"
        assert snapshot.versions == {v.version: v for v in versions}
        assert snapshot.aliases == {"a": alias("a"), "b": alias("b")}

    place.run(story)


# --- numbers and deletion ----------------------------------------------------------------------------------------------------------


def test_version_numbers_are_never_given_out_twice(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.write(save(latest(standard())))

        def publish(tx: Transaction) -> int:
            number = tx.next_version_number("f")
            tx.save_version(serving(managed(), str(number)))
            return number

        assert [await store.write(publish) for _ in range(3)] == [1, 2, 3]
        await store.write(lambda tx: tx.delete_version("f", "3"))
        assert await store.write(publish) == 4

        def publish_in_vain(tx: Transaction) -> None:
            publish(tx)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.write(publish_in_vain)
        assert await store.write(publish) == 5

    place.run(story)


def test_with_the_last_version_the_function_is_gone(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.write(save(latest(standard()), serving(managed(), "1"), alias("live"), latest(standard(), "g")))
        await store.write(lambda tx: tx.delete_version("f", LATEST))
        assert await store.read(lambda r: r.function("f")) is not None
        await store.write(lambda tx: tx.delete_version("f", "1"))
        assert await store.read(lambda r: r.function("f")) is None
        assert await store.read(lambda r: r.alias("f", "live")) is None
        assert await store.read(lambda r: r.function("g")) is not None
        await store.write(save(latest(standard())))
        assert await store.write(lambda tx: tx.next_version_number("f")) == 1, "a new function starts anew"

    place.run(story)


def test_an_alias_needs_its_function(place: Place) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            await store.write(save(alias("live")))
        assert await store.read(lambda r: r.alias("f", "live")) is None

    place.run(story)


def test_deleting_everything_leaves_nothing(place: Place) -> None:
    async def story(store: Store) -> None:
        heard: list[frozenset[str]] = []
        await store.write(save(latest(standard()), alias("live"), latest(standard(), "g"), provider()))
        await store.write(lambda tx: tx.add_tags("arn", {"a": "b"}))
        store.on_change(heard.append)
        await store.write(lambda tx: tx.delete_everything())
        assert heard == [frozenset({"f", "g"})]

        def work(r: Reader) -> list[int]:
            lists: list[Sequence[object]] = [r.functions("", 9), r.versions(START, 9), r.providers("", 9)]
            return [len(found) for found in (*lists, r.tags("arn"), list(r.packages()))]

        assert await store.read(work) == [0] * 5

    place.run(story)


def test_tags(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.write(lambda tx: tx.add_tags("arn:1", {"a": "1", "b": "2", "": ""}))
        await store.write(lambda tx: tx.add_tags("arn:1", {"b": "3", "c": "4"}))
        await store.write(lambda tx: tx.add_tags("arn:2", {"a": "other"}))
        assert await store.read(lambda r: dict(r.tags("arn:1"))) == {"": "", "a": "1", "b": "3", "c": "4"}
        await store.write(lambda tx: tx.remove_tags("arn:1", ["a", "nobody"]))
        assert await store.read(lambda r: dict(r.tags("arn:1"))) == {"": "", "b": "3", "c": "4"}
        await store.write(lambda tx: tx.remove_tags("arn:1", []))
        assert await store.read(lambda r: len(r.tags("arn:1"))) == 3
        await store.write(lambda tx: tx.remove_tags("arn:1"))
        assert await store.read(lambda r: (dict(r.tags("arn:1")), dict(r.tags("arn:2")))) == ({}, {"a": "other"})

    place.run(story)


# --- selections -------------------------------------------------------------------------------------------------------------------


def test_what_is_unsettled_is_found_until_it_is_settled(place: Place) -> None:
    settled = (
        latest(managed()),
        serving(managed(), "1"),
        apply(published(managed(), "2"), CapacityFailed(1, NO_ROOM, "r")),
    )
    unsettled = (
        apply(latest(standard(), "g"), Updated(standard(timeout_s=9), AT, "r")),
        created(standard(), "h"),
        replace(apply(serving(managed()), BoundsRequested(ScalingBounds(0, 0))), function="i"),
        replace(published(managed(), "3"), function="j"),
        replace(apply(serving(managed(), "4"), DeletionRequested()), function="k"),
    )

    async def story(store: Store) -> None:
        await store.write(save(*settled, *reversed(unsettled)))
        assert await store.read(lambda r: list(r.unsettled())) == list(unsettled)
        await store.write(save(latest(standard(), "h")))
        assert names(await store.read(lambda r: list(r.unsettled()))) == names(
            v for v in unsettled if v.function != "h"
        )

    place.run(story)


def test_what_is_published_on_providers_leaves_latest_and_standard_functions_out(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.write(
            save(
                latest(managed()),
                serving(managed(), "10"),
                serving(managed(), "2"),
                serving(managed()),
                latest(standard(), "g"),
                published(standard(), "1", function="g"),
                serving(managed("other"), "1", function="h"),
            )
        )
        found = await store.read(lambda r: list(r.published_on_providers()))
        assert names(found) == [("f", LATEST_PUBLISHED), ("f", "2"), ("f", "10"), ("h", "1")]
        on_cp = await store.read(lambda r: list(r.versions_on("cp", START, EVERYTHING)))
        assert names(on_cp) == [("f", LATEST), ("f", LATEST_PUBLISHED), ("f", "2"), ("f", "10")]
        moved = replace(latest(managed("other")), function="f")
        await store.write(save(moved))
        assert names(await store.read(lambda r: list(r.versions_on("cp", START, 1)))) == [("f", LATEST_PUBLISHED)]

    place.run(story)


def test_packages_are_those_that_versions_refer_to(place: Place) -> None:
    one, two = CodePackage("b25l", 1), CodePackage("dHdv", 2)

    async def story(store: Store) -> None:
        await store.write(
            save(latest(standard(code=one)), latest(standard(code=one), "g"), latest(standard(code=two), "h"))
        )
        assert sorted(await store.read(lambda r: list(r.packages()))) == sorted([one.sha256, two.sha256])
        await store.write(lambda tx: tx.delete_version("h", LATEST))
        assert await store.read(lambda r: list(r.packages())) == [one.sha256]

    place.run(story)


def test_aliases_are_listed_by_name_and_by_what_they_may_run(place: Place) -> None:
    made = [
        alias("b", version="1"),
        alias("a", version="2"),
        alias("c", version="2", second="1"),
        alias("B", version="1"),
    ]

    async def story(store: Store) -> None:
        await store.write(save(latest(standard()), latest(standard(), "g"), *made, alias("a", "g", "1")))

        async def listed(after: str, limit: int, version: str | None = None) -> list[str]:
            return [a.name for a in await store.read(lambda r: r.aliases("f", after, limit, version))]

        assert await listed("", 10) == ["B", "a", "b", "c"]
        assert await listed("a", 1) == ["b"]
        assert await listed("", 10, "1") == ["B", "b", "c"]
        assert await listed("B", 1, "1") == ["b"]
        assert await listed("b", 1, "1") == ["c"]
        assert await listed("", 10, "9") == []

    place.run(story)


def test_providers_are_listed_by_name_and_state(place: Place) -> None:
    async def story(store: Store) -> None:
        states = {"b": ProviderState.ACTIVE, "a": ProviderState.PENDING, "C": ProviderState.ACTIVE}
        await store.write(save(*(provider(name, state=state) for name, state in states.items())))

        async def listed(after: str, limit: int, state: ProviderState | None = None) -> list[str]:
            return [p.name for p in await store.read(lambda r: r.providers(after, limit, state))]

        assert await listed("", 10) == ["C", "a", "b"]
        assert await listed("C", 1) == ["a"]
        assert await listed("", 10, ProviderState.ACTIVE) == ["C", "b"]
        assert await listed("C", 10, ProviderState.ACTIVE) == ["b"]
        assert await listed("", 10, ProviderState.DELETING) == []

    place.run(story)


# --- pages while items come and go ---------------------------------------------------------------------------------------------------

NAMES = ["A", "Z", "_", "a", "a-", "a1", "a10", "a2", "aB", "b", "z", "z-9", "é"]


def test_names_are_ordered_by_code_point(place: Place) -> None:
    async def story(store: Store) -> None:
        shuffled = random.Random(1).sample(NAMES, len(NAMES))
        await store.write(save(*(latest(standard(), name) for name in shuffled)))
        assert [v.function for v in await store.read(lambda r: r.functions("", EVERYTHING))] == sorted(NAMES)

    place.run(story)


@dataclass(frozen=True, slots=True)
class Listing:
    """One of the paged lists: how to read a page, and the key that the next one starts after."""

    page: Callable[[Reader, Position, int], Sequence[FunctionVersion]]
    shows: Callable[[FunctionVersion], bool]


LISTINGS = {
    "functions": Listing(lambda r, after, n: r.functions(after[0], n), lambda v: v.version == LATEST),
    "versions": Listing(lambda r, after, n: r.versions(after, n), lambda v: True),
    "versions-of-one": Listing(
        lambda r, after, n: r.versions(("f", after[1]) if after != START else ("f", -2), n, "f"),
        lambda v: v.function == "f",
    ),
    "versions-on": Listing(lambda r, after, n: r.versions_on("cp", after, n), lambda v: v.is_managed),
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
@pytest.mark.parametrize("seed", range(5))
def test_pages_show_everything_that_stays_once_and_in_order(place: Place, listing: Listing, seed: int) -> None:
    chance = random.Random(seed)
    functions = ["e", "f", "g", "h"]
    versions = [LATEST, LATEST_PUBLISHED, *map(str, range(1, 9))]
    staying = {(f, v) for f in functions for v in versions if v == LATEST or chance.random() < 0.5}
    passing = [(f, v) for f in functions for v in versions if (f, v) not in staying]

    def made(key: tuple[str, str]) -> FunctionVersion:
        function, version = key
        configuration = standard() if function == "g" else managed()
        return replace(latest(configuration), function=function, version=version)

    async def story(store: Store) -> None:
        await store.write(save(*(made(key) for key in staying)))
        seen: list[FunctionVersion] = []
        after = START
        while True:
            size = chance.randint(1, 4)
            page = await store.read(lambda r, after=after, size=size: listing.page(r, after, size))  # type: ignore[misc]
            seen += page
            if len(page) < size:
                break
            after = (page[-1].function, ordinal_of(page[-1].version))
            come, go = chance.sample(passing, 3), chance.sample(passing, 3)

            def change(tx: Transaction, come: list[tuple[str, str]] = come, go: list[tuple[str, str]] = go) -> None:
                for key in come:
                    tx.save_version(made(key))
                for function, version in go:
                    tx.delete_version(function, version)

            await store.write(change)
        keys = [(v.function, ordinal_of(v.version)) for v in seen]
        assert keys == sorted(set(keys)), "out of order, or twice"
        assert {(f, ordinal_of(v)) for f, v in staying if listing.shows(made((f, v)))} <= set(keys)

    place.run(story)


# --- all or nothing ---------------------------------------------------------------------------------------------------------------


def test_work_that_raises_undoes_only_itself(place: Place) -> None:
    def work(number: int) -> Callable[[Transaction], int]:
        def saves(tx: Transaction) -> int:
            tx.save_version(latest(standard(), f"f{number}"))
            if number % 3 == 0:
                raise KeyError(number)
            if number % 3 == 1 and number % 2:
                raise StopIteration
            return number

        return saves

    async def story(store: Store) -> None:
        results = await asyncio.gather(*(store.write(work(n)) for n in range(60)), return_exceptions=True)
        for number, result in enumerate(results):
            if number % 3 == 0:
                assert isinstance(result, KeyError)
                assert result.args == (number,)
            elif number % 3 == 1 and number % 2:
                assert isinstance(result, RuntimeError)
            else:
                assert result == number
        good = sorted(f"f{result}" for result in results if isinstance(result, int))
        assert [v.function for v in await store.read(lambda r: r.functions("", EVERYTHING))] == good

    place.run(story)


def test_each_work_sees_what_the_ones_before_it_wrote(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.write(save(latest(standard())))
        numbers = await asyncio.gather(*(store.write(lambda tx: tx.next_version_number("f")) for _ in range(100)))
        assert numbers == list(range(1, 101))

        def reads_its_own(tx: Transaction) -> FunctionVersion | None:
            tx.save_version(latest(standard(timeout_s=77)))
            return tx.version("f", LATEST)

        found = await store.write(reads_its_own)
        assert found is not None
        assert found.configuration.timeout_s == 77

    place.run(story)


def test_a_read_is_a_snapshot(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.write(save(latest(standard()), latest(standard(), "g")))
        reading, written = threading.Event(), threading.Event()

        def work(r: Reader) -> tuple[str, str]:
            first = r.version("f", LATEST)
            reading.set()
            assert written.wait(30)
            second = r.version("g", LATEST)
            assert first is not None
            assert second is not None
            return first.revision_id, second.revision_id

        task = asyncio.ensure_future(store.read(work))
        await asyncio.to_thread(reading.wait, 30)
        new = [latest(standard(), name, revision_id="new") for name in ("f", "g")]
        await store.write(save(*new))
        written.set()
        assert await task == ("settled", "settled")
        assert await store.read(lambda r: [v.revision_id for v in r.functions("", 9)]) == ["new", "new"]

    place.run(story)


def test_a_read_sees_every_acknowledged_write(place: Place) -> None:
    async def story(store: Store) -> None:
        async def one(number: int) -> None:
            await store.write(save(latest(standard(), f"f{number}")))
            assert await store.read(lambda r: r.version(f"f{number}", LATEST)) is not None

        await asyncio.gather(*(one(n) for n in range(100)))

    place.run(story)


# --- who hears what, when -------------------------------------------------------------------------------------------------------------


def test_listeners_hear_of_changed_functions_before_the_writer_does(place: Place) -> None:
    async def story(store: Store) -> None:
        heard: list[str] = []
        store.on_change(lambda changed: heard.extend(sorted(changed)))

        async def write(work: Callable[[Transaction], object], expected: str) -> None:
            await store.write(work)
            assert expected in heard

        works = {f"f{n}": save(latest(standard(), f"f{n}"), alias("a", f"f{n}")) for n in range(20)}
        await asyncio.gather(*(write(work, name) for name, work in works.items()))
        heard.clear()
        await store.write(lambda tx: tx.delete_alias("f3", "a"))
        await store.write(lambda tx: tx.delete_version("f4", LATEST))
        assert heard == ["f3", "f4"]

    place.run(story)


def test_listeners_hear_nothing_of_work_that_raised_or_touched_no_function(place: Place) -> None:
    async def story(store: Store) -> None:
        heard: list[frozenset[str]] = []
        store.on_change(heard.append)

        def raises(tx: Transaction) -> None:
            tx.save_version(latest(standard()))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.write(raises)
        await store.write(save(provider()))
        await store.write(lambda tx: tx.add_tags("arn", {"a": "b"}))
        assert heard == []

    place.run(story)


def test_a_writer_that_is_cancelled_takes_nobody_with_it(place: Place) -> None:
    async def story(store: Store) -> None:
        blocked, go = threading.Event(), threading.Event()

        def slow(tx: Transaction) -> None:
            blocked.set()
            assert go.wait(30)
            tx.save_version(latest(standard(), "slow"))

        def raises(tx: Transaction) -> None:
            raise ZeroDivisionError

        cancelled = [asyncio.ensure_future(store.write(work)) for work in (slow, raises)]
        others = [asyncio.ensure_future(store.write(save(latest(standard(), f"f{n}")))) for n in range(10)]
        await asyncio.to_thread(blocked.wait, 30)
        for task in cancelled:
            task.cancel()
        for task in cancelled:
            with pytest.raises(asyncio.CancelledError):
                await task
        go.set()
        await asyncio.gather(*others)
        found = {v.function for v in await store.read(lambda r: r.functions("", EVERYTHING))}
        assert found == {"slow", *(f"f{n}" for n in range(10))}, "what was begun is done"

    place.run(story)


def test_work_that_refuses_first_is_refused_alone_and_fails_all_if_it_wrote_before(place: Place) -> None:
    async def story(store: Store) -> None:
        def refuses(tx: Transaction) -> None:
            raise ZeroDivisionError

        def breaks_its_promise(tx: Transaction) -> None:
            tx.save_version(latest(standard(), "half"))
            raise ZeroDivisionError

        async def together(*works: Callable[[Transaction], None]) -> list[object]:
            """What became of pieces of work that share one commit."""
            blocked, go = threading.Event(), threading.Event()

            def slow(tx: Transaction) -> None:
                blocked.set()
                assert go.wait(30)

            first = asyncio.ensure_future(store.write(slow))
            await asyncio.to_thread(blocked.wait, 30)
            writes = [asyncio.ensure_future(store.write(work, refuses_first=True)) for work in works]
            await asyncio.sleep(0)  # each has handed its work over now
            go.set()
            await first
            return list(await asyncio.gather(*writes, return_exceptions=True))

        async def functions() -> set[str]:
            return {v.function for v in await store.read(lambda r: r.functions("", EVERYTHING))}

        one, refused, two = await together(save(latest(standard(), "one")), refuses, save(latest(standard(), "two")))
        assert (one, type(refused), two) == (None, ZeroDivisionError, None)
        assert await functions() == {"one", "two"}
        ends = await together(save(latest(standard(), "three")), breaks_its_promise)
        assert [type(each) for each in ends] == [ZeroDivisionError, ZeroDivisionError]
        assert await functions() == {"one", "two"}
        await store.write(save(latest(standard(), "four")), refuses_first=True)
        assert await functions() == {"one", "two", "four"}, "the lane goes on"

    place.run(story)


# --- closing, opening, dying ------------------------------------------------------------------------------------------------------------


def test_close_finishes_what_was_accepted(place: Place) -> None:
    async def first() -> list[object]:
        store = await place.open()
        writes = [asyncio.ensure_future(store.write(save(latest(standard(), f"f{n}")))) for n in range(600)]
        await asyncio.sleep(0)  # each has handed its work over now
        await store.close()
        await asyncio.wait(writes, timeout=0)
        assert all(write.done() for write in writes), "closed before it was finished"
        await store.close()
        with pytest.raises(RuntimeError, match="closed"):
            await store.write(save(provider()))
        return await asyncio.gather(*writes, return_exceptions=True)

    assert asyncio.run(first()) == [None] * 600
    assert len(place.run(lambda store: store.read(lambda r: r.functions("", EVERYTHING)))) == 600


def test_what_was_written_is_there_after_opening_again(place: Place) -> None:
    versions = (latest(FULL), serving(FULL), serving(managed(), "7"))

    async def write(store: Store) -> None:
        await store.write(save(*versions, alias("live", version="7"), provider()))
        await store.write(lambda tx: tx.add_tags("arn", {"a": "b"}))
        assert await store.write(lambda tx: tx.next_version_number("f")) == 1

    async def read(store: Store) -> None:
        snapshot = await store.read(lambda r: r.function("f"))
        assert snapshot is not None
        assert tuple(snapshot.versions.values()) == versions
        assert snapshot.aliases == {"live": alias("live", version="7")}
        assert await store.read(lambda r: (r.provider("cp"), dict(r.tags("arn")))) == (provider(), {"a": "b"})
        assert await store.write(lambda tx: tx.next_version_number("f")) == 2

    place.run(write)
    place.run(read)


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from tests.contract.test_store import ADAPTERS, save
    from tests.samples import latest, standard

    async def main():
        store = await ADAPTERS[sys.argv[1]](Path(sys.argv[2])).open()
        print("ready", flush=True)

        async def write(lane):
            number = 0
            while True:
                number += 1
                name = f"{lane}-{number}"
                # Two rows in one transaction: they are both there or neither is.
                await store.write(save(latest(standard(), name), latest(standard(), f"{name}-twin")))
                sys.stdout.write(name + "\\n")
                sys.stdout.flush()

        await asyncio.gather(*(write(f"lane{n}") for n in range(8)))

    asyncio.run(main())
"""


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_killed_process_loses_no_acknowledged_write(adapter: str, tmp_path: Path) -> None:
    """Killed again and again at random moments, going on from where it was: what it said was written is there, and no half of anything."""
    root = Path(__file__).parents[2]
    chance = random.Random(1)
    acknowledged: set[str] = set()
    for attempt in range(6):
        command = [sys.executable, "-c", textwrap.dedent(WRITER).replace('f"lane{n}"', f'f"lane{{n}}-{attempt}"')]
        writer = subprocess.Popen(
            [*command, adapter, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root, start_new_session=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(chance.randint(1, 400)):
            acknowledged.add(writer.stdout.readline().strip())
        os.killpg(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read()
        acknowledged.update(line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n"))
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
    found = {
        v.function
        for v in ADAPTERS[adapter](tmp_path).run(lambda store: store.read(lambda r: r.functions("", EVERYTHING)))
    }
    assert len(acknowledged) >= 6
    assert acknowledged <= found
    assert {f"{name}-twin" for name in found if not name.endswith("-twin")} == {n for n in found if n.endswith("-twin")}


# --- everything at once -----------------------------------------------------------------------------------------------------------------

KEYS = st.tuples(st.sampled_from("fgh"), st.sampled_from([LATEST, LATEST_PUBLISHED, "1", "2", "10"]))
ALIASES = st.tuples(st.sampled_from("fgh"), st.sampled_from("abc"))


class Storing(RuleBasedStateMachine):
    """The store against dictionaries."""

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(self._temporary())
        self.place = ADAPTERS["sqlite"](self.folder)
        self.store: Store = self.runner.run(_opened(self.place))
        self.versions: dict[tuple[str, str], FunctionVersion] = {}
        self.aliases: dict[tuple[str, str], Alias] = {}
        self.last: dict[str, int] = {}

    def _temporary(self) -> str:
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        return self.temporary.name

    @rule(key=KEYS, made=st.sampled_from([latest(standard()), latest(managed()), created(managed())]))
    def save_version(self, key: tuple[str, str], made: FunctionVersion) -> None:
        version = replace(made, function=key[0], version=key[1])
        self.runner.run(self.store.write(save(version)))
        self.versions[key] = version
        self.last.setdefault(key[0], 0)

    @rule(key=KEYS)
    def delete_version(self, key: tuple[str, str]) -> None:
        self.runner.run(self.store.write(lambda tx: tx.delete_version(*key)))
        self.versions.pop(key, None)
        if not any(function == key[0] for function, _ in self.versions):
            self.aliases = {k: a for k, a in self.aliases.items() if k[0] != key[0]}
            self.last.pop(key[0], None)

    @rule(key=ALIASES, version=st.sampled_from(["1", "2"]))
    def save_alias(self, key: tuple[str, str], version: str) -> None:
        if key[0] in self.last:
            self.aliases[key] = alias(key[1], key[0], version)
            self.runner.run(self.store.write(save(self.aliases[key])))

    @rule(key=ALIASES)
    def delete_alias(self, key: tuple[str, str]) -> None:
        self.runner.run(self.store.write(lambda tx: tx.delete_alias(*key)))
        self.aliases.pop(key, None)

    @rule(function=st.sampled_from("fgh"))
    def take_number(self, function: str) -> None:
        if function in self.last:
            self.last[function] += 1
            found = self.runner.run(self.store.write(lambda tx: tx.next_version_number(function)))
            assert found == self.last[function]

    @rule()
    def open_again(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.runner.run(_opened(self.place))

    @invariant()
    def reads_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        ordered = sorted(self.versions.values(), key=lambda v: (v.function, ordinal_of(v.version)))

        def work(r: Reader) -> None:
            assert r.versions(START, EVERYTHING) == ordered
            assert r.functions("", EVERYTHING) == [v for v in ordered if v.version == LATEST]
            assert r.versions_on("cp", START, EVERYTHING) == [v for v in ordered if v.is_managed]
            assert r.unsettled() == [v for v in ordered if v.is_settling]
            for function in "fgh":
                of_function = [v for v in ordered if v.function == function]
                snapshot = r.function(function)
                assert (snapshot is not None) is bool(of_function)
                if snapshot is not None:
                    assert list(snapshot.versions.values()) == of_function
                    assert dict(snapshot.aliases) == {n: a for (f, n), a in self.aliases.items() if f == function}

        self.runner.run(self.store.read(work))

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.close())
            self.runner.close()
            self.temporary.cleanup()


async def _opened(place: Place) -> Store:
    return await place.open()


TestStoring = Storing.TestCase
TestStoring.settings = settings(
    max_examples=settings().max_examples // 4,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# --- SQLite's own --------------------------------------------------------------------------------------------------------------------------


def tables(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_migrations_make_the_schema_from_nothing_and_do_nothing_the_second_time(tmp_path: Path) -> None:
    path = tmp_path / "lambstead.db"
    migrate(path)
    assert tables(path) >= {"migrations", "functions", "versions", "aliases", "capacity_providers", "tags"}
    before = tables(path)
    migrate(path)
    assert tables(path) == before
    with contextlib.closing(connect(path)) as connection:
        done = connection.execute("SELECT name FROM migrations ORDER BY name").fetchall()
        assert [name for (name,) in done] == [name for name, _ in load_migrations("lambstead.store", "migrations")]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        settings_ = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        assert settings_ == ["wal", 2]


def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lambstead.db"
    migrate(path)
    with contextlib.closing(connect(path)) as connection:
        connection.execute("INSERT INTO migrations VALUES ('9999_post_future')")
    with pytest.raises(SchemaTooNew, match="9999_post_future") as refusal:
        asyncio.run(SqliteStore.open(path))
    assert str(path) in str(refusal.value)
    assert "another data directory" in str(refusal.value)


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "lambstead.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE aliases (in_the_way)")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(path)
    assert tables(path) == {"aliases", "migrations"}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE aliases")
    migrate(path)
    assert "versions" in tables(path)


def test_a_group_that_cannot_be_committed_is_refused_to_each_of_its_writers_and_the_next_one_is_taken(
    tmp_path: Path,
) -> None:
    """Here the database is locked by a stranger for longer than the store waits; a full disk ends the same way."""

    async def story() -> None:
        store = await SqliteStore.open(tmp_path / "lambstead.db")
        heard: list[frozenset[str]] = []
        store.on_change(heard.append)
        with contextlib.closing(sqlite3.connect(tmp_path / "lambstead.db", isolation_level=None)) as stranger:
            await store.write(lambda tx: tx._connection.execute("PRAGMA busy_timeout = 10"))  # type: ignore[attr-defined]
            stranger.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(
                *(store.write(save(latest(standard(), f"f{n}"))) for n in range(5)), return_exceptions=True
            )
            assert [type(result) for result in results] == [sqlite3.OperationalError] * 5
            stranger.execute("ROLLBACK")
        assert heard == []
        await store.write(save(latest(standard(), "after")))
        assert [v.function for v in await store.read(lambda r: r.functions("", 9))] == ["after"]
        await store.close()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_commit_that_fails_is_heard_of_by_every_writer_of_the_group_and_by_no_listener(tmp_path: Path) -> None:
    """Here by a broken reference that is checked at commit only; a disk that fails in that moment ends the same way."""

    def breaks_at_commit(tx: Transaction) -> None:
        tx._connection.execute("PRAGMA defer_foreign_keys = ON")  # type: ignore[attr-defined]
        tx.save_alias(alias("orphan"))

    async def story() -> None:
        store = await SqliteStore.open(tmp_path / "lambstead.db")
        heard: list[frozenset[str]] = []
        store.on_change(heard.append)
        begun, go = threading.Event(), threading.Event()

        def holds_the_lane(tx: Transaction) -> None:
            begun.set()
            assert go.wait(30)

        first = asyncio.ensure_future(store.write(holds_the_lane))
        await asyncio.to_thread(begun.wait, 30)
        works = [save(latest(standard(), "g")), breaks_at_commit, save(latest(standard(), "h"))]
        group = [asyncio.ensure_future(store.write(work)) for work in works]
        await asyncio.sleep(0)  # each has handed its work over now
        go.set()
        await first
        results = await asyncio.gather(*group, return_exceptions=True)
        assert [type(result) for result in results] == [sqlite3.IntegrityError] * 3
        assert heard == []
        assert await store.read(lambda r: r.functions("", 9)) == []
        await store.write(save(latest(standard(), "after")))
        assert heard == [frozenset({"after"})]
        await store.close()

    asyncio.run(asyncio.wait_for(story(), 60))
