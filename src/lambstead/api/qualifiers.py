"""What a qualifier names, and AWS's words when it names nothing, which differ by operation."""

from lambstead.api.context import Context
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.errors import InvalidParameterValue, ResourceNotFound
from lambstead.store.port import Reader


def exists(reader: Reader, ref: FunctionRef) -> bool:
    """True if the function, and the version or alias that the reference names, are there."""
    if reader.version(ref.name, LATEST) is None:
        return False
    if ref.qualifier is None:
        return True
    return reader.alias(ref.name, ref.qualifier) is not None or reader.version(ref.name, ref.qualifier) is not None


def refuse_missing(context: Context, reader: Reader, ref: FunctionRef) -> None:
    """Raise ResourceNotFound in the words of the operations that tell aliases from versions."""
    if exists(reader, ref):
        return
    if ref.names_alias:
        raise ResourceNotFound(f"Cannot find alias arn: {ref.arn(context.realm)}")
    raise ResourceNotFound(f"Function not found: {ref.arn(context.realm)}")


def function_only(context: Context, function_name: str) -> FunctionRef:
    """The function of an operation that has no qualifier. Raises InvalidParameterValue if the name carries one."""
    ref = FunctionRef.parse(function_name, context.realm)
    if ref.qualifier is not None:
        raise functions_only()
    return ref


def functions_only() -> InvalidParameterValue:
    """The refusal of a version or alias where only a function will do."""
    return InvalidParameterValue(
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
        "Please specify either a function name or an unqualified function ARN."
    )


def refuse_missing_function(context: Context, reader: Reader, ref: FunctionRef, qualifier: str | None = None) -> None:
    """Raise ResourceNotFound if the function is not there; `qualifier` is how the operation's message spells its ARN."""
    if reader.version(ref.name, LATEST) is None:
        raise ResourceNotFound(f"Function not found: {context.realm.function_arn(ref.name, qualifier)}")
