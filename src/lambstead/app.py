"""The composition root: builds a Lambstead from its settings, runs it, takes it down.

Everything is wired here with ordinary calls; no other module knows how the parts are put together.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import random
import signal
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import uvloop

from lambstead.api.context import Call, Context
from lambstead.api.lambda_invoke import invoke_event
from lambstead.api.operations import LAMBDA, LOGS, SCHEDULER
from lambstead.config import Settings, SettingsError
from lambstead.control.agents import Agents
from lambstead.control.chaos import Chaos, LateOrders
from lambstead.control.durable.engine import DurableEngine, utc_now
from lambstead.control.durable.executions import TimeSkipping
from lambstead.control.durable.notices import Notices
from lambstead.control.event_invokes import EventInvokes
from lambstead.control.event_sources import EventSources
from lambstead.control.loop import Loop
from lambstead.control.provider_log import ProviderLog
from lambstead.control.provisioning import Provisioning
from lambstead.control.scaling import Scaling
from lambstead.control.schedules import Schedules
from lambstead.control.settling import Settling
from lambstead.control.starting import Starting
from lambstead.core.arn import Realm
from lambstead.core.chaos import ActiveFaults
from lambstead.core.demand import Pace
from lambstead.core.desired import Policy
from lambstead.core.durable.lifecycle import Backoff
from lambstead.core.event_queue import RetryPolicy
from lambstead.core.log_streams import instance_mark
from lambstead.core.managed_ec2 import ManagedInstance
from lambstead.core.throttles import Throttles
from lambstead.data_directory import agents_socket, locked, made, remove_record, write_record
from lambstead.dataplane.invoker import Invoker, Limits
from lambstead.dataplane.records import PlatformRecords
from lambstead.dataplane.routes import Routes
from lambstead.drivers.faults import FaultyDriver
from lambstead.drivers.local import LocalDriver
from lambstead.drivers.port import Driver
from lambstead.drivers.webhooks import HttpWebhooks
from lambstead.instance.cgroups import find_cgroups, group_name
from lambstead.instance.isolation import IsolationLevel
from lambstead.instance.levels import LevelFails, strongest, try_egress, try_level
from lambstead.instance.runtimes.catalogue import obstacle
from lambstead.instance.strays import kill_strays
from lambstead.server.aws import AwsGateway
from lambstead.server.companion import CompanionPages
from lambstead.server.doctor import Check, examine
from lambstead.server.durable_pages import DurablePages
from lambstead.server.function_urls import FunctionUrls
from lambstead.server.gateway import Given
from lambstead.server.gateway_calls import GatewayCalls
from lambstead.server.gateways import Gateways
from lambstead.server.http import HttpServer, bind, bind_shared, bind_unix
from lambstead.server.invocations import GatewayInvocations
from lambstead.server.invoke_protocol import ShortWay
from lambstead.server.pages import Pages
from lambstead.server.proxy import with_caller
from lambstead.server.short_checkpoints import ShortCheckpoints
from lambstead.server.status import status
from lambstead.server_log import log_to_stderr
from lambstead.services import companion_of, destinations_of, objects_of, subnets_of
from lambstead.store.log_files import LogFiles
from lambstead.store.packages import DiskPackages
from lambstead.store.sqlite import SqliteStore
from lambstead.wire.gateway import AwsApi

log = logging.getLogger(__name__)

COLD_START_WAIT = timedelta(seconds=30)
"""How long an invocation of a standard function waits for its environment: AWS's 10 s of init and time to get there."""
MAX_WAITING = 1000
"""Invocations in line per publication; beyond that they are refused at once."""
DRAIN_GRACE = timedelta(seconds=30)
EVENT_TICK = timedelta(seconds=30)
"""How late the queue of asynchronous invocations is looked at when nobody said that there is something: also how often leases can be extended."""
DURABLE_TICK = timedelta(seconds=5)
"""How late what is due for durable executions is looked at when work on it broke; everything else pokes, or is slept for."""
TERMINATED_SHOWN = timedelta(hours=1)
"""How long EC2 shows an instance that was terminated (EC2 User Guide: "for a short while", usually less than an hour)."""
RETENTION_TICK = timedelta(minutes=5)


