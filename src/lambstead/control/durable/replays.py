"""Runs functions as shadows of stored executions, to compare the way of their code: see `core.durable.replay_check`.

A shadow lives in memory while its one invocation runs. Its checkpoints come in by its ARN like all others; nothing of it reaches the store.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from lambstead.control.durable.invocations import error_of
from lambstead.control.invoke_path import Functions
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.durable.checkpoints import check_token
from lambstead.core.durable.documents import invocation_event
from lambstead.core.durable.identifiers import checkpoint_token
from lambstead.core.durable.model import Operation, State
from lambstead.core.durable.records import state_marker
from lambstead.core.durable.replay_check import Finding, Verdict, compare, compare_end, shadow_of, why_not
from lambstead.core.durable.updates import OperationUpdate
from lambstead.core.errors import DomainError, InvalidParameterValue

PREFIX = "replay-check-"
"""What ids of shadows begin with: those of executions do not."""


@dataclass(slots=True)
class _Shadow:
    """One check under way."""

    source: State
    state: State
    finding: Finding | None = None
    is_revoked: bool = False


class Replays:
    """See the module."""

    def __init__(self, functions: Functions, realm: Realm, now: Callable[[], datetime]) -> None:
        self._functions = functions
        self._realm = realm
        self._now = now
        self._shadows: dict[str, _Shadow] = {}

    async def check(self, source: State, qualifier: str) -> Finding:
        """Run this version or alias of the function as a shadow of the execution. Raises ResourceNotFound, and InvalidParameterValue for one that is not durable."""
        target = await self._functions.resolve(FunctionRef(source.execution.function, qualifier))
        if target.publication.configuration.durable is None:
            raise InvalidParameterValue(f"{target.function}:{target.version} is not durable.")
        reason = why_not(source.execution)
        if reason is not None:
            return Finding(Verdict.SKIPPED, reason)
        shadow_id, request_id = f"{PREFIX}{uuid.uuid4()}", str(uuid.uuid4())
        shadow = _Shadow(source, shadow_of(source, shadow_id, target.version, request_id, self._now()))
        self._shadows[shadow_id] = shadow
        try:
            answer = await self._functions.run_once(
                replace(target, is_asynchronous=True),
                request_id=request_id,
                payload=msgspec.json.encode(invocation_event(shadow.state, self._realm, state_marker)),
                trace_id="",
                tenant_id=source.execution.tenant_id or "",
            )
        except DomainError as error:
            return Finding(Verdict.NOT_RUN, error.message)
        finally:
            del self._shadows[shadow_id]
        if shadow.finding is not None:
            return shadow.finding
        if shadow.is_revoked and shadow.state.execution.checkpointed_end is None:
            return Finding(Verdict.SAME, "It came to the end of the log.")
        if answer.is_error:
            thrown = error_of(answer.payload)
            return Finding(Verdict.DIVERGED, f"The invocation failed: {thrown.type}: {thrown.message}")
        return compare_end(source, shadow.state, answer.payload)

    def knows(self, execution_id: str) -> bool:
        """True for the id of a shadow, also of one that is over."""
        return execution_id.startswith(PREFIX)

    def checkpoint(
        self, execution_id: str, token: str, updates: Sequence[OperationUpdate]
    ) -> tuple[str | None, Sequence[Operation]]:
        """Answer a checkpoint of a shadow. Raises InvalidParameterValue for a token that is not its next one."""
        shadow = self._live(execution_id, token)
        compared = compare(shadow.source, shadow.state, updates, self._now())
        shadow.state, shadow.finding, shadow.is_revoked = compared.state, compared.finding, compared.is_revoked
        return (None if compared.is_revoked else checkpoint_token(compared.state.execution)), compared.delta

    def state(self, execution_id: str, token: str) -> State:
        """What a shadow's code may read. Raises as `checkpoint`."""
        return self._live(execution_id, token).state

    def _live(self, execution_id: str, token: str) -> _Shadow:
        shadow = self._shadows.get(execution_id)
        if shadow is None or shadow.is_revoked:
            raise InvalidParameterValue("Invalid checkpoint token")
        check_token(shadow.state, token)
        return shadow
