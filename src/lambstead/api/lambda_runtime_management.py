"""Runtime management configs of versions."""

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.qualifiers import exists
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.errors import ResourceNotFound
from lambstead.core.images import refuse_feature_for_image
from lambstead.core.runtime_management import RuntimeManagement
from lambstead.store.port import Reader, Transaction


async def put_runtime_management_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    management = RuntimeManagement.from_request(request["UpdateRuntimeOn"], request.get("RuntimeVersionArn"))

    def work(tx: Transaction) -> None:
        _refuse_missing(context, tx, ref)
        tx.save_runtime_management(ref.name, ref.qualifier or LATEST, management)

    await context.store.write(work)
    return _document(context, ref, management)


def _refuse_missing(context: Context, reader: Reader, ref: FunctionRef) -> None:
    """Raise ResourceNotFound unless the reference names a version: aliases have no runtime of their own. Nor have images."""
    version = reader.version(ref.name, ref.qualifier or LATEST) if exists(reader, ref) else None
    if version is None:
        raise ResourceNotFound(f"Function not found: {ref.arn(context.realm)}")
    refuse_feature_for_image(version.configuration.code, "Runtime management")


def _document(context: Context, ref: FunctionRef, management: RuntimeManagement) -> Response:
    return {
        "UpdateRuntimeOn": management.mode,
        "FunctionArn": ref.arn(context.realm),
        "RuntimeVersionArn": management.runtime_version_arn,
    }


async def get_runtime_management_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))

    def work(reader: Reader) -> RuntimeManagement:
        _refuse_missing(context, reader, ref)
        return reader.runtime_management(ref.name, ref.qualifier or LATEST) or RuntimeManagement()

    return _document(context, ref, await context.store.read(work))
