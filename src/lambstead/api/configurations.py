"""Reading requests that create or change a function's configuration."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lambstead.api.context import Context, Request
from lambstead.core.account import UNZIPPED_CODE_BYTES
from lambstead.core.arn import capacity_provider_name
from lambstead.core.capacity import MIN_MANAGED_MEMORY_MB, ProviderState, Sizing
from lambstead.core.configuration_rules import (
    check_standard_size,
    check_together,
    check_variables,
    logging_config,
    vpc_config,
)
from lambstead.core.configurations import CodePackage, Configuration, Layer, Logging, ManagedInstances
from lambstead.core.durable.model import DurableConfig
from lambstead.core.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from lambstead.core.images import image_package, refuse_for_image, refuse_for_new_image
from lambstead.core.layers import as_layer, check_unzipped, referenced
from lambstead.core.runtimes import check_runtime, refuse_unavailable
from lambstead.core.tenancy import check_tenancy
from lambstead.store.port import Reader

RECORDED = ("DeadLetterConfig", "FileSystemConfigs", "ImageConfig", "KMSKeyArn", "TracingConfig", "SnapStart")
"""Members that are kept and shown as given; what has no effect of these stands in `gaps`."""

NOT_YET: Mapping[str, str] = {
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


async def package_from(context: Context, code: Mapping[str, Any]) -> CodePackage:
    """Keep the zip of a create or update request. Raises InvalidParameterValue when there is none, or it cannot be had."""
    archive = code.get("ZipFile")
    if not archive and "S3Bucket" in code and "S3Key" in code:
        archive = await context.objects.fetch(
            code["S3Bucket"], code["S3Key"], code.get("S3ObjectVersion"), UNZIPPED_CODE_BYTES
        )
    if not archive:
        raise InvalidParameterValue("Please provide a source for function code.")
    return replace(await context.packages.put(archive), source_kms_key=code.get("SourceKMSKeyArn") or "")


def image_from(code: Mapping[str, Any]) -> CodePackage:
    """The image of a create request. Raises InvalidParameterValue when there is none, or anything beside it."""
    if not code.get("ImageUri") or {"ZipFile", "S3Bucket", "S3Key"} & set(code):
        raise InvalidParameterValue(
            "Please provide ImageUri, and nothing else, when the function PackageType is Image."
        )
    return image_package(code["ImageUri"])


async def package_for(context: Context, before: Configuration, code: Mapping[str, Any]) -> CodePackage:
    """The code of an update request: of the kind that the function has, which never changes. Texts are AWS's (recorded)."""
    if before.code.is_image:
        if not code.get("ImageUri"):
            raise InvalidParameterValue("Please provide ImageUri when updating a function with packageType Image.")
        return image_from(code)
    if "ImageUri" in code:
        raise InvalidParameterValue("Please don't provide ImageUri when updating a function with packageType Zip.")
    return await package_from(context, code)


async def refuse_unavailable_runtime(context: Context, request: Request) -> None:
    """Raise InvalidParameterValue if the request names a runtime that this machine has not what it takes for."""
    runtime = request.get("Runtime")
    if runtime:
        refuse_unavailable(runtime, await asyncio.to_thread(context.runtime_obstacle, runtime))


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


def is_image(request: Request) -> bool:
    """True for a request to create a function from a container image."""
    return request.get("PackageType") == "Image"


def created(context: Context, name: str, request: Request, code: CodePackage) -> Configuration:
    """The configuration of a new function. Raises what AWS answers to one that cannot be."""
    if is_image(request):
        refuse_for_new_image(request)
    elif not request.get("Runtime") or not request.get("Handler"):
        raise InvalidParameterValue(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        )
    managed = "CapacityProviderConfig" in request
    durable_config = request.get("DurableConfig")
    blank = Configuration(
        runtime=request.get("Runtime", ""),
        handler=request.get("Handler", ""),
        role=request["Role"],
        code=code,
        logging=Logging("Text", f"/aws/lambda/{name}"),
        memory_mb=MIN_MANAGED_MEMORY_MB if managed else 128,
        architecture=(request.get("Architectures") or ["x86_64"])[0],
        durable=None if durable_config is None else durable(durable_config, None),
        tenant_isolation_mode=(request.get("TenancyConfig") or {}).get("TenantIsolationMode"),
    )
    return _changed(context, name, request, blank, managed=managed, logging_before=None)


def updated(context: Context, name: str, request: Request, before: Configuration) -> Configuration:
    """The configuration after UpdateFunctionConfiguration."""
    managed = before.managed is not None
    if before.code.is_image:
        refuse_for_image(request)
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
    if not before.code.is_image:
        check_runtime(request.get("Runtime", before.runtime), managed=managed)
        if request.get("ImageConfig"):
            raise InvalidParameterValue("ImageConfig is supported only for functions with packageType Image.")
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
        recorded=_recorded(context, request, before.recorded, managed=managed),
    )
    check_together(after.recorded, after.ephemeral_storage_mb, managed=managed)
    check_tenancy(after.tenant_isolation_mode, after.recorded, managed=managed)
    if not managed:
        check_standard_size(after.memory_mb, after.timeout_s, after.ephemeral_storage_mb)
        return after
    return replace(after, managed=_managed(context, request, after))


def _recorded(context: Context, request: Request, before: Mapping[str, Any], *, managed: bool) -> dict[str, Any]:
    recorded = {**before, **{member: request[member] for member in RECORDED if member in request}}
    snap_start = recorded.pop("SnapStart", {"ApplyOn": "None"})
    if "VpcConfig" in request:
        vpc = vpc_config(request["VpcConfig"], context.realm.vpc_id)
        if not managed:
            recorded["VpcConfig"] = vpc
        elif vpc["SubnetIds"]:
            raise InvalidParameterValue(
                "VpcConfig is not supported for functions with a capacity provider configuration: "
                "they are in the VPC of their capacity provider."
            )
    if managed and snap_start.get("ApplyOn", "None") != "None":
        raise InvalidParameterValue("SnapStart is not supported for functions with a capacity provider configuration.")
    if snap_start.get("ApplyOn", "None") != "None":
        recorded["SnapStart"] = {"ApplyOn": snap_start["ApplyOn"]}
    return {member: value for member, value in recorded.items() if value not in ("", {"TargetArn": ""}, {}, [])}


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
