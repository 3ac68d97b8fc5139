"""Domain data as documents of the API: the other direction of reading requests."""

import base64
import hashlib
from typing import Any

import msgspec

from lambstead.core.aliases import Alias
from lambstead.core.arn import LATEST, Realm
from lambstead.core.capacity import CapacityProvider
from lambstead.core.configurations import CodePackage, Configuration, ManagedInstances
from lambstead.core.event_sources import KINDS, EventSourceMapping, Kind
from lambstead.core.functions import FunctionVersion
from lambstead.core.images import resolved_uri
from lambstead.core.layers import LayerVersion
from lambstead.core.scaling import ScalingBounds

Document = dict[str, Any]  # Any: documents typed by the service model


def function_configuration(
    version: FunctionVersion, realm: Realm, qualifier: str | None, *, listing: bool = False
) -> Document:
    """FunctionConfiguration. `qualifier` is how the caller named the version, which the ARN repeats; lists leave states out."""
    configuration = version.configuration
    document: Document = {
        "FunctionName": version.function,
        "FunctionArn": realm.function_arn(version.function, qualifier),
        "Runtime": configuration.runtime or None,
        "Role": configuration.role,
        "Handler": configuration.handler or None,
        "CodeSize": configuration.code.size_bytes,
        "Description": configuration.description,
        "Timeout": configuration.timeout_s,
        "MemorySize": configuration.memory_mb,
        "LastModified": version.last_modified,
        "CodeSha256": configuration.code.sha256,
        "Version": version.version,
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": version.revision_id,
        "PackageType": "Image" if configuration.code.is_image else "Zip",
        "Architectures": [configuration.architecture],
        "EphemeralStorage": {"Size": configuration.ephemeral_storage_mb},
        "LoggingConfig": _logging(configuration),
        **configuration.recorded,
    }
    if "ImageConfig" in document:
        document["ImageConfigResponse"] = {"ImageConfig": document.pop("ImageConfig")}
    if configuration.variables is not None:
        document["Environment"] = {"Variables": dict(configuration.variables)}
    if configuration.layers:
        document["Layers"] = [{"Arn": layer.arn, "CodeSize": layer.code.size_bytes} for layer in configuration.layers]
    if configuration.durable is not None:
        document["DurableConfig"] = configuration.durable.document()
    if configuration.tenant_isolation_mode is not None:
        document["TenancyConfig"] = {"TenantIsolationMode": configuration.tenant_isolation_mode}
    if configuration.managed:
        document["CapacityProviderConfig"] = _capacity_provider_config(configuration.managed, realm)
        document["ConfigSha256"] = hashlib.sha256(msgspec.json.encode(configuration, order="sorted")).hexdigest()
    else:
        document["SnapStart"] = _snap_start(version)
    if not listing:
        document |= _states(version)
    if not listing and not configuration.code.is_image:
        digest = hashlib.sha256(configuration.runtime.encode()).hexdigest()
        document["RuntimeVersionConfig"] = {"RuntimeVersionArn": f"arn:aws:lambda:{realm.region}::runtime:{digest}"}
    return document


def _snap_start(version: FunctionVersion) -> Document:
    """SnapStart of a standard function: on for the versions that were published with it (recorded), never for `$LATEST`."""
    apply_on = version.configuration.recorded.get("SnapStart", {}).get("ApplyOn", "None")
    return {"ApplyOn": apply_on, "OptimizationStatus": "On" if apply_on != "None" and version.is_published else "Off"}


def code_location(code: CodePackage, base_url: str) -> Document:
    """FunctionCodeLocation: where the zip can be had, or which image it is."""
    if code.is_image:
        return {"RepositoryType": "ECR", "ImageUri": code.image_uri, "ResolvedImageUri": resolved_uri(code)}
    return {
        "RepositoryType": "S3",
        "Location": _download_url(code, base_url),
        "SourceKMSKeyArn": code.source_kms_key or None,
    }


def _download_url(code: CodePackage, base_url: str) -> str:
    """Where a zip is served. Good as long as a function or a layer version has it; AWS's is signed and good for ten minutes."""
    return f"{base_url}/_lambstead/code/{base64.b64decode(code.sha256).hex()}.zip"


def _states(version: FunctionVersion) -> Document:
    reason, update = version.state_reason, version.update_reason
    return {
        "State": version.state,
        "StateReason": reason and reason.text,
        "StateReasonCode": reason and reason.code,
        "LastUpdateStatus": version.update_status,
        "LastUpdateStatusReason": update and update.text,
        "LastUpdateStatusReasonCode": update and update.code,
    }


