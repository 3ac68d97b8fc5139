"""Provisioned concurrency of standard functions: environments that are kept initialised for a version or an alias.

These operations write down what is wanted; the reconcile loop starts the environments and writes down how far it has come.
"""

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lambda_concurrency import ALL, total_provisioned
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.api.qualifiers import refuse_missing, refuse_missing_function
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.concurrency import (
    ProvisionedConcurrency,
    ProvisionedConcurrencyConfigNotFound,
    check_provisioned,
    refuse_provisioned_twice,
)
from lambstead.core.errors import InvalidParameterValue
from lambstead.core.invocations import FunctionSnapshot
from lambstead.core.tenancy import refuse_with_tenancy
from lambstead.store.port import Reader, Transaction


async def put_provisioned_concurrency_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request["Qualifier"])
    if ref.qualifier == LATEST:
        raise InvalidParameterValue(
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        )
    asked = request["ProvisionedConcurrentExecutions"]
    config = ProvisionedConcurrency(ref.name, request["Qualifier"], asked, f"{context.now():%Y-%m-%dT%H:%M:%S}+0000")

    def work(tx: Transaction) -> None:
        refuse_missing(context, tx, ref)
        _refuse_unfit(tx, ref.name)
        _check(context, tx, config)
        tx.save_provisioned(config)

    await context.store.write(work)
    context.poke()
    return _document(config)


def _refuse_unfit(reader: Reader, function: str) -> None:
    """Raise InvalidParameterValue for a function that cannot have provisioned concurrency."""
    latest = reader.version(function, LATEST)
    if latest is None:
        return
    refuse_with_tenancy(latest.configuration.tenant_isolation_mode, "Provisioned concurrency")
    if latest.is_managed:
        raise InvalidParameterValue(
            "Provisioned concurrency is not supported for functions with a capacity provider configuration. "
            "Use PutFunctionScalingConfig to keep execution environments."
        )


def _check(context: Context, reader: Reader, config: ProvisionedConcurrency) -> None:
    """Raise if the qualifier, the function's reservation or the account does not allow it."""
    snapshot = reader.function(config.function)
    existing = reader.provisioned(config.function, "", ALL)
    before = next((c.requested for c in existing if c.qualifier == config.qualifier), 0)
    if snapshot is not None:
        refuse_provisioned_twice(config.qualifier, snapshot.aliases, [c.qualifier for c in existing])
        _refuse_snap_start(snapshot, config.qualifier)
    unreserved = context.concurrent_executions - reader.concurrency_taken()
    check_provisioned(
        config.requested,
        total_provisioned(reader, config.function, without=config.qualifier),
        reader.settings(config.function).reserved_concurrency,
        unreserved + before,
    )


def _refuse_snap_start(snapshot: FunctionSnapshot, qualifier: str) -> None:
    """Developer Guide, SnapStart, limitations: no provisioned concurrency. The form of the sentence is that of AWS's other refusals."""
    alias = snapshot.aliases.get(qualifier)
    version = snapshot.versions.get(alias.version if alias else qualifier)
    if version is not None and "SnapStart" in version.configuration.recorded:
        raise InvalidParameterValue("Provisioned Concurrency is not supported for SnapStart enabled functions.")


def _document(config: ProvisionedConcurrency) -> Response:
    allocation = config.allocation
    return {
        "RequestedProvisionedConcurrentExecutions": config.requested,
        "AvailableProvisionedConcurrentExecutions": allocation.available,
        "AllocatedProvisionedConcurrentExecutions": allocation.available,
        "Status": allocation.status,
        "StatusReason": allocation.reason or None,
        "LastModified": config.last_modified,
    }


async def get_provisioned_concurrency_config(context: Context, request: Request, call: Call) -> Response:
    ref = _alias_or_version(context, request)

    def work(reader: Reader) -> ProvisionedConcurrency | None:
        refuse_missing(context, reader, ref)
        configs = reader.provisioned(ref.name, "", ALL)
        return next((config for config in configs if config.qualifier == ref.qualifier), None)

    config = await context.store.read(work)
    if config is None:
        raise ProvisionedConcurrencyConfigNotFound("No Provisioned Concurrency Config found for this function")
    return _document(config)


def _alias_or_version(context: Context, request: Request) -> FunctionRef:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request["Qualifier"])
    if ref.qualifier == LATEST:
        raise InvalidParameterValue("The function resource provided must be an alias or a published version.")
    return ref


async def delete_provisioned_concurrency_config(context: Context, request: Request, call: Call) -> Response:
    ref = _alias_or_version(context, request)

    def work(tx: Transaction) -> None:
        refuse_missing(context, tx, ref)
        tx.delete_provisioned(ref.name, request["Qualifier"])

    await context.store.write(work)
    context.poke()
    return {}


async def list_provisioned_concurrency_configs(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    size = request.get("MaxItems", DEFAULT_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))

    def work(reader: Reader) -> list[ProvisionedConcurrency]:
        refuse_missing_function(context, reader, ref)
        return list(reader.provisioned(ref.name, str(after), size + 1))

    configs, marker = page(await context.store.read(work), size, lambda config: (config.qualifier,))
    return {
        "ProvisionedConcurrencyConfigs": [
            {"FunctionArn": context.realm.function_arn(c.function, c.qualifier), **_document(c)} for c in configs
        ],
        "NextMarker": marker,
    }
