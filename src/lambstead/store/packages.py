"""Code packages on disk, by content: the zip as uploaded, and its files unpacked beside it.

    packages/<sha256 hex>.zip     what GetFunction offers for download
    packages/<sha256 hex>/        what environments see as their task root

Both appear by rename, so a reader sees a whole package or none. A zip is untrusted input: its size, its number of entries and every path are
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
from collections.abc import Iterable
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

    async def sweep(self, used: Iterable[str]) -> int:
        return await asyncio.to_thread(self._sweep, {_to_hex(sha) for sha in used})

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

    def _unpack(self, archive: bytes, folder: Path) -> None:
        staging = Path(tempfile.mkdtemp(dir=self._folder, prefix=".new-"))
        try:
            extract(archive, staging)
            staging.chmod(0o755)
            os.rename(staging, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another upload of the same bytes was faster
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
