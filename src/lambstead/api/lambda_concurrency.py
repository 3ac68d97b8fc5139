"""Reserved concurrency of functions, and the account that it is taken from."""

from dataclasses import replace

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.qualifiers import function_only, refuse_missing_function
from lambstead.core import account
from lambstead.core.arn import LATEST
from lambstead.core.concurrency import check_reserved
from lambstead.store.port import Reader, Transaction

ALL = 1_000_000
"""More qualifiers than a function can have."""


async def put_function_concurrency(context: Context, request: Request, call: Call) -> Response:
    ref = function_only(context, request["FunctionName"])
    asked = request["ReservedConcurrentExecutions"]

    def work(tx: Transaction) -> None:
        refuse_missing_function(context, tx, ref, LATEST)
        settings = tx.settings(ref.name)
        provisioned = total_provisioned(tx, ref.name)
        unreserved = context.concurrent_executions - tx.concurrency_taken()
        mine = provisioned if settings.reserved_concurrency is None else settings.reserved_concurrency
        check_reserved(asked, provisioned, unreserved, unreserved + mine)
        tx.save_settings(ref.name, replace(settings, reserved_concurrency=asked))

    await context.store.write(work)
    return {"ReservedConcurrentExecutions": asked}


def total_provisioned(reader: Reader, function: str, without: str | None = None) -> int:
    """Provisioned concurrency of all qualifiers of a function but `without`."""
    return sum(c.requested for c in reader.provisioned(function, "", ALL) if c.qualifier != without)


async def get_function_concurrency(context: Context, request: Request, call: Call) -> Response:
    ref = function_only(context, request["FunctionName"])

    def work(reader: Reader) -> int | None:
        refuse_missing_function(context, reader, ref)
        return reader.settings(ref.name).reserved_concurrency

    return {"ReservedConcurrentExecutions": await context.store.read(work)}


async def delete_function_concurrency(context: Context, request: Request, call: Call) -> Response:
    ref = function_only(context, request["FunctionName"])

    def work(tx: Transaction) -> None:
        refuse_missing_function(context, tx, ref)
        tx.save_settings(ref.name, replace(tx.settings(ref.name), reserved_concurrency=None))

    await context.store.write(work)
    return {}


async def get_account_settings(context: Context, request: Request, call: Call) -> Response:
    usage, taken = await context.store.read(lambda reader: (reader.usage(), reader.concurrency_taken()))
    return {
        "AccountLimit": {
            "TotalCodeSize": account.TOTAL_CODE_BYTES,
            "CodeSizeUnzipped": account.UNZIPPED_CODE_BYTES,
            "CodeSizeZipped": account.ZIPPED_CODE_BYTES,
            "ConcurrentExecutions": context.concurrent_executions,
            # Below zero only if the setting was lowered under what is reserved already.
            "UnreservedConcurrentExecutions": max(0, context.concurrent_executions - taken),
        },
        "AccountUsage": {"TotalCodeSize": usage.code_bytes, "FunctionCount": usage.functions},
    }
