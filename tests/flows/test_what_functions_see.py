"""What a function finds around it, at the strongest and the weakest level: AWS's variables and no other, AWS's places, user and limits."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.harness import (
    FUNCTIONS,
    Server,
    archive,
    create_function,
    create_provider,
    custom_runtime,
    invoke,
    on_provider,
    running,
    wait_active,
    with_runtime,
)

from lambstead.instance.levels import LevelFails, try_level

CODES = {
    "python3.13": archive({"app.py": (FUNCTIONS / "matrix.py").read_text()}),
    "nodejs22.x": archive({"app.mjs": (FUNCTIONS / "matrix.mjs").read_text()}),
    "provided.al2023": custom_runtime(),
}
EVERYWHERE = {
    # Recorded by others on demand (LocalStack's `test_introspection_invoke`), 2025 and 2026; AWS's custom runtimes lack PWD and SHLVL.
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PWD",
    "SHLVL",
    "TZ",
    "_AWS_XRAY_DAEMON_ADDRESS",
    "_AWS_XRAY_DAEMON_PORT",
    "_HANDLER",
}
OF_RUNTIME = {
    "python3.13": {"AWS_EXECUTION_ENV", "LC_CTYPE", "PYTHONPATH"},
    "nodejs22.x": {"AWS_EXECUTION_ENV", "NODE_PATH"},
    "provided.al2023": {"LC_CTYPE"},  # this bootstrap is a Python program, which sets it itself
}
MANAGED = {
    # The Developer Guide's and the open-source Runtime Interface Emulator's; Node.js has its worker count from us.
    "AWS_LAMBDA_LOG_FORMAT",
    "AWS_LAMBDA_LOG_LEVEL",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET",
}


IN_A_SANDBOX = pytest.mark.parametrize("scene", ["sandbox", "oci"], indirect=True)
"""Only there are places of its own."""


@dataclass(frozen=True)
class Scene:
    level: str
    server: Server
    provider: str


@pytest.fixture(scope="module", params=["sandbox", "process"])
def scene(request: pytest.FixtureRequest, runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    try:
        try_level(request.param)
    except LevelFails as exc:
        pytest.skip(f"level {request.param}: {exc} {exc.advice}")
    with running(tmp_path_factory.mktemp(request.param) / "data", "--isolation", request.param) as server:
        yield Scene(request.param, server, create_provider(server.aws))


def see(scene: Scene, identifier: str, *, managed: bool, name: str = "see") -> dict[str, str]:
    """The variables of a function that has one of its own, `MINE`."""
    name = f"{name}-{identifier.partition('.')[0]}-{'managed' if managed else 'demand'}"
    members: dict[str, Any] = {
        "Runtime": with_runtime(identifier),
        "Code": {"ZipFile": CODES[identifier]},
        "Environment": {"Variables": {"MINE": "1"}},
    }
    if managed:
        members |= on_provider(scene.provider, 2, Publish=True, PublishTo="LATEST_PUBLISHED")
    create_function(scene.server.aws, name, "", **members)
    wait_active(scene.server.aws, name, *([] if managed else ["$LATEST"]))
    answer = invoke(scene.server.aws, name, {"do": "variables"})
    assert answer.error is None, answer.payload
    seen: dict[str, str] = answer.payload
    return seen


@pytest.mark.parametrize("managed", [False, True], ids=["on-demand", "managed"])
@pytest.mark.parametrize("identifier", list(CODES))
def test_functions_see_awss_variables_and_no_other(scene: Scene, identifier: str, managed: bool) -> None:
    seen = see(scene, identifier, managed=managed)
    allowed = EVERYWHERE | OF_RUNTIME[identifier] | {"MINE"}
    if managed:
        allowed |= MANAGED | ({"AWS_LAMBDA_NODEJS_WORKER_COUNT"} if identifier.startswith("node") else set())
    if scene.level == "process":
        allowed |= {"TMPDIR"}  # there is no /tmp of its own
    allowed |= {"AWS_ENDPOINT_URL"}  # where the function's own calls go
    # Set by the client for each invocation; `cwd` is the test's own.
    assert set(seen) - {"_X_AMZN_TRACE_ID", "cwd"} == allowed


@IN_A_SANDBOX
@pytest.mark.parametrize("identifier", list(CODES))
def test_places_are_awss_where_there_is_a_root_of_its_own(scene: Scene, identifier: str) -> None:
    """Recorded by others, as above."""
    seen = see(scene, identifier, managed=False, name="places")
    recorded = {
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "PWD": "/var/task",
    }
    if identifier.startswith("python"):
        recorded["PYTHONPATH"] = "/var/runtime"
    if identifier.startswith("node"):
        version = "/opt/nodejs/node22/node_modules:/opt/nodejs/node_modules"
        recorded["NODE_PATH"] = f"{version}:/var/runtime/node_modules:/var/runtime:/var/task"
    assert {name: seen[name] for name in recorded} == recorded


LOOK = """
import getpass, os, pathlib, shutil, subprocess, sys

