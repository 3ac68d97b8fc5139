"""Published versions: publish and list."""

from dataclasses import replace

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.documents import function_configuration
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.core.arn import LATEST, LATEST_PUBLISHED, FunctionRef
from lambstead.core.capacity import MAX_VERSIONS_PER_PROVIDER
from lambstead.core.errors import (
    FunctionVersionsPerCapacityProviderLimitExceeded,
    InvalidParameterValue,
    ResourceNotFound,
)
from lambstead.core.functions import (
    FunctionVersion,
    State,
    conflict_in_state,
    numbered,
    ordinal_of,
    refuse_stale_revision,
    refuse_while_settling,
)
from lambstead.core.publishing import Publish, is_published_already, publish
from lambstead.store.port import Reader, Transaction


async def publish_version(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)

    def work(tx: Transaction) -> FunctionVersion:
        latest = tx.version(ref.name, LATEST)
        if latest is None:
            raise ResourceNotFound(f"Function not found: {context.realm.function_arn(ref.name)}")
        refuse_while_settling(latest, context.realm.function_arn(ref.name))
        refuse_stale_revision(latest.revision_id, request.get("RevisionId"))
        _refuse_other_code(latest, request.get("CodeSha256"))
        refuse_publish_to_standard(request, managed=latest.is_managed)
        return publish_in(context, tx, latest, request)

    version = await context.store.write(work)
    context.poke()
    return function_configuration(version, context.realm, version.version)


def refuse_publish_to_standard(request: Request, *, managed: bool) -> None:
    """Raise InvalidParameterValue for a PublishTo of a function that has no `$LATEST.PUBLISHED`."""
    if request.get("PublishTo") and not managed:
        raise InvalidParameterValue("PublishTo is supported only for functions with a capacity provider configuration.")


def _refuse_other_code(latest: FunctionVersion, sha256: str | None) -> None:
    current = latest.configuration.code.sha256
    if sha256 and sha256 != current:
        raise InvalidParameterValue(
            f"CodeSHA256 ({sha256}) is different from current CodeSHA256 in $LATEST ({current}). "
            "Please try again with the CodeSHA256 in $LATEST."
        )


def publish_in(context: Context, tx: Transaction, latest: FunctionVersion, request: Request) -> FunctionVersion:
    """Publish `latest` within a transaction as the request asks; the version that came of it, or the unchanged previous one."""
    snapshot = tx.function(latest.function)
    versions = snapshot.versions if snapshot else {}
    in_place = versions.get(LATEST_PUBLISHED) if request.get("PublishTo") else None
    _refuse_unsettled(context, in_place)
    numbers = [version for name, version in versions.items() if numbered(name)]
    previous = in_place if request.get("PublishTo") else max(numbers, key=lambda v: int(v.version), default=None)
    if previous is not None and is_published_already(latest, previous):
        return previous
    name = LATEST_PUBLISHED if request.get("PublishTo") else str(tx.next_version_number(latest.function))
    version = publish(
        latest, in_place, Publish(name, context.timestamp(), context.new_revision(), request.get("Description"))
    )
    _refuse_too_many(tx, version, is_new=in_place is None)
    tx.save_version(version)
    # AWS gives `$LATEST` a new revision with every publish.
    tx.save_version(replace(latest, revision_id=context.new_revision()))
    return version


def _refuse_unsettled(context: Context, published: FunctionVersion | None) -> None:
    if published is None:
        return
    if published.state is State.DEACTIVATING:
        raise conflict_in_state(published.state)
    refuse_while_settling(published, context.realm.function_arn(published.function, published.version))


def _refuse_too_many(reader: Reader, version: FunctionVersion, *, is_new: bool) -> None:
    managed = version.configuration.managed
    if managed is None or not is_new:
        return
    on_it = reader.versions_on(managed.provider, ("", -2), MAX_VERSIONS_PER_PROVIDER * 100)
    published = sum(v.version != LATEST for v in on_it)
    if published >= MAX_VERSIONS_PER_PROVIDER:
        raise FunctionVersionsPerCapacityProviderLimitExceeded(
            f"The capacity provider has {published} function versions; at most {MAX_VERSIONS_PER_PROVIDER} are allowed."
        )


async def list_versions_by_function(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    size = request.get("MaxItems", DEFAULT_PAGE)
    name, ordinal = decode_marker(request.get("Marker"), (ref.name, -2))
    if name != ref.name:
        raise InvalidParameterValue("The Marker is not one that this operation returned.")

    def work(reader: Reader) -> list[FunctionVersion]:
        if reader.version(ref.name, LATEST) is None:
            raise ResourceNotFound(f"Function not found: {context.realm.function_arn(ref.name)}")
        return list(reader.versions((ref.name, int(ordinal)), size + 1, ref.name))

    versions, marker = page(await context.store.read(work), size, lambda v: (v.function, ordinal_of(v.version)))
    return {
        "Versions": [function_configuration(v, context.realm, v.version, listing=True) for v in versions],
        "NextMarker": marker,
    }
