"""Aliases: create, read, update, delete, list."""

from dataclasses import replace

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.documents import alias_configuration
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.core.aliases import Alias, second_version
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.errors import ResourceConflict, ResourceNotFound
from lambstead.core.functions import State, refuse_stale_revision
from lambstead.store.port import Reader, Transaction


async def create_alias(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    version = request["FunctionVersion"]
    second, weight = second_version(version, _weights(request))
    alias = Alias(
        function=ref.name,
        name=request["Name"],
        version=version,
        revision_id=context.new_revision(),
        description=request.get("Description", ""),
        second=second,
        second_weight=weight,
    )

    def work(tx: Transaction) -> None:
        _refuse_missing_versions(context, tx, alias)
        if tx.alias(alias.function, alias.name) is not None:
            raise ResourceConflict(f"Alias already exists: {context.realm.function_arn(alias.function, alias.name)}")
        tx.save_alias(alias)

    await context.store.write(work)
    return alias_configuration(alias, context.realm)


def _weights(request: Request) -> dict[str, float] | None:
    return (request.get("RoutingConfig") or {}).get("AdditionalVersionWeights")


def _refuse_missing_versions(context: Context, reader: Reader, alias: Alias) -> None:
    snapshot = reader.function(alias.function)
    if snapshot is None:
        raise ResourceNotFound(f"Function not found: {context.realm.function_arn(alias.function, alias.version)}")
    for name in alias.versions:
        version = snapshot.versions.get(name)
        if version is None or (version.state is State.DELETING and name != LATEST):
            raise ResourceNotFound(f"Function not found: {context.realm.function_arn(alias.function, name)}")


async def get_alias(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    alias = await context.store.read(lambda reader: reader.alias(ref.name, request["Name"]))
    if alias is None:
        raise ResourceNotFound(f"Cannot find alias arn: {context.realm.function_arn(ref.name, request['Name'])}")
    return alias_configuration(alias, context.realm)


async def update_alias(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)

    def work(tx: Transaction) -> Alias:
        alias = tx.alias(ref.name, request["Name"])
        if alias is None:
            raise ResourceNotFound(f"Alias not found: {context.realm.function_arn(ref.name, request['Name'])}")
        refuse_stale_revision(alias.revision_id, request.get("RevisionId"))
        changed = _changed(alias, request, context.new_revision())
        _refuse_missing_versions(context, tx, changed)
        tx.save_alias(changed)
        return changed

    changed = await context.store.write(work)
    context.poke()  # provisioned concurrency moves with its alias
    return alias_configuration(changed, context.realm)


def _changed(alias: Alias, request: Request, revision_id: str) -> Alias:
    version = request.get("FunctionVersion", alias.version)
    before = {alias.second: alias.second_weight} if alias.second else None
    weights = _weights(request) if "RoutingConfig" in request else before
    second, weight = second_version(version, weights)
    return replace(
        alias,
        version=version,
        second=second,
        second_weight=weight,
        description=request.get("Description", alias.description),
        revision_id=revision_id,
    )


async def delete_alias(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    # Deleting an alias that is not there succeeds on AWS too.
    await context.store.write(lambda tx: tx.delete_alias(ref.name, request["Name"]))
    context.poke()  # its provisioned concurrency ends
    return {}


async def list_aliases(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    size = request.get("MaxItems", DEFAULT_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))

    def work(reader: Reader) -> list[Alias]:
        if reader.version(ref.name, LATEST) is None:
            raise ResourceNotFound(f"Function not found: {context.realm.function_arn(ref.name)}")
        return list(reader.aliases(ref.name, str(after), size + 1, request.get("FunctionVersion")))

    aliases, marker = page(await context.store.read(work), size, lambda alias: (alias.name,))
    return {"Aliases": [alias_configuration(alias, context.realm) for alias in aliases], "NextMarker": marker}
