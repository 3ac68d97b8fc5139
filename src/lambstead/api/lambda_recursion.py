"""Recursion configs: whether a function may be invoked as part of a loop. Loops are not detected yet."""

from dataclasses import replace

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.qualifiers import refuse_missing_function
from lambstead.core.arn import FunctionRef
from lambstead.store.port import Reader, Transaction


async def put_function_recursion_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)

    def work(tx: Transaction) -> None:
        refuse_missing_function(context, tx, ref)
        tx.save_settings(ref.name, replace(tx.settings(ref.name), recursive_loop=request["RecursiveLoop"]))

    await context.store.write(work)
    return {"RecursiveLoop": request["RecursiveLoop"]}


async def get_function_recursion_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)

    def work(reader: Reader) -> str:
        refuse_missing_function(context, reader, ref)
        return reader.settings(ref.name).recursive_loop

    return {"RecursiveLoop": await context.store.read(work)}
