"""What Lambstead lets people do to durable executions beyond AWS's operations; see the decision records 0031 to 0033.

An execution is named by its id or its ARN. Every method raises ResourceNotFound when there is no such execution.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from lambstead.control.durable.invocations import Functions
from lambstead.control.durable.lanes import Lane, Lanes, UnknownExecution
from lambstead.core.arn import Realm
from lambstead.core.durable import time_skip
from lambstead.core.durable.model import Execution
from lambstead.core.errors import ResourceNotFound
from lambstead.store.port import Store


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
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._functions = functions
        self._realm = realm
        self._now = now
        self._callback_grace = callback_grace

    async def skip_time(self, execution: str) -> Execution:
        """Let the execution skip time from now on. Raises ResourceConflict when it has ended."""
        async with self._hold(execution) as lane:
            change = time_skip.begin(lane.state, self._callback_grace, lane.now())
            if change is not None:
                await lane.write(change)
            return lane.execution

    @asynccontextmanager
    async def _hold(self, execution: str) -> AsyncGenerator[Lane, None]:
        try:
            async with self._lanes.hold(id_of(execution)) as lane:
                if ":" in execution and lane.execution.arn(self._realm) != execution:
                    raise UnknownExecution(execution)
                yield lane
        except UnknownExecution as exc:
            raise ResourceNotFound(f"There is no durable execution {execution}, or its retention is over.") from exc


def id_of(execution: str) -> str:
    """The id in an ARN, or the id itself."""
    return execution.rpartition("/")[2]
