"""The store on SQLite: WAL, one writer lane with group commit, snapshot readers.

Writers queue for one thread. It takes what has queued up, runs each piece of work in a savepoint of one transaction, commits once, and only
then answers them all: many writers share one fsync, and one that raises undoes only itself. Readers have a connection and a thread of
their own and see the last commit. (Measured while designing: several SQLite writers give no more transactions than one, and far worse stalls.)
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lambstead.core.account import AccountUsage
from lambstead.core.aliases import Alias
from lambstead.core.arn import LATEST, LATEST_PUBLISHED
from lambstead.core.capacity import CapacityProvider, ProviderState
from lambstead.core.code_signing import CodeSigningConfig
from lambstead.core.concurrency import ConcurrencyLimits, ProvisionedConcurrency
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.function_urls import FunctionUrl
from lambstead.core.functions import FunctionSettings, FunctionVersion, State, numbered, ordinal_of
from lambstead.core.invocations import FunctionSnapshot
from lambstead.core.policies import ResourcePolicy
from lambstead.core.runtime_management import RuntimeManagement
from lambstead.store.port import Position, Reader, Transaction
from lambstead.store.sql import load_migrations, load_queries
from lambstead.store.sqlite_durable import DurableReads, DurableWrites
from lambstead.store.sqlite_event_queue import QueueReads, QueueWrites
from lambstead.store.sqlite_event_sources import EventSourceReads, EventSourceWrites
from lambstead.store.sqlite_layers import LayerReads, LayerWrites
from lambstead.store.sqlite_rows import document_of
from lambstead.store.sqlite_schedules import ScheduleReads, ScheduleWrites

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_GROUP = 256
"""Most pieces of work that share one commit: bounds how long the first of them waits for the last."""
NO_LIMIT = -1

_versions = msgspec.json.Decoder(FunctionVersion)
_aliases = msgspec.json.Decoder(Alias)
_providers = msgspec.json.Decoder(CapacityProvider)
_event_invoke_configs = msgspec.json.Decoder(EventInvokeConfig)
_policies = msgspec.json.Decoder(ResourcePolicy)
_provisioned = msgspec.json.Decoder(ProvisionedConcurrency)
_function_urls = msgspec.json.Decoder(FunctionUrl)
_runtime_managements = msgspec.json.Decoder(RuntimeManagement)
_code_signing_configs = msgspec.json.Decoder(CodeSigningConfig)

SETTINGS_OF_QUALIFIERS = (
    "delete_policy",
    "delete_provisioned",
    "delete_event_invoke_config",
    "delete_function_url",
    "delete_runtime_management",
)
"""Statements that forget what is kept per qualifier; they run when the version or alias of that name goes."""


class SchemaTooNew(Exception):
    """The database was written by a newer Lambstead; the message says what to do."""


class SqliteReader(QueueReads, LayerReads, EventSourceReads, DurableReads, ScheduleReads):
    """Reads of one connection; see `store.port.Reader`."""

    def function(self, name: str) -> FunctionSnapshot | None:
        versions = self._documents("versions_of_function", _versions, function=name)
        if not versions:
            return None
        aliases = self._documents("aliases_of_function", _aliases, function=name, after="", limit=NO_LIMIT)
        by_name = {alias.name: alias for alias in aliases}
        limits = ConcurrencyLimits.of(
            self.settings(name).reserved_concurrency, self.provisioned(name, "", NO_LIMIT), by_name
        )
        return FunctionSnapshot(name, {v.version: v for v in versions}, by_name, limits)

    def version(self, function: str, version: str) -> FunctionVersion | None:
        if version not in (LATEST, LATEST_PUBLISHED) and not numbered(version):
            return None
        return self._one("version", _versions, function=function, ordinal=ordinal_of(version))

    def functions(self, after: str, limit: int) -> Sequence[FunctionVersion]:
        return self._documents("functions", _versions, after=after, limit=limit)

    def versions(self, after: Position, limit: int, function: str | None = None) -> Sequence[FunctionVersion]:
        name, ordinal = after
        if function is not None:
            return self._documents("versions_of_one", _versions, function=function, after_ordinal=ordinal, limit=limit)
        return self._documents("versions_of_all", _versions, after_function=name, after_ordinal=ordinal, limit=limit)

    def unsettled(self) -> Sequence[FunctionVersion]:
        return self._documents("unsettled", _versions)

    def published_on_providers(self) -> Sequence[FunctionVersion]:
        return self._documents("published_on_providers", _versions)

    def alias(self, function: str, name: str) -> Alias | None:
        return self._one("alias", _aliases, function=function, name=name)

    def aliases(self, function: str, after: str, limit: int, version: str | None = None) -> Sequence[Alias]:
        if version is None:
            return self._documents("aliases_of_function", _aliases, function=function, after=after, limit=limit)
        every = self._documents("aliases_of_function", _aliases, function=function, after=after, limit=NO_LIMIT)
        return [alias for alias in every if version in alias.versions][:limit]

    def provider(self, name: str) -> CapacityProvider | None:
        return self._one("provider", _providers, name=name)

    def providers(self, after: str, limit: int, state: ProviderState | None = None) -> Sequence[CapacityProvider]:
        return self._documents("providers", _providers, after=after, limit=limit, state=state)

    def versions_on(self, provider: str, after: Position, limit: int) -> Sequence[FunctionVersion]:
        name, ordinal = after
        return self._documents(
            "versions_on", _versions, provider=provider, after_function=name, after_ordinal=ordinal, limit=limit
        )

    def tags(self, resource: str) -> Mapping[str, str]:
        return dict(self._rows("tags", resource=resource))

    def settings(self, function: str) -> FunctionSettings:
        rows = self._rows("function_settings", function=function)
        if not rows:
            return FunctionSettings()
        ((reserved, recursive_loop, code_signing_config),) = rows
        default = FunctionSettings()
        return FunctionSettings(reserved, recursive_loop or default.recursive_loop, code_signing_config)

    def policy(self, function: str, qualifier: str) -> ResourcePolicy | None:
        return self._one("policy", _policies, function=function, qualifier=qualifier)

    def provisioned(self, function: str, after: str, limit: int) -> Sequence[ProvisionedConcurrency]:
        return self._documents("provisioned", _provisioned, function=function, after=after, limit=limit)

    def provisioned_everywhere(self) -> Sequence[ProvisionedConcurrency]:
        return self._documents("provisioned_everywhere", _provisioned)

    def function_url(self, function: str, qualifier: str) -> FunctionUrl | None:
        return self._one("function_url", _function_urls, function=function, qualifier=qualifier)

    def function_url_by_id(self, url_id: str) -> FunctionUrl | None:
        return self._one("function_url_by_id", _function_urls, url_id=url_id)

    def function_urls(self, function: str, after: str | None, limit: int) -> Sequence[FunctionUrl]:
        return self._documents("function_urls", _function_urls, function=function, after=after, limit=limit)

    def runtime_management(self, function: str, version: str) -> RuntimeManagement | None:
        return self._one("runtime_management", _runtime_managements, function=function, qualifier=version)

    def code_signing_config(self, config_id: str) -> CodeSigningConfig | None:
        return self._one("code_signing_config", _code_signing_configs, id=config_id)

    def code_signing_configs(self, after: str, limit: int) -> Sequence[CodeSigningConfig]:
        return self._documents("code_signing_configs", _code_signing_configs, after=after, limit=limit)

    def functions_with_code_signing(self, config_id: str, after: str, limit: int) -> Sequence[str]:
        rows = self._rows("functions_with_code_signing", id=config_id, after=after, limit=limit)
        return [name for (name,) in rows]

    def concurrency_taken(self) -> int:
        ((taken,),) = self._rows("concurrency_taken")
        return int(taken)

    def usage(self) -> AccountUsage:
        ((functions, code_bytes),) = self._rows("usage")
        return AccountUsage(functions, code_bytes)

    def event_invoke_config(self, function: str, qualifier: str) -> EventInvokeConfig | None:
        return self._one("event_invoke_config", _event_invoke_configs, function=function, qualifier=qualifier)

    def event_invoke_configs(self, function: str, after: str, limit: int) -> Sequence[tuple[str, EventInvokeConfig]]:
        rows = self._rows("event_invoke_configs", function=function, after=after, limit=limit)
        return [(qualifier, _event_invoke_configs.decode(document)) for qualifier, document in rows]

    def packages(self) -> Iterable[str]:
        return [package for (package,) in self._rows("packages")]


class SqliteTransaction(SqliteReader, QueueWrites, LayerWrites, EventSourceWrites, DurableWrites, ScheduleWrites):
    """Writes of the writer's connection; see `store.port.Transaction`. `touched` collects names of changed functions."""

    def __init__(self, connection: sqlite3.Connection, queries: Mapping[str, str]) -> None:
        super().__init__(connection, queries)
        self.touched: set[str] = set()

    def next_version_number(self, function: str) -> int:
        ((number,),) = self._rows("next_number", function=function)
        return int(number)

    def save_version(self, version: FunctionVersion) -> None:
        self.touched.add(version.function)
        managed = version.configuration.managed
        self._rows("create_function", function=version.function)
        self._rows(
            "save_version",
            function=version.function,
            ordinal=ordinal_of(version.version),
            version=version.version,
            unsettled=int(version.is_settling or version.state is State.DELETING),
            provider=managed.provider if managed else None,
            package="" if version.configuration.code.is_image else version.configuration.code.sha256,
            document=document_of(version),
        )

    def delete_version(self, function: str, version: str) -> None:
        self.touched.add(function)
        self._rows("delete_version", function=function, ordinal=ordinal_of(version))
        self._forget_qualifier(function, version)
        self._rows("delete_function_without_versions", function=function)

    def save_alias(self, alias: Alias) -> None:
        self.touched.add(alias.function)
        self._rows("save_alias", function=alias.function, name=alias.name, document=document_of(alias))

    def delete_alias(self, function: str, name: str) -> None:
        self.touched.add(function)
        self._rows("delete_alias", function=function, name=name)
        self._forget_qualifier(function, name)

    def _forget_qualifier(self, function: str, qualifier: str) -> None:
        for statement in SETTINGS_OF_QUALIFIERS:
            self._rows(statement, function=function, qualifier=qualifier)

    def save_settings(self, function: str, settings: FunctionSettings) -> None:
        self.touched.add(function)
        self._rows(
            "save_function_settings",
            function=function,
            reserved=settings.reserved_concurrency,
            recursive_loop=settings.recursive_loop,
            code_signing_config=settings.code_signing_config,
        )

    def save_policy(self, policy: ResourcePolicy) -> None:
        self.touched.add(policy.function)
        self._rows("save_policy", function=policy.function, qualifier=policy.qualifier, document=document_of(policy))

    def delete_policy(self, function: str, qualifier: str) -> None:
        self.touched.add(function)
        self._rows("delete_policy", function=function, qualifier=qualifier)

    def save_provisioned(self, config: ProvisionedConcurrency) -> None:
        self.touched.add(config.function)
        self._rows(
            "save_provisioned",
            function=config.function,
            qualifier=config.qualifier,
            requested=config.requested,
            document=document_of(config),
        )

    def delete_provisioned(self, function: str, qualifier: str) -> None:
        self.touched.add(function)
        self._rows("delete_provisioned", function=function, qualifier=qualifier)

    def save_function_url(self, url: FunctionUrl) -> None:
        self.touched.add(url.function)
        self._rows(
            "save_function_url",
            function=url.function,
            qualifier=url.qualifier,
            url_id=url.url_id,
            document=document_of(url),
        )

    def delete_function_url(self, function: str, qualifier: str) -> None:
        self.touched.add(function)
        self._rows("delete_function_url", function=function, qualifier=qualifier)

    def save_runtime_management(self, function: str, version: str, management: RuntimeManagement) -> None:
        self.touched.add(function)
        self._rows("save_runtime_management", function=function, qualifier=version, document=document_of(management))

    def save_code_signing_config(self, config: CodeSigningConfig) -> None:
        self._rows("save_code_signing_config", id=config.id, document=document_of(config))

    def delete_code_signing_config(self, config_id: str) -> None:
        self._rows("delete_code_signing_config", id=config_id)

    def save_event_invoke_config(self, function: str, qualifier: str, config: EventInvokeConfig) -> None:
        self.touched.add(function)
        self._rows("save_event_invoke_config", function=function, qualifier=qualifier, document=document_of(config))

    def delete_event_invoke_config(self, function: str, qualifier: str) -> None:
        self.touched.add(function)
        self._rows("delete_event_invoke_config", function=function, qualifier=qualifier)

    def save_provider(self, provider: CapacityProvider) -> None:
        self._rows("save_provider", name=provider.name, state=provider.state, document=document_of(provider))

    def delete_provider(self, name: str) -> None:
        self._rows("delete_provider", name=name)

    def add_tags(self, resource: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._rows("add_tag", resource=resource, key=key, value=value)

    def remove_tags(self, resource: str, keys: Iterable[str] | None = None) -> None:
        if keys is None:
            self._rows("remove_tags", resource=resource)
            return
        for key in keys:
            self._rows("remove_tag", resource=resource, key=key)

    def delete_everything(self) -> None:
        self.touched.update(name for (name,) in self._rows("function_names"))
        for statement in (
            "delete_all_functions",
            "delete_all_code_signing_configs",
            "delete_all_providers",
            "delete_all_tags",
        ):
            self._rows(statement)
        self._forget_queue()
        self._forget_layers()
        self._forget_event_sources()
        self._forget_schedules()
        self._forget_durable()


@dataclass(slots=True)
class _Job:
    """One piece of work in the writer lane and the future that hears of its end."""

    work: Callable[[Transaction], Any]  # Any: whatever the caller's work returns
    future: "asyncio.Future[Any]"
    refuses_first: bool = False
    touched: frozenset[str] = frozenset()
    result: Any = None  # Any: see work
    error: BaseException | None = None


class SqliteStore:
    """See `store.port.Store`. Make one with `open`; it belongs to the event loop that opened it."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._queries = load_queries("lambstead.store", "queries")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._writer = threading.Thread(target=self._write_all, name="store-writer", daemon=True)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._reading: sqlite3.Connection | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> "SqliteStore":
        """Open or create the database at `path` and bring its schema up to date. Raises SchemaTooNew."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, migrate, path)
        store = cls(path, loop)
        store._writer.start()
        return store

    async def write(self, work: Callable[[Transaction], T], *, refuses_first: bool = False) -> T:
        if self._closed:
            raise RuntimeError("the store is closed")
        job = _Job(work, self._loop.create_future(), refuses_first)
        self._jobs.put(job)
        result: T = await job.future  # cancelled with its caller, which changes nothing for the work itself
        return result

    async def read(self, work: Callable[[Reader], T]) -> T:
        return await self._loop.run_in_executor(self._readers, self._read, work)

    def on_change(self, listener: Callable[[frozenset[str]], None]) -> None:
        self._listeners.append(listener)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._writer.join)
        await self._loop.run_in_executor(self._readers, self._close_reading)
        self._readers.shutdown()

    def _read(self, work: Callable[[Reader], T]) -> T:
        if self._reading is None:
            self._reading = connect(self._path)
        self._reading.execute("BEGIN")
        try:
            return work(SqliteReader(self._reading, self._queries))
        finally:
            self._reading.execute("ROLLBACK")

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()

    def _write_all(self) -> None:
        """The writer lane: take what has queued up, run it, commit once, answer; until told to end."""
        with contextlib.closing(connect(self._path)) as connection:
            while (first := self._jobs.get()) is not None:
                group, is_last = self._group(first)
                self._commit(connection, group)
                self._loop.call_soon_threadsafe(self._answer, group)
                if is_last:
                    return

    def _group(self, first: _Job) -> tuple[list[_Job], bool]:
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
        return group, False

    def _commit(self, connection: sqlite3.Connection, group: list[_Job]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                self._run(connection, job)
            connection.execute("COMMIT")
        except BaseException as exc:  # noqa: BLE001 - nothing of the group is durable: every caller must hear it
            log.error("store-commit-failed", extra={"because": str(exc), "jobs": len(group)})
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for job in group:
                job.error, job.touched = exc, frozenset()

    def _run(self, connection: sqlite3.Connection, job: _Job) -> None:
        transaction = SqliteTransaction(connection, self._queries)
        if job.refuses_first:
            written = connection.total_changes
            try:
                job.result = job.work(transaction)
            except Exception as exc:
                if isinstance(exc, sqlite3.OperationalError) or connection.total_changes != written:
                    raise
                job.error = _for_future(exc)
            else:
                job.touched = frozenset(transaction.touched)
            return
        connection.execute("SAVEPOINT work")
        try:
            job.result = job.work(transaction)
        except sqlite3.OperationalError:
            raise  # disk full, I/O error: the whole group is in doubt
        except Exception as exc:  # noqa: BLE001 - the caller's own refusal or mistake: undo this work only, tell this caller
            connection.execute("ROLLBACK TO work")
            job.error = _for_future(exc)
        else:
            job.touched = frozenset(transaction.touched)
        connection.execute("RELEASE work")

    def _answer(self, group: list[_Job]) -> None:
        touched = frozenset[str]().union(*(job.touched for job in group))
        if touched:
            for listener in self._listeners:
                listener(touched)
        for job in group:
            if job.future.cancelled():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)


def _for_future(exc: Exception) -> Exception:
    """The error as a future can carry it: StopIteration is the one that none can."""
    return RuntimeError("work on the store raised StopIteration") if isinstance(exc, StopIteration) else exc


def connect(path: Path) -> sqlite3.Connection:
    """A connection with our settings: explicit transactions, WAL, every commit on the disk before it is acknowledged."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection


def migrate(path: Path) -> None:
    """Bring the schema up to date, each migration in one transaction. Raises SchemaTooNew if the database is ahead of us."""
    migrations = load_migrations("lambstead.store", "migrations")
    with contextlib.closing(connect(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY) WITHOUT ROWID")
        done = {name for (name,) in connection.execute("SELECT name FROM migrations")}
        unknown = done - {name for name, _ in migrations}
        if unknown:
            raise SchemaTooNew(
                f"{path} was written by a newer Lambstead (it has {', '.join(sorted(unknown))}). Start it with that version, or use another data directory."
            )
        for name, script in migrations:
            if name not in done:
                quoted = name.replace("'", "''")
                connection.executescript(
                    f"BEGIN IMMEDIATE; {script}\n; INSERT INTO migrations VALUES ('{quoted}'); COMMIT;"
                )
