"""The loop under every control task."""

import asyncio
from datetime import timedelta

from lambstead.control.loop import Loop


def test_a_loop_that_is_poked_and_cancelled_in_one_moment_ends() -> None:
    async def story() -> None:
        rounds = 0

        async def reconcile() -> timedelta | None:
            nonlocal rounds
            rounds += 1
            return None

        loop = Loop("test", reconcile, timedelta(hours=1))
        running = asyncio.create_task(loop.run())
        async with asyncio.timeout(10):
            while rounds == 0:  # noqa: ASYNC110 - until it has run once and waits
                await asyncio.sleep(0)
            for _ in range(3):
                await asyncio.sleep(0)
            loop.poke()
            await asyncio.sleep(0)  # the poke has woken the waiter, the loop has not run yet
            running.cancel()
            ended, _ = await asyncio.wait([running], timeout=5)
        running.cancel()
        assert ended == {running}

    asyncio.run(story())


def test_a_reconcile_that_raises_is_tried_again_at_the_next_poke() -> None:
    async def story() -> None:
        rounds: list[int] = []

        async def reconcile() -> timedelta | None:
            rounds.append(len(rounds))
            if len(rounds) == 1:
                raise RuntimeError("the first round fails")
            return None

        loop = Loop("test", reconcile, timedelta(hours=1))
        running = asyncio.create_task(loop.run())
        async with asyncio.timeout(10):
            while not rounds:  # noqa: ASYNC110 - until it has run once
                await asyncio.sleep(0)
            loop.poke()
            while len(rounds) < 2:  # noqa: ASYNC110 - until it has run again
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(story())


def test_a_loop_that_is_to_look_again_at_once_does_not_wait_for_its_tick() -> None:
    async def story() -> None:
        rounds: list[int] = []

        async def reconcile() -> timedelta | None:
            rounds.append(len(rounds))
            return timedelta(0)

        running = asyncio.create_task(Loop("test", reconcile, timedelta(hours=1)).run())
        async with asyncio.timeout(10):
            while len(rounds) < 3:  # noqa: ASYNC110 - until it has looked again
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(story())
