"""The workflows as a Restate service. Runs under hypercorn with the peers' interpreter, not with ours."""

from datetime import timedelta

import restate

bench = restate.Service("Bench")


@bench.handler()
async def ten(context: restate.Context, _: int) -> int:
    """Ten steps."""
    return sum([await context.run_typed(f"step {number}", lambda number=number: number) for number in range(10)])


@bench.handler()
async def wait(context: restate.Context, _: int) -> int:
    """Step, wait 1 s, step."""
    first = await context.run_typed("first", lambda: 1)
    await context.sleep(timedelta(seconds=1))
    return first + await context.run_typed("second", lambda: 1)


app = restate.app([bench])
