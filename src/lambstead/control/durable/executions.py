"""Durable executions as the API uses them: start, look, checkpoint, complete callbacks, stop, pause, resume, delete, wait for the end.

Every change is made by a rule of `core.durable` in the execution's lane and answered once it is durable.
"""

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lambstead.control.durable.lanes import Lane, Lanes, Started, UnknownExecution, Work
from lambstead.control.durable.replays import Replays
from lambstead.control.invoke_path import Functions
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.durable import lifecycle, triggers
from lambstead.core.durable.checkpoints import CheckpointRequest, check_token, checkpoint
from lambstead.core.durable.identifiers import parse_callback_id
from lambstead.core.durable.lifecycle import Start
from lambstead.core.durable.model import (
    Action,
    ChainedInvoke,
    Change,
    DurableConfig,
    ErrorObject,
    Execution,
    Operation,
    OperationType,
    Parent,
    StartChained,
    State,
    TimeSkip,
    execution_arn,
)
from lambstead.core.durable.records import Errand, input_digest
from lambstead.core.durable.signals import deliver
from lambstead.core.durable.start_options import StartOptions
from lambstead.core.durable.time_skip import inherited
from lambstead.core.durable.updates import OperationUpdate
from lambstead.core.errors import (
    AccessDenied,
    CallbackTimeout,
    DomainError,
    DurableExecutionAlreadyStarted,
    InvalidParameterValue,
    ResourceNotFound,
    ServiceFailure,
)
from lambstead.core.invocations import Target
from lambstead.core.tenancy import check_tenant
from lambstead.store.port import Store, Transaction

EMPTY_PAYLOAD = "{}"
"""The input of an execution, and of a chained invocation, that was given none."""


@dataclass(frozen=True, slots=True)
class _Chained:
    """What a CHAINED_INVOKE of a batch was resolved to."""

    target: ChainedInvoke | ErrorObject
    config: DurableConfig | None = None
    """Of a durable function."""


NO_OPTIONS = StartOptions()


@dataclass(frozen=True, slots=True)
class TimeSkipping:
    """Which executions skip time, and how long they leave callbacks to others."""

    by_default: bool = False
    callback_grace: timedelta = timedelta(seconds=1)

    def skip(self, asked: bool | None) -> TimeSkip | None:
        """The clock that a new execution starts with; None for the real one."""
        wanted = self.by_default if asked is None else asked
        return TimeSkip(self.callback_grace) if wanted else None


