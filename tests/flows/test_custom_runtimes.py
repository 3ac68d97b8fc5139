"""Custom runtimes: which program is started, what happens when there is none, and programs of several kinds."""

import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import (
    FUNCTIONS,
    PUBLISHED,
    Server,
    archive,
    create_function,
    create_provider,
    custom_runtime,
    invoke,
    on_provider,
    wait_active,
    wait_for,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

NO_BOOTSTRAP = "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"

SHELL = """#!/bin/sh
set -eu
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
  event=$(curl -sS -D "$TMPDIR/head" "$api/next")
  id=$(sed -n 's/^lambda-runtime-aws-request-id: *//Ip' "$TMPDIR/head" | tr -d '\\r')
  curl -sS -o "$TMPDIR/receipt" -X POST "$api/$id/response" -d "{\\"handler\\":\\"$_HANDLER\\",\\"event\\":$event}"
done
"""


def deploy(aws: "LambdaClient", name: str, code: bytes, **members: Any) -> None:
    request = {"Runtime": "provided.al2023", "Handler": "my.handler", "Code": {"ZipFile": code}, **members}
    create_function(aws, name, "", **request)
    if "Publish" not in members:
        wait_active(aws, name, "$LATEST")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("none", archive({"readme": "no program here"}), NO_BOOTSTRAP),
        ("not-executable", archive({"bootstrap": "#!/bin/sh\n"}), NO_BOOTSTRAP),
        (
            "windows",
            archive({"bootstrap": "#!/bin/sh\r\necho hello\r\n"}, "bootstrap"),
            "fork/exec /var/task/bootstrap: no such file or directory",
        ),
        ("text", archive({"bootstrap": "hello"}, "bootstrap"), "fork/exec /var/task/bootstrap: exec format error"),
        ("empty", archive({"bootstrap": ""}, "bootstrap"), "fork/exec /var/task/bootstrap: exec format error"),
    ],
)
def test_a_package_without_a_program_is_told_in_awss_words(
    aws: "LambdaClient", name: str, code: bytes, message: str
) -> None:
    deploy(aws, name, code)
    answer = invoke(aws, name)
    assert answer.error == "Unhandled"
    assert answer.payload == {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": message}


def test_a_managed_version_without_a_program_fails_with_awss_reason(aws: "LambdaClient") -> None:
    provider = create_provider(aws)
    members = on_provider(provider, 2, Publish=True, PublishTo="LATEST_PUBLISHED")
    deploy(aws, "unstartable", archive({"x": ""}), **members)

    def failed() -> Any:
        found = aws.get_function_configuration(FunctionName="unstartable", Qualifier=PUBLISHED)
        return found if found["State"] == "Failed" else None

    reason = wait_for(failed, "the version failed")
    assert reason["StateReasonCode"] == "FunctionError.InvalidEntryPoint"
    assert NO_BOOTSTRAP in reason["StateReason"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")
def test_a_shell_script_with_a_connection_per_request_serves(aws: "LambdaClient") -> None:
    deploy(aws, "shell", archive({"bootstrap": SHELL}, "bootstrap"), Runtime="provided.al2", Timeout=20)
    for number in range(3):
        assert invoke(aws, "shell", number).payload == {"handler": "my.handler", "event": number}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")
def test_a_shell_script_serves_on_managed_instances_one_after_the_other(server: Server, aws: "LambdaClient") -> None:
    provider = create_provider(aws, "shells")
    members = on_provider(provider, 4, Publish=True, PublishTo="LATEST_PUBLISHED", Timeout=20)
    deploy(aws, "shell-managed", archive({"bootstrap": SHELL}, "bootstrap"), **members)
    wait_active(aws, "shell-managed")
    asked = [server.clients.submit(invoke, aws, "shell-managed", number) for number in range(8)]
    assert sorted(each.result(60).payload["event"] for each in asked) == list(range(8))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")
def test_the_program_may_come_from_a_layer_and_the_code_packages_own_goes_first(aws: "LambdaClient") -> None:
    code = archive({"bootstrap": SHELL}, "bootstrap")
    layer = aws.publish_layer_version(LayerName="shell", Content={"ZipFile": code})["LayerVersionArn"]
    deploy(aws, "from-layer", archive({"x": ""}), Layers=[layer], Timeout=20)
    assert invoke(aws, "from-layer", 7).payload == {"handler": "my.handler", "event": 7}
    deploy(aws, "own-first", archive({"bootstrap": "#!/bin/sh\nexit 42\n"}, "bootstrap"), Layers=[layer])
    assert invoke(aws, "own-first").payload["errorMessage"].endswith("exit status 42")


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_static_binary_serves(aws: "LambdaClient", tmp_path: Path) -> None:
    program = tmp_path / "bootstrap"
    subprocess.run(["cc", "-static", "-O1", "-o", program, FUNCTIONS / "bootstrap.c"], check=True, timeout=60)
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.write(program, "bootstrap")
    deploy(aws, "static", packed.getvalue())
    assert [invoke(aws, "static", {"n": n}).payload for n in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("runtime", ["dotnet8", "ruby3.4"])
def test_runtimes_that_are_not_built_are_refused_at_create_with_the_missing_piece(
    aws: "LambdaClient", runtime: str
) -> None:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as refused:
        deploy(aws, runtime.replace(".", "-"), archive({"x": ""}), Runtime=runtime)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"
    assert "it lacks a launcher for AWS's" in refused.value.response["Error"]["Message"]


def test_an_answer_that_was_sent_before_the_runtime_ended_is_the_answer(server: Server, aws: "LambdaClient") -> None:
    """Some of it is still in the kernel when the process is gone, mostly where many do it at once."""
    deploy(aws, "last-words", custom_runtime("last_words.py"))
    for answer in server.clients.map(lambda _: invoke(aws, "last-words", {}), range(24)):
        assert answer.error is None, answer.payload
        assert answer.payload == "x" * 400_000
