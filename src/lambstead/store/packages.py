"""Code packages on disk, by content: the zip as uploaded, and its files unpacked beside it.

    packages/<sha256 hex>.zip     what GetFunction offers for download
    packages/<sha256 hex>/        what environments see as their task root
    packages/stack-<sha256 hex>/  several packages laid over one another: what environments see as their /opt

All appear by rename, so a reader sees a whole package or none. A zip is untrusted input: its size, its number of entries and every path are
checked before a byte is written, and links may not leave the folder.
"""

import asyncio
import base64
import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from lambstead.core.account import UNZIPPED_CODE_BYTES, ZIPPED_CODE_BYTES
from lambstead.core.errors import InvalidParameterValue, RequestEntityTooLarge
from lambstead.core.functions import CodePackage

MAX_ENTRIES = 100_000
"""AWS names no limit; this one keeps a small zip from making a million files."""

_NOT_A_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."


class DiskPackages:
    """See `store.port.Packages`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, archive: bytes) -> CodePackage:
        return await asyncio.to_thread(self._put, archive)

    async def unpacked(self, package: CodePackage) -> Path:
        folder = self._folder / _hex(package)
        if not folder.is_dir():
            await asyncio.to_thread(self._unpack, self.archive(package).read_bytes(), folder)
        return folder

    def archive(self, package: CodePackage) -> Path:
        return self._folder / f"{_hex(package)}.zip"

    async def unzipped_bytes(self, package: CodePackage) -> int:
        return await asyncio.to_thread(self._unzipped_bytes, package)

    async def stacked(self, packages: Sequence[CodePackage]) -> Path:
        folder = self._folder / _stack_name(packages)
        if not folder.is_dir():
            layers = [await self.unpacked(package) for package in packages]
            await asyncio.to_thread(self._stack, layers, folder)
        return folder

    async def sweep(self, used: Iterable[str], stacks: Iterable[Sequence[CodePackage]]) -> int:
        names = {_to_hex(sha) for sha in used} | {_stack_name(packages) for packages in stacks}
        return await asyncio.to_thread(self._sweep, names)

    def _put(self, archive: bytes) -> CodePackage:
        if len(archive) > ZIPPED_CODE_BYTES:
            raise RequestEntityTooLarge(f"Zipped size must be smaller than {ZIPPED_CODE_BYTES} bytes")
        digest = hashlib.sha256(archive)
        package = CodePackage(base64.b64encode(digest.digest()).decode(), len(archive))
        folder = self._folder / digest.hexdigest()
        if not folder.is_dir():
            self._unpack(archive, folder)
        if not self.archive(package).is_file():
            self._keep(archive, self.archive(package))
        return package

    def _keep(self, archive: bytes, path: Path) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".new-", delete=False) as file:
            file.write(archive)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unzipped_bytes(self, package: CodePackage) -> int:
        with zipfile.ZipFile(self.archive(package)) as opened:
            return sum(entry.file_size for entry in opened.infolist())

    def _unpack(self, archive: bytes, folder: Path) -> None:
        self._make(folder, lambda staging: extract(archive, staging))

    def _stack(self, layers: Sequence[Path], folder: Path) -> None:
        def fill(staging: Path) -> None:
            for layer in layers:
                overlay(layer, staging)

        self._make(folder, fill)

    def _make(self, folder: Path, fill: Callable[[Path], None]) -> None:
        """Have `fill` write a folder's content, then let it appear as `folder`."""
        staging = Path(tempfile.mkdtemp(dir=self._folder, prefix=".new-"))
        try:
            fill(staging)
            staging.chmod(0o755)
            os.rename(staging, folder)
        except OSError:
            if not folder.is_dir():  # otherwise somebody else was faster with the same content
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _sweep(self, used: set[str]) -> int:
        unused = [entry for entry in self._folder.iterdir() if entry.name.removesuffix(".zip") not in used]
        for entry in unused:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return len(unused)


def _hex(package: CodePackage) -> str:
    return _to_hex(package.sha256)


def _to_hex(sha256: str) -> str:
    return base64.b64decode(sha256).hex()


def _stack_name(packages: Sequence[CodePackage]) -> str:
    """A stack's name is made of its content: which packages, in which order."""
    return f"stack-{hashlib.sha256(' '.join(_hex(package) for package in packages).encode()).hexdigest()}"


def overlay(layer: Path, target: Path) -> None:
    """Lay the tree `layer` over the tree `target`, links as links. Where both have a name, the layer's wins, unless both are folders.

    Files are shared with the layer by hard links where the file system has them: content costs its space once.
    """
    for entry in os.scandir(layer):
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            if place.is_symlink() or not place.is_dir():
                place.unlink(missing_ok=True)
                place.mkdir()
            overlay(Path(entry.path), place)
            continue
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        if entry.is_symlink():
            place.symlink_to(os.readlink(entry.path))
        else:
            _link_or_copy(entry.path, place)


def _link_or_copy(source: str, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # no hard links here, or too many of this file
        shutil.copy2(source, place)


def extract(archive: bytes, folder: Path) -> None:
    """Write the zip's files below `folder`. Raises InvalidParameterValue for anything that is not a safe, whole zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = opened.infolist()
            _refuse_bombs(entries)
            for entry in entries:
                _refuse_escape(entry.filename)
            for entry in entries:
                _extract_entry(opened, entry, folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as exc:
        raise InvalidParameterValue(_NOT_A_ZIP) from exc
    except (OSError, UnicodeError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None and exc.filename is None:
            raise
        raise InvalidParameterValue(_NOT_A_ZIP) from exc


def _refuse_bombs(entries: list[zipfile.ZipInfo]) -> None:
    # zipfile never reads more of an entry than its header announces, so the announced sizes bound what we write.
    if sum(entry.file_size for entry in entries) >= UNZIPPED_CODE_BYTES:
        raise InvalidParameterValue(f"Unzipped size must be smaller than {UNZIPPED_CODE_BYTES} bytes")
    if len(entries) > MAX_ENTRIES:
        raise InvalidParameterValue(f"The zip has {len(entries)} entries; at most {MAX_ENTRIES} are accepted.")


def _refuse_escape(name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and ":" in path.parts[0]):
        raise InvalidParameterValue(f"{_NOT_A_ZIP} (The entry {name!r} points outside the package.)")


def _extract_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / entry.filename
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        _link(opened.read(entry).decode(), target, folder)
        return
    # A link earlier in the zip must not redirect this file out of the folder.
    if not target.parent.resolve().is_relative_to(folder.resolve()) or target.is_symlink():
        raise InvalidParameterValue(f"{_NOT_A_ZIP} (The entry {entry.filename!r} points outside the package.)")
    with opened.open(entry) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    target.chmod(0o755 if mode & 0o111 else 0o644)


def _link(destination: str, target: Path, folder: Path) -> None:
    resolved = (target.parent / destination).resolve()
    if os.path.isabs(destination) or not resolved.is_relative_to(folder.resolve()):
        raise InvalidParameterValue(f"{_NOT_A_ZIP} (The link {target.name!r} points outside the package.)")
    target.symlink_to(destination)
