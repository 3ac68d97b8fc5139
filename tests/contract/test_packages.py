"""Code packages: what is kept, what is refused, and that a refusal leaves nothing.

A zip is whatever a stranger sends. Whatever is wrong with it, the answer is one of two modelled errors, no file appears outside the package's folder,
and the folder of packages is as it was.
"""

import asyncio
import base64
import contextlib
import errno
import hashlib
import io
import os
import random
import resource
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambstead.core.account import UNZIPPED_CODE_BYTES, ZIPPED_CODE_BYTES
from lambstead.core.configurations import CodePackage
from lambstead.core.errors import InvalidParameterValue, RequestEntityTooLarge
from lambstead.store.packages import MAX_DEPTH, MAX_ENTRIES, DiskPackages, extract
from lambstead.store.port import Packages

NOT_A_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."
REFUSED = (InvalidParameterValue, RequestEntityTooLarge)
FILE, LINK, SET_UID = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFREG | 0o6755

Entry = tuple[str, bytes] | tuple[str, bytes, int]


def zipped(*entries: Entry, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of entries: name, content and, if not that of a plain file, mode."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicate names, which are wanted here
        for name, content, *mode in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.external_attr = (mode[0] if mode else FILE) << 16
            opened.writestr(info, content, compression)
    return file.getvalue()


def link(name: str, destination: str) -> Entry:
    return name, destination.encode(), LINK


def files(folder: Path) -> dict[str, bytes]:
    """Every file below the folder; links are not followed."""
    found = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if not path.is_symlink()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "packages"
    inside.mkdir()
    return inside


@pytest.fixture
def kept(folder: Path) -> Packages:
    """The adapter under test."""
    return DiskPackages(folder)


GOOD = zipped(("app.py", b"def handler(): ...\n"), ("lib/x.py", b"x = 1\n"))


# --- what is kept ---------------------------------------------------------------------------------------------------------


async def _put(kept: Packages, archive: bytes) -> tuple[CodePackage, Path]:
    package = await kept.put(archive)
    return package, await kept.unpacked(package)


def put(kept: Packages, archive: bytes) -> Path:
    """Keep the zip; its unpacked folder."""
    return asyncio.run(_put(kept, archive))[1]


def test_a_package_is_named_by_its_content_and_kept_as_uploaded(kept: Packages) -> None:
    package, unpacked = asyncio.run(_put(kept, GOOD))
    assert package == CodePackage(base64.b64encode(hashlib.sha256(GOOD).digest()).decode(), len(GOOD))
    assert kept.archive(package).read_bytes() == GOOD
    assert files(unpacked) == {"app.py": b"def handler(): ...\n", "lib/x.py": b"x = 1\n"}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_that_python_reads_is_read(kept: Packages, compression: int) -> None:
    assert files(put(kept, zipped(("a", b"a" * 10_000), compression=compression))) == {"a": b"a" * 10_000}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([], {}, id="empty-zip"),
        pytest.param([("a", b"")], {"a": b""}, id="empty-file"),
        pytest.param([("./a", b"1"), ("b//c", b"2")], {"a": b"1", "b/c": b"2"}, id="untidy-names"),
        pytest.param([("./", b"", stat.S_IFDIR), ("a/", b"", stat.S_IFDIR)], {}, id="folders-only"),
        pytest.param([("é/日本.py", b"1")], {"é/日本.py": b"1"}, id="unicode"),
        pytest.param([("..a/b..", b"1")], {"..a/b..": b"1"}, id="dots-in-names"),
        pytest.param([("a", b"1"), ("a", b"22")], {"a": b"22"}, id="the-later-of-two-wins"),
        pytest.param([("a", b"1", SET_UID)], {"a": b"1"}, id="set-uid-bit"),
        pytest.param([("n" * 255, b"1")], {"n" * 255: b"1"}, id="longest-name"),
        pytest.param([("d/" * MAX_DEPTH + "a", b"1")], {"d/" * MAX_DEPTH + "a": b"1"}, id="deepest-nesting"),
        pytest.param([("dir\\a", b"1")], {"dir\\a": b"1"}, id="backslash-is-a-letter"),
    ],
)
def test_good_zips(kept: Packages, entries: list[Entry], expected: dict[str, bytes]) -> None:
    assert files(put(kept, zipped(*entries))) == expected


