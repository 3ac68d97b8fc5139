"""Levels and address translation for an ordinary user: they are tried as the doctor tries them, by a user without an account."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambstead.instance.containers import PROGRAMS
from lambstead.instance.nat import PROGRAMS as TRANSLATORS

USER = 54_321
PYTHON = Path("/usr/bin/python3")
TRY = """
import sys
sys.path.insert(0, sys.argv[1])
from lambstead.instance.levels import LevelFails, try_egress, try_level
try:
    try_level(sys.argv[2])
    try_egress(sys.argv[2], sys.argv[3])
except LevelFails as exc:
    sys.exit(f"{exc} {exc.advice}")
"""
SOURCES = Path(__file__).parents[2] / "src" / "lambstead"


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """The package where that user can read it, and a `/dev/net/tun` that it may open, as on most machines."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("becoming another user needs root and util-linux")
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
    )
    if version.stdout != "True\n":
        pytest.skip(f"{PYTHON} is not a Python 3.11 that every user can run")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(SOURCES, folder / "lambstead", ignore=shutil.ignore_patterns("__pycache__"))
        os.mknod(folder / "tun", 0o020666, os.makedev(10, 200))
        (folder / "tun").chmod(0o666)
        yield folder


@pytest.mark.parametrize("egress", ["host", "none", *TRANSLATORS])
@pytest.mark.parametrize("level", ["sandbox", "oci", "gvisor"])
def test_levels_work_for_an_ordinary_user(package: Path, level: str, egress: str) -> None:
    for program in {"sandbox": ("bwrap",), "oci": PROGRAMS["oci"][:1], "gvisor": PROGRAMS["gvisor"]}[level]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    path = os.defpath
    if egress in TRANSLATORS:
        if shutil.which(egress) is None:
            pytest.skip(f"{egress} is not installed")
        if not Path("/dev/net/tun").exists():
            pytest.skip("there is no /dev/net/tun")
        path = str(only(egress, package))
    command = 'mount --bind "$0/tun" /dev/net/tun; exec "$@"' if egress in TRANSLATORS else 'exec "$@"'
    policy = "nat" if egress in TRANSLATORS else egress
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", command, str(package)),
            *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
            *(str(PYTHON), "-c", TRY, str(package), level, policy),
        ],
        env={"PATH": path},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def only(translator: str, folder: Path) -> Path:
    """A folder to search programs in, with no other translator."""
    programs = folder / translator
    if not programs.exists():
        programs.mkdir(mode=0o755)
        for each in ("/usr/bin", "/usr/sbin"):
            for path in Path(each).iterdir():
                if path.name not in TRANSLATORS or path.name == translator:
                    (programs / path.name).unlink(missing_ok=True)
                    (programs / path.name).symlink_to(path)
    return programs
