"""How many execution environments a published version may have.

`FunctionScalingConfig` of the API: bounds per published version, 0/0 switches the version off (Developer Guide, Lambda Managed
Instances, scaling). Defaults differ by profile: AWS keeps three environments over three zones; profile dev keeps one.
"""

from dataclasses import dataclass

from lambstead.core.errors import InvalidParameterValue

MOST_ENVIRONMENTS = 15_000


@dataclass(frozen=True, slots=True)
class ScalingBounds:
    """Least and most environments of one version. `maximum` None: no limit but the capacity provider's."""

    minimum: int
    maximum: int | None = None

    @classmethod
    def from_request(cls, minimum: int | None, maximum: int | None, default_minimum: int) -> "ScalingBounds":
        """Bounds as AWS reads them: a member that is not given takes its default.

        Raises InvalidParameterValue if the minimum exceeds the maximum, or is 0 while the maximum is not.
        """
        if maximum == 0 and not minimum:
            return cls(0, 0)
        wanted = default_minimum if minimum is None else minimum
        if wanted == 0:
            raise InvalidParameterValue(
                "MinExecutionEnvironments can be 0 only if MaxExecutionEnvironments is 0 as well, which deactivates the version."
            )
        if minimum is None and maximum is not None:
            wanted = min(wanted, maximum)
        if maximum is not None and wanted > maximum:
            raise InvalidParameterValue(
                f"MinExecutionEnvironments {wanted} must not be greater than MaxExecutionEnvironments {maximum}."
            )
        return cls(wanted, maximum)

    def clamp(self, count: int) -> int:
        """The count within the bounds that is nearest to `count`."""
        return max(self.minimum, count if self.maximum is None else min(count, self.maximum))

    @property
    def is_off(self) -> bool:
        """True when the version shall have no environments and takes no invocations."""
        return self.maximum == 0