def serve(settings: Settings, ready: Callable[[str], None]) -> int:
    """Run in the foreground until SIGINT or SIGTERM; the exit code. `ready` is called with the URL once requests are answered.

    Raises ServerAlreadyRunning, PortTaken or SchemaTooNew before anything is started.
    """
    log_to_stderr(settings.log_level)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with locked(settings.data_dir):
        if settings.gateways == 1:
            listeners = [bind(settings.host, settings.port)]
        else:
            listeners = bind_shared(settings.host, settings.port, settings.gateways)
        with contextlib.ExitStack() as closed_after:
            for listener in listeners:
                closed_after.enter_context(contextlib.closing(listener))
            return uvloop.run(_serve(settings, listeners, ready))


async def _serve(settings: Settings, listeners: Sequence[socket.socket], ready: Callable[[str], None]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lambstead = await Lambstead.build(settings, listeners)
    await lambstead.start()
    # What is there now stays: a full collection that has to look at it stops every invocation for tens of milliseconds.
    gc.collect()
    gc.freeze()
    write_record(settings, lambstead.url)
    try:
        ready(lambstead.url)
        await stop.wait()
    finally:
        remove_record(settings)
        await lambstead.stop()
    return 0


class Lambstead:
    """One running Lambstead. `build`, `start`, `stop`, in this order, once each."""

    def __init__(
        self, settings: Settings, listeners: Sequence[socket.socket], store: SqliteStore, isolation: IsolationLevel
    ) -> None:
        self.settings = settings
        self.isolation = isolation
        self._listeners = listeners
        host, self._port = listeners[0].getsockname()[:2]
        self.url = f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"
        self.store = store
        data = settings.data_dir
        self._realm = Realm(settings.region, settings.account_id)
        self._socket = agents_socket(data)
        self.packages = DiskPackages(made(data / "packages"))
        self.companion = companion_of(settings, self._managed_instances)
        self._wire_instances()
        self._wire_durable_executions()
        context = self._wire_events()
        self._wire_answers(context)
        self._looping: list[asyncio.Task[None]] = []

    def _wire_instances(self) -> None:
        """What starts and ends instances and environments, and the invoke path over them."""
        # Faults act at ports; a server that does not allow them has none of it on its ways.
        faults = ActiveFaults(lambda: datetime.now(UTC)) if self.settings.chaos == "on" else None
        self.loop = Loop("provisioning", self._reconcile, self.settings.instance_poll)
        self._wire_driver(faults)
        self._wire_invoke_path(faults)
        self._wire_provisioning(faults)
        self.invocations = GatewayInvocations(self.invoker, self.provisioning.log_path)

    def _wire_driver(self, faults: ActiveFaults | None) -> None:
        settings = self.settings
        self._local = LocalDriver(
            self._socket,
            made(settings.data_dir / "run" / "instances"),
            self._socket.with_name("sockets"),
            settings.runtimes_dir,
            _clear_away,
            self.isolation,
            settings.cores_per_vcpu,
            (lambda instance_id: (self._agents_address, self.agents.new_token(instance_id)))
            if settings.agent_link == "tcp"
            else None,
        )
        self._agents_address = ""
        """Where agents connect over TCP, once they can."""
        self.driver: Driver = FaultyDriver(self._local, faults) if faults is not None else self._local

    def _wire_invoke_path(self, faults: ActiveFaults | None) -> None:
        settings = self.settings
        self.records = PlatformRecords()
        self.throttles = Throttles()
        self.invoker = Invoker(
            Routes(self.store),
            self._realm,
            Limits(
                settings.slot_wait.total_seconds(),
                COLD_START_WAIT.total_seconds(),
                MAX_WAITING,
                settings.concurrent_executions,
                settings.stream_kib_per_second * 1024,
            ),
            self.records,
            self.throttles,
            self.loop.poke,
            faults.refusal if faults is not None else None,
        )
        self.agents = Agents(self.invoker)

    def _wire_provisioning(self, faults: ActiveFaults | None) -> None:
        settings, store, realm, logs = self.settings, self.store, self._realm, made(self.settings.data_dir / "logs")
        orders = LateOrders(self.agents, faults) if faults is not None else None
        policy = Policy(
            default_minimum=settings.min_environments,
            standard_limit=settings.standard_environments,
            idle_environment=settings.idle_environment,
            idle_instance=settings.idle_instance,
            drain_grace=DRAIN_GRACE,
            instance_lifetime=settings.instance_lifetime,
        )
        pace = Pace().faster(settings.scaling_time_scale)
        self.provisioning = Provisioning(
            store=store,
            settling=Settling(store, self.packages, realm, subnets_of(settings, self.companion, self.url)),
            starting=Starting(
                packages=self.packages,
                doors=self.agents,
                records=self.records,
                realm=realm,
                logs=logs,
                endpoint_url=self.url,
                workers_on_link=settings.runtime_client == "link",
                egress=settings.egress_rules,
            ),
            provider_log=ProviderLog(logs, realm),
            scaling=Scaling(self.invoker, policy, pace),
            driver=self.driver,
            agents=orders or self.agents,
            slots=self.invoker,
            realm=realm,
            policy=policy,
            poke=self.loop.poke,
        )
        self.agents.reports = self.provisioning
        self._chaos: Chaos | None = None
        if faults is not None and orders is not None:
            orders.instance = lambda instance_id: self.provisioning.fleet.instances.get(instance_id)
            self._chaos = Chaos(faults, self.provisioning, self.driver, orders)

    def _wire_durable_executions(self) -> None:
        """The engine of durable executions, and who hears of their changes."""
        settings, store, realm = self.settings, self.store, self._realm
        self.durable_loop = Loop("durable executions", self._run_durable, DURABLE_TICK)
        self.durable_retention_loop = Loop("durable retention", self._remove_expired, RETENTION_TICK)
        self.notice_loop = Loop("durable status changes", self._tell_subscribers, DURABLE_TICK)
        self.durable = DurableEngine(
            store=store,
            functions=self.invocations,
            realm=realm,
            backoff=Backoff(settings.durable_backoff_first, settings.durable_backoff_most),
            poke=self.durable_loop.poke,
            poke_retention=self.durable_retention_loop.poke,
            time=TimeSkipping(settings.time_skip, settings.time_skip_callback_grace),
            notices=Notices(
                store=store,
                webhooks=HttpWebhooks(),
                realm=realm,
                backoff=Backoff(),
                now=utc_now,
                poke=self.notice_loop.poke,
                wake_events=lambda: self.event_loop.poke(),
            ),
        )
        self.invocations.durable = self.durable.executions
        self.invoker.freed = self.durable.freed

    def _wire_events(self) -> Context:
        """Everything that invokes by itself: queued events, sources, schedules. Returns what operations of the APIs may use."""
        settings, store, realm, data = self.settings, self.store, self._realm, self.settings.data_dir
        self.event_loop = Loop("event invokes", self._run_events, EVENT_TICK)
        self.schedule_loop = Loop("schedules", self._run_schedules, EVENT_TICK)
        destinations = destinations_of(settings, self.companion, self.url)
        retries = RetryPolicy(settings.event_retry_delay, settings.event_backoff_first, settings.event_backoff_most)
        self.events = EventInvokes(
            store=store,
            invocations=self.invocations,
            destinations=destinations,
            realm=realm,
            policy=retries,
            now=lambda: datetime.now(UTC),
            poke=self.event_loop.poke,
        )
        self.event_sources = EventSources(store, realm)
        self.event_source_loop = Loop("event sources", self.event_sources.reconcile, EVENT_TICK)
        context = Context(
            realm=realm,
            store=store,
            packages=self.packages,
            objects=objects_of(settings, self.companion, self.url),
            invocations=self.invocations,
            durable=self.durable.executions,
            logs=LogFiles(data / "logs"),
            poke=self.loop.poke,
            wake_events=self.event_loop.poke,
            wake_event_sources=self.event_source_loop.poke,
            wake_schedules=self.schedule_loop.poke,
            default_minimum=settings.min_environments,
            throttles=self.throttles,
            concurrent_executions=settings.concurrent_executions,
            runtime_obstacle=functools.partial(obstacle, settings.runtimes_dir),
            base_url=self.url,
        )
        self.schedules = Schedules(
            store=store,
            invoke_event=lambda request_id, call, also: invoke_event(
                context,
                Call(request_id, {}),
                call.ref,
                call.payload,
                call.client_context,
                execution_name=call.execution_name,
                tenant_id=call.tenant_id,
                also=also,
            ),
            invocations=self.invocations,
            can_reach=destinations.can_reach,
            realm=realm,
            policy=retries,
            now=lambda: datetime.now(UTC),
            draw=random.random,
            poke=self.schedule_loop.poke,
            wake_events=self.event_loop.poke,
        )
        return context

    def _wire_answers(self, context: Context) -> None:
        """What answers on the port: our pages, AWS's APIs, function URLs, and the short way of Invoke."""
        settings, store, realm, data = self.settings, self.store, self._realm, self.settings.data_dir
        self._pages = Pages(
            profile=settings.profile,
            logs=data / "logs",
            packages=data / "packages",
            status=self._status,
            examine=self._examine,
            reset=self._reset,
            durable=DurablePages(store, self.durable, realm, utc_now).routes,
            chaos=self._chaos,
        )
        api = AwsApi.load("lambda")
        served = {api: LAMBDA, AwsApi.load("logs"): LOGS, AwsApi.load("scheduler"): SCHEDULER}
        self._aws = AwsGateway(
            {
                each: {name: functools.partial(operation, context) for name, operation in operations.items()}
                for each, operations in served.items()
            },
            CompanionPages(self.companion),
        )
        checkpoints = ShortCheckpoints(api, self._aws.answer)
        short_way = ShortWay(api, self.invoker, realm, self._aws.carry_out, checkpoints)
        self._function_urls = FunctionUrls(
            context, self._port, short_way.max_body_bytes, needs_both=settings.url_permissions == "both"
        )
        self._http = HttpServer(self._application, short_way)
        self._gateways = self._build_gateways(realm) if len(self._listeners) > 1 else None

    def _build_gateways(self, realm: Realm) -> Gateways:
        """The processes that accept requests instead of this one."""
        settings = self.settings
        given = Given(
            number=0,
            listener=-1,
            calls=self._socket.with_name("calls.sock"),
            http=self._socket.with_name("http.sock"),
            realm=realm,
            stream_bytes_per_s=settings.stream_kib_per_second * 1024,
            stop_wait=settings.stop_wait,
            log_level=settings.log_level,
        )
        return Gateways(self._listeners, given, GatewayCalls(self.invoker))

    @classmethod
    async def build(cls, settings: Settings, listeners: Sequence[socket.socket]) -> "Lambstead":
        """Open the store of the data directory and wire everything to it. Raises SchemaTooNew or SettingsError."""
        isolation = await asyncio.to_thread(choose_isolation, settings)
        return cls(settings, listeners, await SqliteStore.open(settings.data_dir / "lambstead.db"), isolation)

    async def start(self) -> None:
        """Clear away what a killed server left behind, then serve."""
        await asyncio.to_thread(self._local.sweep)
        used, stacks = await self.store.read(
            lambda reader: ([*reader.packages(), *reader.layer_packages()], list(reader.layer_stacks()))
        )
        swept = await self.packages.sweep(used, stacks)
        if swept:
            log.info("packages-swept", extra={"count": swept})
        await self.agents.listen(self._socket)
        if self.settings.agent_link == "tcp":
            self._agents_address = await self.agents.listen_tcp(self.settings.host)
        await self.events.start()
        await self.durable.start()
        await self.schedules.start()
        self._looping = [
            asyncio.create_task(loop.run(), name=name)
            for name, loop in {
                "provisioning": self.loop,
                "event invokes": self.event_loop,
                "event sources": self.event_source_loop,
                "schedules": self.schedule_loop,
                "durable executions": self.durable_loop,
                "durable retention": self.durable_retention_loop,
                "durable status changes": self.notice_loop,
            }.items()
        ]
        if self._gateways is None:
            await self._http.start(self._listeners[0])
        else:
            await self._http.start(bind_unix(self._gateways.http))
            await self._gateways.start()

    async def stop(self) -> None:
        """Let running requests finish for a while, end every instance, close the store."""
        # Before the port closes: functions that run shall be able to checkpoint to their end.
        await self.durable.stop(self.settings.stop_wait)
        await asyncio.gather(
            self._stop_answering(),
            self.events.stop(self.settings.stop_wait),
            self.schedules.stop(self.settings.stop_wait),
        )
        for task in self._looping:
            task.cancel()
        if self._looping:
            await asyncio.wait(self._looping)
        await self.driver.close()
        await self.agents.close()
        self.companion.close()
        self.records.write_now()
        await self.store.close()
        self._socket.unlink(missing_ok=True)

    async def _stop_answering(self) -> None:
        if self._gateways is not None:
            await self._gateways.stop()
        await self._http.stop(self.settings.stop_wait)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:  # Any: ASGI, as uvicorn types it
        if self._gateways is not None:
            scope = with_caller(scope)
        url_id = self._function_urls.url_id(scope)
        if url_id is not None:
            await self._function_urls(scope, receive, send, url_id)
        elif scope["path"].startswith("/_lambstead/"):
            await self._pages.app(scope, receive, send)
        else:
            await self._aws(scope, receive, send)

    async def _reconcile(self) -> timedelta | None:
        return await self.provisioning.reconcile()

    async def _run_events(self) -> timedelta | None:
        return await self.events.reconcile()

    async def _run_schedules(self) -> timedelta | None:
        return await self.schedules.reconcile()

    async def _run_durable(self) -> timedelta | None:
        return await self.durable.reconcile()

    async def _tell_subscribers(self) -> timedelta | None:
        return await self.durable.notices.reconcile()

    async def _remove_expired(self) -> timedelta | None:
        return await self.durable.remove_expired()

    async def _status(self) -> dict[str, object]:
        return await status(
            self.settings,
            self.url,
            self.store,
            self.provisioning,
            self.invoker,
            self.events,
            self.durable,
            self._gateways.described() if self._gateways else [],
            self.throttles.counted(),
        )

    async def _managed_instances(self) -> list[ManagedInstance]:
        """Instances of capacity providers for EC2, terminated ones for a while."""
        stored = await self.store.read(lambda reader: {p.name: p for p in reader.providers("", 1_000_000)})
        fleet, earliest = self.provisioning.fleet, datetime.now(UTC) - TERMINATED_SHOWN
        running = [(instance, False) for instance in fleet.instances.values()]
        departed = [(instance, True) for at, instance in self.provisioning.departed if at >= earliest]
        realm = Realm(self.settings.region, self.settings.account_id)
        return [
            ManagedInstance.of(
                instance,
                stored.get(instance.provider),
                realm.capacity_provider_arn(instance.provider),
                realm.region,
                is_terminated=is_terminated,
            )
            for instance, is_terminated in sorted((*departed, *running), key=lambda each: (each[0].since, each[0].id))
            if instance.provider is not None
        ]

    def _examine(self) -> list[Check]:
        return examine(self.settings.data_dir, self.settings.runtimes_dir, self.isolation)

    async def _reset(self) -> None:
        await self.store.write(lambda tx: tx.delete_everything())
        self.durable.forget()
        self.loop.poke()


def choose_isolation(settings: Settings) -> IsolationLevel:
    """The level of the settings, or for `auto` the strongest that works here; tried for real. Raises SettingsError."""
    if settings.isolation == "auto":
        level = strongest()
    else:
        level = settings.isolation
        try:
            try_level(level)
        except LevelFails as exc:
            raise SettingsError(
                f"isolation: {level} does not work on this machine. {exc} {exc.advice}".rstrip()
            ) from exc
    for policy in settings.egress_rules.enforced:
        try:
            try_egress(level, policy)
        except LevelFails as exc:
            raise SettingsError(
                f"egress, security_group_egress: isolation level {level} cannot enforce the policy {policy} that some functions have. {exc} {exc.advice} "
                "`lambstead doctor` says what works here; or remove the policy."
            ) from exc
    if level == "process":
        log.warning(
            "isolation-weak",
            extra={"level": level, "because": "functions see this user's files and processes: run only what you trust"},
        )
    return level


def _clear_away(instance_id: str) -> None:
    """End what a dead instance left running, and remove its control groups."""
    kill_strays(instance_mark(instance_id))
    cgroups = find_cgroups()
    if cgroups is not None:
        cgroups.sweep(group_name(instance_id, ""))
