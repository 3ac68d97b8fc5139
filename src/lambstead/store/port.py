"""The store as the rest of Lambstead sees it: domain verbs inside transactions.

Work on the store is a plain function of a transaction. `Store.write` runs it in the one writer lane: everything it wrote is durable when
the call returns, or nothing is if it raised. `Store.read` runs it against a snapshot. Both adapters (SQLite now, PostgreSQL for fleets) pass the
suite in `tests/contract/`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from lambstead.core.account import AccountUsage
from lambstead.core.aliases import Alias
from lambstead.core.capacity import CapacityProvider, ProviderState
from lambstead.core.code_signing import CodeSigningConfig
from lambstead.core.concurrency import ProvisionedConcurrency
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.function_urls import FunctionUrl
from lambstead.core.functions import CodePackage, FunctionSettings, FunctionVersion
from lambstead.core.invocations import FunctionSnapshot
from lambstead.core.policies import ResourcePolicy
from lambstead.core.runtime_management import RuntimeManagement

T = TypeVar("T")

Position = tuple[str, int]
"""Where a list of versions stopped: function name and ordinal of the last one seen."""


class Reader(Protocol):
    """What can be read in a transaction. Lists are ordered by name and complete under paging by `after`."""

    def function(self, name: str) -> FunctionSnapshot | None:
        """All versions and aliases of a function, and its limits; None if there is no such function."""

    def version(self, function: str, version: str) -> FunctionVersion | None:
        """One version."""

    def functions(self, after: str, limit: int) -> Sequence[FunctionVersion]:
        """`$LATEST` of every function, by name."""

    def versions(self, after: Position, limit: int, function: str | None = None) -> Sequence[FunctionVersion]:
        """Versions by function and number, `$LATEST` first; of one function if given."""

    def unsettled(self) -> Sequence[FunctionVersion]:
        """Versions whose create, update or delete is still to be carried out."""

    def published_on_providers(self) -> Sequence[FunctionVersion]:
        """Every published version that runs, or shall run, on a capacity provider."""

    def alias(self, function: str, name: str) -> Alias | None:
        """One alias."""

    def aliases(self, function: str, after: str, limit: int, version: str | None = None) -> Sequence[Alias]:
        """Aliases of a function by name; only those that may run `version` if given."""

    def provider(self, name: str) -> CapacityProvider | None:
        """One capacity provider."""

    def providers(self, after: str, limit: int, state: ProviderState | None = None) -> Sequence[CapacityProvider]:
        """Capacity providers by name."""

    def versions_on(self, provider: str, after: Position, limit: int) -> Sequence[FunctionVersion]:
        """Versions that name the provider, `$LATEST` included, by function and number."""

    def tags(self, resource: str) -> Mapping[str, str]:
        """Tags of the resource with this ARN."""

    def settings(self, function: str) -> FunctionSettings:
        """What holds for the function as a whole; the defaults if there is no such function."""

    def policy(self, function: str, qualifier: str) -> ResourcePolicy | None:
        """The policy of one qualifier; the empty one is the unqualified function."""

    def provisioned(self, function: str, after: str, limit: int) -> Sequence[ProvisionedConcurrency]:
        """Provisioned concurrency of a function by qualifier."""

    def provisioned_everywhere(self) -> Sequence[ProvisionedConcurrency]:
        """Provisioned concurrency of every function, by function and qualifier."""

    def function_url(self, function: str, qualifier: str) -> FunctionUrl | None:
        """The URL config of one qualifier; the empty one is the unqualified function."""

    def function_urls(self, function: str, after: str | None, limit: int) -> Sequence[FunctionUrl]:
        """URL configs of a function by qualifier, from the beginning or after one."""

    def runtime_management(self, function: str, version: str) -> RuntimeManagement | None:
        """The runtime management config of one version, if one was put."""

    def code_signing_config(self, config_id: str) -> CodeSigningConfig | None:
        """One code signing config."""

    def code_signing_configs(self, after: str, limit: int) -> Sequence[CodeSigningConfig]:
        """Code signing configs by id."""

    def functions_with_code_signing(self, config_id: str, after: str, limit: int) -> Sequence[str]:
        """Names of the functions that have this code signing config."""

    def concurrency_taken(self) -> int:
        """Concurrency that is not for everybody: reserved, or provisioned for functions that have no reservation."""

    def usage(self) -> AccountUsage:
        """What all functions together use of the account's limits. Reads every version."""

    def event_invoke_config(self, function: str, qualifier: str) -> EventInvokeConfig | None:
        """What was configured for asynchronous invocations of this qualifier; `$LATEST` when the caller named none."""

    def event_invoke_configs(self, function: str, after: str, limit: int) -> Sequence[tuple[str, EventInvokeConfig]]:
        """Qualifier and config of every event invoke config of a function, by qualifier."""

    def packages(self) -> Iterable[str]:
        """`CodeSha256` of every package that a version refers to."""


