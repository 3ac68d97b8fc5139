"""A real Lambstead for tests: the command in a process of its own, AWS's client in front of it, deadlines instead of sleeps."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import botocore.config
import psutil
import pytest

from lambstead.instance.runtimes import catalogue

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

T = TypeVar("T")

CHECKOUT = Path(__file__).parents[1]
RUNTIMES = Path(os.environ.get("LAMBSTEAD_RUNTIMES_DIR", CHECKOUT / ".venv" / "runtimes"))
ROLE = "arn:aws:iam::000000000000:role/anything"
OPERATOR = "arn:aws:iam::000000000000:role/operator"
PUBLISHED = "$LATEST.PUBLISHED"
PATIENCE_S = 30.0
"""Deadline for facts that a quiet machine brings about in a second."""


def wait_for(fact: Callable[[], T | None], what: str, seconds: float = PATIENCE_S) -> T:
    """The first truthy value of `fact`; fails with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = fact()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {found!r}")
        time.sleep(0.01)


FUNCTIONS = Path(__file__).parent / "functions"
"""Sources of functions that several tests deploy."""


def archive(files: Mapping[str, str | bytes], *programs: str) -> bytes:
    """A zip of these contents by their path; `programs` among them are executable."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if name in programs else 0o644) << 16
            opened.writestr(entry, text)
    return packed.getvalue()


def package(source: str, module: str = "app", **files: str) -> bytes:
    """A zip with one Python module and further files."""
    return archive({f"{module}.py": source, **files})


def custom_runtime(program: str = "bootstrap.py") -> bytes:
    """A zip with one of FUNCTIONS as its `bootstrap`, run by an interpreter that is visible in a sandbox, because the launcher runs on it."""
    interpreter = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    return archive({"bootstrap": f"#!{interpreter} -ES\n{(FUNCTIONS / program).read_text()}"}, "bootstrap")


@dataclass
class Server:
    """A running `lambstead up`."""

    data: Path
    process: "subprocess.Popen[str]"
    url: str
    clients: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))

    @property
    def aws(self) -> "LambdaClient":
        """AWS's client, without its retries: a test wants to see the first answer."""
        client: LambdaClient = self.client("lambda")
        return client

    def client(self, service: str) -> Any:  # Any: boto3 makes its clients at run time
        """AWS's client of any service that is served, without its retries."""
        config = botocore.config.Config(retries={"max_attempts": 0}, read_timeout=60, max_pool_connections=64)
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=config,
        )

    def status(self) -> dict[str, Any]:
        """`/_lambstead/status`."""
        import urllib.request

        with urllib.request.urlopen(f"{self.url}/_lambstead/status", timeout=10) as answer:
            document: dict[str, Any] = json.loads(answer.read())
        return document

    def environments(self, function: str, phase: str = "Ready") -> list[dict[str, Any]]:
        """Environments of a function in one phase, as status shows them."""
        return [
            environment
            for provider in self.status()["providers"]
            for instance in provider["instances"]
            for environment in instance["environments"]
            if environment["function"] == function and environment["phase"] == phase
        ]

    def agents(self) -> list[psutil.Process]:
        """The agent processes of this server."""
        found = []
        for process in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end while we look
                if "lambstead.instance.agent" in process.cmdline():
                    found.append(process)
        return found

    def logs(self, function: str) -> str:
        """Everything that the function's environments have logged so far."""
        return "".join(path.read_text() for path in sorted((self.data / "logs" / function).glob("*.log")))

    def processes(self) -> list[int]:
        """Every process that this server started, however deep, by the marks they carry."""
        return marked_processes(self.data)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`lambstead` with these words, for this server."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LAMBSTEAD_")}
        command = [sys.executable, "-m", "lambstead", *words, "--data", str(self.data)]
        return subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=90
        )

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait(10)


