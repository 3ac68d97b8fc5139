"""Code signing configs, and which function has which."""

from dataclasses import replace

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.api.qualifiers import refuse_missing_function
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.code_signing import WARN, CodeSigningConfig, config_not_found
from lambstead.core.errors import ResourceConflict, ResourceNotFound
from lambstead.core.images import refuse_feature_for_image
from lambstead.store.port import Reader, Transaction

MAX_CONFIGS_PER_PAGE = 10_000
"""Documentation of ListCodeSigningConfigs: up to 10,000 configurations per call, unless MaxItems asks for fewer."""


async def create_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    config = CodeSigningConfig(
        id=f"csc-{context.new_id()[:17]}",
        publishers=request["AllowedPublishers"],
        untrusted=(request.get("CodeSigningPolicies") or {}).get("UntrustedArtifactOnDeployment", WARN),
        last_modified=context.timestamp(),
        description=request.get("Description", ""),
    )

    def work(tx: Transaction) -> None:
        tx.save_code_signing_config(config)
        tx.add_tags(context.realm.code_signing_config_arn(config.id), request.get("Tags") or {})

    await context.store.write(work)
    return {"CodeSigningConfig": _document(context, config)}


def _document(context: Context, config: CodeSigningConfig) -> Response:
    return {
        "CodeSigningConfigId": config.id,
        "CodeSigningConfigArn": context.realm.code_signing_config_arn(config.id),
        "Description": config.description,
        "AllowedPublishers": dict(config.publishers),
        "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": config.untrusted},
        "LastModified": config.last_modified,
    }


def find_code_signing_config(context: Context, reader: Reader, arn: str) -> CodeSigningConfig | None:
    """The config with this ARN; None if there is none of this account and region."""
    config_id = arn.rpartition(":")[2]
    return reader.code_signing_config(config_id) if arn == context.realm.code_signing_config_arn(config_id) else None


def _find(context: Context, reader: Reader, arn: str) -> CodeSigningConfig:
    config = find_code_signing_config(context, reader, arn)
    if config is None:
        raise ResourceNotFound(f"The Lambda code signing configuration {arn} can not be found.", Type=None)
    return config


async def get_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    arn = request["CodeSigningConfigArn"]
    return {"CodeSigningConfig": _document(context, await context.store.read(lambda r: _find(context, r, arn)))}


async def update_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    def work(tx: Transaction) -> CodeSigningConfig:
        before = _find(context, tx, request["CodeSigningConfigArn"])
        config = replace(
            before,
            publishers=request.get("AllowedPublishers", before.publishers),
            untrusted=request.get("CodeSigningPolicies", {}).get("UntrustedArtifactOnDeployment", before.untrusted),
            description=request.get("Description", before.description),
            last_modified=context.timestamp(),
        )
        tx.save_code_signing_config(config)
        return config

    return {"CodeSigningConfig": _document(context, await context.store.write(work))}


async def delete_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    arn = request["CodeSigningConfigArn"]

    def work(tx: Transaction) -> None:
        config = _find(context, tx, arn)
        users = tx.functions_with_code_signing(config.id, "", 1)
        if users:
            raise ResourceConflict(
                f"The code signing configuration {arn} is in use, for example by function {users[0]}. "
                "Remove it from every function first; ListFunctionsByCodeSigningConfig names them."
            )
        tx.delete_code_signing_config(config.id)
        tx.remove_tags(arn)

    await context.store.write(work)
    return {}


async def list_code_signing_configs(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxItems", MAX_CONFIGS_PER_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))
    found = await context.store.read(lambda reader: reader.code_signing_configs(str(after), size + 1))
    configs, marker = page(found, size, lambda config: (config.id,))
    return {"CodeSigningConfigs": [_document(context, config) for config in configs], "NextMarker": marker}


async def list_functions_by_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxItems", DEFAULT_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))

    def work(reader: Reader) -> list[str]:
        config = _find(context, reader, request["CodeSigningConfigArn"])
        return list(reader.functions_with_code_signing(config.id, str(after), size + 1))

    names, marker = page(await context.store.read(work), size, lambda name: (name,))
    return {"FunctionArns": [context.realm.function_arn(name) for name in names], "NextMarker": marker}


# --- functions ------------------------------------------------------------------------------------------------------------


def _refuse_without_signing(context: Context, reader: Reader, ref: FunctionRef) -> None:
    """Raise ResourceNotFound for a function that is not there, InvalidParameterValue for one that cannot be signed."""
    refuse_missing_function(context, reader, ref)
    latest = reader.version(ref.name, LATEST)
    if latest is not None:
        refuse_feature_for_image(latest.configuration.code, "Code signing")


async def put_function_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    arn = request["CodeSigningConfigArn"]

    def work(tx: Transaction) -> None:
        config = find_code_signing_config(context, tx, arn)
        if config is None:
            raise config_not_found(arn)
        _refuse_without_signing(context, tx, ref)
        tx.save_settings(ref.name, replace(tx.settings(ref.name), code_signing_config=config.id))

    await context.store.write(work)
    return {"CodeSigningConfigArn": arn, "FunctionName": ref.name}


async def get_function_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)

    def work(reader: Reader) -> str | None:
        _refuse_without_signing(context, reader, ref)
        return reader.settings(ref.name).code_signing_config

    config_id = await context.store.read(work)
    if config_id is None:
        return {}
    return {"CodeSigningConfigArn": context.realm.code_signing_config_arn(config_id), "FunctionName": ref.name}


async def delete_function_code_signing_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)

    def work(tx: Transaction) -> None:
        refuse_missing_function(context, tx, ref)
        tx.save_settings(ref.name, replace(tx.settings(ref.name), code_signing_config=None))

    await context.store.write(work)
    return {}
