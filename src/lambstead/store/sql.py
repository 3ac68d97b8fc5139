"""Named SQL: statements live in `.sql` files beside their explanation, code refers to them by name."""

import re
from collections.abc import Iterator, Mapping
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load_queries(package: str, folder: str) -> Mapping[str, str]:
    """Every `-- name: x` statement of the package's `.sql` files in `folder`. Two statements of one name are an error."""
    statements: dict[str, str] = {}
    for file in sorted(resources.files(package).joinpath(folder).iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        for name, statement in _cut(file.read_text(encoding="utf-8")):
            if name in statements:
                raise ValueError(f"two statements are named {name}; the second is in {file.name}")
            statements[name] = statement
    return statements


def _cut(text: str) -> Iterator[tuple[str, str]]:
    parts = _NAME.split(text)
    for name, statement in zip(parts[1::2], parts[2::2], strict=True):
        yield name, statement.strip()


def load_migrations(package: str, folder: str) -> list[tuple[str, str]]:
    """Migration name and script, in order of the names."""
    files = (file for file in resources.files(package).joinpath(folder).iterdir() if file.name.endswith(".sql"))
    return [
        (file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in sorted(files, key=lambda f: f.name)
    ]
