"""Functions, their versions and the states a version goes through.

A function has one editable version, `$LATEST`, and published ones: numbers, which never change, and for managed functions
`$LATEST.PUBLISHED`, which is published again in place (`core.publishing`). What a publish freezes is in `core.configurations`.

    standard   $LATEST            Pending → Active            (updates: LastUpdateStatus InProgress → Successful)
               number             Active
    managed    $LATEST            Pending → ActiveNonInvocable (never invocable)
               number             Pending → Active | Failed
               $LATEST.PUBLISHED  Pending → Active | Failed; re-publish keeps Active, update InProgress → Successful | Failed
               both published     Active → Deactivating → Deactivated → Pending → Active  (scaling bounds 0/0 and back)
               both published     Failed for lack of capacity → Pending, when there is room (decision 0026)
               any                → Deleting → gone

Sources: Developer Guide, function states; recorded answers in the reference on the Lambda API and on managed instances, §4.
"""

import enum
import re
from dataclasses import dataclass, replace
from typing import assert_never

from lambstead.core.arn import LATEST, LATEST_PUBLISHED
from lambstead.core.configurations import Configuration, Publication
from lambstead.core.errors import IllegalTransition, PreconditionFailed, ResourceConflict
from lambstead.core.scaling import ScalingBounds


class State(enum.StrEnum):
    PENDING = "Pending"
    ACTIVE = "Active"
    FAILED = "Failed"
    ACTIVE_NON_INVOCABLE = "ActiveNonInvocable"
    DEACTIVATING = "Deactivating"
    DEACTIVATED = "Deactivated"
    DELETING = "Deleting"


class UpdateStatus(enum.StrEnum):
    SUCCESSFUL = "Successful"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a version is in its state: AWS's code and a sentence."""

    code: str
    text: str


_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
"""Up to 18 digits: what every store can order as an integer."""

CREATING = Reason("Creating", "The function is being created.")
CAPACITY_CODES = frozenset({"CapacityProviderScalingLimitExceeded", "InsufficientCapacity", "VcpuLimitExceeded"})
"""Reasons of a failure that goes away by itself when there is room; AWS's codes."""
UPDATING = Reason("Updating", "The function is being updated.")


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """What holds for a function as a whole, whatever its version."""

    reserved_concurrency: int | None = None
    """Invocations that may run at once over all versions; None without a reservation, 0 to refuse every one."""
    recursive_loop: str = "Terminate"
    """What happens to an invocation that is part of a loop: `Terminate` or `Allow`."""
    code_signing_config: str | None = None
    """Id of the code signing config."""


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """One version of a function as stored."""

    function: str
    version: str
    configuration: Configuration
    state: State
    revision_id: str
    last_modified: str
    state_reason: Reason | None = None
    update_status: UpdateStatus | None = None
    update_reason: Reason | None = None
    target: int = 1
    """Number of the publication that the version is, or is becoming. A new function's starts above every number that a deleted
    function of its name had: environments and late reports of that one are then nobody's."""
    serving: Publication | None = None
    """The publication that takes invocations; None while there is none ready."""
    bounds: ScalingBounds | None = None
    """Scaling bounds that were asked for; None for the defaults."""
    applied_bounds: ScalingBounds | None = None
    """Scaling bounds that the environments last settled at; None before they ever did."""
    bounds_requested: bool = False
    """True between a PutFunctionScalingConfig and its settling."""
    source_description: str | None = None
    """What `$LATEST` was described as when this was published, for a publish may give a description of its own. None for `$LATEST`."""

    @property
    def is_managed(self) -> bool:
        return self.configuration.managed is not None

    @property
    def is_published(self) -> bool:
        return self.version != LATEST

    @property
    def is_settling(self) -> bool:
        """True while a change is being carried out, when AWS refuses further changes."""
        return self.state in (State.PENDING, State.DEACTIVATING) or self.update_status is UpdateStatus.IN_PROGRESS

    @property
    def awaited(self) -> int:
        """Number of the publication whose environments settle the scaling bounds: the target, or what serves on after a failed update."""
        if self.update_status is UpdateStatus.FAILED and self.serving is not None:
            return self.serving.number
        return self.target

    @property
    def publication(self) -> Publication:
        """The publication that the version is, or is becoming."""
        return Publication(self.target, self.configuration)


