"""Which publication an invocation runs, and what the caller is told when there is none.

The rules of qualifiers on managed functions are those of the reference on managed instances, §2.4 and §4.2: unqualified means
`$LATEST.PUBLISHED`, `$LATEST` is never invocable, and a version that is not active refuses with 409.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lambstead.core.aliases import Alias
from lambstead.core.arn import LATEST, LATEST_PUBLISHED, FunctionRef, Realm
from lambstead.core.concurrency import ConcurrencyLimits
from lambstead.core.configurations import Publication
from lambstead.core.errors import InvalidParameterValue, NoPublishedVersion, ResourceNotFound
from lambstead.core.functions import FunctionVersion, State, conflict_in_state
from lambstead.core.images import NOT_RUN

MAX_SYNC_SECONDS = 900


@dataclass(frozen=True, slots=True)
class FunctionSnapshot:
    """A function's versions and aliases at one moment: all that routing needs."""

    name: str
    versions: Mapping[str, FunctionVersion]
    aliases: Mapping[str, Alias]
    limits: ConcurrencyLimits = field(default_factory=ConcurrencyLimits)


@dataclass(frozen=True, slots=True)
class Target:
    """What one invocation runs."""

    function: str
    version: str
    publication: Publication
    invoked_arn: str
    """The ARN the function sees in its context."""
    limits: ConcurrencyLimits = field(default_factory=ConcurrencyLimits)
    """What the function may use at once."""
    is_asynchronous: bool = False
    """Nobody waits for the answer."""

    @property
    def timeout_ms(self) -> int:
        """Time the function has: its own timeout, at most 900 s for a waiting caller even where 90 minutes are configured."""
        own = self.publication.configuration.timeout_s
        return (own if self.is_asynchronous else min(own, MAX_SYNC_SECONDS)) * 1000


def resolve(snapshot: FunctionSnapshot | None, ref: FunctionRef, realm: Realm, draw: float) -> Target:
    """The target of an invocation of `ref`; `draw` in [0, 1) picks among an alias's versions. Raises AWS's refusals."""
    if snapshot is None or LATEST not in snapshot.versions:
        raise ResourceNotFound(f"Function not found: {realm.function_arn(ref.name, ref.qualifier or LATEST)}")
    alias = snapshot.aliases.get(ref.qualifier or "")
    if snapshot.versions[LATEST].is_managed and alias is None and ref.qualifier in (None, LATEST):
        name = _published_instead(snapshot, ref)
    else:
        name = alias.pick(draw) if alias else ref.qualifier or LATEST
    version = snapshot.versions.get(name)
    if version is None:
        raise ResourceNotFound(f"Function not found: {realm.function_arn(ref.name, ref.qualifier or LATEST)}")
    if ref.qualifier is None and version.configuration.durable is not None:
        raise InvalidParameterValue("You cannot invoke a durable function using an unqualified ARN.")
    if version.serving is None or version.state is not State.ACTIVE:
        raise conflict_in_state(version.state)
    if version.serving.configuration.code.is_image:
        raise InvalidParameterValue(NOT_RUN.format(arn=realm.function_arn(snapshot.name, ref.qualifier)))
    qualifier = ref.qualifier or (LATEST_PUBLISHED if version.is_managed else None)
    return Target(snapshot.name, name, version.serving, realm.function_arn(snapshot.name, qualifier), snapshot.limits)


def _published_instead(snapshot: FunctionSnapshot, ref: FunctionRef) -> str:
    """Where an unqualified invocation of a managed function goes."""
    if LATEST_PUBLISHED not in snapshot.versions:
        raise NoPublishedVersion(
            "The function can't be invoked because no published version exists. For functions with capacity provider "
            "configuration, either publish a version to $LATEST.PUBLISHED, or specify a published version qualifier."
        )
    if ref.qualifier == LATEST:
        raise InvalidParameterValue(
            "Functions configured with capacity provider configuration can't be invoked with $LATEST qualifier. "
            "To invoke this function, specify a published version qualifier or $LATEST.PUBLISHED."
        )
    return LATEST_PUBLISHED
