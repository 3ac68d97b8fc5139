"""A data directory of any earlier release opens, and what it holds is still there."""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest
from tests.samples import latest, standard

from lambstead.core.functions import FunctionSettings
from lambstead.store.sql import load_migrations
from lambstead.store.sqlite import SqliteStore, connect

MIGRATIONS = load_migrations("lambstead.store", "migrations")


def database_as_of(path: Path, count: int) -> None:
    """A database that has seen the first `count` migrations, with one function in it."""
    with contextlib.closing(connect(path)) as connection:
        connection.execute("CREATE TABLE migrations (name TEXT PRIMARY KEY) WITHOUT ROWID")
        for name, script in MIGRATIONS[:count]:
            connection.executescript(script)
            connection.execute("INSERT INTO migrations VALUES (?)", (name,))
        connection.execute("INSERT INTO functions (name) VALUES ('f')")
        document = msgspec.json.encode(latest(standard())).decode()
        connection.execute("INSERT INTO versions VALUES ('f', -1, '$LATEST', 0, NULL, 'sha', ?)", (document,))


@pytest.mark.parametrize("count", range(1, len(MIGRATIONS) + 1))
def test_a_database_of_every_earlier_schema_opens_with_its_functions(tmp_path: Path, count: int) -> None:
    path = tmp_path / "store.db"
    database_as_of(path, count)

    async def read() -> tuple[object, object]:
        store = await SqliteStore.open(path)
        try:
            return await store.read(lambda r: r.version("f", "$LATEST")), await store.read(lambda r: r.settings("f"))
        finally:
            await store.close()

    assert asyncio.run(read()) == (latest(standard()), FunctionSettings())
