"""Functions: create, read, update, delete, list."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from lambstead.api import configurations
from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.documents import code_location, function_configuration, qualified
from lambstead.api.lambda_code_signing import find_code_signing_config
from lambstead.api.lambda_tags import refuse_too_many_tags
from lambstead.api.lambda_versions import publish_in, refuse_publish_to_standard
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.api.qualifiers import functions_only
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.code_signing import CodeSigningConfig, config_not_found, refuse_unsigned
from lambstead.core.configurations import CodePackage, Configuration
from lambstead.core.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from lambstead.core.functions import (
    CREATING,
    DeletionRequested,
    FunctionSettings,
    FunctionVersion,
    State,
    Updated,
    apply,
    ordinal_of,
    refuse_stale_revision,
    refuse_while_settling,
)
from lambstead.core.images import refuse_feature_for_image, refuse_for_image
from lambstead.core.invocations import FunctionSnapshot
from lambstead.core.runtime_management import refuse_other_runtime
from lambstead.store.port import Reader, Transaction

MAX_FUNCTION_NAME = 64


async def create_function(context: Context, request: Request, call: Call) -> Response:
    name = FunctionRef.parse(request["FunctionName"], context.realm).name
    if len(name) > MAX_FUNCTION_NAME:
        raise InvalidParameterValue(
            f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: "
            f"Member must have length less than or equal to {MAX_FUNCTION_NAME}"
        )
    configurations.refuse_what_cannot_be_honoured(request)
    _refuse_publish_to_alone(request)
    refuse_publish_to_standard(request, managed="CapacityProviderConfig" in request)
    refuse_too_many_tags(request.get("Tags") or {})
    placeholder = configurations.image_from(request["Code"]) if configurations.is_image(request) else CodePackage("", 0)
    sketch = configurations.created(context, name, request, placeholder)
    await configurations.refuse_unavailable_runtime(context, request)
    signing = request.get("CodeSigningConfigArn")
    if signing:
        refuse_feature_for_image(sketch.code, "Code signing")

    def check(reader: Reader) -> None:
        _refuse_existing(context, reader, name, sketch)
        refuse_unsigned(_code_signing(context, reader, signing) if signing else None)

    await context.store.read(check)
    layers = await configurations.layers_from(context, request.get("Layers") or ())
    code = sketch.code if sketch.code.is_image else await configurations.package_from(context, request["Code"])
    configuration = replace(sketch, code=code, layers=layers)
    await configurations.check_size(context, configuration)

    def work(tx: Transaction) -> FunctionVersion:
        _refuse_existing(context, tx, name, configuration)
        latest = FunctionVersion(
            function=name,
            version=LATEST,
            configuration=configuration,
            state=State.PENDING,
            state_reason=CREATING,
            revision_id=context.new_revision(),
            last_modified=context.timestamp(),
            target=context.first_publication(),
        )
        tx.save_version(latest)
        tx.add_tags(context.realm.function_arn(name), request.get("Tags") or {})
        if signing:
            config = _code_signing(context, tx, signing)
            refuse_unsigned(config)
            tx.save_settings(name, FunctionSettings(code_signing_config=config.id))
        return publish_in(context, tx, latest, request) if request.get("Publish") else latest

    version = await context.store.write(work)
    context.poke()
    # AWS answers with the unqualified ARN even for the version it published; only managed versions carry theirs.
    return function_configuration(version, context.realm, qualified(version) if version.is_managed else None)


def _code_signing(context: Context, reader: Reader, arn: str) -> CodeSigningConfig:
    config = find_code_signing_config(context, reader, arn)
    if config is None:
        raise config_not_found(arn)
    return config


def _refuse_existing(context: Context, reader: Reader, name: str, configuration: Configuration) -> None:
    if reader.version(name, LATEST) is not None:
        raise ResourceConflict(f"Function already exist: {name}")
    configurations.check_provider(context, reader, configuration)


def _refuse_publish_to_alone(request: Request) -> None:
    if request.get("PublishTo") and not request.get("Publish"):
        raise InvalidParameterValue("PublishTo needs Publish: set Publish to true, or leave PublishTo out.")


async def get_function(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))

    def work(reader: Reader) -> tuple[FunctionVersion, Mapping[str, str], int | None]:
        version = find(context, reader, ref)
        reserved = reader.settings(ref.name).reserved_concurrency
        return version, reader.tags(context.realm.function_arn(ref.name)), reserved

    version, tags, reserved = await context.store.read(work)
    return {
        "Configuration": function_configuration(version, context.realm, ref.qualifier),
        "Code": code_location(version.configuration.code, context.base_url),
        "Tags": dict(tags) or None,
        "Concurrency": None if reserved is None else {"ReservedConcurrentExecutions": reserved},
    }


async def get_function_configuration(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    version = await context.store.read(lambda reader: find(context, reader, ref))
    return function_configuration(version, context.realm, ref.qualifier)


def find(context: Context, reader: Reader, ref: FunctionRef) -> FunctionVersion:
    """The version a reference names, through an alias if it names one. Raises ResourceNotFound."""
    snapshot = reader.function(ref.name)
    version = _named(snapshot, ref.qualifier) if snapshot else None
    if version is None:
        raise ResourceNotFound(f"Function not found: {ref.arn(context.realm)}")
    return version


def _named(snapshot: FunctionSnapshot, qualifier: str | None) -> FunctionVersion | None:
    alias = snapshot.aliases.get(qualifier or "")
    return snapshot.versions.get(alias.version if alias else qualifier or LATEST)


async def update_function_code(context: Context, request: Request, call: Call) -> Response:
    ref = _unpublished(context, request)
    _refuse_publish_to_alone(request)

    def check(reader: Reader) -> tuple[FunctionVersion, CodeSigningConfig | None]:
        signing = reader.settings(ref.name).code_signing_config
        return find(context, reader, ref), reader.code_signing_config(signing) if signing else None

    before, signing_config = await context.store.read(check)
    refuse_publish_to_standard(request, managed=before.is_managed)
    _refuse_update(context, before, request)
    refuse_unsigned(signing_config)
    code = await configurations.package_for(context, before.configuration, request)
    architecture = (request.get("Architectures") or [before.configuration.architecture])[0]

    def changed(latest: FunctionVersion) -> Configuration:
        return replace(latest.configuration, code=code, architecture=architecture)

    await configurations.check_size(context, changed(before))
    if request.get("DryRun"):
        return function_configuration(replace(before, configuration=changed(before)), context.realm, None)

    def work(tx: Transaction) -> FunctionVersion:
        latest = _save_update(context, tx, ref, request, changed)
        return publish_in(context, tx, latest, request) if request.get("Publish") else latest

    version = await context.store.write(work)
    context.poke()
    return function_configuration(version, context.realm, qualified(version))


async def update_function_configuration(context: Context, request: Request, call: Call) -> Response:
    ref = _unpublished(context, request)
    configurations.refuse_what_cannot_be_honoured(request)
    before = await context.store.read(lambda reader: find(context, reader, ref))
    if before.configuration.code.is_image:
        refuse_for_image(request)
    await configurations.refuse_unavailable_runtime(context, request)
    layers = before.configuration.layers
    if "Layers" in request:
        layers = await configurations.layers_from(context, request["Layers"])
        await configurations.check_size(context, replace(before.configuration, layers=layers))

    def work(tx: Transaction) -> FunctionVersion:
        def changed(latest: FunctionVersion) -> Configuration:
            after = _reconfigured(context, tx, latest, request)
            return replace(after, layers=layers) if "Layers" in request else after

        return _save_update(context, tx, ref, request, changed)

    latest = await context.store.write(work)
    context.poke()
    return function_configuration(latest, context.realm, None)


def _reconfigured(context: Context, reader: Reader, latest: FunctionVersion, request: Request) -> Configuration:
    before = latest.configuration
    pinned = reader.runtime_management(latest.function, LATEST)
    refuse_other_runtime(pinned, before.runtime, request.get("Runtime", before.runtime))
    return configurations.updated(context, latest.function, request, before)


def _unpublished(context: Context, request: Request) -> FunctionRef:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    if ref.qualifier not in (None, LATEST):
        raise functions_only()
    return FunctionRef(ref.name)


def _refuse_update(context: Context, latest: FunctionVersion, request: Request) -> None:
    refuse_while_settling(latest, context.realm.function_arn(latest.function))
    refuse_stale_revision(latest.revision_id, request.get("RevisionId"))


def _save_update(
    context: Context,
    tx: Transaction,
    ref: FunctionRef,
    request: Request,
    changed: Callable[[FunctionVersion], Configuration],
) -> FunctionVersion:
    latest = find(context, tx, ref)
    _refuse_update(context, latest, request)
    configuration = changed(latest)
    configurations.check_provider(context, tx, configuration)
    updated = apply(latest, Updated(configuration, context.timestamp(), context.new_revision()))
    tx.save_version(updated)
    return updated


async def delete_function(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    if ref.qualifier == LATEST:
        raise InvalidParameterValue("$LATEST version cannot be deleted without deleting the function.")
    managed = await context.store.write(lambda tx: _delete(context, tx, ref))
    context.poke()
    return {"StatusCode": 202 if managed else 204}


def _delete(context: Context, tx: Transaction, ref: FunctionRef) -> bool:
    """Delete at once, or start deleting what has capacity; whether it was the latter."""
    snapshot = tx.function(ref.name)
    if snapshot is None:
        raise ResourceNotFound(f"Function not found: {context.realm.function_arn(ref.name)}")
    doomed = _doomed(context, snapshot, ref)
    for version in doomed:
        if version.is_managed:
            tx.save_version(apply(version, DeletionRequested()))
        else:
            tx.delete_version(version.function, version.version)
    if ref.qualifier is None and not snapshot.versions[LATEST].is_managed:
        tx.remove_tags(context.realm.function_arn(ref.name))
    return any(version.is_managed for version in doomed)


def _doomed(context: Context, snapshot: FunctionSnapshot, ref: FunctionRef) -> list[FunctionVersion]:
    if ref.qualifier is None:
        return list(snapshot.versions.values())
    if ref.qualifier in snapshot.aliases:
        raise InvalidParameterValue("Deletion of aliases is not currently supported.")
    version = snapshot.versions.get(ref.qualifier)
    if version is None:
        if ref.qualifier.isdecimal():
            return []  # AWS answers 204 for a number that is gone already
        raise ResourceNotFound(f"Function not found: {ref.arn(context.realm)}")
    users = sorted(alias.name for alias in snapshot.aliases.values() if ref.qualifier in alias.versions)
    if users:
        raise ResourceConflict(
            f"Unable to delete version because the following aliases reference it: [{', '.join(users)}]"
        )
    return [version]


async def list_functions(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxItems", DEFAULT_PAGE)
    every = request.get("FunctionVersion") == "ALL"
    name, ordinal = decode_marker(request.get("Marker"), ("", -2))
    if "MasterRegion" in request and not every:
        raise InvalidParameterValue("FunctionVersion must be ALL when MasterRegion is given.")
    if request.get("MasterRegion", "ALL") != "ALL":
        return {"Functions": []}  # only what Lambda@Edge replicated from there, and nothing is replicated here

    def work(reader: Reader) -> list[FunctionVersion]:
        if every:
            return list(reader.versions((str(name), int(ordinal)), size + 1))
        return list(reader.functions(str(name), size + 1))

    versions, marker = page(await context.store.read(work), size, lambda v: (v.function, ordinal_of(v.version)))
    return {
        "Functions": [
            function_configuration(v, context.realm, v.version if every else None, listing=True) for v in versions
        ],
        "NextMarker": marker,
    }
