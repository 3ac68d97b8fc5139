"""Java functions: refused at create with what is missing, and run by AWS's client where it is there.

AWS publishes its Java client on Maven Central only. Rows that run functions need it in the runtimes folder and a JDK on PATH; a machine without
skips them and says so.
"""

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    FUNCTIONS,
    RUNTIMES,
    Server,
    archive,
    create_provider,
    invoke,
    on_provider,
    running,
    wait_active,
)

from lambstead.instance.runtimes import catalogue, java

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RUNTIME: Literal["java17"] = "java17"
HANDLER = "Matrix::handleRequest"
ROLE = "arn:aws:iam::000000000000:role/anything"
MISSING = catalogue.obstacle(RUNTIMES, RUNTIME) or ("" if shutil.which("javac") else "There is no javac on PATH.")
NEWER = "java21"
"""Runtimes of managed instances begin here; a newer JVM may stand in."""
runs = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The compiled function: a class in the root of the package."""
    classes = tmp_path_factory.mktemp("classes")
    jars = f"{RUNTIMES / java.CLIENT_DIR}/*"
    source = FUNCTIONS / "Matrix.java"
    subprocess.run(["javac", "--release", "17", "-cp", jars, "-d", classes, source], check=True, timeout=60)
    return archive({"Matrix.class": (classes / "Matrix.class").read_bytes()})


def test_without_its_client_a_java_function_is_refused_at_create_and_at_update(tmp_path: Path) -> None:
    """The server's runtimes folder is empty."""
    with running(tmp_path / "data", runtimes_dir=str(tmp_path / "runtimes")) as server:
        request = {"FunctionName": "java", "Role": ROLE, "Handler": HANDLER, "Code": {"ZipFile": archive({"x": ""})}}
        with pytest.raises(ClientError) as refused:
            server.aws.create_function(**request, Runtime=RUNTIME)  # type: ignore[arg-type]  # put together above
        assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"
        assert refused.value.response["Error"]["Message"].startswith(f"This Lambstead cannot run {RUNTIME}: ")
        assert server.aws.list_functions()["Functions"] == []
        server.aws.create_function(**request, Runtime="provided.al2023")  # type: ignore[arg-type]  # put together above
        wait_active(server.aws, "java", "$LATEST")
        with pytest.raises(ClientError, match=f"cannot run {RUNTIME}"):
            server.aws.update_function_configuration(FunctionName="java", Runtime=RUNTIME)


@runs
def test_a_standard_function_runs(aws: "LambdaClient", code: bytes) -> None:
    aws.create_function(
        FunctionName="java-standard",
        Runtime=RUNTIME,
        Handler=HANDLER,
        Role=ROLE,
        Code={"ZipFile": code},
        MemorySize=512,
        Timeout=30,
        Environment={"Variables": {"COLOUR": "blue"}},
    )
    wait_active(aws, "java-standard", "$LATEST")
    first, second = (invoke(aws, "java-standard", {"do": "answer", "n": n}).payload for n in range(2))
    assert (first["event"], second["event"]) == ({"do": "answer", "n": 0}, {"do": "answer", "n": 1})
    assert (first["function"], first["variable"]) == ("java-standard", "blue")
    assert first["request"] != second["request"]
    failed = invoke(aws, "java-standard", {"do": "fail"})
    assert failed.error == "Unhandled"
    assert failed.payload["errorType"] == "java.lang.IllegalStateException"
    assert failed.payload["errorMessage"] == "asked to"
    assert invoke(aws, "java-standard", {"do": "answer"}).error is None


@runs
def test_a_class_that_is_not_there_is_an_init_error(aws: "LambdaClient", code: bytes) -> None:
    aws.create_function(
        FunctionName="java-lost", Runtime=RUNTIME, Handler="No::one", Role=ROLE, Code={"ZipFile": code}, MemorySize=512
    )
    wait_active(aws, "java-lost", "$LATEST")
    failed = invoke(aws, "java-lost", {})
    assert failed.error == "Unhandled"
    assert failed.payload["errorType"] == "java.lang.ClassNotFoundException"


@runs
def test_a_managed_function_runs_several_invocations_in_one_process(server: Server, code: bytes) -> None:
    """Two invocations wait for each other on a latch that only one JVM knows."""
    aws, arn = server.aws, create_provider(server.aws, "java")
    request = on_provider(arn, 4, FunctionName="java-managed", Runtime=NEWER, Handler=HANDLER, Role=ROLE)
    aws.create_function(
        **request, Code={"ZipFile": code}, MemorySize=2048, Timeout=30, Publish=True, PublishTo="LATEST_PUBLISHED"
    )
    wait_active(aws, "java-managed")
    asked = [server.clients.submit(invoke, aws, "java-managed", {"do": "meet", "n": n}) for n in range(2)]
    answers = [each.result(60) for each in asked]
    assert [answer.payload["met"] for answer in answers] == [True, True]
    assert sorted(answer.payload["event"]["n"] for answer in answers) == [0, 1]
