"""What the store is told while provisioning goes on: providers, packages, and what became of versions.

Every method is one transaction, and says nothing about a version that was deleted or became another publication meanwhile: what it would have said
is not true of what is stored now.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from lambstead.core import capacity, functions
from lambstead.core.arn import LATEST, Realm
from lambstead.core.capacity import CapacityProvider, ProviderChecked, ProviderState
from lambstead.core.concurrency import Allocation, ProvisionedConcurrency
from lambstead.core.errors import DomainError
from lambstead.core.fleet import PublicationKey
from lambstead.core.functions import (
    CapacityFailed,
    CapacityFound,
    CapacityReady,
    Drained,
    FunctionVersion,
    Reason,
    Settled,
    State,
)
from lambstead.core.orders import NoteReady
from lambstead.store.port import Packages, Reader, Store, Transaction

log = logging.getLogger(__name__)

ALL = 1_000_000


class Subnets(Protocol):
    """Who knows subnets."""

    async def zones(self, subnets: Sequence[str]) -> Mapping[str, str]:
        """The availability zones of those of `subnets` that are known."""


class Settling:
    """See the module."""

    def __init__(self, store: Store, packages: Packages, realm: Realm, subnets: Subnets | None = None) -> None:
        self._store = store
        self._packages = packages
        self._realm = realm
        self._subnets = subnets

    # --- what needs no capacity ----------------------------------------------------------------------------------------

    async def check_providers(self) -> list[CapacityProvider]:
        """Make new providers active; those that are being deleted are returned."""

        def work(reader: Reader) -> list[CapacityProvider]:
            return [
                *reader.providers("", ALL, ProviderState.PENDING),
                *reader.providers("", ALL, ProviderState.DELETING),
            ]

        deleting = []
        for provider in await self._store.read(work):
            if provider.state is ProviderState.PENDING:
                zones = await self._subnets.zones(provider.subnets) if self._subnets is not None else {}
                await self._store.write(partial(_checked, name=provider.name, subnet_zones=zones))
            else:
                deleting.append(provider)
        return deleting

    async def provider_gone(self, name: str) -> None:
        """No instance of a provider that is being deleted is left."""
        arn = self._realm.capacity_provider_arn(name)

        def work(tx: Transaction) -> None:
            tx.delete_provider(name)
            tx.remove_tags(arn)

        await self._store.write(work)

    async def check_packages(self) -> None:
        """Create and update of `$LATEST` are done once the package is in place."""
        for version in await self._store.read(lambda reader: list(reader.unsettled())):
            if version.state is State.DELETING or (version.is_managed and version.is_published):
                continue
            try:
                if not version.configuration.code.is_image:
                    await self._packages.unpacked(version.configuration.code)
                if version.configuration.layers:
                    await self._packages.stacked([layer.code for layer in version.configuration.layers])
            except (OSError, DomainError):
                # This one stays as it is and is tried again with the next tick; nobody else waits for it.
                log.exception("package-unavailable", extra={"function": version.function, "version": version.version})
                continue
            await self._change(
                version.function, version.version, lambda v: functions.apply(v, Settled(_fresh_revision())), version
            )

    # --- what became of versions -----------------------------------------------------------------------------------------

    async def ready(self, note: NoteReady) -> None:
        """The publication has the environments that its bounds ask for."""
        ready = CapacityReady(note.key.number, note.bounds, _fresh_revision(), note.asked)
        await self._change(note.key.function, note.key.version, lambda v: functions.apply(v, ready))

    async def failed(self, key: PublicationKey, reason: Reason) -> None:
        """Tell a managed version that it cannot have its environments; a standard one only answers its invocation."""
        failed = CapacityFailed(key.number, reason, _fresh_revision())
        await self._change(key.function, key.version, lambda v: functions.apply(v, failed) if v.is_managed else v)

    async def may_be_had(self, key: PublicationKey) -> None:
        """There is room now for a version that failed because there was none: it is tried again."""
        found = CapacityFound(key.number, _fresh_revision())
        await self._change(key.function, key.version, lambda v: functions.apply(v, found))

    async def drained(self, function: str, version: str) -> None:
        """A version that is being deactivated has no environment left."""
        await self._change(
            function, version, lambda v: functions.apply(v, Drained()) if v.state is State.DEACTIVATING else v
        )

    async def removed(self, function: str, version: str) -> None:
        """Forget a deleted version; `$LATEST` goes last, and the function with it."""
        arn = self._realm.function_arn(function)

        def work(tx: Transaction) -> None:
            snapshot = tx.function(function)
            if snapshot is None or version not in snapshot.versions:
                return
            if version == LATEST and len(snapshot.versions) > 1:
                return
            tx.delete_version(function, version)
            if version == LATEST:
                tx.remove_tags(arn)

        await self._store.write(work)

    async def allocated(self, config: ProvisionedConcurrency, allocation: Allocation) -> None:
        """Write down how far provisioned concurrency has come, unless it was changed or deleted meanwhile."""

        def work(tx: Transaction) -> None:
            if config in tx.provisioned(config.function, "", ALL):
                tx.save_provisioned(replace(config, allocation=allocation))

        await self._store.write(work)

    async def _change(
        self,
        function: str,
        version: str,
        change: Callable[[FunctionVersion], FunctionVersion],
        expected: FunctionVersion | None = None,
    ) -> None:
        """Apply `change` to the stored version if it is still there (and still as `expected`)."""

        def work(tx: Transaction) -> None:
            stored = tx.version(function, version)
            if (
                stored is None
                or (expected is not None and stored.target != expected.target)
                or stored.state is State.DELETING
            ):
                return
            changed = change(stored)
            if changed != stored:
                tx.save_version(changed)

        await self._store.write(work)


def _checked(tx: Transaction, name: str, subnet_zones: Mapping[str, str]) -> None:
    """Make a provider active, unless somebody deleted it since it was seen."""
    provider = tx.provider(name)
    if provider is not None and provider.state is ProviderState.PENDING:
        tx.save_provider(capacity.apply(provider, ProviderChecked(subnet_zones)))


def _fresh_revision() -> str:
    return str(uuid.uuid4())
