"""Fixtures that several kinds of tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from tests.harness import RUNTIMES, Server, running

from lambstead.instance.runtimes import catalogue

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

settings.register_profile("commit", deadline=None)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile("commit")


@pytest.fixture(scope="session")
def runtimes() -> Path:
    """The Python interface client, installed once for all tests and kept between runs."""
    catalogue.install(RUNTIMES, "python3.13", print)
    return RUNTIMES


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module, which keep out of each other's way by the names they use."""
    with running(tmp_path_factory.mktemp("lambstead") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> "LambdaClient":
    """AWS's client of the module's server, be it this one or the module's own."""
    return server.aws
