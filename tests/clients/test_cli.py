"""The unmodified aws CLI and our own command against a real server, as a newcomer would use them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).parents[2]
FIBONACCI = CHECKOUT / "examples" / "fibonacci-terraform"
PUBLISHED = "$LATEST.PUBLISHED"
ROLE = "arn:aws:iam::000000000000:role/anything"
START_SECONDS = 60.0
"""The first start of all may install the interface client."""
FAILING = "def handler(event, context):\n    print('about to fail')\n    raise ValueError('no such order')\n"

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Lambstead:
    """One data directory and the two commands that work on its server."""

    data: Path

    @property
    def environ(self) -> dict[str, str]:
        """What a user's shell would hold, without any AWS settings of this machine."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        clean.setdefault("LAMBSTEAD_RUNTIMES_DIR", str(CHECKOUT / ".venv" / "runtimes"))
        nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        return {**clean, **nowhere, "LAMBSTEAD_DATA": str(self.data), "NO_PROXY": "127.0.0.1"}

    def up(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the server in the background; its ready line is still to be read."""
        command = [sys.executable, "-m", "lambstead", "up", "--port", "0", *arguments]
        with (self.data / "up.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=log, text=True)

    def run(self, *arguments: str, stdin: str = "") -> Result:
        command = [sys.executable, "-m", "lambstead", *arguments]
        return subprocess.run(command, env=self.environ, input=stdin, capture_output=True, text=True, timeout=100)

    def json(self, *arguments: str) -> object:
        """The JSON that a command prints; it has to succeed."""
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        document: object = json.loads(result.stdout)
        return document

    def aws(self, *arguments: str) -> Result:
        variables = self.json("env")
        assert isinstance(variables, dict)
        command = [str(Path(sys.executable).parent / "aws"), "lambda", *arguments]
        environ = {**self.environ, **variables}
        return subprocess.run(command, env=environ, cwd=self.data, capture_output=True, text=True, timeout=100)

    def aws_json(self, *arguments: str) -> dict[str, object]:
        result = self.aws(*arguments)
        assert result.returncode == 0, result.stderr
        document: dict[str, object] = json.loads(result.stdout)
        return document


def ready_url(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("Lambstead is ready at http://127.0.0.1:"), line
    return line.split()[-1]


def ended(server: "subprocess.Popen[str]") -> None:
    """Make sure that neither the server nor anything it started outlives the test."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
        server.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    if server.stdout is not None:
        server.stdout.close()
    server.wait()


def zipped(folder: Path, name: str, source: str) -> str:
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as package:
        package.writestr(f"{name}.py", source)
    return f"fileb://{name}.zip"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambstead]:
    """A server with the Fibonacci function on a capacity provider and a failing on-demand function."""
    lambstead = Lambstead(tmp_path_factory.mktemp("data"))
    server = lambstead.up()
    try:
        ready_url(server)
        deploy(lambstead)
        yield lambstead
    finally:
        ended(server)


def deploy(lambstead: Lambstead) -> None:
    created = lambstead.aws_json(
        *("create-capacity-provider", "--capacity-provider-name", "tour"),
        *("--vpc-config", "SubnetIds=subnet-0a1b2c3d,SecurityGroupIds=sg-0a1b2c3d"),
        *("--permissions-config", f"CapacityProviderOperatorRoleArn={ROLE}"),
    )
    provider = created["CapacityProvider"]
    assert isinstance(provider, dict)
    code = zipped(lambstead.data, "fibonacci", (FIBONACCI / "function" / "fibonacci.py").read_text())
    configuration = (
        f"LambdaManagedInstancesCapacityProviderConfig={{CapacityProviderArn={provider['CapacityProviderArn']}}}"
    )
    lambstead.aws_json(
        *("create-function", "--function-name", "fibonacci", "--runtime", "python3.13", "--role", ROLE),
        *("--handler", "fibonacci.handler", "--zip-file", code, "--memory-size", "2048"),
        *("--capacity-provider-config", configuration, "--publish", "--publish-to", "LATEST_PUBLISHED"),
    )
    waited = lambstead.aws("wait", "published-version-active", "--function-name", "fibonacci", "--qualifier", PUBLISHED)
    assert waited.returncode == 0, waited.stderr
    lambstead.aws_json(
        *("create-function", "--function-name", "failing", "--runtime", "python3.13", "--role", ROLE),
        *("--handler", "failing.handler", "--zip-file", zipped(lambstead.data, "failing", FAILING)),
    )
    waited = lambstead.aws("wait", "function-active-v2", "--function-name", "failing")
    assert waited.returncode == 0, waited.stderr