class DurableExecutions:
    """See the module. Methods that take an ARN raise ResourceNotFound when there is no such execution, unless they say otherwise."""

    def __init__(
        self,
        store: Store,
        lanes: Lanes,
        functions: Functions,
        realm: Realm,
        now: Callable[[], datetime],
        time: TimeSkipping,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._functions = functions
        self._realm = realm
        self._now = now
        self._time = time
        self.replays = Replays(functions, realm, now)
        self._waiting: dict[str, set[asyncio.Future[Execution]]] = {}
        self._is_stopping = False
        self.started: Callable[[State], None] = lambda state: None
        """Called with every new execution, once it is durable."""

    # --- starting and waiting -----------------------------------------------------------------------------------------------

    async def start(
        self,
        target: Target,
        payload: bytes,
        *,
        name: str | None,
        is_synchronous: bool,
        trace_header: str | None = None,
        tenant_id: str | None = None,
        also: Callable[[Transaction], None] = lambda _: None,
        options: StartOptions = NO_OPTIONS,
    ) -> Execution:
        """Start an execution of a durable function, or find the one that a repeated start with the same name means.

        `also` is written in the same transaction, in both cases.

        Raises DurableExecutionAlreadyStarted when the name belongs to an execution of another version or input.
        """
        config = target.publication.configuration.durable
        assert config is not None, "only durable functions have executions"
        text = payload.decode() or EMPTY_PAYLOAD
        now = self._now()
        order = Start(
            execution_id=new_id(now),
            name=name or str(uuid.uuid4()),
            function=target.function,
            version=target.version,
            config=config,
            input_payload=text,
            is_synchronous=is_synchronous,
            trace_header=trace_header,
            tenant_id=tenant_id,
            skip=self._time.skip(options.skips_time),
        )
        started = Started.by(order, self._lanes, now)

        def work(tx: Transaction) -> Execution | None:
            also(tx)
            if name is not None:
                kept = tx.durable_execution_named(target.function, name, now)
                if kept is not None:
                    if kept.is_started_by(target.version, input_digest(text)):
                        return kept.execution
                    raise DurableExecutionAlreadyStarted(
                        f"A durable execution with the name {name} was started already, with another input or version: "
                        f"{kept.execution.arn(self._realm)}"
                    )
            started.write(tx)
            tx.set_durable_attributes(order.execution_id, options.attributes)
            return None

        existing = await self._store.write(work)
        if existing is not None:
            return existing
        self.adopt(started.state)
        return started.state.execution

    def adopt(self, state: State) -> None:
        """A new execution is durable."""
        self._lanes.adopt(state)
        self.started(state)

    async def closed(self, execution_id: str) -> Execution:
        """The execution once it has ended. Raises ServiceFailure when the server stops before."""
        async with self._hold(execution_id) as lane:
            if lane.execution.status.is_closed:
                return lane.execution
            if self._is_stopping:
                raise _stopping(execution_id)
            future: asyncio.Future[Execution] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(execution_id, set()).add(future)
        try:
            return await future
        finally:
            waiting = self._waiting.get(execution_id)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[execution_id]

    def ended(self, execution: Execution) -> None:
        """Tell everybody who waits for the end of this execution."""
        for future in self._waiting.pop(execution.id, ()):
            if not future.done():
                future.set_result(execution)

    def stop_waiting(self) -> None:
        """Let nobody wait any longer: the server stops."""
        self._is_stopping = True
        self._send_away(_stopping)

    def forget(self) -> None:
        """Every execution was removed: let nobody wait for one."""
        self._send_away(lambda _: _unknown())

    def _send_away(self, because: Callable[[str], DomainError]) -> None:
        for execution_id, futures in self._waiting.items():
            for future in futures:
                if not future.done():
                    future.set_exception(because(execution_id))

    # --- the function's own calls -----------------------------------------------------------------------------------------------

    async def checkpoint(
        self, arn: str, token: str, client_token: str | None, updates: Sequence[Mapping[str, Any]]
    ) -> tuple[str | None, Sequence[Operation]]:
        """Apply a batch of updates: the next token, None if there is none, and the operations that changed.

        Raises InvalidParameterValue, `Invalid checkpoint token` also for an unknown execution.
        """
        request = CheckpointRequest(token, client_token, [OperationUpdate.of(each) for each in updates])
        if self.replays.knows(_id_of(arn)):
            return self.replays.checkpoint(_id_of(arn), token, request.updates)
        async with self._hold_by_token(arn) as lane:
            chained = await self._chained(lane.state, request)
            now = lane.now()
            done = checkpoint(lane.state, request, {name: each.target for name, each in chained.items()}, now)
            if done.change is not None:
                children, errands = self._begun(done.change, chained, now)
                works = [*(each.write for each in children), *(_saving(each, self._now()) for each in errands)]
                waits = done.change.execution.signals  # almost never: a state is not made for nothing
                taken = deliver(done.change.applied_to(lane.state), now) if waits else None
                await lane.write(done.change if taken is None else done.change.then(taken), *works)
                for child in children:
                    self.adopt(child.state)
                if errands:
                    self._lanes.tell_errand()
            return done.token, done.delta

    async def state(self, arn: str, token: str) -> State:
        """The state that the live invocation with this token may read. Raises as `checkpoint` does."""
        if self.replays.knows(_id_of(arn)):
            return self.replays.state(_id_of(arn), token)
        async with self._hold_by_token(arn) as lane:
            check_token(lane.state, token)
            return lane.state

    async def _chained(self, state: State, request: CheckpointRequest) -> dict[str, _Chained]:
        """What the CHAINED_INVOKE operations of a batch would run. Raises InvalidParameterValue for other accounts and regions."""
        found: dict[str, _Chained] = {}
        for update in request.updates:
            if update.type is OperationType.CHAINED_INVOKE and update.action is Action.START:
                try:
                    found[update.id] = await self._resolved(state.execution, update)
                except InvalidParameterValue:
                    check_token(state, request.token)  # a stale token is the error that the SDK has to see
                    raise
        return found

    async def _resolved(self, parent: Execution, update: OperationUpdate) -> _Chained:
        name = update.chained_function or ""
        _refuse_elsewhere(name, self._realm)
        try:
            target = await self._functions.resolve(FunctionRef.parse(name, self._realm))
            check_tenant(target.publication.configuration.tenant_isolation_mode, update.tenant_id or "")
        except DomainError as error:
            return _Chained(ErrorObject(error.message, error.shape))
        config = target.publication.configuration.durable
        child_id = _child_id(parent.id, update.id)
        arn = execution_arn(self._realm, target.function, target.version, child_id, child_id)
        chained = ChainedInvoke(
            function_name=name,
            function=target.function,
            version=target.version,
            is_durable=config is not None,
            payload=EMPTY_PAYLOAD if update.payload is None else update.payload,
            tenant_id=update.tenant_id,
            trace_id=update.trace_id or parent.trace_header,
            execution_arn=None if config is None else arn,
        )
        return _Chained(chained, config)

    def _begun(
        self, change: Change, chained: Mapping[str, _Chained], now: datetime
    ) -> tuple[list[Started], list[Errand]]:
        """What is written together with a checkpoint so that its chained invocations run: child executions, and plain functions."""
        parent_id = change.execution.id
        children: list[Started] = []
        errands: list[Errand] = []
        for effect in change.effects:
            if not isinstance(effect, StartChained):
                continue
            config = chained[effect.operation_id].config
            if config is None:
                errands.append(Errand(parent_id, effect.operation_id))
                continue
            child_id = _child_id(parent_id, effect.operation_id)
            order = Start(
                execution_id=child_id,
                name=child_id,
                function=effect.chained.function,
                version=effect.chained.version or "",
                config=config,
                input_payload=effect.chained.payload,
                parent=Parent(parent_id, effect.operation_id),
                trace_header=effect.chained.trace_id,
                tenant_id=effect.chained.tenant_id,
                skip=inherited(change.execution),
            )
            children.append(Started.by(order, self._lanes, now))
        return children, errands

    # --- completions and control from outside -----------------------------------------------------------------------------------

    async def callback_succeeded(self, callback_id: str, result: bytes) -> None:
        """Raises CallbackTimeout when the callback is not open, InvalidParameterValue for an id that is none."""
        # AWS's own examples complete a callback with an empty body, and expect that the code gets nothing, not an empty text.
        text = result.decode(errors="replace") if result else None
        await self._callback(callback_id, lambda state, name, now: triggers.callback_succeeded(state, name, text, now))

    async def callback_failed(self, callback_id: str, error: ErrorObject) -> None:
        """Raises as `callback_succeeded` does."""
        await self._callback(callback_id, lambda state, name, now: triggers.callback_failed(state, name, error, now))

    async def callback_heartbeat(self, callback_id: str) -> None:
        """Raises as `callback_succeeded` does."""
        await self._callback(callback_id, triggers.callback_heartbeat)

    async def _callback(self, callback_id: str, rule: Callable[[State, str, datetime], Change]) -> None:
        execution_id, operation_id = parse_callback_id(callback_id)
        try:
            async with self._lanes.hold(execution_id) as lane:
                await lane.write(rule(lane.state, operation_id, lane.now()))
        except UnknownExecution as exc:
            raise CallbackTimeout("The callback is either timed out or already completed") from exc

    async def stop(self, arn: str, error: ErrorObject | None) -> datetime:
        """When the execution was stopped, or had ended before."""
        async with self._hold_by_arn(arn) as lane:
            at, change = lifecycle.stop(lane.state, error, lane.now())
            if change is not None:
                await lane.write(change)
            return at

    async def pause(self, arn: str, *, reason: str | None, stops_timeout: bool, client_token: str | None) -> None:
        """Raises ResourceConflict unless the execution runs."""
        async with self._hold_by_arn(arn) as lane:
            change = lifecycle.pause(
                lane.state, reason=reason, stops_timeout=stops_timeout, client_token=client_token, now=lane.now()
            )
            if change is not None:
                await lane.write(change)

    async def resume(self, arn: str, *, reason: str | None, client_token: str | None) -> None:
        """Raises ResourceConflict unless the execution is paused, or about to be."""
        async with self._hold_by_arn(arn) as lane:
            change = lifecycle.resume(lane.state, reason=reason, client_token=client_token, now=lane.now())
            if change is not None:
                await lane.write(change)

    async def delete(self, arn: str) -> datetime:
        """When the deletion was asked for. Raises ResourceConflict while the execution has not ended."""
        async with self._hold_by_arn(arn) as lane:
            change = lifecycle.delete(lane.state)
            if change is not None:
                await lane.write(change)
            return lane.now()

    # --- lanes ---------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _hold(self, execution_id: str) -> AsyncGenerator[Lane, None]:
        try:
            async with self._lanes.hold(execution_id) as lane:
                yield lane
        except UnknownExecution as exc:
            raise _unknown() from exc

    @asynccontextmanager
    async def _hold_by_arn(self, arn: str) -> AsyncGenerator[Lane, None]:
        async with self._hold(_id_of(arn)) as lane:
            if lane.execution.arn(self._realm) != arn:
                raise _unknown()
            yield lane

    @asynccontextmanager
    async def _hold_by_token(self, arn: str) -> AsyncGenerator[Lane, None]:
        try:
            async with self._lanes.hold(_id_of(arn)) as lane:
                if lane.execution.arn(self._realm) != arn:
                    raise UnknownExecution(arn)
                yield lane
        except UnknownExecution as exc:
            raise InvalidParameterValue("Invalid checkpoint token") from exc


def _id_of(arn: str) -> str:
    return arn.rpartition("/")[2]


def _unknown() -> ResourceNotFound:
    return ResourceNotFound("Durable Execution does not exist")


def _stopping(execution_id: str) -> ServiceFailure:
    return ServiceFailure(f"Lambstead stops; the durable execution {execution_id} goes on when it is started again.")


def _saving(errand: Errand, due: datetime) -> Work:
    return lambda tx: tx.save_durable_errand(errand, due)


def new_id(now: datetime) -> str:
    """A new id that sorts by time (UUID version 7): rows of executions that start together lie together."""
    milliseconds = round(now.timestamp() * 1000)
    value = milliseconds << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def _child_id(parent_id: str, operation_id: str) -> str:
    """The id of a child execution: always the same for an operation, and beside its parent's in the order of ids."""
    digest = hashlib.sha256(f"{parent_id}/{operation_id}".encode()).hexdigest()
    return f"{parent_id[:13]}-8{digest[:3]}-8{digest[3:6]}-{digest[6:18]}"


def _refuse_elsewhere(function: str, realm: Realm) -> None:
    """Raise InvalidParameterValue if the function is one of another account or region: then the whole batch is refused."""
    try:
        FunctionRef.parse(function, realm)
    except AccessDenied as exc:
        raise InvalidParameterValue("Cannot start a CHAINED_INVOKE on a function in another account.") from exc
    except ResourceNotFound as exc:
        raise InvalidParameterValue("Cannot start a CHAINED_INVOKE on a function in another region.") from exc
    except DomainError:
        return  # no name at all: the operation fails with that
