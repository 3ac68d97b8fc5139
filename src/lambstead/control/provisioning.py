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
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, assert_never

import msgspec

from lambstead.control.provider_log import ProviderLog
from lambstead.control.scaling import Scaling
from lambstead.control.settling import Settling
from lambstead.control.starting import Starting
from lambstead.core.admission import Load
from lambstead.core.arn import LATEST, Realm
from lambstead.core.capacity import CapacityProvider
from lambstead.core.configurations import Publication
from lambstead.core.desired import Desired, Policy, Provision
from lambstead.core.errors import DomainError
from lambstead.core.fleet import Environment, Fleet, Instance, InstancePhase, Phase, PublicationKey, Reading
from lambstead.core.functions import Reason, State
from lambstead.core.orders import (
    DrainEnvironment,
    LaunchInstance,
    NoteAllocation,
    NoteDrained,
    NoteFailed,
    NoteObstacle,
    NoteReady,
    NoteRemoved,
    NoteRetry,
    Order,
    StartEnvironment,
    StopEnvironment,
    TerminateInstance,
)
from lambstead.core.provider_log import InstanceEvent
from lambstead.core.reconcile import next_look, plan
from lambstead.drivers.port import CapacityRefused, Driver
from lambstead.link import messages
from lambstead.link.messages import (
    AgentHello,
    EnvironmentDegraded,
    EnvironmentExited,
    EnvironmentFailed,
    EnvironmentReading,
    EnvironmentReady,
    FromAgent,
    InstanceReading,
    ToAgent,
)
from lambstead.store.port import Reader, Store

log = logging.getLogger(__name__)

MAX_DEPARTED = 1000
"""Instances that are gone and still remembered, for EC2."""
MAX_DECISIONS = 200
"""Decisions kept for `status`; older ones are in the log."""
ALL = 1_000_000


class Slots(Protocol):
    """The invoke path as provisioning sees it."""

    def expect(self, environment_id: str, key: PublicationKey, zone: str, *, managed: bool) -> None: ...
    def drain(self, environment_id: str) -> None: ...
    def ended(self, environment_id: str, error_type: str, story: str) -> None: ...
    def forget(self, environment_id: str) -> None: ...
    def init_failed(self, environment_id: str, error_type: str, document: bytes) -> None: ...
    def demand(self) -> dict[PublicationKey, int]: ...
    def loads(self) -> dict[str, Load]: ...


