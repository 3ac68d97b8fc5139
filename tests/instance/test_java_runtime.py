"""Java: which JVM stands in, which jars the client is made of, and what is started."""

import platform
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambstead.core.runtime_api import Connections
from lambstead.instance.isolation import Places
from lambstead.instance.runtimes import catalogue, java
from lambstead.instance.runtimes.discovery import Interpreter, find_javas
from lambstead.instance.runtimes.runtime import Launch, RuntimeNotAvailable

VERSIONS = {
    "aws-lambda-java-runtime-interface-client": "2.10.1",
    "aws-lambda-java-core": "1.4.0",
    "aws-lambda-java-serialization": "1.2.0",
    "utils-lite": "2.34.0",
}
jvms = st.lists(
    st.builds(
        lambda major, micro: Interpreter((major, 0, micro), Path(f"/jvm/{major}.0.{micro}/bin/java")),
        st.integers(9, 27),
        st.integers(0, 3),
    ),
    max_size=6,
)


@given(major=st.sampled_from([11, 17, 21, 25]), available=jvms)
def test_the_choice_is_exact_or_the_nearest_newer(major: int, available: list[Interpreter]) -> None:
    usable = [jvm for jvm in available if jvm.major >= major]
    if not usable:
        with pytest.raises(RuntimeNotAvailable, match=f"needs Java {major} or newer"):
            java.choose(major, available)
        return
    chosen, note = java.choose(major, available)
    assert chosen.major == min(jvm.major for jvm in usable)
    assert chosen == max(jvm for jvm in usable if jvm.major == chosen.major)
    assert bool(note) == (chosen.major != major)


def fake_java(folder: Path, version: str) -> Path:
    """A JVM as far as looking for one goes: it says what a real one says of itself."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!/bin/sh\nprintf '    java.home = {folder}\\n    java.version = {version}\\n    java.vm.version = 1\\n' >&2\n"
    )
    program.chmod(0o755)
    return program


def client(folder: Path, *without: str, processor: str | None = None) -> None:
    """AWS's client as far as looking for it goes."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"aarch64": "aarch_64"}.get(platform.machine(), platform.machine())
    for artifact, version in VERSIONS.items():
        if artifact not in without:
            with zipfile.ZipFile(folder / f"{artifact}-{version}.jar", "w") as jar:
                jar.writestr(f"jni/libaws-lambda-jni.linux-{processor or machine}.so", "compiled")


def test_releases_are_found_in_the_runtimes_folder_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("java-a", "21.0.4"), ("java-b", "25"), ("java-c", "26-ea"), ("java-d", "1.8.0_402")):
        fake_java(tmp_path / name, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java-home"))
    fake_java(tmp_path / "java-home", "17.0.15.1")
    found = [(jvm.version_text, jvm.path) for jvm in find_javas(tmp_path) if tmp_path in jvm.path.parents]
    assert found == [
        ("25.0.0", tmp_path / "java-b" / "bin" / "java"),
        ("21.0.4", tmp_path / "java-a" / "bin" / "java"),
        ("17.0.15", tmp_path / "java-home" / "bin" / "java"),
    ]


@pytest.mark.parametrize("missing", VERSIONS)
def test_the_jar_that_is_missing_is_named_with_where_it_goes(tmp_path: Path, missing: str) -> None:
    fake_java(tmp_path / "java-99", "99")
    client(tmp_path / java.CLIENT_DIR, missing)
    (tmp_path / java.CLIENT_DIR / f"{missing}-1.0-sources.jar").write_bytes(b"")
    (tmp_path / java.CLIENT_DIR / f"{missing}-events-1.0.jar").write_bytes(b"")
    sentence = catalogue.obstacle(tmp_path, "java21")
    assert f"not complete: {missing} missing in {tmp_path / java.CLIENT_DIR}." in sentence
    assert "Maven Central" in sentence
    [status] = [each for each in catalogue.list_runtimes(tmp_path) if each.identifier == "java21"]
    assert (status.state, status.advice) == ("missing", sentence)


def test_with_every_piece_there_is_no_obstacle_and_the_compiled_half_is_unpacked(tmp_path: Path) -> None:
    fake_java(tmp_path / "java-25", "25")
    client(tmp_path / java.CLIENT_DIR)
    assert catalogue.obstacle(tmp_path, "java25") == ""
    assert (tmp_path / java.CLIENT_DIR / java.NATIVE_LIBRARY).read_text() == "compiled"
    installed = catalogue.install(tmp_path, "java25", print)
    assert installed.client == "aws-lambda-java-runtime-interface-client 2.10.1"
    [status] = [each for each in catalogue.list_runtimes(tmp_path) if each.identifier == "java25"]
    assert (status.state, status.client) == ("ready", installed.client)


def test_a_client_for_another_processor_is_an_obstacle(tmp_path: Path) -> None:
    fake_java(tmp_path / "java-25", "25")
    client(tmp_path / java.CLIENT_DIR, processor="riscv")
    assert "cannot be used here" in catalogue.obstacle(tmp_path, "java25")


@pytest.mark.parametrize("identifier", ["python3.13", "nodejs24.x", "provided.al2023"])
def test_what_is_installed_by_itself_or_brought_along_is_no_obstacle(tmp_path: Path, identifier: str) -> None:
    assert catalogue.obstacle(tmp_path, identifier) == ""


@pytest.mark.parametrize(("managed", "polls"), [(True, 8), (False, 1)])
def test_aws_s_client_is_started_with_the_handler_and_polls_from_every_slot(managed: bool, polls: int) -> None:
    jvm = Interpreter((21, 0, 4), Path("/jvm/bin/java"))
    places = Places(Path("/task"), Path("/layers"), Path("/temp"), own_root=False)
    launch = Launch(managed, 8, 2.0, 2048, places, {}, handler="a.B::c")
    process = java.JavaRuntime("java21", jvm, Path("/client"), "").process(launch)
    arguments = process.command.arguments_after
    assert arguments[0] == "/jvm/bin/java"
    assert arguments[-4:] == ("-cp", "/client/*:/layers/java/lib/*", java.MAIN_CLASS, "a.B::c")
    assert "-Xmx1638m" in arguments
    assert ("-XX:+UseSerialGC" in arguments) == (not managed)
    assert (process.polls, process.connections) == (polls, Connections.ANONYMOUS)
