"""Brings what runs to what is stored: capacity providers, versions, instances, environments.

    store ──► desired ─┐
                       ├─► core.reconcile.plan ─► orders ─► driver, agents, invoke path, store
    agents' reports ──► fleet ─┘

The fleet lives in memory and is rebuilt by ordering anew; everything a user was told lives in the store. One `Provisioning` runs at a time. Reports of
agents change the fleet at once and poke the loop; all decisions are taken in `reconcile`.
"""

import asyncio
import logging
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, assert_never

import msgspec

from lambstead.core import capacity, functions
from lambstead.core.admission import Load
from lambstead.core.arn import LATEST, Realm
from lambstead.core.capacity import CapacityProvider, ProviderChecked, ProviderState
from lambstead.core.concurrency import Allocation, ProvisionedConcurrency
from lambstead.core.errors import DomainError
from lambstead.core.fleet import Environment, Fleet, Instance, InstancePhase, Phase, PublicationKey
from lambstead.core.functions import (
    CapacityFailed,
    CapacityReady,
    Configuration,
    Drained,
    FunctionVersion,
    Publication,
    Reason,
    Settled,
    State,
)
from lambstead.core.platform_records import LogOf
from lambstead.core.reconcile import (
    Desired,
    DrainEnvironment,
    LaunchInstance,
    NoteAllocation,
    NoteDrained,
    NoteFailed,
    NoteReady,
    NoteRemoved,
    Order,
    Policy,
    Provision,
    StartEnvironment,
    StopEnvironment,
    TerminateInstance,
    next_look,
    plan,
)
from lambstead.drivers.port import Driver
from lambstead.link import messages
from lambstead.link.messages import (
    AgentHello,
    EnvironmentDegraded,
    EnvironmentExited,
    EnvironmentFailed,
    EnvironmentReady,
    FromAgent,
    ToAgent,
)
from lambstead.store.port import Packages, Reader, Store, Transaction

log = logging.getLogger(__name__)

LONG_INIT_LEAST = timedelta(seconds=130)
LONG_INIT_MOST = timedelta(seconds=900)
STANDARD_INIT = timedelta(seconds=10)
LINK_RUNTIMES = ("python3.",)
"""Runtimes whose workers can speak the link themselves; the others have their agent speak it for them."""
MAX_DECISIONS = 200
"""Decisions kept for `status`; older ones are in the log."""
ALL = 1_000_000


class Slots(Protocol):
    """The invoke path as provisioning sees it."""

    def expect(self, environment_id: str, key: PublicationKey, zone: str, *, managed: bool) -> None: ...
    def drain(self, environment_id: str) -> None: ...
    def ended(self, environment_id: str, story: str) -> None: ...
    def forget(self, environment_id: str) -> None: ...
    def init_failed(self, environment_id: str, error_type: str, document: bytes) -> None: ...
    def demand(self) -> dict[PublicationKey, int]: ...
    def loads(self) -> dict[str, Load]: ...


class Records(Protocol):
    """Who writes platform records of invocations that do not pass through an agent."""

    def opened(self, environment_id: str, to: LogOf) -> None: ...
    def closed(self, environment_id: str) -> None: ...


