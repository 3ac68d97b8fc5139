"""Every runtime inside every level: it initialises, answers, finds AWS's places, and connects where its provider's security groups let it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.harness import (
    Server,
    archive,
    create_function,
    create_provider,
    custom_runtime,
    invoke,
    on_provider,
    package,
    running,
    wait_active,
    wait_for,
    with_runtime,
)

from lambstead.config import SettingsError
from lambstead.instance.levels import LevelFails, try_level

PYTHON = """
import os, socket

def handler(event, context):
    try:
        socket.create_connection(tuple(event), timeout=5).close()
        reached = True
    except OSError:
        reached = False
    return {"reached": reached, "root": os.environ["LAMBDA_TASK_ROOT"], "cwd": os.getcwd(), "files": sorted(os.listdir(os.environ["LAMBDA_TASK_ROOT"]))}
"""
NODE = """
import net from "node:net";
import fs from "node:fs";
export const handler = (event) => new Promise((resolve) => {
    const root = process.env.LAMBDA_TASK_ROOT;
    const done = (reached) => resolve({reached, root, cwd: process.cwd(), files: fs.readdirSync(root)});
    const socket = net.connect(event[1], event[0], () => { socket.destroy(); done(true); });
    socket.on("error", () => done(false));
});
"""
CALLBACK = """
exports.handler = (event, context, callback) => callback(null, {root: process.env.LAMBDA_TASK_ROOT, cwd: process.cwd(), files: ["index.js"]});
"""


@pytest.fixture(
    scope="module",
    params=[
        *(f"{level}-{client}" for level in ("sandbox", "landlock", "oci") for client in ("link", "official")),
        "gvisor-link",
    ],
)
def server(
    request: pytest.FixtureRequest, runtimes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    level, _, client = request.param.partition("-")
    try:
        try_level(level)
    except LevelFails as exc:
        pytest.skip(f"level {level}: {exc} {exc.advice}")
    data = tmp_path_factory.mktemp(request.param) / "data"
    settings = {"runtime_client": client, "security_group_egress": "sg-closed=none"}
    with running(data, "--isolation", level, **settings) as server:
        for name, groups in (("open", ["sg-1"]), ("closed", ["sg-closed"]), ("both", ["sg-closed", "sg-1"])):
            vpc = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": groups}
            create_provider(server.aws, name, VpcConfig=vpc)
        yield server


def arn(server: Server, provider: str) -> str:
    found = server.aws.get_capacity_provider(CapacityProviderName=provider)["CapacityProvider"]
    return found["CapacityProviderArn"]


def deploy(server: Server, name: str, provider: str | None, **members: Any) -> None:
    """On a provider, or on demand; Active when it returns."""
    if provider is None:
        create_function(server.aws, name, "", **members)
        wait_active(server.aws, name, "$LATEST")
    else:
        sizing = on_provider(arn(server, provider), 2, Publish=True, PublishTo="LATEST_PUBLISHED", **members)
        create_function(server.aws, name, "", **sizing)
        wait_active(server.aws, name)


def ask(server: Server, name: str) -> Any:
    host, port = server.url.removeprefix("http://").split(":")
    answer = invoke(server.aws, name, [host, int(port)])
    assert answer.error is None, answer.payload
    return answer.payload


@pytest.mark.parametrize("provider", [None, "open", "closed", "both"])
@pytest.mark.parametrize("identifier", ["python3.13", "nodejs22.x"])
def test_a_runtime_answers_from_inside_and_connects_where_it_may(
    server: Server, identifier: str, provider: str | None
) -> None:
    name = f"{identifier[:6]}-{provider}"
    is_python = with_runtime(identifier).startswith("python")
    code = package(PYTHON) if is_python else archive({"app.mjs": NODE})
    deploy(server, name, provider, Runtime=identifier, Code={"ZipFile": code})
    found = ask(server, name)
    # A provider's security groups add up: the most permissive one counts. No rule names sg-1, so `both` is closed.
    assert found["reached"] is (provider in (None, "open"))
    assert found["root"] == found["cwd"]
    assert found["files"] == ["app.py" if is_python else "app.mjs"]
    log = wait_for(lambda: server.logs(name), "a log")
    assert "Traceback" not in log


@pytest.mark.parametrize("provider", [None, "closed"])
def test_a_custom_runtime_answers_from_inside(server: Server, provider: str | None) -> None:
    name = f"custom-{provider}"
    deploy(server, name, provider, Runtime="provided.al2023", Code={"ZipFile": custom_runtime()}, Handler="any")
    answer = invoke(server.aws, name, {"do": "echo", "value": 1})
    assert answer.error is None, answer.payload


def test_callback_handlers_have_their_own_client_inside(server: Server) -> None:
    deploy(
        server, "callback", None, Runtime=with_runtime("nodejs20.x"), Code={"ZipFile": archive({"app.js": CALLBACK})}
    )
    assert ask(server, "callback")["files"] == ["index.js"]


def test_layers_are_at_opt(server: Server) -> None:
    layer = archive({"python/layered.py": "WHERE = __file__"})
    published = server.aws.publish_layer_version(LayerName="layered", Content={"ZipFile": layer})
    source = "import layered\ndef handler(event, context):\n    import os\n    return layered.WHERE, os.environ['LAMBDA_TASK_ROOT']\n"
    layers = [published["LayerVersionArn"]]
    deploy(server, "layered", "open", Runtime="python3.13", Code={"ZipFile": package(source)}, Layers=layers)
    where, root = invoke(server.aws, "layered").payload
    assert where.endswith("/python/layered.py")
    assert where.startswith("/opt/") == (root == "/var/task")


def test_a_level_that_cannot_keep_functions_in_is_refused_where_some_must_be(tmp_path: Path) -> None:
    from lambstead.app import choose_isolation
    from lambstead.config import Settings

    for policy, level in (("none", "process"), ("nat", "process"), ("nat", "landlock")):
        flags = {"isolation": level, "security_group_egress": f"sg-1={policy}"}
        with pytest.raises(SettingsError, match=rf"{level} (cannot enforce the policy {policy}|does not work)"):
            choose_isolation(Settings.load({}, tmp_path, flags))


POLICY = "import os\ndef handler(event, context):\n    return os.sched_getscheduler(0)\n"


def test_a_function_does_not_take_the_core_from_whoever_wakes_it(
    server: Server, request: pytest.FixtureRequest
) -> None:
    """Decision 0047, for workers and for what a launcher starts. In gVisor it is the sandbox as a whole, which cannot look at itself."""
    if "gvisor" in request.node.name:
        pytest.skip("gVisor shows a policy of its own")
    deploy(server, "policy", "open", Runtime=with_runtime("python3.13"), Code={"ZipFile": package(POLICY)})
    assert invoke(server.aws, "policy", {}).payload == os.SCHED_BATCH
