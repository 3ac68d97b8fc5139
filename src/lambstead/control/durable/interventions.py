"""What Lambstead lets people do to durable executions beyond AWS's operations; see the decision records 0031 to 0033.

An execution is named by its id or its ARN. Every method raises ResourceNotFound when there is no such execution.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from lambstead.control.durable.executions import new_id
from lambstead.control.durable.lanes import Lane, Lanes, Started, UnknownExecution
from lambstead.control.invoke_path import Functions
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.durable import time_skip
from lambstead.core.durable.fork import fork as forked
from lambstead.core.durable.lifecycle import Start
from lambstead.core.durable.model import Event, Execution, ExecutionStatus, Operation, State, TimeSkip
from lambstead.core.durable.records import Errand, is_shown
from lambstead.core.durable.redrive import described, redrive
from lambstead.core.durable.signals import deliver, signal
from lambstead.core.durable.start_options import checked_attributes
from lambstead.core.errors import (
    DurableExecutionAlreadyStarted,
    InvalidParameterValue,
    ResourceConflict,
    ResourceNotFound,
)
from lambstead.store.port import Reader, Store, Transaction

FORKED_FROM = "forked-from"
"""The attribute of a fork that names its source."""


@dataclass(frozen=True, slots=True)
class Fork:
    """How a fork differs from its source; what is None is as there."""

    up_to: str | None = None
    """Id or name of the last operation that is copied."""
    qualifier: str | None = None
    input_payload: str | None = None
    name: str | None = None


class Interventions:
    """See the module."""

    def __init__(
        self,
        store: Store,
        lanes: Lanes,
        functions: Functions,
        realm: Realm,
        now: Callable[[], datetime],
        callback_grace: timedelta,
        adopt: Callable[[State], None],
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._functions = functions
        self._realm = realm
        self._now = now
        self._callback_grace = callback_grace
        self._adopt = adopt

    async def skip_time(self, execution: str) -> Execution:
        """Let the execution skip time from now on. Raises ResourceConflict when it has ended."""
        async with self._hold(execution) as lane:
            change = time_skip.begin(lane.state, self._callback_grace, lane.now())
            if change is not None:
                await lane.write(change)
            return lane.execution

    async def fork(self, execution: str, fork: Fork) -> Execution:
        """Start a new execution with a part of the log of this one.

        Raises ResourceNotFound when there is no such version or operation, DurableExecutionAlreadyStarted when the name is taken.
        """
        state, events, attributes = await self._whole(execution)
        source = state.execution
        qualifier = fork.qualifier or source.version
        target = await self._functions.resolve(FunctionRef(source.function, qualifier))
        config = target.publication.configuration.durable
        if config is None:
            raise InvalidParameterValue(f"{target.function}:{target.version} is not durable.")
        now = self._now()
        execution_id = new_id(now)
        order = Start(
            execution_id=execution_id,
            name=fork.name or execution_id,
            function=target.function,
            version=target.version,
            config=config,
            input_payload=state.input_payload if fork.input_payload is None else fork.input_payload,
            is_synchronous=source.is_synchronous,
            trace_header=source.trace_header,
            tenant_id=source.tenant_id,
            skip=None if source.skip is None else TimeSkip(source.skip.callback_grace),
        )
        started = Started(*forked(state, events, order, fork.up_to, now), self._lanes)

        def work(tx: Transaction) -> None:
            if tx.durable_execution_named(order.function, order.name, now) is not None:
                raise DurableExecutionAlreadyStarted(
                    f"A durable execution with the name {order.name} was started already."
                )
            started.write(tx)
            tx.set_durable_attributes(execution_id, {**attributes, FORKED_FROM: source.arn(self._realm)})

        await self._store.write(work)
        self._adopt(started.state)
        return started.state.execution

    async def _whole(self, execution: str) -> tuple[State, Sequence[Event], Mapping[str, str]]:
        """An execution, its history and its attributes, all at one moment."""
        execution_id = id_of(execution)

        def work(reader: Reader) -> tuple[State, Sequence[Event], Mapping[str, str]] | None:
            state = reader.durable_state(execution_id)
            if state is None or not is_shown(state.execution, self._now()):
                return None
            events = reader.durable_events(execution_id, 0, state.execution.last_event)
            return state, events, reader.durable_attributes(execution_id)

        found = await self._store.read(work)
        if found is None or (":" in execution and found[0].execution.arn(self._realm) != execution):
            raise _unknown(execution)
        return found

    async def signal(self, execution: str, name: str, data: str) -> Operation | None:
        """Send a signal; the callback that it completed, None when it is kept for the next one. Raises as `signals.signal` does."""
        async with self._hold(execution) as lane:
            change, completed = signal(lane.state, name, data, lane.now())
            await lane.write(change)
            return completed

    async def set_attributes(self, execution: str, changes: Mapping[str, str | None]) -> Mapping[str, str]:
        """Set custom attributes and remove those that are None; all that the execution has then. Raises InvalidParameterValue for bad ones."""
        async with self._hold(execution) as lane:
            execution_id = lane.execution_id

            def work(tx: Transaction) -> Mapping[str, str]:
                after = {**tx.durable_attributes(execution_id), **changes}
                kept = checked_attributes({name: value for name, value in after.items() if value is not None})
                tx.set_durable_attributes(execution_id, changes)
                return kept

            return await self._store.write(work)

    async def redrive(self, execution: str, origins: Sequence[str] = ()) -> tuple[Execution, Sequence[Operation]]:
        """Let an execution that failed, timed out or was stopped go on from these operations, or from those that failed.

        Returns the operations that are open again too. Child executions that failed are redriven with it. Raises ResourceConflict when it cannot be.
        """
        async with self._hold(execution) as lane:
            await self._check_version(lane.execution)
            redriven = redrive(lane.state, origins, lane.now())
            errands: list[Errand] = []
            for operation in redriven.chained:
                errand = await self._chained_again(lane.execution, operation, lane.state.operations[operation.id])
                if errand is not None:
                    errands.append(errand)
            due = self._now()
            taken = deliver(redriven.change.applied_to(lane.state), lane.now())
            change = redriven.change if taken is None else redriven.change.then(taken)
            await lane.write(change, *(partial(_save, each, due) for each in errands))
            if errands:
                self._lanes.tell_errand()
            return lane.execution, redriven.reopened

    async def _check_version(self, execution: Execution) -> None:
        try:
            await self._functions.resolve(FunctionRef(execution.function, execution.version))
        except ResourceNotFound as exc:
            raise ResourceConflict(
                f"The durable execution can't be redriven: {execution.function}:{execution.version} is gone. "
                "Fork the execution to another version."
            ) from exc

    async def _chained_again(self, parent: Execution, operation: Operation, before: Operation) -> Errand | None:
        """What is to be done so that an open CHAINED_INVOKE ends; a child execution that failed is redriven here."""
        chained = operation.chained
        if chained is None or not chained.is_durable:
            return Errand(parent.id, operation.id)
        child_id = id_of(chained.execution_arn or "")
        child = await self._store.read(lambda reader: reader.durable_execution(child_id, self._now()))
        if child is not None and not child.status.is_closed:
            return None  # its end will be told
        if before.status.is_closed and (child is None or child.status is ExecutionStatus.DELETING):
            raise ResourceConflict(
                f"The durable execution can't be redriven: the child execution of {described(operation)} is gone. "
                "Fork the execution instead."
            )
        if before.status.is_closed and child is not None and child.status is not ExecutionStatus.SUCCEEDED:
            await self.redrive(child_id)
            return None
        return Errand(parent.id, operation.id, child_id)

    @asynccontextmanager
    async def _hold(self, execution: str) -> AsyncGenerator[Lane, None]:
        try:
            async with self._lanes.hold(id_of(execution)) as lane:
                if ":" in execution and lane.execution.arn(self._realm) != execution:
                    raise UnknownExecution(execution)
                yield lane
        except UnknownExecution as exc:
            raise _unknown(execution) from exc


def _unknown(execution: str) -> ResourceNotFound:
    return ResourceNotFound(f"There is no durable execution {execution}, or its retention is over.")


def _save(errand: Errand, due: datetime, tx: Transaction) -> None:
    tx.save_durable_errand(errand, due)


def id_of(execution: str) -> str:
    """The id in an ARN, or the id itself."""
    return execution.rpartition("/")[2]
