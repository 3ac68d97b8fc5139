"""Capacity providers and the versions on them."""

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.documents import capacity_provider
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.core.arn import capacity_provider_name
from lambstead.core.capacity import (
    MAX_PROVIDERS,
    CapacityProvider,
    InstanceRequirements,
    ProviderDeletionRequested,
    ProviderScaling,
    ProviderState,
    ProviderUpdated,
    apply,
)
from lambstead.core.catalogue import unknown_patterns
from lambstead.core.errors import (
    CapacityProviderLimitExceeded,
    InvalidParameterValue,
    ResourceConflict,
    ResourceNotFound,
)
from lambstead.core.functions import FunctionVersion, ordinal_of
from lambstead.store.port import Reader, Transaction

ALL_VERSIONS = 1_000_000


async def create_capacity_provider(context: Context, request: Request, call: Call) -> Response:
    provider = CapacityProvider(
        name=_new_name(context, request["CapacityProviderName"]),
        state=ProviderState.PENDING,
        subnets=tuple(request["VpcConfig"]["SubnetIds"]),
        security_groups=tuple(request["VpcConfig"]["SecurityGroupIds"]),
        operator_role=request["PermissionsConfig"]["CapacityProviderOperatorRoleArn"],
        last_modified=context.timestamp(),
        requirements=_requirements(request),
        scaling=ProviderScaling.from_request(request.get("CapacityProviderScalingConfig") or {}),
        kms_key_arn=request.get("KmsKeyArn"),
        propagated_tags=request.get("PropagateTags"),
        telemetry=request.get("TelemetryConfig"),
    )
    arn = context.realm.capacity_provider_arn(provider.name)

    def work(tx: Transaction) -> None:
        if tx.provider(provider.name) is not None:
            raise ResourceConflict(f"Capacity provider already exists: {arn}")
        if len(tx.providers("", MAX_PROVIDERS)) >= MAX_PROVIDERS:
            raise CapacityProviderLimitExceeded(
                f"The account has {MAX_PROVIDERS} capacity providers, which is the most."
            )
        tx.save_provider(provider)
        tx.add_tags(arn, request.get("Tags") or {})

    await context.store.write(work)
    context.poke()
    return {"CapacityProvider": capacity_provider(provider, context.realm)}


def _new_name(context: Context, text: str) -> str:
    """The name of a provider to create. CreateCapacityProvider does not model ResourceNotFoundException."""
    try:
        return capacity_provider_name(text, context.realm)
    except ResourceNotFound as exc:
        raise InvalidParameterValue(
            f"{text} is not in region {context.realm.region} of account {context.realm.account}, which this endpoint serves."
        ) from exc


def _requirements(request: Request) -> InstanceRequirements:
    asked = request.get("InstanceRequirements") or {}
    allowed, excluded = asked.get("AllowedInstanceTypes") or [], asked.get("ExcludedInstanceTypes") or []
    if allowed and excluded:
        raise InvalidParameterValue("Specify either AllowedInstanceTypes or ExcludedInstanceTypes, not both.")
    architecture = (asked.get("Architectures") or ["x86_64"])[0]
    requirements = InstanceRequirements(architecture, tuple(allowed), tuple(excluded))
    unknown = unknown_patterns(requirements)
    if unknown:
        raise InvalidParameterValue(
            f"Instance type {', '.join(unknown)} is not supported for architecture {architecture}: "
            "managed instances use C, M and R families from .large up."
        )
    return requirements


async def get_capacity_provider(context: Context, request: Request, call: Call) -> Response:
    name = capacity_provider_name(request["CapacityProviderName"], context.realm)
    provider = await context.store.read(lambda reader: _find(context, reader, name))
    return {"CapacityProvider": capacity_provider(provider, context.realm)}


def _find(context: Context, reader: Reader, name: str) -> CapacityProvider:
    provider = reader.provider(name)
    if provider is None:
        raise ResourceNotFound(f"Capacity provider not found: {context.realm.capacity_provider_arn(name)}")
    return provider


async def update_capacity_provider(context: Context, request: Request, call: Call) -> Response:
    name = capacity_provider_name(request["CapacityProviderName"], context.realm)

    def work(tx: Transaction) -> CapacityProvider:
        before = _find(context, tx, name)
        asked = request.get("CapacityProviderScalingConfig")
        scaling = ProviderScaling.from_request(asked, before.scaling) if asked else None
        updated = apply(
            before,
            ProviderUpdated(context.timestamp(), scaling, request.get("PropagateTags"), request.get("TelemetryConfig")),
        )
        tx.save_provider(updated)
        return updated

    provider = await context.store.write(work)
    context.poke()
    return {"CapacityProvider": capacity_provider(provider, context.realm)}


async def delete_capacity_provider(context: Context, request: Request, call: Call) -> Response:
    name = capacity_provider_name(request["CapacityProviderName"], context.realm)

    def work(tx: Transaction) -> CapacityProvider:
        provider = _find(context, tx, name)
        functions = dict.fromkeys(v.function for v in tx.versions_on(name, ("", -2), ALL_VERSIONS))
        users = tuple(context.realm.function_arn(function) for function in functions)
        arn = context.realm.capacity_provider_arn(name)
        deleting = apply(provider, ProviderDeletionRequested(arn, users))
        tx.save_provider(deleting)
        return deleting

    provider = await context.store.write(work)
    context.poke()
    return {"CapacityProvider": capacity_provider(provider, context.realm)}


async def list_capacity_providers(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxItems", DEFAULT_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))
    state = ProviderState(request["State"]) if request.get("State") else None
    found = await context.store.read(lambda reader: list(reader.providers(str(after), size + 1, state)))
    providers, marker = page(found, size, lambda provider: (provider.name,))
    return {
        "CapacityProviders": [capacity_provider(provider, context.realm) for provider in providers],
        "NextMarker": marker,
    }


async def list_function_versions_by_capacity_provider(context: Context, request: Request, call: Call) -> Response:
    name = capacity_provider_name(request["CapacityProviderName"], context.realm)
    size = request.get("MaxItems", DEFAULT_PAGE)
    function, ordinal = decode_marker(request.get("Marker"), ("", -2))

    def work(reader: Reader) -> list[FunctionVersion]:
        _find(context, reader, name)
        return list(reader.versions_on(name, (str(function), int(ordinal)), size + 1))

    versions, marker = page(await context.store.read(work), size, lambda v: (v.function, ordinal_of(v.version)))
    return {
        "CapacityProviderArn": context.realm.capacity_provider_arn(name),
        "FunctionVersions": [
            {"FunctionArn": context.realm.function_arn(v.function, v.version), "State": v.state} for v in versions
        ],
        "NextMarker": marker,
    }
