"""Which Node.js stands in for a runtime, how it is installed, and what it is started with."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.harness import RUNTIMES, with_runtime

from lambstead.instance.isolation import Places
from lambstead.instance.runtimes import node
from lambstead.instance.runtimes.discovery import NODES_CACHE_NAME, Interpreter, find_nodes, probe_node
from lambstead.instance.runtimes.runtime import Launch, RuntimeNotAvailable

binaries = st.lists(
    st.builds(
        lambda major, minor: Interpreter((major, minor, 0), Path(f"/node{major}.{minor}")),
        st.integers(12, 30),
        st.integers(0, 3),
    ),
    max_size=8,
)


@given(major=st.integers(10, 32), available=binaries)
def test_the_choice_is_exact_or_nearest_and_runs_the_client(major: int, available: list[Interpreter]) -> None:
    exact = node.exact(major, available)
    usable = [n for n in available if n.major >= node.LEAST_MAJOR]
    assert (exact is not None) == any(n.major == major for n in usable)
    if exact is not None:
        assert exact == node.Choice(max(n for n in usable if n.major == major))
    if not usable:
        with pytest.raises(RuntimeNotAvailable, match=r"needs Node\.js 20 or newer"):
            node.nearest(major, available, "")
        return
    choice = node.nearest(major, available, "Because.")
    assert choice.node in usable
    assert all(abs(n.major - major) >= abs(choice.node.major - major) for n in usable)
    assert choice.note.startswith("Because. nodejs")


def launch(**members: object) -> Launch:
    defaults: dict[str, object] = {
        "managed": True,
        "slots": 64,
        "vcpus": 2.0,
        "memory_mb": 2048,
        "places": Places(Path("/task"), None, Path("/temp"), own_root=False),
        "variables": {},
    }
    return Launch(**{**defaults, **members})  # type: ignore[arg-type]  # members of Launch by name


@pytest.mark.parametrize(
    ("members", "workers"),
    [
        ({}, 16),
        ({"vcpus": 1.0}, 8),
        ({"vcpus": 1.5}, 16),
        ({"vcpus": 32.0}, 32),  # no more than the machine's four cores have use for
        ({"slots": 3}, 3),
        ({"variables": {"AWS_LAMBDA_NODEJS_WORKER_COUNT": "5"}}, 5),
        ({"variables": {"AWS_LAMBDA_NODEJS_WORKER_COUNT": "100"}}, 100),
        ({"variables": {"AWS_LAMBDA_NODEJS_WORKER_COUNT": "7 threads"}}, 7),
        ({"variables": {"AWS_LAMBDA_NODEJS_WORKER_COUNT": "many"}}, 16),
        ({"variables": {"AWS_LAMBDA_NODEJS_WORKER_COUNT": "0"}}, 1),
    ],
)
def test_worker_threads_are_awss_number_within_reason(members: dict[str, object], workers: int) -> None:
    assert node.worker_count(launch(**members), 4) == workers


def runtime(identifier: str, version: tuple[int, int, int]) -> node.NodeRuntime:
    major = node.named_major(identifier)
    assert major is not None
    older = Path("/client3") if major < 24 else None
    return node.NodeRuntime(identifier, major, Interpreter(version, Path("/node/bin/node")), Path("/client4"), older)


@pytest.mark.parametrize(
    ("identifier", "version", "off"),
    [
        ("nodejs20.x", (20, 18, 0), set()),
        ("nodejs20.x", (20, 19, 0), {"--no-experimental-require-module"}),
        ("nodejs22.x", (22, 12, 0), {"--no-experimental-require-module", "--no-experimental-detect-module"}),
        ("nodejs22.x", (22, 7, 0), {"--no-experimental-detect-module"}),
        ("nodejs24.x", (24, 1, 0), set()),
    ],
)
def test_features_are_switched_off_where_aws_does_and_node_has_them(
    identifier: str, version: tuple[int, int, int], off: set[str]
) -> None:
    arguments = runtime(identifier, version).process(launch()).command.arguments_after
    assert {a for a in arguments if a.startswith("--no-")} == off


def test_one_at_a_time_before_24_is_the_client_that_knows_callbacks() -> None:
    for identifier, managed, client in (
        ("nodejs22.x", False, "/client3"),
        ("nodejs22.x", True, "/client4/index.mjs"),
        ("nodejs24.x", False, "/client4/index.mjs"),
    ):
        process = runtime(identifier, (24, 1, 0)).process(launch(managed=managed))
        assert process.command.arguments_after[-1] == client


def test_an_imitation_or_a_shim_that_fails_is_no_node(tmp_path: Path) -> None:
    for name, script in (
        ("fails", "echo 'not installed' >&2; exit 127"),
        ("babbles", "echo hello"),
        ("bun", """echo '["node","22.0.0","/bin/sh","1.2"]'"""),
        ("nightly", """echo '["node","25.0.0-nightly","/bin/sh",""]'"""),
        ("gone", """echo '["node","22.0.0","/nowhere/node",""]'"""),
    ):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        assert probe_node(path) is None, name


def _with_clients(folder: Path) -> Path:
    """A runtimes directory with the interface clients and no Node.js."""
    with_runtime("nodejs20.x")
    for installation in node.client_installations(RUNTIMES, 20):
        (folder / installation.name).symlink_to(installation.place)
    return folder


def test_without_npm_the_nearest_node_of_the_machine_runs_it_and_the_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _with_clients(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    nodes = [each for each in find_nodes(folder) if each.major >= node.LEAST_MAJOR]
    if not nodes:
        pytest.skip("there is no Node.js on this machine but what npm installs")
    named = max(each.major for each in nodes) + 1
    found = node.ensure(folder, f"nodejs{named}.x", print)
    assert found.node in nodes
    assert "There is no npm on PATH" in found.note
    assert found.note.endswith(f"running on Node.js {found.node.version_text} instead.")
    assert (folder / NODES_CACHE_NAME).exists()


def test_an_installation_that_fails_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real npm, pointed at a registry that is not there."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    runtimes = tmp_path / "runtimes"
    with pytest.raises(RuntimeNotAvailable, match="npm could not fetch"):
        node.ensure(runtimes, "nodejs24.x", print)
    assert sorted(p.name for p in runtimes.iterdir()) == [".install.lock", NODES_CACHE_NAME]


def test_what_npm_installed_is_used_again(tmp_path: Path) -> None:
    installed = node.ensure(RUNTIMES, with_runtime("nodejs24.x"), print)
    reports: list[str] = []
    assert node.ensure(RUNTIMES, "nodejs24.x", reports.append) == installed
    assert reports == []
    assert installed.node.major == 24
    assert installed.note == ""
    assert os.access(installed.node.path, os.X_OK)
