"""Code packages on disk, by content: the zip as uploaded, and its files unpacked beside it.

    packages/<sha256 hex>.zip     what GetFunction offers for download
    packages/<sha256 hex>/        what environments see as their task root
    packages/stack-<sha256 hex>/  several packages laid over one another: what environments see as their /opt

All appear by rename, so a reader sees a whole package or none. A zip is untrusted input: its size, its number of entries and every path are
checked before a byte is written, and links may not leave the folder.
"""

import asyncio
import base64
import errno
import hashlib
import io
import lzma
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from lambstead.core.account import UNZIPPED_CODE_BYTES, ZIPPED_CODE_BYTES
from lambstead.core.configurations import CodePackage
from lambstead.core.errors import InvalidParameterValue, RequestEntityTooLarge

MAX_ENTRIES = 100_000
"""Files and folders, named or implied. AWS names no limit; this one keeps a small zip from making a million files."""
MAX_DEPTH = 100
"""Folders inside each other. AWS names no limit; this one keeps paths and recursions short."""
MAX_LINK_BYTES = 4095
"""The longest path that Linux takes."""

_NOT_A_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."
_TOO_MANY = f"The zip has more than {MAX_ENTRIES} files and folders."
_CENTRAL_ENTRY = b"PK\x01\x02"
"""Each entry of a zip's directory starts with it."""
_UNREADABLE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)
"""What the standard library raises for bytes that are no zip, or no zip it can read."""
_IMPOSSIBLE_NAME = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EINVAL, errno.EILSEQ}
)


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
            try:
                file.write(archive)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
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
    """Write the zip's files below `folder`. Raises InvalidParameterValue for anything that is not a safe, whole zip.

    Of two entries with one name the later wins. Links are made last, when every folder is real: nothing is ever written through one.
    """
    if (
        archive.count(_CENTRAL_ENTRY) > MAX_ENTRIES
    ):  # seen before the directory is parsed, which would cost half a kilobyte per entry
        raise InvalidParameterValue(_TOO_MANY)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            _extract_all(opened, folder)
    except _UNREADABLE as exc:
        raise InvalidParameterValue(_NOT_A_ZIP) from exc
    except OSError as exc:
        # Names that cannot be are the zip's fault; a full disk is not. A decompressor's OSError has no number.
        if exc.errno is not None and exc.errno not in _IMPOSSIBLE_NAME:
            raise
        raise InvalidParameterValue(_NOT_A_ZIP) from exc


def _extract_all(opened: zipfile.ZipFile, folder: Path) -> None:
    entries = opened.infolist()
    _refuse_bombs(entries)
    for entry in entries:
        _refuse_escape(entry.orig_filename)
    links = [entry for entry in entries if stat.S_ISLNK(_mode(entry)) and not entry.is_dir()]
    for entry in entries:
        target = folder / entry.filename
        if entry.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not stat.S_ISLNK(_mode(entry)):
            _extract_file(opened, entry, target)
    for entry in links:
        _extract_link(opened, entry, folder)


def _mode(entry: zipfile.ZipInfo) -> int:
    return entry.external_attr >> 16


def _refuse_bombs(entries: list[zipfile.ZipInfo]) -> None:
    # zipfile never reads more of an entry than its header announces, so the announced sizes bound what we write.
    if sum(entry.file_size for entry in entries) >= UNZIPPED_CODE_BYTES:
        raise InvalidParameterValue(f"Unzipped size must be smaller than {UNZIPPED_CODE_BYTES} bytes")
    folders = set[str]()
    for entry in entries:
        name = entry.filename
        if name.count("/") > MAX_DEPTH:
            raise InvalidParameterValue(f"The zip has folders nested more than {MAX_DEPTH} deep.")
        cut = name.rfind("/")
        while cut > 0 and name[:cut] not in folders:
            folders.add(name[:cut])
            cut = name.rfind("/", 0, cut)
        if len(entries) + len(folders) > MAX_ENTRIES:
            raise InvalidParameterValue(_TOO_MANY)


def _refuse_escape(name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and ":" in path.parts[0]):
        raise InvalidParameterValue(f"{_NOT_A_ZIP} (The entry {name!r} points outside the package.)")


def _extract_file(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    with opened.open(entry) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        if copy.tell() != entry.file_size:
            raise EOFError(f"{entry.filename} is shorter than announced")
    target.chmod(0o755 if _mode(entry) & 0o111 else 0o644)


def _extract_link(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Make a link that cannot lead out of the folder, whatever other links there are.

    It may climb from where it stands, no higher than the folder, and then only descend. Every link descends from inside, so by induction
    each step of following it stays inside. A `..` further on could climb out of wherever another link had led.
    """
    if entry.file_size > MAX_LINK_BYTES:
        raise InvalidParameterValue(f"{_NOT_A_ZIP} (The link {entry.filename!r} is too long.)")
    destination = opened.read(entry).decode()
    parts = PurePosixPath(destination).parts
    climbs = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    depth = len(PurePosixPath(entry.filename).parent.parts)
    if not destination or destination.startswith("/") or climbs > depth or ".." in parts[climbs:]:
        raise InvalidParameterValue(f"{_NOT_A_ZIP} (The link {entry.filename!r} points outside the package.)")
    (folder / entry.filename).symlink_to(destination)
