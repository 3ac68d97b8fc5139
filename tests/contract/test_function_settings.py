"""What every store must do with the settings around a function: keep them per qualifier, page them completely, let them go with their owner."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from tests.contract.test_store import ADAPTERS, Place
from tests.samples import latest, serving, standard

from lambstead.core.account import AccountUsage
from lambstead.core.aliases import Alias
from lambstead.core.code_signing import CodeSigningConfig
from lambstead.core.concurrency import Allocation, AllocationStatus, ProvisionedConcurrency
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.function_urls import FunctionUrl
from lambstead.core.functions import FunctionSettings
from lambstead.core.policies import ResourcePolicy
from lambstead.core.runtime_management import RuntimeManagement
from lambstead.store.port import Reader, Transaction

T = TypeVar("T")
NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


class Kept:
    """A store and the event loop that it belongs to."""

    def __init__(self, place: Place) -> None:
        self._loop = asyncio.new_event_loop()
        self._place = place
        self._store = self._loop.run_until_complete(place.open())

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self._loop.run_until_complete(self._store.write(work))

    def read(self, work: Callable[[Reader], T]) -> T:
        return self._loop.run_until_complete(self._store.read(work))

    def on_change(self, listener: Callable[[frozenset[str]], None]) -> None:
        self._store.on_change(listener)

    def reopen(self) -> None:
        """Close the store and open it again, as a restart does."""
        self._loop.run_until_complete(self._store.close())
        self._store = self._loop.run_until_complete(self._place.open())

    def close(self) -> None:
        self._loop.run_until_complete(self._store.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture(params=ADAPTERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(ADAPTERS[request.param](tmp_path))
    yield kept
    kept.close()


def deploy(store: Kept, function: str = "f") -> None:
    """A function with version 1 and an alias `live` for it."""

    def work(tx: Transaction) -> None:
        tx.save_version(latest(standard(), function))
        tx.save_version(serving(standard(), "1", function=function))
        tx.save_alias(Alias(function, "live", "1", "revision"))

    store.write(work)


CONFIG = EventInvokeConfig(1, timedelta(seconds=90), "arn:aws:sqs:us-east-1:000000000000:q", None, NOW)
DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Sid": "a", "Condition": {"Bool": {"x": "true"}}}]}
ALLOCATION = Allocation(AllocationStatus.FAILED, 2, "because")
SIGNING = CodeSigningConfig("csc-0", {"SigningProfileVersionArns": ["arn"]}, "Enforce", "now", "words")


def url(function: str, qualifier: str) -> FunctionUrl:
    return FunctionUrl(function, qualifier, f"{function}-{qualifier}", "NONE", "then", "now", None, {"MaxAge": 5})


def configure(store: Kept, function: str, *qualifiers: str) -> None:
    """One of everything that is kept per qualifier."""

    def work(tx: Transaction) -> None:
        for qualifier in qualifiers:
            tx.save_event_invoke_config(function, qualifier, CONFIG)
            tx.save_policy(ResourcePolicy(function, qualifier, "revision", DOCUMENT))
            tx.save_provisioned(ProvisionedConcurrency(function, qualifier, 3, "now", ALLOCATION))
            tx.save_function_url(url(function, qualifier))
            tx.save_runtime_management(function, qualifier, RuntimeManagement("Manual", "arn"))

    store.write(work)


def configured(store: Kept, function: str = "f") -> list[set[str]]:
    """For each kind of setting, the qualifiers that have one."""

    def work(reader: Reader) -> list[set[str]]:
        every = ("", "$LATEST", "1", "live")
        return [
            {qualifier for qualifier, _ in reader.event_invoke_configs(function, "", 100)},
            {q for q in every if reader.policy(function, q)},
            {config.qualifier for config in reader.provisioned(function, "", 100)},
            {found.qualifier for found in reader.function_urls(function, None, 100)},
            {q for q in every if reader.runtime_management(function, q)},
        ]

    return store.read(work)


def test_what_is_kept_per_qualifier_survives_a_restart_with_every_member(store: Kept) -> None:
    deploy(store)
    configure(store, "f", "live")
    store.reopen()
    assert store.read(lambda r: r.event_invoke_config("f", "live")) == CONFIG
    assert store.read(lambda r: r.policy("f", "live")) == ResourcePolicy("f", "live", "revision", DOCUMENT)
    provisioned = [ProvisionedConcurrency("f", "live", 3, "now", ALLOCATION)]
    assert store.read(lambda r: list(r.provisioned("f", "", 9))) == provisioned
    assert store.read(lambda r: list(r.provisioned_everywhere())) == provisioned
    assert store.read(lambda r: r.function_url("f", "live")) == url("f", "live")
    assert store.read(lambda r: r.runtime_management("f", "live")) == RuntimeManagement("Manual", "arn")
    assert configured(store) == [{"live"}] * 5
    assert configured(store, "g") == [set()] * 5


def test_what_is_kept_per_qualifier_goes_with_its_version_alias_and_function(store: Kept) -> None:
    for function in ("f", "other"):
        deploy(store, function)
        configure(store, function, "$LATEST", "1", "live")
    store.write(lambda tx: tx.delete_alias("f", "live"))
    assert configured(store) == [{"$LATEST", "1"}] * 5
    store.write(lambda tx: tx.delete_version("f", "1"))
    assert configured(store) == [{"$LATEST"}] * 5
    store.write(lambda tx: tx.delete_version("f", "$LATEST"))
    assert configured(store) == [set()] * 5
    assert configured(store, "other") == [{"$LATEST", "1", "live"}] * 5


def test_each_kind_is_forgotten_by_itself(store: Kept) -> None:
    deploy(store)
    configure(store, "f", "1")
    deletions: list[Callable[[Transaction], None]] = [
        lambda tx: tx.delete_event_invoke_config("f", "1"),
        lambda tx: tx.delete_policy("f", "1"),
        lambda tx: tx.delete_provisioned("f", "1"),
        lambda tx: tx.delete_function_url("f", "1"),
    ]
    for number, deletion in enumerate(deletions, start=1):
        store.write(deletion)
        assert configured(store) == [set()] * number + [{"1"}] * (5 - number)


def test_lists_are_paged_by_qualifier_and_the_unqualified_function_comes_first(store: Kept) -> None:
    deploy(store)
    configure(store, "f", "live", "$LATEST", "1", "")
    first = store.read(lambda r: r.event_invoke_configs("f", "", 2))
    rest = store.read(lambda r: r.event_invoke_configs("f", first[-1][0], 2))
    assert [q for q, _ in (*first, *rest)] == ["$LATEST", "1", "live"]
    provisioned = store.read(lambda r: r.provisioned("f", "$LATEST", 1))
    assert [c.qualifier for c in provisioned] == ["1"]
    urls = store.read(lambda r: r.function_urls("f", None, 2))
    after = store.read(lambda r: r.function_urls("f", urls[-1].qualifier, 2))
    assert [u.qualifier for u in (*urls, *after)] == ["", "$LATEST", "1", "live"]


def test_settings_of_a_function_are_kept_and_go_with_it(store: Kept) -> None:
    deploy(store)
    deploy(store, "other")
    store.write(lambda tx: tx.save_code_signing_config(SIGNING))
    assert store.read(lambda r: r.settings("f")) == FunctionSettings()
    settings = FunctionSettings(0, "Allow", SIGNING.id)
    store.write(lambda tx: tx.save_settings("f", settings))
    store.reopen()
    assert store.read(lambda r: r.settings("f")) == settings
    assert store.read(lambda r: r.settings("other")) == FunctionSettings()
    # Saving a version again does not disturb them.
    store.write(lambda tx: tx.save_version(latest(standard(timeout_s=9), "f")))
    assert store.read(lambda r: r.settings("f")) == settings
    for version in ("1", "$LATEST"):
        store.write(lambda tx, v=version: tx.delete_version("f", v))  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
    deploy(store)
    assert store.read(lambda r: r.settings("f")) == FunctionSettings()


def test_code_signing_configs_are_paged_and_know_their_functions(store: Kept) -> None:
    for name in ("a", "b", "c"):
        deploy(store, name)

    def work(tx: Transaction) -> None:
        for number in range(3):
            tx.save_code_signing_config(replace(SIGNING, id=f"csc-{number}"))
        for name in ("c", "a"):
            tx.save_settings(name, FunctionSettings(code_signing_config="csc-1"))

    store.write(work)
    assert store.read(lambda r: r.code_signing_config("csc-0")) == SIGNING
    assert store.read(lambda r: r.code_signing_config("csc-9")) is None
    assert [c.id for c in store.read(lambda r: r.code_signing_configs("csc-0", 1))] == ["csc-1"]
    assert store.read(lambda r: r.functions_with_code_signing("csc-1", "", 9)) == ["a", "c"]
    assert store.read(lambda r: r.functions_with_code_signing("csc-1", "a", 9)) == ["c"]
    store.write(lambda tx: tx.delete_code_signing_config("csc-2"))
    assert len(store.read(lambda r: r.code_signing_configs("", 9))) == 2
    store.write(lambda tx: tx.delete_everything())
    assert store.read(lambda r: r.code_signing_configs("", 9)) == []


def test_a_config_that_a_function_has_cannot_be_forgotten(store: Kept) -> None:
    deploy(store)
    store.write(lambda tx: tx.save_code_signing_config(SIGNING))
    store.write(lambda tx: tx.save_settings("f", FunctionSettings(code_signing_config=SIGNING.id)))
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        store.write(lambda tx: tx.delete_code_signing_config(SIGNING.id))
    assert store.read(lambda r: r.code_signing_config(SIGNING.id)) == SIGNING


def test_two_urls_never_share_an_id(store: Kept) -> None:
    deploy(store)
    store.write(lambda tx: tx.save_function_url(url("f", "1")))
    with pytest.raises(Exception, match=r"(?i)unique"):
        store.write(lambda tx: tx.save_function_url(replace(url("f", "live"), url_id="f-1")))


def test_a_reservation_covers_what_its_function_has_provisioned(store: Kept) -> None:
    for name in ("a", "b"):
        deploy(store, name)
        store.write(lambda tx, n=name: tx.save_provisioned(ProvisionedConcurrency(n, "1", 3, "now")))  # type: ignore[misc]  # as above
    assert store.read(lambda r: r.concurrency_taken()) == 6
    store.write(lambda tx: tx.save_settings("a", FunctionSettings(10)))
    assert store.read(lambda r: r.concurrency_taken()) == 13
    store.write(lambda tx: tx.save_settings("b", FunctionSettings(0)))
    assert store.read(lambda r: r.concurrency_taken()) == 10


def test_usage_counts_functions_and_the_code_of_every_version(store: Kept) -> None:
    assert store.read(lambda r: r.usage()) == AccountUsage(0, 0)
    deploy(store, "a")
    deploy(store, "b")
    assert store.read(lambda r: r.usage()) == AccountUsage(2, 4 * standard().code.size_bytes)


def test_a_function_is_read_with_its_limits(store: Kept) -> None:
    deploy(store)
    store.write(lambda tx: tx.save_provisioned(ProvisionedConcurrency("f", "live", 3, "now")))
    store.write(lambda tx: tx.save_settings("f", FunctionSettings(5)))
    found = store.read(lambda r: r.function("f"))
    assert found is not None
    assert (found.limits.reserved, dict(found.limits.provisioned)) == (5, {"1": 3})


def test_settings_are_announced_as_changes_of_their_function(store: Kept) -> None:
    deploy(store)
    changed: list[frozenset[str]] = []
    store.on_change(changed.append)
    store.write(lambda tx: tx.save_settings("f", FunctionSettings(1)))
    configure(store, "f", "1")
    store.write(lambda tx: tx.delete_provisioned("f", "1"))
    assert changed == [frozenset({"f"})] * 3