class Orders(Protocol):
    """The way to an instance's agent."""

    def send(self, instance_id: str, message: ToAgent) -> None: ...
    def forget(self, instance_id: str) -> None: ...
    async def open_door(self, environment_id: str) -> Path | None: ...
    def close_door(self, environment_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Something provisioning did, and why."""

    at: datetime
    what: str
    because: str


@dataclass(frozen=True, slots=True)
class EnvironmentLog:
    """Where an environment's output goes."""

    function: str
    version: str
    path: Path
    started: datetime


class Provisioning:
    """See the module."""

    def __init__(
        self,
        *,
        store: Store,
        packages: Packages,
        driver: Driver,
        agents: Orders,
        slots: Slots,
        records: Records,
        realm: Realm,
        policy: Policy,
        logs: Path,
        endpoint_url: str,
        workers_on_link: bool,
        poke: Callable[[], None],
    ) -> None:
        self._store = store
        self._packages = packages
        self._driver = driver
        self._agents = agents
        self._slots = slots
        self._records = records
        self._workers_on_link = workers_on_link
        self._realm = realm
        self._policy = policy
        self._logs = logs
        self._endpoint_url = endpoint_url
        self._poke = poke
        self._failed_inits: list[tuple[PublicationKey, Reason]] = []
        self._served: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.fleet = Fleet()
        self.notes: dict[str, str] = {}
        """What agents had to say about environments that run, by environment id."""
        self.decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)
        self.environment_logs: dict[str, EnvironmentLog] = {}
        driver.on_ended(self._instance_ended)

    def log_path(self, environment_id: str) -> Path | None:
        """The log file of an environment that runs."""
        found = self.environment_logs.get(environment_id)
        return found.path if found else None

    # --- the loop's body -------------------------------------------------------------------------------------------------

    async def reconcile(self) -> timedelta | None:
        """One round. Returns how soon the next one has something to do although nothing is reported."""
        await self._settle_providers()
        await self._settle_packages()
        await self._note_failed_inits()
        desired = await self._desired()
        now = datetime.now(UTC)
        self._look_at_loads(now)
        for order in plan(desired, self.fleet, self._policy, iter(_fresh_id, ""), now):
            await self._carry_out(order)
        return next_look(self.fleet, self._policy, datetime.now(UTC))

    async def _desired(self) -> Desired:
        demand = self._slots.demand()
        standard = {key.function for key in demand} | {
            e.key.function
            for e in self.fleet.environments.values()
            if self.fleet.instances[e.instance_id].provider is None
        }

        def work(reader: Reader) -> Desired:
            provisioned = tuple(
                Provision(config, config.shares(reader.alias(config.function, config.qualifier)))
                for config in reader.provisioned_everywhere()
            )
            names = standard | {provision.config.function for provision in provisioned}
            snapshots = (reader.function(name) for name in sorted(names))
            versions = (
                *reader.published_on_providers(),
                *(v for v in reader.unsettled() if v.version == LATEST and v.is_managed and v.state is State.DELETING),
                *(v for snapshot in snapshots if snapshot for v in snapshot.versions.values() if not v.is_managed),
            )
            providers = {provider.name: provider for provider in reader.providers("", ALL)}
            return Desired(versions, providers, self._realm.region, demand, provisioned)

        return await self._store.read(work)

    def _look_at_loads(self, now: datetime) -> None:
        """Fill in how busy each environment is and when it was last used."""
        loads = self._slots.loads()
        for key, environment in self.fleet.environments.items():
            load = loads.get(key)
            if load is None:
                continue
            used = load.running > 0 or load.ever_given != self._served.get(key, 0)
            self._served[key] = load.ever_given
            seen = replace(environment, busy=load.running, used_at=now if used else environment.used_at)
            self.fleet = self.fleet.with_environment(seen)

    # --- settling what needs no capacity ------------------------------------------------------------------------------------

    async def _settle_providers(self) -> None:
        def work(reader: Reader) -> list[CapacityProvider]:
            return [
                *reader.providers("", ALL, ProviderState.PENDING),
                *reader.providers("", ALL, ProviderState.DELETING),
            ]

        for provider in await self._store.read(work):
            await self._settle_provider(provider)

    async def _settle_provider(self, provider: CapacityProvider) -> None:
        if provider.state is ProviderState.PENDING:
            await self._store.write(lambda tx: _checked(tx, provider.name))
            return
        instances = self.fleet.of_provider(provider.name)
        for instance in instances:
            if instance.phase is not InstancePhase.TERMINATING:
                self._terminate(instance.id, "its capacity provider is being deleted")
        if not instances:
            arn = self._realm.capacity_provider_arn(provider.name)

            def work(tx: Transaction) -> None:
                tx.delete_provider(provider.name)
                tx.remove_tags(arn)

            await self._store.write(work)

    async def _settle_packages(self) -> None:
        """Create and update of `$LATEST` are done once the package is in place."""
        for version in await self._store.read(lambda reader: list(reader.unsettled())):
            if version.state is State.DELETING or (version.is_managed and version.is_published):
                continue
            try:
                await self._packages.unpacked(version.configuration.code)
                await self._layers(version.configuration)
            except (OSError, DomainError):
                # This one stays as it is and is tried again with the next tick; nobody else waits for it.
                log.exception("package-unavailable", extra={"function": version.function, "version": version.version})
                continue
            await self._change(
                version.function, version.version, lambda v: functions.apply(v, Settled(_fresh_revision())), version
            )

    async def _note_failed_inits(self) -> None:
        while self._failed_inits:
            key, reason = self._failed_inits.pop(0)
            await self._fail(key, reason)

    async def _fail(self, key: PublicationKey, reason: Reason) -> None:
        """Tell a managed version that it cannot have its environments; a standard one only answers its invocation."""
        failed = CapacityFailed(key.number, reason, _fresh_revision())
        await self._change(key.function, key.version, lambda v: functions.apply(v, failed) if v.is_managed else v)

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

    # --- orders ------------------------------------------------------------------------------------------------------------

    async def _carry_out(self, order: Order) -> None:
        match order:
            case LaunchInstance(instance, because):
                self.fleet = self.fleet.with_instance(instance)
                self._decide(f"launch {instance.type.name} {instance.id} in {instance.zone}", because)
                await self._launch(instance)
            case StartEnvironment(environment, publication, because):
                await self._start(environment, publication, because)
            case DrainEnvironment(environment_id, because):
                if self._phase(environment_id, Phase.DRAINING):
                    self.fleet = self.fleet.draining(environment_id, datetime.now(UTC))
                    self._slots.drain(environment_id)
                    self._decide(f"drain {environment_id}", because)
                    # Whether anything runs in it can be relied on only now that it gets nothing more.
                    self._poke()
            case StopEnvironment(environment_id, because):
                if self._phase(environment_id, Phase.STOPPING):
                    self._stop(environment_id, because)
            case TerminateInstance(instance_id, because):
                if instance_id in self.fleet.instances:
                    self._terminate(instance_id, because)
            case NoteReady(key, bounds, asked):
                ready = CapacityReady(key.number, bounds, _fresh_revision(), asked)
                await self._change(key.function, key.version, lambda v: functions.apply(v, ready))
                self._poke()
            case NoteFailed(key, reason):
                self._decide(f"fail {key}", reason.text)
                await self._fail(key, reason)
                self._poke()
            case NoteDrained(function, version):
                await self._change(
                    function, version, lambda v: functions.apply(v, Drained()) if v.state is State.DEACTIVATING else v
                )
            case NoteRemoved(function, version):
                await self._remove(function, version)
            case NoteAllocation(config, allocation):
                await self._note_allocation(config, allocation)
            case _:
                assert_never(order)

    async def _note_allocation(self, config: ProvisionedConcurrency, allocation: Allocation) -> None:
        """Write down how far provisioned concurrency has come, unless it was changed or deleted meanwhile."""

        def work(tx: Transaction) -> None:
            if config in tx.provisioned(config.function, "", ALL):
                tx.save_provisioned(replace(config, allocation=allocation))

        self._decide(
            f"provisioned concurrency of {config.function}:{config.qualifier} is {allocation.status}",
            allocation.reason or f"{allocation.available} of {config.requested} environments are initialised",
        )
        await self._store.write(work)

    async def _launch(self, instance: Instance) -> None:
        try:
            await self._driver.launch(instance)
        except OSError as exc:
            log.exception("launch-failed", extra={"instance": instance.id})
            self._instance_ended(instance.id, f"the error that it could not be started: {exc}")

    def _phase(self, environment_id: str, phase: Phase) -> bool:
        """True if the environment is still there and before `phase`: reports may have overtaken the plan."""
        environment = self.fleet.environments.get(environment_id)
        order = list(Phase)
        return environment is not None and order.index(environment.phase) < order.index(phase)

    def _stop(self, environment_id: str, because: str) -> None:
        self.fleet = self.fleet.phase(environment_id, Phase.STOPPING)
        self._slots.drain(environment_id)
        self._decide(f"stop {environment_id}", because)
        instance_id = self.fleet.environments[environment_id].instance_id
        self._agents.send(instance_id, messages.StopEnvironment(environment_id, because))

    async def _start(self, environment: Environment, publication: Publication, because: str) -> None:
        instance = self.fleet.instances.get(environment.instance_id)
        if instance is None:
            return  # lost since the plan was made; the next one places it anew
        self.fleet = self.fleet.placed(environment)
        managed = publication.configuration.managed is not None
        self._slots.expect(environment.id, environment.key, instance.zone, managed=managed)
        try:
            code = await self._packages.unpacked(publication.configuration.code)
            layers = await self._layers(publication.configuration)
            order = await self._with_link(self._start_message(environment, publication, code, layers), environment)
        except (OSError, DomainError) as exc:
            log.exception("environment-not-started", extra={"environment": environment.id, "key": str(environment.key)})
            document = msgspec.json.encode(
                {"errorType": "Runtime.Unknown", "errorMessage": f"Its code cannot be had: {exc}"}
            )
            self.agent_reported(
                instance.id,
                EnvironmentFailed(environment.id, "Runtime.Unknown", document.decode(), "InternalError"),
            )
            return
        if environment.id not in self.fleet.environments:
            self._forget_environments([environment.id])
            return  # lost with its instance while its code was unpacked
        self._decide(f"start {environment.id} for {environment.key} on {instance.id}", because)
        self._agents.send(instance.id, order)

    async def _layers(self, configuration: Configuration) -> Path | None:
        """The folder with a function's layers; None without layers."""
        if not configuration.layers:
            return None
        return await self._packages.stacked([layer.code for layer in configuration.layers])

    async def _with_link(self, order: messages.StartEnvironment, environment: Environment) -> messages.StartEnvironment:
        """The order, with a socket for the environment's own workers where its runtime can use one."""
        if (
            order.mode != "managed-instances"
            or not self._workers_on_link
            or not order.runtime.startswith(LINK_RUNTIMES)
        ):
            return order
        door = await self._agents.open_door(environment.id)
        to = LogOf(Path(order.log_path), order.function_version, order.function_arn, order.system_log_level)
        self._records.opened(environment.id, to)
        if door is None:
            return msgspec.structs.replace(order, relays_workers=True)
        return msgspec.structs.replace(order, link_path=str(door))

    def _start_message(
        self, environment: Environment, publication: Publication, code: Path, layers: Path | None
    ) -> messages.StartEnvironment:
        configuration, key = publication.configuration, environment.key
        managed = configuration.managed is not None
        started = datetime.now(UTC)
        stream = f"{started:%Y/%m/%d}/[{key.version}]{secrets.token_hex(16)}"
        path = self._logs / key.function / f"{stream.replace('/', '-')}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.environment_logs[environment.id] = EnvironmentLog(key.function, key.version, path, started)
        return messages.StartEnvironment(
            environment_id=environment.id,
            mode="managed-instances" if managed else "on-demand",
            runtime=configuration.runtime,
            handler=configuration.handler,
            code_path=str(code),
            function_name=key.function,
            function_version=key.version,
            function_arn=self._realm.function_arn(key.function, key.version),
            memory_mb=configuration.memory_mb,
            vcpus=configuration.vcpus_per_environment,
            timeout_ms=configuration.timeout_s * 1000,
            init_timeout_ms=_milliseconds(
                _init_limit(configuration.timeout_s) if managed or environment.provisioned else STANDARD_INIT
            ),
            ephemeral_storage_mb=configuration.ephemeral_storage_mb,
            max_concurrency=environment.slots,
            variables=dict(configuration.variables or {}),
            region=self._realm.region,
            account_id=self._realm.account,
            log_format=configuration.logging.format,
            application_log_level=configuration.logging.application_level or "INFO",
            system_log_level=configuration.logging.system_level or "INFO",
            log_group=configuration.logging.group,
            log_stream=stream,
            log_path=str(path),
            initialization_type="provisioned-concurrency" if environment.provisioned else "on-demand",
            endpoint_url=self._endpoint_url,
            layers_path=str(layers or ""),
        )

    def _terminate(self, instance_id: str, because: str) -> None:
        self.fleet = self.fleet.terminating(instance_id)
        self._decide(f"terminate {instance_id}", because)
        task = asyncio.create_task(self._driver.terminate(instance_id), name=f"terminate {instance_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, function: str, version: str) -> None:
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
        if version != LATEST:
            self._poke()

    # --- reports -------------------------------------------------------------------------------------------------------------

    def agent_reported(self, instance_id: str, message: FromAgent) -> None:
        """A report of an agent. Reports about environments that we do not know any more are ignored."""
        now = datetime.now(UTC)
        match message:
            case AgentHello():
                if instance_id in self.fleet.instances:
                    self.fleet = self.fleet.instance_running(instance_id)
            case EnvironmentReady(environment_id, init_ms, _, note):
                if environment_id in self.fleet.environments:
                    self.fleet = self.fleet.environment_ready(environment_id, now)
                    self._decide(f"{environment_id} is ready", f"init took {init_ms:.0f} ms")
                    if note:
                        self.notes[environment_id] = note
            case EnvironmentFailed():
                self._init_failed(message, now)
            case EnvironmentExited(environment_id, error_type, text):
                if error_type:
                    self._decide(f"{environment_id} ended", text)
                    self._slots.ended(environment_id, text)
                self._environment_gone(environment_id, now, failed=error_type == "Runtime.ExitError")
            case EnvironmentDegraded(environment_id, slots_left):
                if environment_id in self.fleet.environments:
                    self.fleet = self.fleet.environment_degraded(environment_id, slots_left)
                    self._decide(f"replace {environment_id}", f"workers died, {slots_left} slots are left")
            case _:
                assert_never(message)
        self._poke()

    def _init_failed(self, report: EnvironmentFailed, now: datetime) -> None:
        environment = self.fleet.environments.get(report.environment_id)
        if environment is None:
            return
        self._decide(f"{report.environment_id} failed to initialise", report.error_type)
        self._slots.init_failed(report.environment_id, report.error_type, report.error_document.encode())
        self._failed_inits.append((environment.key, Reason(report.reason_code, _sentence(report))))
        self._environment_gone(report.environment_id, now, failed=True)

    def _environment_gone(self, environment_id: str, now: datetime, *, failed: bool) -> None:
        self.fleet = self.fleet.environment_gone(environment_id, now, failed)
        self._forget_environments([environment_id])

    def agent_disconnected(self, instance_id: str) -> None:
        """The agent's connection ended: the agent is dead or has to go."""
        instance = self.fleet.instances.get(instance_id)
        for environment in self.fleet.on(instance_id):
            self._slots.forget(environment.id)
        if instance is not None and instance.phase is not InstancePhase.TERMINATING:
            self._terminate(instance_id, "its agent disconnected")

    def _instance_ended(self, instance_id: str, how: str) -> None:
        instance = self.fleet.instances.get(instance_id)
        if instance is None:
            return
        if instance.phase is not InstancePhase.TERMINATING:
            self._decide(f"{instance_id} is lost", f"its agent ended with {how}")
        lost = [environment.id for environment in self.fleet.on(instance_id)]
        self.fleet = self.fleet.instance_gone(instance_id, datetime.now(UTC))
        self._forget_environments(lost)
        self._agents.forget(instance_id)
        self._poke()

    def _forget_environments(self, environment_ids: Iterable[str]) -> None:
        for environment_id in environment_ids:
            self._slots.forget(environment_id)
            self._agents.close_door(environment_id)
            self._records.closed(environment_id)
            self._served.pop(environment_id, None)
            self.notes.pop(environment_id, None)
            self.environment_logs.pop(environment_id, None)

    def _decide(self, what: str, because: str) -> None:
        self.decisions.append(Decision(datetime.now(UTC), what, because))
        log.info("decision", extra={"what": what, "because": because})


def _checked(tx: Transaction, name: str) -> None:
    """Make a provider active, unless somebody deleted it since it was seen."""
    provider = tx.provider(name)
    if provider is not None and provider.state is ProviderState.PENDING:
        tx.save_provider(capacity.apply(provider, ProviderChecked()))


def _init_limit(timeout_s: int) -> timedelta:
    """Init limit on a capacity provider and of provisioned concurrency: 130 s or the function's timeout, whichever is longer, at most 900 s (Developer Guide)."""
    return min(max(LONG_INIT_LEAST, timedelta(seconds=timeout_s)), LONG_INIT_MOST)


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


def _sentence(report: EnvironmentFailed) -> str:
    """What went wrong at init, for StateReason."""
    try:
        document: Mapping[str, object] = msgspec.json.decode(report.error_document, type=dict[str, object])
    except msgspec.DecodeError:
        document = {}
    message = document.get("errorMessage") or "the execution environment could not be initialised"
    return f"{document.get('errorType') or report.error_type}: {message}"


def _fresh_id() -> str:
    return f"{secrets.randbits(64):016x}{secrets.randbelow(16):x}"


def _fresh_revision() -> str:
    return str(uuid.uuid4())