@pytest.mark.parametrize("payload", ['{"n": 10}', f"file://{FIBONACCI / 'event.json'}"], ids=["text", "file"])
def test_aws_invokes_the_published_version(deployed: Lambstead, payload: str) -> None:
    answer = deployed.aws_json("invoke", "--function-name", "fibonacci", "--payload", payload, "out.json")
    assert answer == {"StatusCode": 200, "ExecutedVersion": PUBLISHED}
    document = json.loads((deployed.data / "out.json").read_text())
    assert document["statusCode"] == 200
    assert document["body"] == '{"n": 10, "sequence": [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55]}'


def test_aws_shows_the_capacity_provider_and_its_versions(deployed: Lambstead) -> None:
    provider = deployed.aws_json("get-capacity-provider", "--capacity-provider-name", "tour")["CapacityProvider"]
    assert isinstance(provider, dict)
    assert provider["State"] == "Active"
    listed = deployed.aws_json("list-function-versions-by-capacity-provider", "--capacity-provider-name", "tour")
    versions = listed["FunctionVersions"]
    assert isinstance(versions, list)
    assert (PUBLISHED, "Active") in [(each["FunctionArn"].rpartition(":")[2], each["State"]) for each in versions]
    configuration = deployed.aws_json("get-function", "--function-name", "fibonacci")["Configuration"]
    assert isinstance(configuration, dict)
    assert configuration["State"] == "ActiveNonInvocable"


def test_invoke_prints_the_answer_for_people(deployed: Lambstead) -> None:
    result = deployed.run("invoke", "fibonacci", "--payload", '{"n": 3}')
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(json.loads(result.stdout)["body"]) == {"n": 3, "sequence": [0, 1, 1, 2]}
    assert "\n  " in result.stdout


@pytest.mark.parametrize(
    ("payload", "stdin"),
    [("-", '{"n": 1}'), (f"@{FIBONACCI / 'event.json'}", ""), ('{"n": 2}', "")],
    ids=["stdin", "file", "text"],
)
def test_invoke_as_json_tells_version_and_request(deployed: Lambstead, payload: str, stdin: str) -> None:
    result = deployed.run("invoke", "fibonacci", "--payload", payload, "--json", stdin=stdin)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["statusCode"] == 200
    assert report["payload"]["statusCode"] == 200
    assert report["functionError"] is None
    assert report["executedVersion"] == PUBLISHED
    assert report["requestId"]


