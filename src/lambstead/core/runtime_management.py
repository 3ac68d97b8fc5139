"""Runtime management configs: when a version of a function gets a newer release of its runtime.

The config is kept and shown. Which release of a language runs is decided by what this machine has installed, whatever the mode.
"""

from dataclasses import dataclass

from lambstead.core.errors import InvalidParameterValue

AUTO = "Auto"
MANUAL = "Manual"


@dataclass(frozen=True, slots=True)
class RuntimeManagement:
    """The config of one version."""

    mode: str = AUTO
    runtime_version_arn: str | None = None
    """The pinned runtime version; only in mode Manual."""

    @classmethod
    def from_request(cls, mode: str, runtime_version_arn: str | None) -> "RuntimeManagement":
        """Raises InvalidParameterValue if Manual names no runtime version, or another mode names one."""
        if mode == MANUAL and not runtime_version_arn:
            raise InvalidParameterValue("RuntimeVersionArn is required when UpdateRuntimeOn is Manual.")
        if mode != MANUAL and runtime_version_arn:
            raise InvalidParameterValue("RuntimeVersionArn is allowed only when UpdateRuntimeOn is Manual.")
        return cls(mode, runtime_version_arn)


def refuse_other_runtime(management: RuntimeManagement | None, before: str, after: str) -> None:
    """Raise if a function whose runtime version is pinned is to change its runtime."""
    if management is not None and management.mode == MANUAL and before != after:
        raise InvalidParameterValue(
            "Cannot change runtime identifier when runtime management configuration is set to 'Manual'. "
            "Change the runtime management configuration to 'Auto' or 'FunctionUpdate', then retry."
        )
