"""Runtime identifiers: which ones managed instances accept, which AWS has retired, which this Lambstead can run."""

from lambstead.core.errors import InvalidParameterValue

MANAGED = frozenset(
    {
        *("python3.13", "python3.14", "python3.15"),
        *("nodejs22.x", "nodejs24.x", "nodejs26.x"),
        *("java21", "java25", "dotnet8", "dotnet10", "provided.al2023"),
    }
)
"""Runtimes of managed instances (Developer Guide, runtimes: Python 3.13+, Node.js 22+, Java 21+, .NET 8+, provided.al2023+)."""

RETIRED = frozenset(
    {"java8", "go1.x", "provided", "ruby2.7", "nodejs14.x", "nodejs12.x", "python3.7", "python3.6", "dotnetcore3.1"}
)
"""Runtimes that AWS refuses for create and update, in words of its own."""

RUNNABLE_FAMILIES = ("python3.",)
"""What environments of this Lambstead can start. Others are refused at create, not at the first invocation."""


def check_runtime(runtime: str, *, managed: bool) -> None:
    """Raise InvalidParameterValue for a runtime that is retired, not for managed instances, or not runnable here."""
    if runtime in RETIRED:
        raise InvalidParameterValue(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    if managed and runtime not in MANAGED:
        raise InvalidParameterValue(
            f"Runtime Enum {runtime} does not support specified feature: Lambda Managed Instances"
        )
    if not runtime.startswith(RUNNABLE_FAMILIES):
        raise InvalidParameterValue(
            f"This Lambstead cannot run {runtime} yet: it has environments for Python functions only. "
            "Use python3.13 or python3.14, or follow the changelog for further runtimes."
        )