def _logging(configuration: Configuration) -> Document:
    logging = configuration.logging
    return {
        "LogFormat": logging.format,
        "ApplicationLogLevel": logging.application_level or None,
        "SystemLogLevel": logging.system_level or None,
        "LogGroup": logging.group,
    }


def _capacity_provider_config(managed: ManagedInstances, realm: Realm) -> Document:
    return {
        "LambdaManagedInstancesCapacityProviderConfig": {
            "CapacityProviderArn": realm.capacity_provider_arn(managed.provider),
            "PerExecutionEnvironmentMaxConcurrency": managed.sizing.slots,
            "ExecutionEnvironmentMemoryGiBPerVCpu": managed.sizing.memory_gib_per_vcpu,
        }
    }


def qualified(version: FunctionVersion) -> str | None:
    """The qualifier under which a published version is known; None for `$LATEST`, whose ARN is unqualified unless asked so."""
    return None if version.version == LATEST else version.version


def alias_configuration(alias: Alias, realm: Realm) -> Document:
    """AliasConfiguration."""
    document: Document = {
        "AliasArn": realm.function_arn(alias.function, alias.name),
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision_id,
    }
    if alias.second is not None:
        document["RoutingConfig"] = {"AdditionalVersionWeights": {alias.second: alias.second_weight}}
    return document


def capacity_provider(provider: CapacityProvider, realm: Realm) -> Document:
    """CapacityProvider."""
    requirements, scaling = provider.requirements, provider.scaling
    return {
        "CapacityProviderArn": realm.capacity_provider_arn(provider.name),
        "State": provider.state,
        "VpcConfig": {
            "SubnetIds": list(provider.subnets),
            "SecurityGroupIds": list(provider.security_groups),
        },
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": provider.operator_role},
        "InstanceRequirements": {
            "Architectures": [requirements.architecture],
            "AllowedInstanceTypes": list(requirements.allowed) or None,
            "ExcludedInstanceTypes": list(requirements.excluded) or None,
        },
        "CapacityProviderScalingConfig": {
            "MaxVCpuCount": scaling.max_vcpus,
            "ScalingMode": scaling.mode,
            "ScalingPolicies": list(scaling.policies) or None,
        },
        "KmsKeyArn": provider.kms_key_arn,
        "LastModified": provider.last_modified,
        "PropagateTags": provider.propagated_tags,
        "TelemetryConfig": provider.telemetry,
    }


def layer_version(version: LayerVersion, realm: Realm, base_url: str) -> Document:
    """What PublishLayerVersion and GetLayerVersion answer: the item of a list, with content and owner."""
    code = version.code
    return {
        **layer_versions_item(version, realm),
        "LayerArn": realm.layer_arn(version.layer),
        "Content": {
            "Location": _download_url(code, base_url),
            "CodeSha256": code.sha256,
            "CodeSize": code.size_bytes,
        },
    }


def layer_versions_item(version: LayerVersion, realm: Realm) -> Document:
    """LayerVersionsListItem."""
    return {
        "LayerVersionArn": realm.layer_arn(version.layer, version.number),
        "Version": version.number,
        "Description": version.description,
        "CreatedDate": version.created,
        "CompatibleRuntimes": _listed(version.runtimes),
        "CompatibleArchitectures": _listed(version.architectures),
        "LicenseInfo": version.license,
    }


def _listed(items: tuple[str, ...] | None) -> list[str] | None:
    """An empty list was given as one and is shown as one; None was not given."""
    return None if items is None else list(items)


def event_source_mapping(mapping: EventSourceMapping, realm: Realm) -> Document:
    """EventSourceMappingConfiguration. Which members there are depends on the kind of the source."""
    document: Document = {
        "UUID": mapping.id,
        "EventSourceMappingArn": realm.event_source_mapping_arn(mapping.id),
        "FunctionArn": mapping.ref.arn(realm),
        "LastModified": mapping.last_modified,
        "State": mapping.state,
        "StateTransitionReason": mapping.reason,
        **mapping.parameters,
    }
    if mapping.kind is not Kind.SELF_MANAGED_KAFKA:
        document["EventSourceArn"] = mapping.source
    if KINDS[mapping.kind].shows_last_result:
        document["LastProcessingResult"] = "No records processed"
    return document


def scaling_config(bounds: ScalingBounds) -> Document:
    """FunctionScalingConfig."""
    return {"MinExecutionEnvironments": bounds.minimum, "MaxExecutionEnvironments": bounds.maximum}
