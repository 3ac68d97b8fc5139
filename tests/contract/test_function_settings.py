"""What every store must do with the settings around a function: keep them per qualifier, page them completely, let them go with their owner."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from lambstead.core.aliases import Alias
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.functions import CodePackage, Configuration, FunctionVersion, Logging, State
from lambstead.store.port import Reader, Transaction
from lambstead.store.sqlite import SqliteStore

T = TypeVar("T")
NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


class Kept:
    """A store and the event loop that it belongs to."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._path = path
        self._store = self._loop.run_until_complete(SqliteStore.open(path))

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self._loop.run_until_complete(self._store.write(work))

    def read(self, work: Callable[[Reader], T]) -> T:
        return self._loop.run_until_complete(self._store.read(work))

    def reopen(self) -> None:
        """Close the store and open it again, as a restart does."""
        self._loop.run_until_complete(self._store.close())
        self._store = self._loop.run_until_complete(SqliteStore.open(self._path))

    def close(self) -> None:
        self._loop.run_until_complete(self._store.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "store.db")
    yield kept
    kept.close()


def version_of(function: str, version: str = "$LATEST") -> FunctionVersion:
    configuration = Configuration(
        "python3.13", "a.b", "arn:aws:iam::000000000000:role/r", CodePackage("sha", 1), Logging("Text", "/g")
    )
    return FunctionVersion(function, version, configuration, State.ACTIVE, "revision", "2026-11-21T10:00:00.000+0000")


def deploy(store: Kept, function: str = "f") -> None:
    """A function with version 1 and an alias `live` for it."""

    def work(tx: Transaction) -> None:
        tx.save_version(version_of(function))
        tx.save_version(version_of(function, "1"))
        tx.save_alias(Alias(function, "live", "1", "revision"))

    store.write(work)


CONFIG = EventInvokeConfig(1, timedelta(seconds=90), "arn:aws:sqs:us-east-1:000000000000:q", None, NOW)


def configured(store: Kept, function: str = "f") -> list[str]:
    return [qualifier for qualifier, _ in store.read(lambda r: r.event_invoke_configs(function, "", 100))]


def test_an_event_invoke_config_survives_a_restart_with_every_member(store: Kept) -> None:
    deploy(store)
    store.write(lambda tx: tx.save_event_invoke_config("f", "live", CONFIG))
    store.reopen()
    assert store.read(lambda r: r.event_invoke_config("f", "live")) == CONFIG
    assert store.read(lambda r: r.event_invoke_config("f", "1")) is None
    assert store.read(lambda r: r.event_invoke_config("g", "live")) is None


def test_event_invoke_configs_are_paged_by_qualifier(store: Kept) -> None:
    deploy(store)
    for qualifier in ("live", "$LATEST", "1"):
        store.write(lambda tx, q=qualifier: tx.save_event_invoke_config("f", q, CONFIG))  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
    first = store.read(lambda r: r.event_invoke_configs("f", "", 2))
    rest = store.read(lambda r: r.event_invoke_configs("f", first[-1][0], 2))
    assert [q for q, _ in (*first, *rest)] == ["$LATEST", "1", "live"]


def test_settings_go_with_their_version_alias_and_function(store: Kept) -> None:
    deploy(store)
    deploy(store, "other")
    for function in ("f", "other"):
        for qualifier in ("$LATEST", "1", "live"):
            store.write(lambda tx, f=function, q=qualifier: tx.save_event_invoke_config(f, q, CONFIG))  # type: ignore[misc]  # as above
    store.write(lambda tx: tx.delete_alias("f", "live"))
    assert configured(store) == ["$LATEST", "1"]
    store.write(lambda tx: tx.delete_version("f", "1"))
    assert configured(store) == ["$LATEST"]
    store.write(lambda tx: tx.delete_version("f", "$LATEST"))
    assert configured(store) == []
    assert configured(store, "other") == ["$LATEST", "1", "live"]