def handler(event, context):
    status = pathlib.Path("/tmp").stat()
    return {
        "user": [getpass.getuser(), os.getuid() != 0],
        "executable": sys.executable,
        "prefix": sys.prefix,
        "python3": shutil.which("python3"),
        "child": subprocess.run(["python3", "-c", "import json, ssl, sys; print(sys.prefix)"], capture_output=True, text=True).stdout,
        "tmp": oct(status.st_mode),
        "cwd": os.getcwd(),
    }
"""


@IN_A_SANDBOX
def test_a_python_function_finds_its_language_and_user_as_on_aws(scene: Scene) -> None:
    create_function(scene.server.aws, "look", LOOK, Timeout=30)
    wait_active(scene.server.aws, "look", "$LATEST")
    answer = invoke(scene.server.aws, "look")
    assert answer.error is None, answer.payload
    assert answer.payload == {
        "user": ["sbx_user1051", True],
        "executable": "/var/lang/bin/python3.13",
        "prefix": "/var/lang",
        "python3": "/var/lang/bin/python3",
        "child": "/var/lang\n",
        "tmp": "0o41777",
        "cwd": "/var/task",
    }


SCRIPT = """#!/bin/sh
set -euo pipefail
while true; do
  headers="$(mktemp)"
  event=$(curl -sS -LD "$headers" "http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/next")
  id=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$headers" | tr -d '[:space:]' | cut -d: -f2)
  curl -sS "http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/$id/response" -d "$event" > /dev/null
done
"""


@IN_A_SANDBOX
def test_stack_traces_name_awss_places(scene: Scene) -> None:
    """Recorded by others (LocalStack's `test_lambda_handler_error`)."""
    create_function(scene.server.aws, "failing", "def handler(event, context):\n    raise ValueError('no')\n")
    wait_active(scene.server.aws, "failing", "$LATEST")
    answer = invoke(scene.server.aws, "failing")
    assert answer.error == "Unhandled"
    assert answer.payload["stackTrace"] == [
        "  File \"/var/task/app.py\", line 2, in handler\n    raise ValueError('no')\n"
    ]


@IN_A_SANDBOX
def test_a_bootstrap_for_awss_shell_runs(scene: Scene) -> None:
    """`/bin/sh` is Bash on AWS, and its tutorial of custom runtimes asks it for `pipefail`."""
    if shutil.which("bash") is None or shutil.which("curl") is None:
        pytest.skip("the shell is this machine's Bash, and the script needs curl")
    code = {"ZipFile": archive({"bootstrap": SCRIPT}, "bootstrap")}
    create_function(scene.server.aws, "shell", "", Runtime="provided.al2023", Code=code, Timeout=30)
    wait_active(scene.server.aws, "shell", "$LATEST")
    assert invoke(scene.server.aws, "shell", {"in": ["and", "out"]}).payload == {"in": ["and", "out"]}