def marked_processes(data: Path) -> list[int]:
    """Agents and function processes of a data directory, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            text = " ".join(process.cmdline())
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and ("lambstead up" not in text) and (str(data) in text or str(data).encode() in environ):
                found.append(process.pid)
    return [pid for pid in found if pid != os.getpid()]


def start(data: Path, *flags: str, **settings: str) -> Server:
    """Start a server on a free port and wait until it answers. `settings` become LAMBSTEAD_ variables."""
    data.mkdir(parents=True, exist_ok=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LAMBSTEAD_"))}
    environ["LAMBSTEAD_RUNTIMES_DIR"] = str(RUNTIMES)
    # Most tests talk with their functions through files and process ids, which only this level lets them; tests/isolation has the others.
    environ["LAMBSTEAD_ISOLATION"] = "process"
    environ |= {f"LAMBSTEAD_{name.upper()}": value for name, value in settings.items()}
    with (data / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lambstead", "up", "--port", "0", "--data", str(data), *flags],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    assert line.startswith("Lambstead is ready at "), (line, (data / "up.log").read_text()[-2000:])
    return Server(data, process, line.split()[-1])


@contextlib.contextmanager
def running(data: Path, *flags: str, **settings: str) -> Iterator[Server]:
    """A server for the time of a test; nothing of it is left afterwards."""
    server = start(data, *flags, **settings)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
        server.clients.shutdown(wait=False, cancel_futures=True)
        for pid in marked_processes(data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# --- deploying ----------------------------------------------------------------------------------------------------------


def create_provider(aws: "LambdaClient", name: str = "pool", **members: Any) -> str:
    """A capacity provider over three subnets; its ARN, once it is Active."""
    request: dict[str, Any] = {
        "VpcConfig": {"SubnetIds": ["subnet-1", "subnet-2", "subnet-3"], "SecurityGroupIds": ["sg-1"]},
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": OPERATOR},
        **members,
    }
    created = aws.create_capacity_provider(CapacityProviderName=name, **request)
    wait_for(
        lambda: aws.get_capacity_provider(CapacityProviderName=name)["CapacityProvider"]["State"] == "Active",
        "the provider is active",
    )
    return created["CapacityProvider"]["CapacityProviderArn"]


def create_function(aws: "LambdaClient", name: str, source: str, **members: Any) -> dict[str, Any]:
    """A Python function whose handler is `app.handler`."""
    request: dict[str, Any] = {
        "Runtime": "python3.13",
        "Handler": "app.handler",
        "Role": ROLE,
        "Code": {"ZipFile": package(source)},
        **members,
    }
    return dict(aws.create_function(FunctionName=name, **request))


def on_provider(arn: str, slots: int | None = None, **members: Any) -> dict[str, Any]:
    """The members that put a function on a capacity provider."""
    sizing: dict[str, Any] = {"CapacityProviderArn": arn}
    if slots is not None:
        sizing["PerExecutionEnvironmentMaxConcurrency"] = slots
    return {"CapacityProviderConfig": {"LambdaManagedInstancesCapacityProviderConfig": sizing}, **members}


def publish_managed(aws: "LambdaClient", name: str, source: str, arn: str, slots: int = 4, **members: Any) -> None:
    """A managed function, published to `$LATEST.PUBLISHED` and Active."""
    create_function(aws, name, source, **on_provider(arn, slots, Publish=True, PublishTo="LATEST_PUBLISHED", **members))
    wait_active(aws, name)


def wait_active(aws: "LambdaClient", name: str, qualifier: str = PUBLISHED) -> Mapping[str, Any]:
    """The configuration of a version once it is Active and updated; fails at once when it Failed."""

    def active() -> Mapping[str, Any] | None:
        found = aws.get_function_configuration(FunctionName=name, Qualifier=qualifier)
        assert found["State"] != "Failed", found.get("StateReason")
        assert found.get("LastUpdateStatus") != "Failed", found.get("LastUpdateStatusReason")
        return found if found["State"] == "Active" and found.get("LastUpdateStatus") != "InProgress" else None

    return wait_for(active, f"{name}:{qualifier} is Active")


def wait_updated(aws: "LambdaClient", name: str) -> None:
    """Return once the last update of `$LATEST` is done; fails at once when it Failed. AWS's waiters ask once a second, which adds up here."""

    def updated() -> bool:
        found = aws.get_function_configuration(FunctionName=name)
        assert found["LastUpdateStatus"] != "Failed", found.get("LastUpdateStatusReason")
        return found["LastUpdateStatus"] == "Successful"

    wait_for(updated, f"{name} is updated")


@dataclass(frozen=True)
class Answer:
    """What an invocation gave."""

    status: int
    payload: Any
    error: str | None
    version: str | None


def with_runtime(identifier: str) -> str:
    """The identifier of a runtime that is installed now; skips the test, and says so, where npm would be needed and is not there."""
    if identifier.startswith("nodejs") and shutil.which("npm") is None:
        pytest.skip("npm is not on PATH: the Node.js client cannot be fetched")
    catalogue.install(RUNTIMES, identifier, print)
    return identifier


def invoke(aws: "LambdaClient", name: str, event: Any = None, **members: Any) -> Answer:
    """Invoke and read the whole answer."""
    answer = aws.invoke(FunctionName=name, Payload=json.dumps(event).encode(), **members)
    body = answer["Payload"].read()
    return Answer(
        answer["StatusCode"],
        json.loads(body) if body else None,
        answer.get("FunctionError"),
        answer.get("ExecutedVersion"),
    )
