"""AWS's rules for functions, versions, aliases and their scaling, as a model that a rule machine holds against a server.

The model knows what was asked for and what has come of it; `Refusal` is what AWS answers to what its rules forbid. Sources: the recordings and
documentation that the parity tables name. Where nothing is known of AWS the model says what we chose: a publish compares with the highest number
that is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LATEST, PUBLISHED = "$LATEST", "$LATEST.PUBLISHED"
PASSING = {
    *("State", "StateReason", "StateReasonCode", "RevisionId"),
    *("LastUpdateStatus", "LastUpdateStatusReason", "LastUpdateStatusReasonCode"),
}
"""Members that change while a version lives; every other member of a numbered version never does."""


class Refusal(NamedTuple):
    status: int
    code: str


MISSING = Refusal(404, "ResourceNotFoundException")
CONFLICT = Refusal(409, "ResourceConflictException")
STALE = Refusal(412, "PreconditionFailedException")
INVALID = Refusal(400, "InvalidParameterValueException")
DENIED = Refusal(403, "AccessDeniedException")
UNPUBLISHED = Refusal(400, "NoPublishedVersionException")


class Content(NamedTuple):
    """What makes one version different from the next."""

    code: int
    timeout: int


@dataclass
class Version:
    """A published version; `document` is its configuration without what passes."""

    name: str
    content: Content
    source_description: str
    """What `$LATEST` was described as when it was published."""
    document: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""
    state: str = ""
    update: str = ""

    @property
    def has_failed(self) -> bool:
        return "Failed" in (self.state, self.update)

    def take(self, document: Mapping[str, Any]) -> None:
        """Remember a settled configuration."""
        self.document = lasting(document)
        self.revision, self.state = document["RevisionId"], document["State"]
        self.update = document.get("LastUpdateStatus", "")


def lasting(document: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a configuration that do not pass."""
    return {name: value for name, value in document.items() if name not in PASSING}


@dataclass
class Alias:
    name: str
    version: str
    weights: dict[str, float]
    revision: str = ""

    @property
    def versions(self) -> set[str]:
        return {self.version, *self.weights}


@dataclass
class Function:
    """A function; `provider` is the name of its capacity provider, None of a standard function."""

    name: str
    provider: str | None
    content: Content
    description: str = ""
    revision: str = ""
    last_number: int = 0
    versions: dict[str, Version] = field(default_factory=dict)
    """Published ones by name."""
    aliases: dict[str, Alias] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """`$LATEST` and the versions in the order of lists."""
        numbers = sorted((name for name in self.versions if name != PUBLISHED), key=int)
        return [LATEST, *([PUBLISHED] if PUBLISHED in self.versions else []), *numbers]

    def previous(self, to: str | None) -> Version | None:
        """What a publish would leave as it is: an equal, healthy version that was the last one published to the same place."""
        last = (
            self.versions.get(PUBLISHED) if to else None if self.names[-1][0] == "$" else self.versions[self.names[-1]]
        )
        if last is None or last.has_failed:
            return None
        same = last.content == self.content and last.source_description == self.description
        return last if same else None

    def refuses_publish(self, to: str | None, sha_is_right: bool, revision_is_right: bool) -> Refusal | None:
        if not revision_is_right:
            return STALE
        if not sha_is_right or (to and self.provider is None):
            return INVALID
        return None

    def published(self, to: str | None) -> Version:
        """The version that a publish makes, or makes anew."""
        if to is None:
            self.last_number += 1
        version = Version(PUBLISHED if to else str(self.last_number), self.content, self.description)
        self.versions[version.name] = version
        return version

    def refuses_alias(self, version: str, weights: Mapping[str, float]) -> Refusal | None:
        if refused := refuses_weights(version, weights):
            return refused
        known = {LATEST, *self.versions}
        return None if {version, *weights} <= known else MISSING

    def refuses_deletion(self, qualifier: str) -> Refusal | None:
        """Of one version. A number that does not exist is deleted as well."""
        if qualifier == LATEST or qualifier in self.aliases:
            return INVALID
        if any(qualifier in alias.versions for alias in self.aliases.values()):
            return CONFLICT
        return None if qualifier in self.versions or qualifier.isdecimal() else MISSING

    def invocation(self, qualifier: str | None) -> set[Refusal | None]:
        """Every right answer to an invocation; None stands for success."""
        if qualifier in self.aliases:
            return {self._invocation(name) for name in self.aliases[qualifier].versions}
        if self.provider is not None and qualifier in (None, LATEST):
            if PUBLISHED not in self.versions:
                return {UNPUBLISHED}
            if qualifier == LATEST:
                return {INVALID}
            qualifier = PUBLISHED
        return {self._invocation(qualifier or LATEST)}

    def _invocation(self, name: str) -> Refusal | None:
        if name == LATEST:
            return CONFLICT if self.provider is not None else None
        if name not in self.versions:
            return MISSING
        return None if self.versions[name].state == "Active" else CONFLICT


def refuses_weights(version: str, weights: Mapping[str, float]) -> Refusal | None:
    """What is wrong with a routing configuration, whatever versions there are."""
    if len(weights) > 1 or (weights and version == LATEST) or version in weights:
        return INVALID
    return None


def refuses_bounds(minimum: int | None, maximum: int | None) -> Refusal | None:
    """What is wrong with a scaling config by itself: 0 stands for both or for none, and the minimum is not above the maximum."""
    least = 1 if minimum is None else minimum
    if (minimum or 0) == 0 and maximum == 0:
        return None
    if least == 0 or (maximum is not None and minimum is not None and least > maximum):
        return INVALID
    return None