class Transaction(Reader, Protocol):
    """What can be written in a transaction."""

    def next_version_number(self, function: str) -> int:
        """A number that no version of the function had before, not even a deleted one."""

    def save_version(self, version: FunctionVersion) -> None:
        """Insert or replace one version; the first one saved creates the function."""

    def delete_version(self, function: str, version: str) -> None:
        """Forget one version and the settings of its qualifier; with the last one the function and all that belongs to it is gone.

        Tags are the caller's to remove.
        """

    def save_alias(self, alias: Alias) -> None:
        """Insert or replace one alias."""

    def delete_alias(self, function: str, name: str) -> None:
        """Forget one alias and the settings of its qualifier."""

    def save_provider(self, provider: CapacityProvider) -> None:
        """Insert or replace one capacity provider."""

    def delete_provider(self, name: str) -> None:
        """Forget one capacity provider."""

    def add_tags(self, resource: str, tags: Mapping[str, str]) -> None:
        """Set tags, replacing values of keys that exist."""

    def remove_tags(self, resource: str, keys: Iterable[str] | None = None) -> None:
        """Remove the named tags, or all of them."""

    def save_settings(self, function: str, settings: FunctionSettings) -> None:
        """Replace what holds for an existing function as a whole."""

    def save_policy(self, policy: ResourcePolicy) -> None:
        """Insert or replace the policy of one qualifier of an existing function."""

    def delete_policy(self, function: str, qualifier: str) -> None:
        """Forget the policy of one qualifier."""

    def save_provisioned(self, config: ProvisionedConcurrency) -> None:
        """Insert or replace the provisioned concurrency of one qualifier of an existing function."""

    def delete_provisioned(self, function: str, qualifier: str) -> None:
        """Forget the provisioned concurrency of one qualifier."""

    def save_function_url(self, url: FunctionUrl) -> None:
        """Insert or replace the URL config of one qualifier of an existing function."""

    def delete_function_url(self, function: str, qualifier: str) -> None:
        """Forget the URL config of one qualifier."""

    def save_runtime_management(self, function: str, version: str, management: RuntimeManagement) -> None:
        """Insert or replace the runtime management config of one version of an existing function."""

    def save_code_signing_config(self, config: CodeSigningConfig) -> None:
        """Insert or replace one code signing config."""

    def delete_code_signing_config(self, config_id: str) -> None:
        """Forget a code signing config that no function has."""

    def save_event_invoke_config(self, function: str, qualifier: str, config: EventInvokeConfig) -> None:
        """Insert or replace the config of one qualifier of an existing function."""

    def delete_event_invoke_config(self, function: str, qualifier: str) -> None:
        """Forget the config of one qualifier."""

    def delete_everything(self) -> None:
        """Forget every function with all that belongs to it, every provider, code signing config and tag."""


class Packages(Protocol):
    """Uploaded code packages by their content. They are written before the version that names them, so a crash leaves at most garbage."""

    async def put(self, archive: bytes) -> CodePackage:
        """Check, keep and unpack a zip. Raises InvalidParameterValue or RequestEntityTooLarge in AWS's words."""

    async def unpacked(self, package: CodePackage) -> Path:
        """The read-only folder with the package's files, unpacked again if it is not there."""

    def archive(self, package: CodePackage) -> Path:
        """The zip as it was uploaded."""

    async def sweep(self, used: Iterable[str]) -> int:
        """Delete packages whose `CodeSha256` is not among `used`; how many were deleted."""


class Store(Protocol):
    """The one store of a Lambstead."""

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in the writer lane and return its result once it is durable. What it raises is raised here, nothing written."""

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` on a snapshot and return its result."""

    def on_change(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call `listener` with the names of changed functions after each durable write, before the writer hears of it."""

    async def close(self) -> None:
        """Finish what was accepted and close. Nothing may be written afterwards."""