# --- events -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Updated:
    """Code or configuration of `$LATEST` was changed."""

    configuration: Configuration
    at: str
    revision_id: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The package of a `$LATEST`, or of a standard version, is in place: create or update is done."""

    revision_id: str


@dataclass(frozen=True, slots=True)
class Republished:
    """`$LATEST.PUBLISHED` was published again with another configuration, or after a failure."""

    configuration: Configuration
    at: str
    revision_id: str


@dataclass(frozen=True, slots=True)
class CapacityReady:
    """The version's environments for publication `number` are initialised, as many as its bounds ask for."""

    number: int
    bounds: ScalingBounds
    revision_id: str
    asked: ScalingBounds | None = None
    """The version's own bounds when that was found, None for the defaults: if others were asked for meanwhile, it says nothing."""


@dataclass(frozen=True, slots=True)
class CapacityFailed:
    """The environments for publication `number` cannot be had."""

    number: int
    reason: Reason
    revision_id: str


@dataclass(frozen=True, slots=True)
class CapacityFound:
    """Publication `number`, which failed for lack of capacity, could have its environments now."""

    number: int
    revision_id: str


@dataclass(frozen=True, slots=True)
class BoundsRequested:
    """PutFunctionScalingConfig; `bounds` None goes back to the defaults."""

    bounds: ScalingBounds | None


@dataclass(frozen=True, slots=True)
class Drained:
    """A version that is being deactivated has no environment left."""


@dataclass(frozen=True, slots=True)
class DeletionRequested:
    """The version, or its function, shall go; its environments are stopped first."""


VersionEvent = (
    Updated
    | Settled
    | Republished
    | CapacityReady
    | CapacityFailed
    | CapacityFound
    | BoundsRequested
    | Drained
    | DeletionRequested
)


def apply(version: FunctionVersion, event: VersionEvent) -> FunctionVersion:
    """The version after `event`; an event that came too late for its publication changes nothing.

    Raises ResourceConflict where AWS refuses a change in this state, IllegalTransition for events that our own code must not send.
    """
    match event:
        case Updated():
            return _updated(version, event)
        case Settled():
            return _settled(version, event)
        case Republished():
            return _republished(version, event)
        case CapacityReady():
            return _capacity_ready(version, event)
        case CapacityFailed():
            return _capacity_failed(version, event)
        case CapacityFound():
            return _capacity_found(version, event)
        case BoundsRequested():
            return _bounds_requested(version, event)
        case Drained():
            if version.state is not State.DEACTIVATING:
                raise IllegalTransition(f"{version.function}:{version.version} drained in state {version.state}")
            return replace(
                version,
                state=State.DEACTIVATED,
                state_reason=None,
                serving=None,
                applied_bounds=version.bounds,
                bounds_requested=False,
            )
        case DeletionRequested():
            return replace(
                version, state=State.DELETING, state_reason=None, update_status=UpdateStatus.IN_PROGRESS, serving=None
            )
        case _:
            assert_never(event)


def _updated(version: FunctionVersion, event: Updated) -> FunctionVersion:
    if version.version != LATEST:
        raise IllegalTransition(f"{version.function}:{version.version} is published and cannot be edited")
    if version.state is State.DELETING:
        raise conflict_in_state(version.state)
    return replace(
        version,
        configuration=event.configuration,
        last_modified=event.at,
        revision_id=event.revision_id,
        update_status=UpdateStatus.IN_PROGRESS,
        update_reason=CREATING,
        target=version.target + 1,
    )


def _settled(version: FunctionVersion, event: Settled) -> FunctionVersion:
    if version.is_managed and version.is_published:
        raise IllegalTransition(
            f"{version.function}:{version.version} needs capacity to become active, not only its package"
        )
    if version.state is State.DELETING:
        return version
    return replace(
        version,
        state=State.ACTIVE_NON_INVOCABLE if version.is_managed else State.ACTIVE,
        state_reason=None,
        update_status=UpdateStatus.SUCCESSFUL,
        update_reason=None,
        revision_id=event.revision_id,
        serving=None if version.is_managed else version.publication,
    )


def _republished(version: FunctionVersion, event: Republished) -> FunctionVersion:
    if version.version != LATEST_PUBLISHED:
        raise IllegalTransition(f"{version.function}:{version.version} cannot be published again")
    if version.state is State.DELETING:
        raise conflict_in_state(version.state)
    published = replace(
        version,
        configuration=event.configuration,
        last_modified=event.at,
        revision_id=event.revision_id,
        update_status=UpdateStatus.IN_PROGRESS,
        target=version.target + 1,
    )
    if version.state is State.ACTIVE:
        return replace(published, update_reason=UPDATING)
    if version.state in (State.DEACTIVATED, State.DEACTIVATING):
        return replace(published, update_status=UpdateStatus.SUCCESSFUL, update_reason=None)
    return replace(published, state=State.PENDING, state_reason=CREATING, update_reason=CREATING)


