"""Function scaling config: how many environments a published version has."""

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.documents import scaling_config
from lambstead.core.arn import FunctionRef
from lambstead.core.errors import AccessDenied, InvalidParameterValue, ResourceNotFound
from lambstead.core.functions import BoundsRequested, FunctionVersion, apply, refuse_while_settling
from lambstead.core.scaling import ScalingBounds
from lambstead.store.port import Reader, Transaction


async def put_function_scaling_config(context: Context, request: Request, call: Call) -> Response:
    ref = _unqualified(context, request)
    bounds = _bounds(request, context.default_minimum)

    def work(tx: Transaction) -> FunctionVersion:
        version = _find(context, tx, ref, request["Qualifier"])
        if not version.is_managed:
            raise AccessDenied("The function provided by the arn does not contain a capacity provider configuration")
        refuse_while_settling(version, context.realm.function_arn(version.function, version.version))
        asked = apply(version, BoundsRequested(bounds))
        tx.save_version(asked)
        return asked

    version = await context.store.write(work)
    context.poke()
    return {"FunctionState": version.state}


def _unqualified(context: Context, request: Request) -> FunctionRef:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    if ref.qualifier is not None:
        raise InvalidParameterValue("Name the function without a qualifier; the version goes into Qualifier.")
    return ref


def _bounds(request: Request, default_minimum: int) -> ScalingBounds | None:
    """The bounds asked for; None, the defaults, when the request carries no FunctionScalingConfig or an empty one."""
    asked = request.get("FunctionScalingConfig")
    if not asked:
        return None
    return ScalingBounds.from_request(
        asked.get("MinExecutionEnvironments"), asked.get("MaxExecutionEnvironments"), default_minimum
    )


def _find(context: Context, reader: Reader, ref: FunctionRef, qualifier: str) -> FunctionVersion:
    version = reader.version(ref.name, qualifier)
    if version is None:
        raise ResourceNotFound(f"Function not found: {context.realm.function_arn(ref.name, qualifier)}")
    return version


async def get_function_scaling_config(context: Context, request: Request, call: Call) -> Response:
    ref = _unqualified(context, request)
    version = await context.store.read(lambda reader: _find(context, reader, ref, request["Qualifier"]))
    if not version.is_managed:
        raise AccessDenied("The function provided by the arn does not contain a capacity provider configuration")
    default = ScalingBounds(context.default_minimum)
    requested = scaling_config(version.bounds or default) if version.bounds_requested else None
    return {
        "FunctionArn": context.realm.function_arn(version.function, version.version),
        "AppliedFunctionScalingConfig": scaling_config(version.applied_bounds or default),
        "RequestedFunctionScalingConfig": requested,
    }
