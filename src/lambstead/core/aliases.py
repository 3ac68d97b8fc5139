"""Aliases: names for versions, with an optional second version that takes a share of the invocations."""

from collections.abc import Mapping
from dataclasses import dataclass

from lambstead.core.arn import LATEST
from lambstead.core.errors import InvalidParameterValue


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as stored. `second` takes `second_weight` (0..1) of the invocations, `version` the rest."""

    function: str
    name: str
    version: str
    revision_id: str
    description: str = ""
    second: str | None = None
    second_weight: float = 0.0

    def pick(self, draw: float) -> str:
        """The version for one invocation; `draw` is uniform in [0, 1)."""
        return self.second if self.second is not None and draw < self.second_weight else self.version

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version the alias may run."""
        return (self.version,) if self.second is None else (self.version, self.second)


def second_version(version: str, weights: Mapping[str, float] | None) -> tuple[str | None, float]:
    """The routing part of an alias: the second version and its weight. Raises InvalidParameterValue in AWS's words."""
    if not weights:
        return None, 0.0
    if len(weights) > 1:
        raise InvalidParameterValue("Number of items in AdditionalVersionWeights cannot be greater than 1")
    if version == LATEST:
        # Recorded: of AWS's refusals here, the only one without `Type`.
        raise InvalidParameterValue("$LATEST is not supported for an alias pointing to more than 1 version", Type=None)
    ((second, weight),) = weights.items()
    if second == version:
        raise InvalidParameterValue(
            f"Invalid function version {second}. Function version {second} is already included in routing configuration."
        )
    return second, weight
