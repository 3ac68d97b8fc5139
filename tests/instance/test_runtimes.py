"""Interpreters that are really there, and the choice among them."""

import json
import multiprocessing
import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambstead.instance.runtimes import catalogue, python
from lambstead.instance.runtimes.discovery import CACHE_NAME, Interpreter, find_interpreters
from lambstead.instance.runtimes.installation import STAMP_NAME
from lambstead.instance.runtimes.python import CLIENT_MINORS, REQUIREMENTS, choose
from lambstead.instance.runtimes.runtime import RuntimeNotAvailable

ROOT = Path(__file__).parents[2]

interpreters = st.lists(
    st.builds(
        lambda minor, micro: Interpreter((3, minor, micro), Path(f"/python3.{minor}.{micro}")),
        st.integers(6, 16),
        st.integers(0, 3),
    ),
    max_size=8,
)


@given(minor=st.integers(0, 20), available=interpreters)
def test_the_choice_is_exact_or_nearest_and_runs_the_client(minor: int, available: list[Interpreter]) -> None:
    usable = [i for i in available if i.minor in CLIENT_MINORS]
    if not usable:
        with pytest.raises(RuntimeNotAvailable):
            choose(minor, available)
        return
    choice = choose(minor, available)
    assert choice.interpreter in usable
    distance = abs(choice.interpreter.minor - minor)
    for other in usable:
        assert abs(other.minor - minor) >= distance
        if abs(other.minor - minor) == distance:
            assert other.version <= choice.interpreter.version
    assert bool(choice.note) == (choice.interpreter.minor != minor)


def test_the_servers_own_base_interpreter_is_found_and_remembered(tmp_path: Path) -> None:
    found = find_interpreters(tmp_path)
    assert sys.version_info[:3] in [i.version for i in found]
    assert sorted(found, reverse=True) == found
    # None is a virtual environment's: its packages would be the function's.
    assert not any((i.path.parent.parent / "pyvenv.cfg").exists() for i in found)
    assert (tmp_path / CACHE_NAME).exists()
    assert find_interpreters(tmp_path) == found


def test_a_shim_that_fails_is_no_interpreter_and_is_asked_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    asked = tmp_path / "asked"
    shim = shims / "python3.13"
    shim.write_text(f"#!/bin/sh\necho x >> {asked}\necho 'not installed' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shims))
    found = find_interpreters(tmp_path / "runtimes")
    assert not any(i.path == shim for i in found)
    find_interpreters(tmp_path / "runtimes")
    assert asked.read_text() == "x\n"
    os.utime(shim, (1, 1))
    find_interpreters(tmp_path / "runtimes")
    assert asked.read_text() == "x\nx\n"


def test_a_broken_memory_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / CACHE_NAME).write_text("{not json")
    assert find_interpreters(tmp_path)
    assert isinstance(json.loads((tmp_path / CACHE_NAME).read_text()), dict)


def test_listed_runtimes_say_what_would_happen(runtimes: Path) -> None:
    by_identifier = {status.identifier: status for status in catalogue.list_runtimes(runtimes)}
    assert list(by_identifier) == [
        *catalogue.PYTHON_RUNTIMES,
        *catalogue.NODE_RUNTIMES,
        *catalogue.JAVA_RUNTIMES,
        *catalogue.CUSTOM_RUNTIMES,
        *catalogue.UNBUILT_RUNTIMES,
    ]
    named = by_identifier["python3.13"]
    assert named.state in ("ready", "substituted")
    assert named.client == f"awslambdaric {python.CLIENT_VERSION}"
    assert named.interpreter_path is not None
    for identifier in catalogue.PYTHON_RUNTIMES:
        status = by_identifier[identifier]
        assert (status.advice == "") == (status.state == "ready")
    assert by_identifier["provided.al2023"].state == "ready"
    assert "NuGet" in by_identifier["dotnet8"].advice


def test_without_any_interpreter_the_advice_says_what_to_install() -> None:
    with pytest.raises(RuntimeNotAvailable, match=r"needs a CPython from 3\.10 to 3\.15"):
        choose(13, [])


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("java99", "needs Java 99 or newer"),
        ("dotnet8", "NuGet"),
        ("ruby3.4", "gem"),
        ("provided.al1", "no runtime"),
        ("python2.7", "no runtime"),
        ("", "no runtime"),
    ],
)
def test_runtimes_that_are_not_built_say_which_piece_is_missing(tmp_path: Path, identifier: str, words: str) -> None:
    with pytest.raises(RuntimeNotAvailable, match=words):
        catalogue.install(tmp_path, identifier, print)


def test_an_installed_runtime_is_not_installed_again(runtimes: Path) -> None:
    reports: list[str] = []
    installed = python.ensure(runtimes, "python3.13", reports.append)
    assert reports == []
    assert (installed.client_dir / "awslambdaric" / "__main__.py").exists()
    assert (installed.client_dir / "boto3").is_dir()


def _install_counting(folder: str, queue: "multiprocessing.Queue[int]") -> None:
    reports: list[str] = []
    catalogue.install(Path(folder), "python3.13", reports.append)
    queue.put(len(reports))


def test_two_processes_that_need_a_runtime_install_it_once_and_other_pins_mean_again(tmp_path: Path) -> None:
    """The real installer, into an empty folder."""
    queue: multiprocessing.Queue[int] = multiprocessing.get_context("spawn").Queue()
    children = [
        multiprocessing.get_context("spawn").Process(target=_install_counting, args=(str(tmp_path), queue))
        for _ in range(2)
    ]
    for child in children:
        child.start()
    counts = sorted(queue.get(timeout=100) for _ in children)
    for child in children:
        child.join(30)
    queue.close()
    assert counts[0] == 0
    assert counts[1] == 2
    [client_dir] = tmp_path.glob("python3.*")
    stamp = client_dir / STAMP_NAME
    assert json.loads(stamp.read_text())["requirements"] == list(REQUIREMENTS)
    leftovers = [p.name for p in tmp_path.iterdir() if p.name not in (client_dir.name, CACHE_NAME, ".install.lock")]
    assert leftovers == []

    stamp.write_text(json.dumps({"requirements": ["awslambdaric==4.0.0"]}))
    reports: list[str] = []
    catalogue.install(tmp_path, "python3.13", reports.append)
    assert len(reports) == 2
    assert json.loads(stamp.read_text())["requirements"] == list(REQUIREMENTS)


def test_an_installation_that_fails_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real installer, pointed at an index that is not there."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeNotAvailable, match="could not be installed"):
        catalogue.install(tmp_path, "python3.13", print)
    assert not list(tmp_path.glob("python3.*"))
    assert not list(tmp_path.glob(".python3.*"))


def test_boto3_is_the_release_of_the_servers_models() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [botocore] = [d for d in project["dependencies"] if d.startswith("botocore==")]
    assert f"boto3=={botocore.removeprefix('botocore==')}" in REQUIREMENTS


def test_the_function_cannot_import_what_the_server_has(runtimes: Path) -> None:
    installed = python.ensure(runtimes, "python3.13", print)
    for package in ("lambstead", "msgspec", "uvloop"):
        assert not (installed.client_dir / package).exists()
    assert shutil.which(str(installed.interpreter.path))
