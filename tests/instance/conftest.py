from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.instance.harness import Gateway, running_agent


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def gateway(tmp_path: Path, runtimes: Path) -> AsyncIterator[Gateway]:
    """A gateway made for tests with a real agent connected to it."""
    async with running_agent(tmp_path, runtimes) as gateway:
        yield gateway
