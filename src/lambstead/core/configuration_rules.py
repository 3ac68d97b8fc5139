"""What a function's configuration may say, beyond what the service model can express. Texts are AWS's where they are known."""

import json
from collections.abc import Mapping
from typing import Any

from lambstead.core.configurations import Logging
from lambstead.core.errors import InvalidParameterValue, ValidationError
from lambstead.core.log_streams import default_group

MAX_VARIABLES_BYTES = 4096
MAX_STANDARD_MEMORY_MB = 10_240
MAX_STANDARD_TIMEOUT_S = 900
MAX_STANDARD_STORAGE_MB = 10_240
MIN_STORAGE_MB = 512

RESERVED_VARIABLES = frozenset(
    {
        *("_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV"),
        *("AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION"),
        *("AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"),
        *("AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_MAX_CONCURRENCY", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"),
    }
)
"""Variables that Lambda sets and customers may not (Developer Guide, defined runtime environment variables)."""


def check_variables(variables: Mapping[str, str]) -> None:
    """Raise for reserved or malformed names and for more than 4 KB, measured over compact JSON as AWS does."""
    reserved = sorted(RESERVED_VARIABLES & set(variables))
    if reserved:
        raise InvalidParameterValue(
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            "contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    measured = json.dumps(dict(variables), separators=(",", ":"))
    if len(measured.encode()) > MAX_VARIABLES_BYTES:
        raise InvalidParameterValue(
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            f"exceeded the 4KB limit. String measured: {measured}"
        )
    nul = sorted(name for name, value in variables.items() if "\0" in value)
    if nul:
        raise InvalidParameterValue(f"The value of environment variable {nul[0]} contains a NUL character.")


def check_standard_size(memory_mb: int, timeout_s: int, storage_mb: int) -> None:
    """Raise ValidationError for sizes that only functions on a capacity provider may have.

    Code and words are those that users report of an account's own limit below the model's: `'MemorySize' value failed to satisfy
    constraint: Member must have value less than or equal to 3008`.
    """
    for value, most, member in (
        (memory_mb, MAX_STANDARD_MEMORY_MB, "MemorySize"),
        (timeout_s, MAX_STANDARD_TIMEOUT_S, "Timeout"),
        (storage_mb, MAX_STANDARD_STORAGE_MB, "EphemeralStorage.Size"),
    ):
        if value > most:
            raise ValidationError(
                f"'{member}' value failed to satisfy constraint: Member must have value less than or equal to {most}"
            )


def vpc_config(asked: Mapping[str, Any], vpc_id: str) -> dict[str, Any]:
    """VpcConfig of the API as AWS shows it. Without subnets and groups it detaches the function, and is shown with empty lists.

    Raises InvalidParameterValue for subnets without security groups, or the other way round, in AWS's words (users' reports).
    """
    subnets, groups = list(asked.get("SubnetIds") or ()), list(asked.get("SecurityGroupIds") or ())
    if bool(subnets) != bool(groups):
        raise InvalidParameterValue("SubnetIds and SecurityIds must coexist or be both empty list.")
    return {
        "SubnetIds": subnets,
        "SecurityGroupIds": groups,
        "VpcId": vpc_id if subnets else "",
        "Ipv6AllowedForDualStack": bool(subnets and asked.get("Ipv6AllowedForDualStack")),
    }


def check_together(recorded: Mapping[str, Any], storage_mb: int, *, managed: bool) -> None:
    """Raise InvalidParameterValue for recorded members that AWS does not take together.

    File systems need a VPC (users' reports); a managed function's is its provider's. SnapStart excludes file systems and more than 512 MB of
    ephemeral storage (Developer Guide, SnapStart, limitations; the form of the sentence is that of AWS's other refusals of SnapStart).
    """
    systems = recorded.get("FileSystemConfigs") or ()
    if systems and not managed and not recorded.get("VpcConfig", {}).get("SubnetIds"):
        raise InvalidParameterValue(
            f"Function must be configured to execute in a VPC to reference access point {systems[0]['Arn']}."
        )
    if recorded.get("SnapStart", {}).get("ApplyOn", "None") == "None":
        return
    if systems:
        raise InvalidParameterValue("FileSystemConfigs is not supported for SnapStart enabled functions.")
    if storage_mb > MIN_STORAGE_MB:
        raise InvalidParameterValue(
            f"EphemeralStorage greater than {MIN_STORAGE_MB} MB is not supported for SnapStart enabled functions."
        )


def logging_config(function: str, asked: Mapping[str, str], before: Logging | None, *, managed: bool) -> Logging:
    """LoggingConfig after `asked` (members of the API) was laid over `before`; defaults differ for managed functions.

    JSON fills both levels with INFO unless given, Text removes them. Managed functions log JSON only.
    """
    default_format = before.format if before else ("JSON" if managed else "Text")
    wanted = asked.get("LogFormat", default_format)
    group = asked.get("LogGroup") or (before.group if before else default_group(function))
    levels = [name for name in ("ApplicationLogLevel", "SystemLogLevel") if asked.get(name)]
    if wanted == "Text" and (levels or managed):
        raise InvalidParameterValue(
            'LogLevel is not supported when LogFormat is set to "Text". '
            'Remove LogLevel from your request or change the LogFormat to "JSON" and try again.'
        )
    if wanted == "Text":
        return Logging("Text", group)
    application = asked.get("ApplicationLogLevel") or (before.application_level if before else "") or "INFO"
    system = asked.get("SystemLogLevel") or (before.system_level if before else "") or "INFO"
    return Logging("JSON", group, application, system)
