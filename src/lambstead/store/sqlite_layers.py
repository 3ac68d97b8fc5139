"""Layers on SQLite; see `store.port.LayerTransaction`."""

from collections.abc import Iterable, Sequence

import msgspec

from lambstead.core.configurations import CodePackage, Layer
from lambstead.core.layers import LayerVersion
from lambstead.store.sqlite_rows import SqliteRows, document_of

_versions = msgspec.json.Decoder(LayerVersion)
_stacks = msgspec.json.Decoder(tuple[Layer, ...])


class LayerReads(SqliteRows):
    """Reads."""

    def layer_version(self, layer: str, number: int) -> LayerVersion | None:
        return self._one("layer_version", _versions, name=layer, number=number)

    def layer_versions(self, layer: str, below: int, limit: int) -> Sequence[LayerVersion]:
        return self._documents("layer_versions", _versions, name=layer, below=below, limit=limit)

    def layer_names(self, after: str, limit: int) -> Sequence[str]:
        return [name for (name,) in self._rows("layer_names", after=after, limit=limit)]

    def layer_packages(self) -> Iterable[str]:
        return [package for (package,) in self._rows("layer_packages")]

    def layer_stacks(self) -> Iterable[Sequence[CodePackage]]:
        return [[layer.code for layer in _stacks.decode(document)] for (document,) in self._rows("layer_stacks")]


class LayerWrites(LayerReads):
    """Writes."""

    def next_layer_number(self, layer: str) -> int:
        ((number,),) = self._rows("next_layer_number", name=layer)
        return int(number)

    def save_layer_version(self, version: LayerVersion) -> None:
        self._rows(
            "save_layer_version",
            name=version.layer,
            number=version.number,
            package=version.code.sha256,
            document=document_of(version),
        )

    def delete_layer_version(self, layer: str, number: int) -> None:
        self._rows("delete_layer_version", name=layer, number=number)

    def _forget_layers(self) -> None:
        self._rows("delete_all_layers")
