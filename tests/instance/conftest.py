from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lambstead.instance.runtimes import catalogue
from tests.instance.harness import Gateway, running_agent, runtimes_dir_of_tests


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def runtimes_dir() -> Path:
    """The real interface client, installed once and kept between runs."""
    folder = runtimes_dir_of_tests()
    catalogue.install(folder, "python3.13", print)
    return folder


@pytest.fixture
async def gateway(tmp_path: Path, runtimes_dir: Path) -> AsyncIterator[Gateway]:
    async with running_agent(tmp_path, runtimes_dir) as gateway:
        yield gateway
