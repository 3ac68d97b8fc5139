"""Wrapper scripts (AWS_LAMBDA_EXEC_WRAPPER): started instead of the runtime, which they start in their turn."""

from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import (
    Server,
    archive,
    create_function,
    create_provider,
    custom_runtime,
    invoke,
    on_provider,
    wait_active,
    with_runtime,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

WRAPPER = '#!/bin/sh\nexport WRAPPED="$#"\nexport LINE="$*"\nexec "$@"\n'
PYTHON = "import os\ndef handler(event, context):\n    return [os.environ.get('WRAPPED'), os.environ.get('LINE')]\n"
NODE = "exports.handler = async () => [process.env.WRAPPED, process.env.LINE];\n"
SOURCES = {"python3.13": ("app.py", PYTHON, "app.handler"), "nodejs22.x": ("index.js", NODE, "index.handler")}


@pytest.fixture(scope="module")
def aws(server: Server) -> "LambdaClient":
    create_provider(server.aws)
    return server.aws


def deploy(
    aws: "LambdaClient", name: str, runtime: str, wrapper: str, *, managed: bool = False, **members: Any
) -> None:
    path, source, handler = SOURCES[runtime]
    code = archive({path: source, "wrap": WRAPPER}, "wrap")
    request = {"Runtime": with_runtime(runtime), "Handler": handler, "Code": {"ZipFile": code}, "Timeout": 20}
    request |= {"Environment": {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": wrapper}}, **members}
    if managed:
        arn = aws.get_capacity_provider(CapacityProviderName="pool")["CapacityProvider"]["CapacityProviderArn"]
        request |= on_provider(arn, 2, Publish=True, PublishTo="LATEST_PUBLISHED")
    create_function(aws, name, "", **request)
    wait_active(aws, name, *([] if managed else ["$LATEST"]))


@pytest.mark.parametrize("managed", [False, True], ids=["standard", "managed"])
@pytest.mark.parametrize("runtime", SOURCES)
def test_a_wrapper_in_the_code_package(aws: "LambdaClient", runtime: str, *, managed: bool) -> None:
    name = f"wrapped-{runtime.replace('.', '-')}-{managed}"
    deploy(aws, name, runtime, "/var/task/wrap", managed=managed)
    count, line = invoke(aws, name).payload
    assert int(count) > 1  # the interpreter and its arguments
    assert runtime[:4] in line


def test_a_wrapper_in_a_layer(aws: "LambdaClient") -> None:
    layer = aws.publish_layer_version(
        LayerName="wrapper", Content={"ZipFile": archive({"own/wrap": WRAPPER}, "own/wrap")}
    )
    deploy(aws, "wrapped-by-layer", "python3.13", "/opt/own/wrap", Layers=[layer["LayerVersionArn"]])
    assert int(invoke(aws, "wrapped-by-layer").payload[0]) > 1


def test_a_wrapper_that_is_not_there(aws: "LambdaClient") -> None:
    deploy(aws, "unwrapped", "python3.13", "/var/task/nothing")
    answer = invoke(aws, "unwrapped")
    assert (answer.error, answer.payload["errorType"]) == ("Unhandled", "Runtime.ExitError")


def test_custom_runtimes_have_no_wrapper(aws: "LambdaClient") -> None:
    """Developer Guide: wrapper scripts are not supported on OS-only runtimes."""
    create_function(
        aws,
        "custom",
        "",
        Runtime="provided.al2023",
        Handler="any",
        Code={"ZipFile": custom_runtime()},
        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/nothing"}},
    )
    wait_active(aws, "custom", "$LATEST")
    assert invoke(aws, "custom", {"do": "echo", "value": 7}).error is None