def _capacity_ready(version: FunctionVersion, event: CapacityReady) -> FunctionVersion:
    if version.state not in (State.PENDING, State.ACTIVE):
        return version
    if version.awaited != event.number or version.bounds != event.asked:
        return version
    settled = replace(version, applied_bounds=event.bounds, bounds_requested=False)
    if version.state is State.ACTIVE and version.update_status is not UpdateStatus.IN_PROGRESS:
        return settled
    return replace(
        settled,
        serving=version.publication,
        state=State.ACTIVE,
        state_reason=None,
        update_status=UpdateStatus.SUCCESSFUL,
        update_reason=None,
        revision_id=event.revision_id,
    )


def _capacity_failed(version: FunctionVersion, event: CapacityFailed) -> FunctionVersion:
    if version.target != event.number or version.state not in (State.PENDING, State.ACTIVE):
        return version
    if version.state is State.ACTIVE:
        if version.update_status is not UpdateStatus.IN_PROGRESS:
            return version
        return replace(
            version, update_status=UpdateStatus.FAILED, update_reason=event.reason, revision_id=event.revision_id
        )
    return replace(
        version,
        state=State.FAILED,
        state_reason=event.reason,
        update_status=UpdateStatus.FAILED,
        update_reason=event.reason,
        revision_id=event.revision_id,
    )


def _capacity_found(version: FunctionVersion, event: CapacityFound) -> FunctionVersion:
    reason = version.state_reason
    if version.state is not State.FAILED or version.target != event.number:
        return version
    if reason is None or reason.code not in CAPACITY_CODES:
        return version
    in_place = version.version == LATEST_PUBLISHED
    return replace(
        version,
        state=State.PENDING,
        state_reason=CREATING,
        update_status=UpdateStatus.IN_PROGRESS if in_place else None,
        update_reason=CREATING if in_place else None,
        revision_id=event.revision_id,
    )


def _bounds_requested(version: FunctionVersion, event: BoundsRequested) -> FunctionVersion:
    if version.state in (State.PENDING, State.FAILED, State.DELETING, State.DEACTIVATING):
        raise conflict_in_state(version.state)
    asked = replace(version, bounds=event.bounds, bounds_requested=True)
    off = event.bounds is not None and event.bounds.is_off
    if off:
        return asked if version.state is State.DEACTIVATED else replace(asked, state=State.DEACTIVATING, serving=None)
    if version.state is State.DEACTIVATED:
        # What it comes back with is the latest publication, tried afresh if the update to it had failed.
        status = None if version.update_status is UpdateStatus.FAILED else version.update_status
        return replace(asked, state=State.PENDING, state_reason=CREATING, update_status=status, update_reason=None)
    return asked


# --- refusals that several operations share -------------------------------------------------------------------------------


def conflict_in_state(state: State) -> ResourceConflict:
    """AWS's refusal of an operation that the state does not allow."""
    return ResourceConflict(
        f"The operation cannot be performed at this time. The function is currently in the following state: {state}"
    )


def refuse_while_settling(version: FunctionVersion, arn: str) -> None:
    """Raise ResourceConflict while the version is being created, updated or deleted."""
    if version.update_status is UpdateStatus.IN_PROGRESS and version.state is not State.DELETING:
        raise ResourceConflict(
            f"The operation cannot be performed at this time. An update is in progress for resource: {arn}"
        )
    if version.state in (State.PENDING, State.DELETING):
        raise conflict_in_state(version.state)


def refuse_stale_revision(current: str, given: str | None, call: str = "GetFunction/GetAlias") -> None:
    """Raise PreconditionFailed if the caller names a revision that is not the current one."""
    if given is not None and given != current:
        raise PreconditionFailed(
            "The Revision Id provided does not match the latest Revision Id. "
            f"Call the {call} API to retrieve the latest Revision Id"
        )


# --- names of versions -----------------------------------------------------------------------------------------------


def numbered(version: str) -> bool:
    """True for the name of an immutable version, spelled as AWS spells it: `01` and `0` name none."""
    return _NUMBER.fullmatch(version) is not None


def ordinal_of(version: str) -> int:
    """Place of a version in lists: `$LATEST` -1, `$LATEST.PUBLISHED` 0, then the number."""
    if version == LATEST:
        return -1
    return 0 if version == LATEST_PUBLISHED else int(version)
