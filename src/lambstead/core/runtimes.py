"""Runtime identifiers: which ones managed instances accept, which AWS has retired, which this Lambstead can run."""

import re

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

RUNNABLE = re.compile(r"python3\.\d{1,2}|nodejs\d{2}\.x|java\d{1,2}(\.al2|\.al2023)?|provided\.al2|provided\.al2023")
"""What this Lambstead has a launcher for. Others are refused at create, not at the first invocation."""

INSTEAD = "Use a Python or Node.js runtime, or provided.al2023 with a bootstrap of your own."
MISSING_PIECES = {
    "dotnet": "a launcher for AWS's .NET interface client (Amazon.Lambda.RuntimeSupport, from NuGet)",
    "ruby": "a launcher for AWS's Ruby interface client (the gem aws_lambda_ric)",
}
"""Families that AWS has and we cannot start, and what is not there."""


def missing_piece(runtime: str) -> str:
    """What this Lambstead lacks to run the runtime's family; empty for families that it runs, or does not know."""
    return next((piece for family, piece in MISSING_PIECES.items() if runtime.startswith(family)), "")


def refuse_unavailable(runtime: str, obstacle: str) -> None:
    """Raise InvalidParameterValue if the machine lacks something that the runtime needs and that is not installed by itself."""
    if obstacle:
        raise InvalidParameterValue(f"This Lambstead cannot run {runtime}: {obstacle} {INSTEAD}")


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
    if not RUNNABLE.fullmatch(runtime):
        raise InvalidParameterValue(
            f"This Lambstead cannot run {runtime}: it lacks {missing_piece(runtime) or 'this runtime'}. {INSTEAD}"
        )