class Orders(Protocol):
    """The way to an instance's agent."""

    def send(self, instance_id: str, message: ToAgent) -> None: ...
    def forget(self, instance_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Something provisioning did, and why."""

    at: datetime
    what: str
    because: str


class Provisioning:
    """See the module."""

    def __init__(
        self,
        *,
        store: Store,
        settling: Settling,
        starting: Starting,
        scaling: Scaling,
        provider_log: ProviderLog,
        driver: Driver,
        agents: Orders,
        slots: Slots,
        realm: Realm,
        policy: Policy,
        poke: Callable[[], None],
    ) -> None:
        self._store = store
        self._settling = settling
        self._starting = starting
        self.scaling = scaling
        self._provider_log = provider_log
        self._driver = driver
        self._agents = agents
        self._slots = slots
        self._realm = realm
        self._policy = policy
        self._poke = poke
        self.obstacles: dict[tuple[str, str], Reason] = {}
        """Why versions cannot grow, by function and version."""
        self._failed_inits: list[tuple[PublicationKey, Reason]] = []
        self._served: dict[str, int] = {}
        self._security_groups: dict[str, tuple[str, ...]] = {}
        """Of every capacity provider."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.fleet = Fleet()
        self.notes: dict[str, str] = {}
        """What agents had to say about environments that run, by environment id."""
        self.decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)
        self.departed: deque[tuple[datetime, Instance]] = deque(maxlen=MAX_DEPARTED)
        """Instances that were terminated or lost, and when; oldest first."""
        driver.on_ended(self._instance_ended)

    def log_path(self, environment_id: str) -> Path | None:
        """The log file of an environment that runs."""
        found = self._starting.logs.get(environment_id)
        return found.path if found else None

    # --- the loop's body -------------------------------------------------------------------------------------------------

    async def reconcile(self) -> timedelta | None:
        """One round. Returns how soon the next one has something to do although nothing is reported."""
        await self._end_providers(await self._settling.check_providers())
        await self._settling.check_packages()
        await self._note_failed_inits()
        stored = await self._desired()
        self._security_groups = {name: provider.security_groups for name, provider in stored.providers.items()}
        self._provider_log.know(stored.providers.values())
        now = datetime.now(UTC)
        self._look_at_loads(now)
        for (function, version), track in self.scaling.evaluate(stored.versions, stored.providers, self.fleet, now):
            self._decide(f"scale {function}:{version} to {track.desired} environments", track.because)
        desired = replace(stored, scaled=self.scaling.wanted)
        for order in plan(desired, self.fleet, self._policy, iter(_fresh_id, ""), now):
            await self._carry_out(order)
        now = datetime.now(UTC)
        waits = (next_look(self.fleet, self._policy, now), self.scaling.next_evaluation(now))
        return min((wait for wait in waits if wait is not None), default=None)

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
            return Desired(versions, providers, self._realm.region, demand, provisioned, obstacles=dict(self.obstacles))

        return await self._store.read(work)

    def _look_at_loads(self, now: datetime) -> None:
        """Fill in how busy each environment is and when it was last used."""
        loads = self._slots.loads()
        seen = []
        for key, environment in self.fleet.environments.items():
            load = loads.get(key)
            if load is None:
                continue
            used = load.running > 0 or load.ever_given != self._served.get(key, 0)
            self._served[key] = load.ever_given
            if used or load.running != environment.busy:
                seen.append(replace(environment, busy=load.running, used_at=now if used else environment.used_at))
        self.fleet = self.fleet.with_environments(seen)

    async def _note_failed_inits(self) -> None:
        while self._failed_inits:
            key, reason = self._failed_inits.pop(0)
            await self._settling.failed(key, reason)

    async def _end_providers(self, deleting: list[CapacityProvider]) -> None:
        for provider in deleting:
            instances = self.fleet.of_provider(provider.name)
            for instance in instances:
                if instance.phase is not InstancePhase.TERMINATING:
                    self._terminate(instance.id, "its capacity provider is being deleted")
            if not instances:
                await self._settling.provider_gone(provider.name)

    # --- orders ------------------------------------------------------------------------------------------------------------

    async def _carry_out(self, order: Order) -> None:
        match order:
            case LaunchInstance(instance, because):
                self.fleet = self.fleet.with_instance(instance)
                self._decide(f"launch {instance.type.name} {instance.id} in {instance.zone}", because)
                self._provider_log.write(InstanceEvent.LAUNCHING, instance, because)
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
            case NoteReady():
                await self._settling.ready(order)
                self._poke()
            case NoteFailed(key, reason):
                self._decide(f"fail {key}", reason.text)
                await self._settling.failed(key, reason)
                self._poke()
            case NoteRetry(key):
                self._decide(f"provision {key} again", "there is room now")
                await self._settling.may_be_had(key)
                self._poke()
            case NoteObstacle(function, version, reason):
                self._note_obstacle(function, version, reason)
            case NoteDrained(function, version):
                await self._settling.drained(function, version)
            case NoteRemoved(function, version):
                await self._settling.removed(function, version)
                if version != LATEST:
                    self._poke()
            case NoteAllocation(config, allocation):
                self._decide(
                    f"provisioned concurrency of {config.function}:{config.qualifier} is {allocation.status}",
                    allocation.reason or f"{allocation.available} of {config.requested} environments are initialised",
                )
                await self._settling.allocated(config, allocation)
            case _:
                assert_never(order)

    def _note_obstacle(self, function: str, version: str, reason: Reason | None) -> None:
        if reason is None:
            del self.obstacles[function, version]
            self._decide(f"{function}:{version} can grow", "nothing stands in its way any more")
        else:
            self.obstacles[function, version] = reason
            self._decide(f"{function}:{version} cannot grow", reason.text)

    async def _launch(self, instance: Instance) -> None:
        try:
            await self._driver.launch(instance)
        except CapacityRefused as exc:
            text = exc.refusal.reason.text
            self._decide(f"{instance.id} cannot be had", text)
            self._provider_log.write(InstanceEvent.LAUNCH_FAILED, instance, text)
            self.fleet = self.fleet.instance_gone(instance.id, datetime.now(UTC), exc.refusal)
            self._agents.forget(instance.id)
            self._poke()
        except OSError as exc:
            log.exception("launch-failed", extra={"instance": instance.id})
            self._instance_ended(instance.id, f"the error that it could not be started: {exc}")

    def forget_refusals(self) -> None:
        """Launches that failed before may succeed now: try them at once."""
        self.fleet = self.fleet.launches_may_succeed()
        self._poke()

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
            groups = self._security_groups.get(instance.provider or "", ())
            order = await self._starting.order(environment, publication, groups)
        except (OSError, DomainError) as exc:
            log.exception("environment-not-started", extra={"environment": environment.id, "key": str(environment.key)})
            code = "InvalidImage" if publication.configuration.code.is_image else "InternalError"
            document = msgspec.json.encode(
                {"errorType": "Runtime.Unknown", "errorMessage": f"Its code cannot be had: {exc}"}
            )
            self.agent_reported(
                instance.id,
                EnvironmentFailed(environment.id, "Runtime.Unknown", document.decode(), code),
            )
            return
        if environment.id not in self.fleet.environments:
            self._forget_environments([environment.id])
            return  # lost with its instance while its code was unpacked
        self._decide(f"start {environment.id} for {environment.key} on {instance.id}", because)
        self._agents.send(instance.id, order)

    def _terminate(self, instance_id: str, because: str) -> None:
        self.fleet = self.fleet.terminating(instance_id)
        self._decide(f"terminate {instance_id}", because)
        self._provider_log.write(InstanceEvent.TERMINATING, self.fleet.instances[instance_id], because)
        task = asyncio.create_task(self._driver.terminate(instance_id), name=f"terminate {instance_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- reports -------------------------------------------------------------------------------------------------------------

    def agent_reported(self, instance_id: str, message: FromAgent) -> None:
        """A report of an agent. Reports about environments that we do not know any more are ignored."""
        now = datetime.now(UTC)
        match message:
            case InstanceReading(environments):
                self._measured(environments, now)
                return  # comes all the time: what follows from it is decided with the tick
            case AgentHello():
                if instance_id in self.fleet.instances:
                    instance = self.fleet.instances[instance_id]
                    if instance.phase is InstancePhase.LAUNCHING:
                        self._provider_log.write(InstanceEvent.LAUNCHED, instance)
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
                    self._slots.ended(environment_id, error_type, text)
                self._environment_gone(
                    environment_id, now, failed=error_type in ("Runtime.ExitError", "Runtime.OutOfMemory")
                )
            case EnvironmentDegraded(environment_id, slots_left):
                if environment_id in self.fleet.environments:
                    self.fleet = self.fleet.environment_degraded(environment_id, slots_left)
                    self._decide(f"replace {environment_id}", f"workers died, {slots_left} slots are left")
            case _:
                assert_never(message)
        self._poke()

    def _measured(self, environments: Iterable[EnvironmentReading], now: datetime) -> None:
        self.fleet = self.fleet.measured(
            {
                each.environment_id: Reading(now, each.cpu_seconds_total, each.cpu_utilization, each.memory_bytes)
                for each in environments
            }
        )

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
        match instance.phase:
            case InstancePhase.TERMINATING:
                self._provider_log.write(InstanceEvent.TERMINATED, instance)
            case InstancePhase.LAUNCHING:
                self._provider_log.write(InstanceEvent.LAUNCH_FAILED, instance, f"its agent ended with {how}")
            case InstancePhase.RUNNING:
                self._provider_log.write(InstanceEvent.HEALTH_CHECK_FAILED, instance, f"its agent ended with {how}")
        if instance.phase is not InstancePhase.TERMINATING:
            self._decide(f"{instance_id} is lost", f"its agent ended with {how}")
        self.departed.append((datetime.now(UTC), instance))
        lost = [environment.id for environment in self.fleet.on(instance_id)]
        self.fleet = self.fleet.instance_gone(instance_id, datetime.now(UTC))
        self._forget_environments(lost)
        self._agents.forget(instance_id)
        self._poke()

    def _forget_environments(self, environment_ids: Iterable[str]) -> None:
        for environment_id in environment_ids:
            self._slots.forget(environment_id)
            self._starting.forget(environment_id)
            self._served.pop(environment_id, None)
            self.notes.pop(environment_id, None)

    def _decide(self, what: str, because: str) -> None:
        self.decisions.append(Decision(datetime.now(UTC), what, because))
        log.info("decision", extra={"what": what, "because": because})


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
