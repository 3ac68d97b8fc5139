"""What an agent is told when it shall start an environment: code and layers on disk, variables, limits, where to log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from lambstead.core.arn import Realm
from lambstead.core.configurations import Configuration, Publication
from lambstead.core.egress import Egress, EgressRules
from lambstead.core.errors import InvalidRuntime
from lambstead.core.fleet import Environment
from lambstead.core.images import NOT_RUN
from lambstead.core.log_streams import GROUP_SUFFIX, default_group, file_name, stream_of
from lambstead.core.platform_records import LogOf
from lambstead.link import messages
from lambstead.store.port import Packages

LONG_INIT_LEAST = timedelta(seconds=130)
LONG_INIT_MOST = timedelta(seconds=900)
STANDARD_INIT = timedelta(seconds=10)
LINK_RUNTIMES = ("python3.",)
"""Runtimes whose workers can speak the link themselves; the others have their agent speak it for them."""


class Records(Protocol):
    """Who writes platform records of invocations that do not pass through an agent."""

    def opened(self, environment_id: str, to: LogOf) -> None: ...
    def closed(self, environment_id: str) -> None: ...


class Doors(Protocol):
    """Sockets on which an environment's own workers connect."""

    async def open_door(self, environment_id: str) -> Path | None: ...
    def close_door(self, environment_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class EnvironmentLog:
    """Where an environment's output goes."""

    function: str
    version: str
    path: Path
    started: datetime


class Starting:
    """See the module."""

    def __init__(
        self,
        *,
        packages: Packages,
        doors: Doors,
        records: Records,
        realm: Realm,
        logs: Path,
        endpoint_url: str,
        workers_on_link: bool,
        egress: EgressRules,
    ) -> None:
        self._packages = packages
        self._doors = doors
        self._records = records
        self._realm = realm
        self._logs = logs
        self._endpoint_url = endpoint_url
        self._workers_on_link = workers_on_link
        self._egress = egress
        self.logs: dict[str, EnvironmentLog] = {}

    async def order(
        self, environment: Environment, publication: Publication, security_groups: Sequence[str]
    ) -> messages.StartEnvironment:
        """The order to start `environment` on a provider with these security groups; one on demand has none.

        Raises OSError or DomainError if its code cannot be had.
        """
        if publication.configuration.code.is_image:
            raise InvalidRuntime(NOT_RUN.format(arn=self._realm.function_arn(environment.key.function)))
        code = await self._packages.unpacked(publication.configuration.code)
        layers = await self._layers(publication.configuration)
        order = self._start_message(environment, publication, code, layers, self._egress.policy(security_groups))
        return await self._with_link(order, environment)

    def forget(self, environment_id: str) -> None:
        """The environment is over."""
        self._doors.close_door(environment_id)
        self._records.closed(environment_id)
        self.logs.pop(environment_id, None)

    async def _layers(self, configuration: Configuration) -> Path | None:
        """The folder with a function's layers; None without layers."""
        if not configuration.layers:
            return None
        return await self._packages.stacked([layer.code for layer in configuration.layers])

    async def _with_link(self, order: messages.StartEnvironment, environment: Environment) -> messages.StartEnvironment:
        """The order, with a link for the environment's own workers where its runtime can use one."""
        if not self._workers_on_link or not order.runtime.startswith(LINK_RUNTIMES):
            return order
        if order.mode == "on-demand":
            return msgspec.structs.replace(order, relays_workers=True)
        door = await self._doors.open_door(environment.id)
        to = LogOf(Path(order.log_path), order.function_version, order.function_arn, order.system_log_level)
        self._records.opened(environment.id, to)
        if door is None:
            return msgspec.structs.replace(order, relays_workers=True)
        return msgspec.structs.replace(order, link_path=str(door))

    def _start_message(
        self, environment: Environment, publication: Publication, code: Path, layers: Path | None, egress: Egress
    ) -> messages.StartEnvironment:
        configuration, key = publication.configuration, environment.key
        managed = configuration.managed is not None
        started = datetime.now(UTC)
        stream = stream_of(environment.instance_id, environment.id, key.version, started)
        path = self._logs / key.function / file_name(stream)
        path.parent.mkdir(parents=True, exist_ok=True)
        if configuration.logging.group != default_group(key.function):
            path.with_suffix(GROUP_SUFFIX).write_text(configuration.logging.group)
        self.logs[environment.id] = EnvironmentLog(key.function, key.version, path, started)
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
            egress=egress,
            tenant_id=key.tenant_id,
        )


def _init_limit(timeout_s: int) -> timedelta:
    """Init limit on a capacity provider and of provisioned concurrency: 130 s or the function's timeout, whichever is longer, at most 900 s (Developer Guide)."""
    return min(max(LONG_INIT_LEAST, timedelta(seconds=timeout_s)), LONG_INIT_MOST)


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
