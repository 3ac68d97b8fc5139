"""Reading requests that create or change a function's configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lambstead.api.context import Context, Request
from lambstead.core.arn import capacity_provider_name
from lambstead.core.capacity import MIN_MANAGED_MEMORY_MB, ProviderState, Sizing
from lambstead.core.configuration_rules import check_standard_size, check_variables, logging_config
from lambstead.core.durable.model import DurableConfig
from lambstead.core.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from lambstead.core.functions import CodePackage, Configuration, Layer, Logging, ManagedInstances
from lambstead.core.layers import as_layer, check_unzipped, referenced
from lambstead.core.runtimes import check_runtime
from lambstead.store.port import Reader

RECORDED = ("DeadLetterConfig", "KMSKeyArn", "TracingConfig", "SnapStart")
"""Members that are kept and shown as given; what has no effect of these stands in `gaps`."""

NOT_YET: Mapping[str, str] = {
    "FileSystemConfigs": "file systems",
    "ImageConfig": "container images",
    "TenancyConfig": "tenant isolation",
    "RuntimeConfig": "customer-managed runtimes",
    "AcceleratorConfig": "accelerators",
}
"""Members that would change how a function runs, and that this Lambstead cannot honour."""


def refuse_what_cannot_be_honoured(request: Request) -> None:
    """Raise for members that ask for something this Lambstead does not do, rather than run the function differently."""
    for member, noun in NOT_YET.items():
        if request.get(member):
            raise InvalidParameterValue(
                f"This Lambstead does not support {noun} yet: remove {member} from the request."
            )
    if request.get("PackageType") == "Image":
        raise InvalidParameterValue("This Lambstead does not support container images yet: upload a zip package.")
    if any((request.get("VpcConfig") or {}).values()):
        raise InvalidParameterValue(
            "This Lambstead does not support VpcConfig on functions yet: functions use this machine's network."
        )


async def package_from(context: Context, code: Mapping[str, Any]) -> CodePackage:
    """Keep the code of a create or update request. Raises InvalidParameterValue when there is none, or it cannot be had."""
    if "ImageUri" in code:
        raise InvalidParameterValue("Please don't provide ImageUri when updating a function with packageType Zip.")
    if "S3Bucket" in code or "S3Key" in code:
        raise InvalidParameterValue(
            "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist. "
            "(This Lambstead has no S3 yet: send the package inline, with --zip-file fileb://package.zip.)"
        )
    archive = code.get("ZipFile")
    if not archive:
        raise InvalidParameterValue("Please provide a source for function code.")
    return await context.packages.put(archive)


async def layers_from(context: Context, arns: Sequence[str]) -> tuple[Layer, ...]:
    """The layers that a request names. Raises what AWS answers to layers that cannot be had."""
    refs = referenced(arns, context.realm)
    return await context.store.read(
        lambda reader: tuple(as_layer(ref, reader.layer_version(ref.name, ref.number)) for ref in refs)
    )


async def check_size(context: Context, configuration: Configuration) -> None:
    """Raise InvalidParameterValue when the function and its layers are too large together, unzipped."""
    if configuration.layers:
        packages = (configuration.code, *(layer.code for layer in configuration.layers))
        check_unzipped(sum([await context.packages.unzipped_bytes(package) for package in packages]))


def created(context: Context, name: str, request: Request, code: CodePackage) -> Configuration:
    """The configuration of a new function. Raises what AWS answers to one that cannot be."""
    if not request.get("Runtime") or not request.get("Handler"):
        raise InvalidParameterValue(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        )
    managed = "CapacityProviderConfig" in request
    durable_config = request.get("DurableConfig")
    blank = Configuration(
        runtime=request["Runtime"],
        handler=request["Handler"],
        role=request["Role"],
        code=code,
        logging=Logging("Text", f"/aws/lambda/{name}"),
        memory_mb=MIN_MANAGED_MEMORY_MB if managed else 128,
        architecture=(request.get("Architectures") or ["x86_64"])[0],
        durable=None if durable_config is None else durable(durable_config, None),
    )
    return _changed(context, name, request, blank, managed=managed, logging_before=None)


def updated(context: Context, name: str, request: Request, before: Configuration) -> Configuration:
    """The configuration after UpdateFunctionConfiguration."""
    managed = before.managed is not None
    if "CapacityProviderConfig" in request and not managed:
        raise InvalidParameterValue("CapacityProviderConfig isn't supported for Lambda Default functions.")
    if request.get("DurableConfig") is not None:
        if before.durable is None:
            raise InvalidParameterValue(
                "DurableConfig cannot be added to an existing function: durable execution is enabled when a function is created."
            )
        before = replace(before, durable=durable(request["DurableConfig"], before.durable))
    return _changed(context, name, request, before, managed=managed, logging_before=before.logging)


def durable(asked: Mapping[str, Any], before: DurableConfig | None) -> DurableConfig:
    """A DurableConfig of the API laid over what the function has. Raises InvalidParameterValue for a new one without ExecutionTimeout."""
    timeout_s = asked.get("ExecutionTimeout", before.execution_timeout_s if before else None)
    if timeout_s is None:
        raise InvalidParameterValue("ExecutionTimeout is required in DurableConfig.")
    retention_days = asked.get("RetentionPeriodInDays", before.retention_days if before else 14)
    return DurableConfig(
        timeout_s, retention_days, asked.get("KMSKeyArn", before.kms_key_arn if before else None) or None
    )


def _changed(
    context: Context,
    name: str,
    request: Request,
    before: Configuration,
    *,
    managed: bool,
    logging_before: Logging | None,
) -> Configuration:
    check_runtime(request.get("Runtime", before.runtime), managed=managed)
    variables = before.variables
    if "Environment" in request:
        variables = request["Environment"].get("Variables") or {}
        check_variables(variables)
    after = replace(
        before,
        runtime=request.get("Runtime", before.runtime),
        handler=request.get("Handler", before.handler),
        role=request.get("Role", before.role),
        description=request.get("Description", before.description),
        timeout_s=request.get("Timeout", before.timeout_s),
        memory_mb=request.get("MemorySize", before.memory_mb),
        ephemeral_storage_mb=(request.get("EphemeralStorage") or {}).get("Size", before.ephemeral_storage_mb),
        variables=variables,
        logging=logging_config(name, request.get("LoggingConfig") or {}, logging_before, managed=managed),
        recorded=_recorded(request, before.recorded, managed=managed),
    )
    if not managed:
        check_standard_size(after.memory_mb, after.timeout_s, after.ephemeral_storage_mb)
        return after
    return replace(after, managed=_managed(context, request, after))


def _recorded(request: Request, before: Mapping[str, Any], *, managed: bool) -> dict[str, Any]:
    recorded = {**before, **{member: request[member] for member in RECORDED if member in request}}
    snap_start = recorded.pop("SnapStart", {"ApplyOn": "None"})
    if managed and snap_start.get("ApplyOn", "None") != "None":
        raise InvalidParameterValue("SnapStart is not supported for functions with a capacity provider configuration.")
    if not managed and "SnapStart" in {**before, **request}:
        recorded["SnapStart"] = {"ApplyOn": snap_start.get("ApplyOn", "None"), "OptimizationStatus": "Off"}
    return {member: value for member, value in recorded.items() if value not in ("", {"TargetArn": ""}, {})}


def _managed(context: Context, request: Request, after: Configuration) -> ManagedInstances:
    """How the function uses its provider. A size that was defaulted follows the memory; one that was chosen stays."""
    asked = (request.get("CapacityProviderConfig") or {}).get("LambdaManagedInstancesCapacityProviderConfig") or {}
    before = after.managed
    provider = before.provider if before else ""
    if "CapacityProviderArn" in asked:
        provider = capacity_provider_name(asked["CapacityProviderArn"], context.realm)
    slots = asked.get("PerExecutionEnvironmentMaxConcurrency", before.sizing.slots if before else None)
    ratio = asked.get("ExecutionEnvironmentMemoryGiBPerVCpu", before.sizing.memory_gib_per_vcpu if before else None)
    return ManagedInstances(provider, Sizing.from_request(after.runtime, after.memory_mb, slots, ratio))


def check_provider(context: Context, reader: Reader, configuration: Configuration) -> None:
    """Raise if the configuration names a capacity provider that does not exist, is not active or has another architecture."""
    if configuration.managed is None:
        return
    arn = context.realm.capacity_provider_arn(configuration.managed.provider)
    provider = reader.provider(configuration.managed.provider)
    if provider is None:
        raise ResourceNotFound(f"Capacity provider not found: {arn}")
    if provider.state is ProviderState.DELETING:
        raise ResourceConflict(
            f"The operation cannot be performed at this time. The capacity provider {arn} is currently in the following state: {provider.state}"
        )
    if provider.requirements.architecture != configuration.architecture:
        raise InvalidParameterValue(
            f"The function's architecture {configuration.architecture} is not that of capacity provider {arn}, "
            f"which is {provider.requirements.architecture}."
        )