def test_invoke_ends_with_1_when_the_function_failed(deployed: Lambstead) -> None:
    result = deployed.run("invoke", "failing")
    assert result.returncode == 1
    error = json.loads(result.stdout)
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such order")
    assert "lambstead logs failing" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "first", "next_step"),
    [
        (["nowhere"], "ResourceNotFoundException: ", "lambstead status"),
        (["fibonacci", "--payload", "{n: 10}"], "InvalidRequestContentException: ", "--payload '"),
        (["fibonacci", "--qualifier", "$LATEST"], "InvalidParameterValueException: ", ""),
    ],
    ids=["unknown function", "no JSON", "not invocable"],
)
def test_invoke_says_what_the_api_refused(
    deployed: Lambstead, arguments: list[str], first: str, next_step: str
) -> None:
    result = deployed.run("invoke", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(first)
    assert next_step in result.stderr
    assert "Traceback" not in result.stderr


def test_logs_show_what_a_function_printed(deployed: Lambstead) -> None:
    deployed.run("invoke", "failing")
    result = deployed.run("logs", "failing")
    assert result.returncode == 0, result.stderr
    assert "about to fail" in result.stdout
    tail = deployed.run("logs", "failing", "--tail", "1")
    assert len(tail.stdout.splitlines()) == 1
    assert result.stdout.endswith(tail.stdout)


def test_logs_follow_new_lines_until_interrupted(deployed: Lambstead) -> None:
    command = [sys.executable, "-m", "lambstead", "logs", "failing", "--follow", "--tail", "0"]
    with subprocess.Popen(command, env=deployed.environ, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        os.set_blocking(follower.stdout.fileno(), False)
        seen = b""
        deadline = time.monotonic() + 60
        # The follower may attach after the first invocation; a later one it cannot miss.
        while b"about to fail" not in seen:
            assert time.monotonic() < deadline, seen
            deployed.run("invoke", "failing")
            seen += follower.stdout.read() or b""
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130


def test_logs_of_an_unknown_function_are_refused(deployed: Lambstead) -> None:
    result = deployed.run("logs", "nowhere")
    assert (result.returncode, result.stdout) == (2, "")
    assert "nowhere" in result.stderr


def test_status_shows_provider_instance_environment_and_versions(deployed: Lambstead) -> None:
    document = deployed.json("status")
    assert isinstance(document, dict)
    (provider,) = [each for each in document["providers"] if each["name"] == "tour"]
    assert provider["state"] == "Active"
    environments = [each for instance in provider["instances"] for each in instance["environments"]]
    assert {each["function"] for each in environments} == {"fibonacci"}
    assert {each["name"] for each in document["functions"]} == {"fibonacci", "failing"}
    tree = deployed.run("status").stdout
    for word in ("tour", "fibonacci", "failing", PUBLISHED, provider["instances"][0]["id"], environments[0]["id"]):
        assert word in tree


def test_doctor_reports_checks_and_none_failed(deployed: Lambstead) -> None:
    document = deployed.json("doctor")
    assert isinstance(document, dict)
    assert {check["state"] for check in document["checks"]} <= {"ok", "warning"}
    text = deployed.run("doctor").stdout
    assert all(check["name"] in text for check in document["checks"])


def test_runtime_list_names_python(deployed: Lambstead) -> None:
    runtimes = deployed.json("runtime", "list")
    assert isinstance(runtimes, list)
    assert "python3.13" in [each["identifier"] for each in runtimes]
    assert "python3.13" in deployed.run("runtime", "list").stdout


def test_runtime_install_refuses_what_is_not_built(deployed: Lambstead) -> None:
    result = deployed.run("runtime", "install", "dotnet8")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("The runtime dotnet8 is not built yet")


def test_a_second_server_on_the_same_data_is_refused(deployed: Lambstead) -> None:
    result = deployed.run("up", "--port", "0")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"already serves {deployed.data}" in result.stderr


def test_a_server_stops_cleanly_and_continues_where_it_stopped(tmp_path: Path) -> None:
    lambstead = Lambstead(tmp_path)
    first = lambstead.up()
    try:
        url = ready_url(first)
        lambstead.aws_json(
            *("create-function", "--function-name", "kept", "--runtime", "python3.13", "--role", ROLE),
            *("--handler", "kept.handler", "--zip-file", zipped(tmp_path, "kept", FAILING)),
        )
        stopped = lambstead.run("down")
        assert (stopped.returncode, first.wait(10)) == (0, 0)
        assert url in stopped.stdout
    finally:
        ended(first)
    assert not (tmp_path / "server.json").exists()
    assert "No Lambstead server is running" in lambstead.run("env").stderr
    second = lambstead.up()
    try:
        ready_url(second)
        function = lambstead.aws_json("get-function-configuration", "--function-name", "kept")
        assert function["Handler"] == "kept.handler"
    finally:
        ended(second)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_end_a_server_with_exit_code_0(tmp_path: Path, stop: signal.Signals) -> None:
    server = Lambstead(tmp_path).up()
    try:
        ready_url(server)
        server.send_signal(stop)
        assert server.wait(30) == 0
    finally:
        ended(server)


def test_reset_asks_and_then_deletes_everything(tmp_path: Path) -> None:
    lambstead = Lambstead(tmp_path)
    server = lambstead.up()
    try:
        ready_url(server)
        lambstead.aws_json(
            *("create-function", "--function-name", "gone", "--runtime", "python3.13", "--role", ROLE),
            *("--handler", "gone.handler", "--zip-file", zipped(tmp_path, "gone", FAILING)),
        )
        refused = lambstead.run("reset", stdin="n\n")
        assert refused.returncode == 1
        assert lambstead.aws_json("get-function", "--function-name", "gone")
        assert lambstead.run("reset", "--yes").returncode == 0
        deadline = time.monotonic() + START_SECONDS
        while lambstead.aws("get-function", "--function-name", "gone").returncode == 0:
            assert time.monotonic() < deadline
    finally:
        ended(server)
