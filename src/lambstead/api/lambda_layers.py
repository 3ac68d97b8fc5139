"""Layers: publish, read, list, delete, and who may use them."""

from collections.abc import Callable
from dataclasses import replace

from lambstead.api.configurations import package_from
from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.documents import layer_version, layer_versions_item
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.core.errors import AccessDenied, ResourceNotFound
from lambstead.core.layers import (
    LayerPolicy,
    LayerRef,
    LayerVersion,
    check_number,
    layer_name,
    policy_document,
    statement,
    with_statement,
    without_statement,
)
from lambstead.core.policies import compact
from lambstead.store.port import Reader, Transaction

ABOVE_EVERY_NUMBER = 2**62
SCAN_PAGE = 100
"""Rows read at a time while a list looks for versions that match."""


async def publish_layer_version(context: Context, request: Request, call: Call) -> Response:
    name = layer_name(request["LayerName"], context.realm)
    code = await package_from(context, request["Content"])

    def work(tx: Transaction) -> LayerVersion:
        version = LayerVersion(
            layer=name,
            number=tx.next_layer_number(name),
            code=code,
            created=context.timestamp(),
            description=request.get("Description", ""),
            license=request.get("LicenseInfo"),
            runtimes=_given(request, "CompatibleRuntimes"),
            architectures=_given(request, "CompatibleArchitectures"),
        )
        tx.save_layer_version(version)
        return version

    return layer_version(await context.store.write(work), context.realm, context.base_url)


def _given(request: Request, member: str) -> tuple[str, ...] | None:
    return tuple(request[member]) if member in request else None


async def get_layer_version(context: Context, request: Request, call: Call) -> Response:
    name, number = layer_name(request["LayerName"], context.realm), request["VersionNumber"]
    check_number(number)
    return await _described(context, name, number)


async def get_layer_version_by_arn(context: Context, request: Request, call: Call) -> Response:
    try:
        ref = LayerRef.parse(request["Arn"])
    except ResourceNotFound as exc:
        raise ResourceNotFound("The resource you requested does not exist.") from exc
    if ref.account != context.realm.account:
        raise AccessDenied(f"The layer belongs to account {ref.account}; this endpoint serves {context.realm.account}")
    if ref.region != context.realm.region:
        raise ResourceNotFound("The resource you requested does not exist.")
    check_number(ref.number)
    return await _described(context, ref.name, ref.number)


async def _described(context: Context, name: str, number: int) -> Response:
    found = await context.store.read(lambda reader: reader.layer_version(name, number))
    if found is None:
        raise ResourceNotFound("The resource you requested does not exist.")
    return layer_version(found, context.realm, context.base_url)


async def delete_layer_version(context: Context, request: Request, call: Call) -> Response:
    name, number = layer_name(request["LayerName"], context.realm), request["VersionNumber"]
    check_number(number)
    await context.store.write(lambda tx: tx.delete_layer_version(name, number))
    return {}


async def list_layer_versions(context: Context, request: Request, call: Call) -> Response:
    name = layer_name(request["LayerName"], context.realm)
    size = request.get("MaxItems", DEFAULT_PAGE)
    (below,) = decode_marker(request.get("Marker"), (ABOVE_EVERY_NUMBER,))
    found = await context.store.read(lambda reader: _matching(reader, name, int(below), size + 1, request))
    versions, marker = page(found, size, lambda version: (version.number,))
    return {"LayerVersions": [layer_versions_item(v, context.realm) for v in versions], "NextMarker": marker}


def _matching(reader: Reader, name: str, below: int, limit: int, request: Request) -> list[LayerVersion]:
    """Up to `limit` versions of a layer that suit what the request asks for, the newest first."""
    runtime, architecture = request.get("CompatibleRuntime"), request.get("CompatibleArchitecture")
    found: list[LayerVersion] = []
    while len(found) < limit and (rows := reader.layer_versions(name, below, SCAN_PAGE)):
        found += [version for version in rows if version.suits(runtime, architecture)]
        below = rows[-1].number
    return found[:limit]


async def list_layers(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxItems", DEFAULT_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))

    def work(reader: Reader) -> list[LayerVersion]:
        name = str(after)
        found: list[LayerVersion] = []
        while len(found) <= size and (names := reader.layer_names(name, SCAN_PAGE)):
            for name in names:
                found += _matching(reader, name, ABOVE_EVERY_NUMBER, 1, request)
        return found[: size + 1]

    latest, marker = page(await context.store.read(work), size, lambda version: (version.layer,))
    return {
        "Layers": [
            {
                "LayerName": version.layer,
                "LayerArn": context.realm.layer_arn(version.layer),
                "LatestMatchingVersion": layer_versions_item(version, context.realm),
            }
            for version in latest
        ],
        "NextMarker": marker,
    }


# --- permissions ------------------------------------------------------------------------------------------------------------


async def add_layer_version_permission(context: Context, request: Request, call: Call) -> Response:
    arn = _permission_arn(context, request)
    added = statement(
        request["StatementId"], request["Action"], request["Principal"], request.get("OrganizationId"), arn
    )

    def change(policy: LayerPolicy | None) -> LayerPolicy | None:
        return with_statement(policy, added, request.get("RevisionId"), context.new_revision())

    policy = await _change_policy(context, request, change)
    return {"Statement": compact(added), "RevisionId": policy and policy.revision_id}


async def remove_layer_version_permission(context: Context, request: Request, call: Call) -> Response:
    def change(policy: LayerPolicy | None) -> LayerPolicy | None:
        return without_statement(policy, request["StatementId"], request.get("RevisionId"), context.new_revision())

    await _change_policy(context, request, change)
    return {}


async def get_layer_version_policy(context: Context, request: Request, call: Call) -> Response:
    version = await context.store.read(lambda reader: _with_permissions(context, reader, request))
    if version.policy is None:
        raise ResourceNotFound("No policy is associated with the given resource.")
    return {"Policy": policy_document(version.policy), "RevisionId": version.policy.revision_id}


async def _change_policy(
    context: Context, request: Request, change: Callable[[LayerPolicy | None], LayerPolicy | None]
) -> LayerPolicy | None:
    def work(tx: Transaction) -> LayerPolicy | None:
        version = _with_permissions(context, tx, request)
        policy = change(version.policy)
        if policy is not None:
            policy_document(policy)  # its size is checked
        tx.save_layer_version(replace(version, policy=policy))
        return policy

    return await context.store.write(work)


def _with_permissions(context: Context, reader: Reader, request: Request) -> LayerVersion:
    """The version whose permissions are meant. Raises ResourceNotFound with its ARN, as AWS does here and nowhere else."""
    name, number = layer_name(request["LayerName"], context.realm), request["VersionNumber"]
    check_number(number)
    version = reader.layer_version(name, number)
    if version is None:
        raise ResourceNotFound(f"Layer version {_permission_arn(context, request)} does not exist.")
    return version


def _permission_arn(context: Context, request: Request) -> str:
    return context.realm.layer_arn(layer_name(request["LayerName"], context.realm), request["VersionNumber"])