def test_only_the_executable_bit_of_a_mode_counts(kept: Packages) -> None:
    unpacked = put(kept, zipped(("run", b"", SET_UID), ("read", b"", stat.S_IFREG | 0o600), ("none", b"", 0)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in unpacked.iterdir()}
    assert modes == {"run": 0o755, "read": 0o644, "none": 0o644}
    assert stat.S_IMODE(unpacked.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("entries", "read", "content"),
    [
        ([("lib/a.so.1", b"1"), link("lib/a.so", "a.so.1")], "lib/a.so", b"1"),
        ([link("lib/a.so", "a.so.1"), ("lib/a.so.1", b"1")], "lib/a.so", b"1"),
        ([("lib/a", b"1"), link("bin/a", "../lib/a")], "bin/a", b"1"),
        ([("lib/a", b"1"), link("lib64", "lib")], "lib64/a", b"1"),
        ([("lib/a", b"1"), link("lib/self", ".")], "lib/self/self/a", b"1"),
        ([("a", b"1"), link("x/y/z", "../../a")], "x/y/z", b"1"),
        ([("lib/a", b"1"), link("one", "two/a"), link("two", "lib")], "one", b"1"),
    ],
)
def test_links_inside_the_package(kept: Packages, entries: list[Entry], read: str, content: bytes) -> None:
    assert (put(kept, zipped(*entries)) / read).read_bytes() == content


def test_a_link_to_nothing_and_a_ring_of_links_are_kept_as_they_are(kept: Packages) -> None:
    unpacked = put(kept, zipped(link("nothing", "there"), link("a", "b"), link("b", "a")))
    assert sorted(path.name for path in unpacked.iterdir() if path.is_symlink()) == ["a", "b", "nothing"]


def test_a_package_is_unpacked_again_if_its_folder_is_gone(kept: Packages) -> None:
    package, unpacked = asyncio.run(_put(kept, GOOD))
    for path in sorted(unpacked.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    unpacked.rmdir()
    assert files(asyncio.run(kept.unpacked(package)))["lib/x.py"] == b"x = 1\n"


def test_the_same_package_uploaded_by_many_at_once_is_kept_once(kept: Packages, folder: Path) -> None:
    archive = zipped(*((f"f{n}", os.urandom(100)) for n in range(50)))

    async def uploads() -> list[CodePackage]:
        return await asyncio.gather(*(kept.put(archive) for _ in range(16)))

    assert len(set(asyncio.run(uploads()))) == 1
    digest = hashlib.sha256(archive).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == [digest, f"{digest}.zip"]
    assert len(files(folder / digest)) == 50


def test_sweeping_keeps_what_is_used_and_nothing_else(kept: Packages, folder: Path) -> None:
    used, _ = asyncio.run(_put(kept, GOOD))
    unused, _ = asyncio.run(_put(kept, zipped(("other", b""))))
    (folder / ".new-left-by-a-crash").mkdir()
    (folder / ".new-left-by-a-crash" / "half").write_bytes(b"x")
    assert asyncio.run(kept.sweep([used.sha256], [])) == 3
    assert kept.archive(used).is_file()
    assert not kept.archive(unused).exists()
    assert len(list(folder.iterdir())) == 2
    assert asyncio.run(kept.sweep([], [])) == 2
    assert list(folder.iterdir()) == []


def test_a_stack_is_its_packages_laid_over_one_another_in_their_order(kept: Packages, folder: Path) -> None:
    lower = zipped(
        *(("a", b"lower"), ("only-lower", b"1"), ("folder/x", b"lower"), ("folder/y", b"2"), ("was-file", b"f")),
        *(("was-folder/deep/z", b"3"), ("target", b"t"), link("was-link", "target"), link("points", "target")),
    )
    upper = zipped(
        *(("a", b"upper"), ("folder/x", b"upper"), ("was-file/now", b"folder"), ("was-folder", b"file")),
        *(("was-link/inside", b"4"), ("b", b"5"), link("links", "folder/x")),
    )

    async def story() -> tuple[Path, Path, CodePackage, CodePackage]:
        one, two = await kept.put(lower), await kept.put(upper)
        return await kept.stacked([one, two]), await kept.stacked([two, one]), one, two

    stack, turned, one, two = asyncio.run(story())
    assert files(stack) == {
        "a": b"upper",
        "only-lower": b"1",
        "folder/x": b"upper",
        "folder/y": b"2",
        "was-file/now": b"folder",
        "was-folder": b"file",
        "target": b"t",
        "was-link/inside": b"4",
        "b": b"5",
    }
    assert {name: os.readlink(stack / name) for name in ("points", "links")} == {
        "points": "target",
        "links": "folder/x",
    }
    assert (turned / "a").read_bytes() == b"lower"
    assert turned != stack
    assert files(asyncio.run(kept.unpacked(one)))["a"] == b"lower", "the packages are as they were"
    assert files(asyncio.run(kept.unpacked(two)))["was-folder"] == b"file"


def test_a_stack_is_made_once_swept_when_unused_and_made_again(kept: Packages, folder: Path) -> None:
    one, _ = asyncio.run(_put(kept, GOOD))
    two, _ = asyncio.run(_put(kept, zipped(("other", b""))))

    async def stacks() -> set[Path]:
        return set(await asyncio.gather(*(kept.stacked([one, two]) for _ in range(8))))

    (stack,) = asyncio.run(stacks())
    used = [one.sha256, two.sha256]
    assert asyncio.run(kept.sweep(used, [[one, two]])) == 0
    assert asyncio.run(kept.sweep(used, [[two, one]])) == 1
    assert not stack.exists()
    assert asyncio.run(kept.stacked([one, two])) == stack
    assert stack.is_dir()


def test_the_unzipped_size_is_that_of_all_files(kept: Packages) -> None:
    package, _ = asyncio.run(_put(kept, zipped(("a", b"x" * 1000), ("b/c", b"y" * 234))))
    assert asyncio.run(kept.unzipped_bytes(package)) == 1234


# --- what is refused ----------------------------------------------------------------------------------------------------------


def _announcing(size: int) -> bytes:
    """A zip whose one entry announces more than it holds."""
    archive = bytearray(zipped(("a", b"x" * 100)))
    central = archive.rindex(b"PK\x01\x02")
    struct.pack_into("<L", archive, central + 24, size)
    return bytes(archive)


def _patched(offset: int, value: bytes, archive: bytes = GOOD) -> bytes:
    """The last entry of the directory, changed at an offset."""
    changed = bytearray(archive)
    central = changed.rindex(b"PK\x01\x02")
    changed[central + offset : central + offset + len(value)] = value
    return bytes(changed)


def _directory_only(count: int) -> bytes:
    """A zip that is all directory: cheap to send, dear to parse."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * count
    return directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 0, 0)


def _corrupt(compression: int) -> bytes:
    """A zip whose compressed bytes make no sense."""
    content = random.Random(1).randbytes(5000)
    archive = bytearray(zipped(("a", content + b"a" * 5000), compression=compression))
    archive[60:400] = random.Random(2).randbytes(340)
    return bytes(archive)


BAD: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "not-a-zip": lambda: b"print('hello')\n" * 100,
    "only-an-end": lambda: b"PK\x05\x06",
    "truncated": lambda: GOOD[:-30],
    "truncated-in-front": lambda: GOOD[10:],
    "second-half": lambda: GOOD[len(GOOD) // 2 :],
    "up": lambda: zipped(("../evil", b"x")),
    "up-inside": lambda: zipped(("a/../../evil", b"x")),
    "up-and-back": lambda: zipped(("a/../b", b"x")),
    "up-folder": lambda: zipped(("../evil/", b"", stat.S_IFDIR)),
    "up-backslash": lambda: zipped(("..\\evil", b"x")),
    "up-mixed": lambda: zipped(("a\\../..\\evil", b"x")),
    "absolute": lambda: zipped(("/tmp/evil-lambstead", b"x")),
    "absolute-twice": lambda: zipped(("//tmp/evil-lambstead", b"x")),
    "absolute-backslash": lambda: zipped(("\\evil", b"x")),
    "drive": lambda: zipped(("C:/evil", b"x")),
    "drive-backslash": lambda: zipped(("C:\\evil", b"x")),
    "empty-name": lambda: _patched(28, b"\0\0", zipped(("a", b"x"))),
    "dot": lambda: zipped((".", b"x")),
    "nul-in-name": lambda: zipped(("aXb", b"x")).replace(b"aXb", b"a\0b"),
    "name-not-utf-8": lambda: zipped(("é", b"x")).replace("é".encode(), b"\xff\xfe"),
    "name-too-long": lambda: zipped(("n" * 256, b"x")),
    "path-too-long": lambda: zipped((("n" * 200 + "/") * 40 + "a", b"x")),
    "too-deep": lambda: zipped(("d/" * (MAX_DEPTH + 1) + "a", b"x")),
    "far-too-deep": lambda: zipped(("d/" * 30_000 + "a", b"x")),
    "deeper-and-deeper": lambda: zipped(*(("d/" * n, b"", stat.S_IFDIR) for n in range(1, 1500))),
    "file-then-folder": lambda: zipped(("a", b"x"), ("a/b", b"y")),
    "folder-then-file": lambda: zipped(("a/b", b"y"), ("a", b"x")),
    "file-then-folder-entry": lambda: zipped(("a", b"x"), ("a/", b"", stat.S_IFDIR)),
    "link-up": lambda: zipped(link("l", "..")),
    "link-up-further": lambda: zipped(link("a/l", "../../x")),
    "link-absolute": lambda: zipped(link("l", "/etc/passwd")),
    "link-to-nothing-at-all": lambda: zipped(link("l", "")),
    "link-with-nul": lambda: zipped(link("l", "a\0b")),
    "link-not-utf-8": lambda: zipped(("l", b"\xff\xfe", LINK)),
    "link-too-long": lambda: zipped(link("l", "a/" * 3000)),
    "link-of-megabytes": lambda: zipped(("l", b"a" * 20_000_000, LINK)),
    "link-down-and-up": lambda: zipped(link("x", "d/.."), link("d", ".")),
    "folder-through-links": lambda: zipped(link("x", "d/.."), link("d", "."), ("x/evil/", b"", stat.S_IFDIR)),
    "file-through-links": lambda: zipped(link("x", "d/.."), link("d", "."), ("x/evil/a", b"x")),
    "file-through-a-link": lambda: zipped(("d/b", b""), link("l", "d"), ("l/a", b"x")),
    "file-over-a-link": lambda: zipped(link("l", "a"), ("l", b"x")),
    "link-over-a-file": lambda: zipped(("l", b"x"), link("l", "a")),
    "two-links-of-one-name": lambda: zipped(link("l", "a"), link("l", "b")),
    "link-over-a-folder": lambda: zipped(("l/a", b"x"), link("l", "b")),
    "encrypted": lambda: _patched(8, b"\1\0"),
    "unknown-compression": lambda: _patched(10, b"\x63\0"),
    "wrong-checksum": lambda: _patched(16, b"\0\0\0\0"),
    "local-header-elsewhere": lambda: _patched(42, b"\xf0\xff\xff\x0f"),
    "local-header-in-the-last-byte": lambda: _patched(42, struct.pack("<L", len(GOOD) - 3)),
    "bomb": lambda: _announcing(UNZIPPED_CODE_BYTES),
    "announces-too-much": lambda: _announcing(1000),
    "announces-too-little": lambda: _announcing(10),
    "too-many-entries": lambda: _directory_only(MAX_ENTRIES + 1),
    "far-too-many-entries": lambda: _directory_only(1_000_000),
    "too-many-folders": lambda: zipped(*((f"{n}/" * 90 + "a", b"") for n in range(1200))),
    "corrupt-deflate": lambda: _corrupt(zipfile.ZIP_DEFLATED),
    "corrupt-bzip2": lambda: _corrupt(zipfile.ZIP_BZIP2),
    "corrupt-lzma": lambda: _corrupt(zipfile.ZIP_LZMA),
    "larger-than-may-be-sent": lambda: bytes(ZIPPED_CODE_BYTES + 1),
}


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_bad_zips_are_refused_and_leave_nothing(
    kept: Packages, folder: Path, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    archive = make()
    with pytest.raises(REFUSED) as refusal:
        asyncio.run(kept.put(archive))
    assert everything_below(tmp_path) == ["packages"]
    assert not Path("/tmp/evil-lambstead").exists()
    if isinstance(refusal.value, InvalidParameterValue):
        assert len(str(refusal.value)) < 100_000


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ("not-a-zip", NOT_A_ZIP),
        ("bomb", "Unzipped size must be smaller than 262144000 bytes"),
        ("larger-than-may-be-sent", "Zipped size must be smaller than 52428800 bytes"),
    ],
)
def test_refusals_are_in_awss_words(kept: Packages, bad: str, text: str) -> None:
    with pytest.raises(REFUSED) as refusal:
        asyncio.run(kept.put(BAD[bad]()))
    assert str(refusal.value) == text


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As if the disk were full: the system refuses to let a file grow beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(zipped(("big", b"a" * 100_000)), id="while-unpacking"),
        pytest.param(zipped(*((f"f{n}", os.urandom(1000)) for n in range(20))), id="while-keeping-the-zip"),
    ],
)
def test_a_disk_that_refuses_is_not_the_callers_fault(kept: Packages, folder: Path, archive: bytes) -> None:
    with no_file_above(5_000), pytest.raises(OSError, match="File too large"):
        asyncio.run(kept.put(archive))
    assert not [path for path in folder.iterdir() if path.name.startswith(".new-") or path.suffix == ".zip"]
    assert files(put(kept, archive)), "once there is room it can be kept"


# --- anything at all ------------------------------------------------------------------------------------------------------------

SEEDS = [
    zipped(("app.py", b"print(1)\n" * 50), ("lib/x.py", b"x"), link("l", "lib/x.py"), compression=method)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
]
NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "d", "l", ""]), min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.one_of(
        st.tuples(NAMES, st.just(b"x"), st.just(FILE)),
        st.tuples(NAMES.map(lambda name: f"{name}/"), st.just(b""), st.just(stat.S_IFDIR | 0o755)),
        st.tuples(NAMES, NAMES.map(str.encode), st.just(LINK)),
    ),
    max_size=6,
)
fuzzed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def extract_somewhere(archive: bytes, root: Path) -> None:
    """Extract or refuse; either way nothing appears outside, and no link leads there."""
    target = root / "outer" / "package"
    target.mkdir(parents=True)
    try:
        extract(archive, target)
    except REFUSED:
        pass
    else:
        for path in _all(target):
            assert _is_ring(path) or path.resolve().is_relative_to(target.resolve())
    assert everything_below(root / "outer") == [
        str(path.relative_to(root / "outer")) for path in sorted([target, *_all(target)], key=str)
    ]


def _all(folder: Path) -> Iterable[Path]:
    return [Path(root) / name for root, folders, names in os.walk(folder) for name in (*folders, *names)]


def _is_ring(path: Path) -> bool:
    try:
        path.stat()
    except OSError as exc:
        return exc.errno == errno.ELOOP
    return False


@fuzzed
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.none() | st.integers(0, 10_000),
)
def test_a_damaged_zip_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    damaged = bytearray(seed)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    extract_somewhere(bytes(damaged[:cut]), tmp_path_factory.mktemp("damaged"))


@fuzzed
@given(entries=ENTRIES)
def test_no_combination_of_files_folders_and_links_gets_out(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes, int]]
) -> None:
    extract_somewhere(zipped(*entries), tmp_path_factory.mktemp("combined"))
