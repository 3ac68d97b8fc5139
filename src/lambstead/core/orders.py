"""What a plan orders: changes to the fleet, each with its reason, and notes about versions for the store."""

from dataclasses import dataclass

from lambstead.core.concurrency import Allocation, ProvisionedConcurrency
from lambstead.core.configurations import Publication
from lambstead.core.fleet import Environment, Instance, PublicationKey
from lambstead.core.functions import Reason
from lambstead.core.scaling import ScalingBounds


@dataclass(frozen=True, slots=True)
class LaunchInstance:
    instance: Instance
    because: str


@dataclass(frozen=True, slots=True)
class StartEnvironment:
    environment: Environment
    publication: Publication
    because: str


@dataclass(frozen=True, slots=True)
class DrainEnvironment:
    """Admit nothing more; what runs may finish."""

    environment_id: str
    because: str


@dataclass(frozen=True, slots=True)
class StopEnvironment:
    environment_id: str
    because: str


@dataclass(frozen=True, slots=True)
class TerminateInstance:
    instance_id: str
    because: str


@dataclass(frozen=True, slots=True)
class NoteReady:
    """The publication has as many whole, ready environments as its bounds ask for."""

    key: PublicationKey
    bounds: ScalingBounds
    asked: ScalingBounds | None
    """The version's own bounds, which `bounds` come from; None for the defaults."""


@dataclass(frozen=True, slots=True)
class NoteFailed:
    key: PublicationKey
    reason: Reason


@dataclass(frozen=True, slots=True)
class NoteRetry:
    """A version that failed for lack of capacity could have it now."""

    key: PublicationKey


@dataclass(frozen=True, slots=True)
class NoteObstacle:
    """Why a version does not get the environments that it wants; None when nothing stands in its way any more."""

    function: str
    version: str
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class NoteDrained:
    """A version that is being deactivated has no environment left."""

    function: str
    version: str


@dataclass(frozen=True, slots=True)
class NoteRemoved:
    """A version that is being deleted has no environment left."""

    function: str
    version: str


@dataclass(frozen=True, slots=True)
class NoteAllocation:
    """How far the environments of provisioned concurrency have come, where that is not what the config says."""

    config: ProvisionedConcurrency
    allocation: Allocation


Order = (
    LaunchInstance
    | StartEnvironment
    | DrainEnvironment
    | StopEnvironment
    | TerminateInstance
    | NoteReady
    | NoteFailed
    | NoteRetry
    | NoteObstacle
    | NoteDrained
    | NoteRemoved
    | NoteAllocation
)
