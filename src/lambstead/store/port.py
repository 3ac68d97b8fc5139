"""The store as the rest of Lambstead sees it: domain verbs inside transactions.

Work on the store is a plain function of a transaction. `Store.write` runs it in the one writer lane: everything it wrote is durable when
the call returns, or nothing is if it raised. `Store.read` runs it against a snapshot. An adapter passes the
suite in `tests/contract/`; there is one, for SQLite.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from lambstead.core.account import AccountUsage
from lambstead.core.aliases import Alias
from lambstead.core.capacity import CapacityProvider, ProviderState
from lambstead.core.code_signing import CodeSigningConfig
from lambstead.core.concurrency import ProvisionedConcurrency
from lambstead.core.configurations import CodePackage
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.event_sources import EventSourceMapping
from lambstead.core.function_urls import FunctionUrl
from lambstead.core.functions import FunctionSettings, FunctionVersion
from lambstead.core.invocations import FunctionSnapshot
from lambstead.core.layers import LayerVersion
from lambstead.core.log_streams import LogEvent, LogGroup, LogStream
from lambstead.core.policies import ResourcePolicy
from lambstead.core.runtime_management import RuntimeManagement
from lambstead.store.durable_port import DurableReader, DurableTransaction
from lambstead.store.event_queue_port import EventQueueReader, EventQueueTransaction
from lambstead.store.schedules_port import ScheduleReader, ScheduleTransaction

T = TypeVar("T")

Position = tuple[str, int]
"""Where a list of versions stopped: function name and ordinal of the last one seen."""


class LayerReader(Protocol):
    """Layers, as far as they can be read."""

    def layer_version(self, layer: str, number: int) -> LayerVersion | None:
        """One version."""

    def layer_versions(self, layer: str, below: int, limit: int) -> Sequence[LayerVersion]:
        """Versions of a layer with a number less than `below`, the highest first."""

    def layer_names(self, after: str, limit: int) -> Sequence[str]:
        """Names of layers that have or had versions, in order."""

    def layer_packages(self) -> Iterable[str]:
        """`CodeSha256` of every package that a layer version, or a function through its layers, refers to."""

    def layer_stacks(self) -> Iterable[Sequence[CodePackage]]:
        """The packages of every sequence of layers that a function version has."""


class LayerTransaction(LayerReader, Protocol):
    """Changes of layers."""

    def next_layer_number(self, layer: str) -> int:
        """A number that no version of the layer had before, not even a deleted one."""

    def save_layer_version(self, version: LayerVersion) -> None:
        """Insert or replace one version; its number came from `next_layer_number`."""

    def delete_layer_version(self, layer: str, number: int) -> None:
        """Forget one version if it is there."""


class EventSourceReader(Protocol):
    """Event source mappings, as far as they can be read."""

    def event_source_mapping(self, mapping_id: str) -> EventSourceMapping | None:
        """One mapping by its UUID."""

    def event_source_mappings(
        self, after: str, limit: int | None = None, source: str | None = None, function: str | None = None
    ) -> Sequence[EventSourceMapping]:
        """Mappings by UUID; of one source and of one function, whatever the qualifier, if given."""

    def unsettled_event_source_mappings(self, limit: int) -> Sequence[EventSourceMapping]:
        """Mappings in the middle of a change."""


class EventSourceTransaction(EventSourceReader, Protocol):
    """Changes of event source mappings."""

    def save_event_source_mapping(self, mapping: EventSourceMapping) -> None:
        """Insert or replace one mapping."""

    def delete_event_source_mapping(self, mapping_id: str) -> None:
        """Forget one mapping. Tags are the caller's to remove."""


class Reader(EventQueueReader, LayerReader, EventSourceReader, DurableReader, ScheduleReader, Protocol):
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

    def function_url_by_id(self, url_id: str) -> FunctionUrl | None:
        """The URL config whose host begins with this id."""

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
        """What all functions and layers together use of the account's limits. Reads every version."""

    def event_invoke_config(self, function: str, qualifier: str) -> EventInvokeConfig | None:
        """What was configured for asynchronous invocations of this qualifier; `$LATEST` when the caller named none."""

    def event_invoke_configs(self, function: str, after: str, limit: int) -> Sequence[tuple[str, EventInvokeConfig]]:
        """Qualifier and config of every event invoke config of a function, by qualifier."""

    def packages(self) -> Iterable[str]:
        """`CodeSha256` of every package that a version refers to."""


class Transaction(
    Reader,
    EventQueueTransaction,
    LayerTransaction,
    EventSourceTransaction,
    DurableTransaction,
    ScheduleTransaction,
    Protocol,
):
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
        """Forget every function with all that belongs to it, every provider, layer, event source mapping, code signing config,
        queued event, durable execution, schedule and tag."""


class Packages(Protocol):
    """Uploaded code packages by their content. They are written before the version that names them, so a crash leaves at most garbage."""

    async def put(self, archive: bytes) -> CodePackage:
        """Check, keep and unpack a zip. Raises InvalidParameterValue or RequestEntityTooLarge in AWS's words."""

    async def unpacked(self, package: CodePackage) -> Path:
        """The read-only folder with the package's files, unpacked again if it is not there."""

    def archive(self, package: CodePackage) -> Path:
        """The zip as it was uploaded."""

    async def unzipped_bytes(self, package: CodePackage) -> int:
        """How large the package's files are together, as its zip announces them."""

    async def stacked(self, packages: Sequence[CodePackage]) -> Path:
        """The read-only folder with the files of all `packages`, laid over one another in this order; made if it is not there."""

    async def sweep(self, used: Iterable[str], stacks: Iterable[Sequence[CodePackage]]) -> int:
        """Delete packages whose `CodeSha256` is not among `used`, and stacks not among `stacks`; how many were deleted."""


class Logs(Protocol):
    """What environments wrote, by log group and log stream. Reading waits for the disk: it belongs into a thread."""

    def groups(self) -> Sequence[LogGroup]:
        """All log groups by name: those that something was written for."""

    def streams(self, group: str) -> Sequence[LogStream]:
        """The streams of a group by name; none if there is no such group."""

    def events(self, stream: LogStream, start_ms: int, end_ms: int, after: int = 0) -> Iterator[LogEvent]:
        """Events of a stream from `start_ms` on and before `end_ms`, oldest first, from position `after` on."""

    def events_backward(
        self, stream: LogStream, start_ms: int, end_ms: int, before: int | None = None
    ) -> Iterator[LogEvent]:
        """The same, newest first, as far as they end at or before position `before`."""


class Store(Protocol):
    """The one store of a Lambstead."""

    async def write(self, work: Callable[[Transaction], T], *, refuses_first: bool = False) -> T:
        """Run `work` in the writer lane and return its result once it is durable. What it raises is raised here, nothing written.

        Work that `refuses_first` raises only before it has written anything. It costs less; if it fails later after all, what shares its
        commit fails with it.
        """

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` on a snapshot and return its result."""

    def on_change(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call `listener` with the names of changed functions after each durable write, before the writer hears of it."""

    async def close(self) -> None:
        """Finish what was accepted and close. Nothing may be written afterwards."""
