"""What is measured: Lambstead twice (Python on the link, Python on AWS's own HTTP client) and two limits, a bare echo and a bare ASGI app.

Python runs with a capacity provider and on demand.

Every contender is a context manager that starts processes of its own on free ports and ends them. All answer a POST with the body of
the request; the contenders that run functions do it in a handler that returns its event.
"""

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

from lambstead.config import Settings
from lambstead.core.runtimes import RUNNABLE

START_SECONDS = 90.0
"""The first start of Lambstead may install an interface client."""
SLOTS = 16
LINK = "Lambstead, Python"
"""The contender that the project watches: Python workers on the invocation link."""
PUBLISHED = "$LATEST.PUBLISHED"
ROLE = "arn:aws:iam::000000000000:role/bench"
AUTHORIZATION = (
    "Authorization: AWS4-HMAC-SHA256 Credential=bench/20250101/us-east-1/lambda/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
)
"""The form of a signature: the server accepts any credentials, and signing is the client's cost."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A URL that answers, and the root of the processes that do it."""

    name: str
    url: str
    pid: int
    headers: tuple[str, ...] = ()
    is_ours: bool = False
    """A failed request of ours makes the whole benchmark fail; a peer's is counted."""
    paced_by: str = ""
    """Name of the contender whose rate it is given, if it is not to be loaded as far as it goes."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A trivial function of one runtime: it returns its event. A file with the name `bootstrap` can be executed."""

    language: str
    runtime: str
    handler: str
    files: Mapping[str, str]


PYTHON = Handler(
    "Python", "python3.13", "bench.handler", {"bench.py": "def handler(event, context):\n    return event\n"}
)
NODE = Handler("Node", "nodejs22.x", "index.handler", {"index.mjs": "export const handler = async (event) => event;\n"})
INTERPRETER = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
"""Not that of a virtual environment, which a sandbox does not show."""
PROVIDED = Handler(
    "custom runtime (in Python)",
    "provided.al2023",
    "any",
    {"bootstrap": f"#!{INTERPRETER} -ES\n{(Path(__file__).parent / 'programs/bootstrap.py').read_text()}"},
)


def handlers() -> list[Handler]:
    """Those whose runtime this Lambstead can run."""
    return [handler for handler in (PYTHON, NODE, PROVIDED) if RUNNABLE.fullmatch(handler.runtime)]


# --- limits --------------------------------------------------------------------------------------------------------------


@contextmanager
def echo() -> Iterator[list[Contender]]:
    """Nothing but uvloop and an HTTP parser: what the machine can do.

    Loaded as far as it goes it finds many requests at each look and hardly ever sleeps, which makes each cheap. At the rate of the invoke path
    it has to be woken as often as that: the fairer floor of the two.
    """
    with printing_port([sys.executable, "-m", "bench.echo"]) as (port, pid):
        url = f"http://127.0.0.1:{port}/"
        yield [
            Contender("bare echo (uvloop)", url, pid),
            Contender("bare echo at the link's rate", url, pid, paced_by=LINK),
        ]


@contextmanager
def asgi() -> Iterator[list[Contender]]:
    """An ASGI app of six lines under uvicorn: what a web framework could do at best."""
    port = free_port()
    command = [
        "-m",
        "uvicorn",
        "bench.asgi:app",
        "--port",
        str(port),
        "--log-level",
        "critical",
        "--no-access-log",
        "--lifespan",
        "off",
    ]
    with started([sys.executable, *command]) as process:
        url = f"http://127.0.0.1:{port}/"
        wait_until_answered(url, process)
        yield [Contender("bare ASGI app (uvicorn)", url, process.pid)]


@contextmanager
def printing_port(command: Sequence[str]) -> Iterator[tuple[int, int]]:
    """A process that prints its port as its first line: port and pid."""
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid


# --- Lambstead -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lambstead:
    """A running server."""

    url: str
    pid: int

    def invoke_url(self, function: str) -> str:
        return f"{self.url}/2015-03-31/functions/{function}/invocations"


@contextmanager
def lambstead(**settings: str) -> Iterator[Lambstead]:
    """A server of its own on a temporary data directory; see `lambstead_on`."""
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-") as data, lambstead_on(Path(data), **settings) as server:
        yield server


@contextmanager
def lambstead_on(data: Path, **settings: str) -> Iterator[Lambstead]:
    """A server of its own on a data directory, stopped cleanly at the end. Its log is shown if it does not come up."""
    log = data / "server.log"
    environment = {
        # The interface client is installed once for all benchmarks; waiting for a slot is not an error here.
        "LAMBSTEAD_RUNTIMES_DIR": str(Settings.load(os.environ, Path.home()).runtimes_dir),
        "LAMBSTEAD_SLOT_WAIT": "30s",
        **{f"LAMBSTEAD_{name.upper()}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "lambstead", "up", "--port", "0", "--data", str(data)]
    with log.open("wb") as errors, started(command, environment, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if "http://" not in ready:
            raise SystemExit(f"The server did not become ready.\n{log.read_text(errors='replace')[-3000:]}")
        yield Lambstead(ready.split()[-1], process.pid)


@contextmanager
def lambstead_with(client: str) -> Iterator[list[Contender]]:
    """Lambstead with one trivial function per runtime, its Python workers on the `link` or on AWS's `official` client.

    Python runs on demand as well, without a capacity provider: in as many environments as the others have slots.
    """
    with lambstead(runtime_client=client, standard_environments=str(SLOTS)) as server:
        found = []

        def add(said: str, name: str) -> None:
            said = f"Lambstead, {said}" + (", AWS's HTTP client" if client == "official" else "")
            found.append(Contender(said, server.invoke_url(name), server.pid, (AUTHORIZATION,), is_ours=True))

        for handler in handlers() if client == "link" else [PYTHON]:
            name = handler.language.split()[0].lower()
            deploy(server, name, handler)
            add(handler.language, name)
        deploy_on_demand(server, "on-demand", PYTHON)
        add("Python on demand", "on-demand")
        yield found


def client_of(server: Lambstead) -> Any:  # Any: boto3 makes its clients at run time
    """AWS's client of the Lambda API, without repeats."""
    return boto3.client(
        "lambda",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )


def deploy(
    server: Lambstead, name: str, handler: Handler, slots: int = SLOTS, **members: Any
) -> None:  # Any: members of the request
    """Put a function on a capacity provider and wait until its published version is Active.

    It keeps to one environment: more than `slots` processes on the same cores would measure the scaling, whose turn depends on what ran before.
    """
    client = client_of(server)
    provider = client.create_capacity_provider(
        CapacityProviderName=f"for-{name}",
        VpcConfig={"SubnetIds": ["subnet-0"], "SecurityGroupIds": []},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
    )["CapacityProvider"]["CapacityProviderArn"]
    sizing = {"CapacityProviderArn": provider, "PerExecutionEnvironmentMaxConcurrency": slots}
    on_provider = {"CapacityProviderConfig": {"LambdaManagedInstancesCapacityProviderConfig": sizing}}
    create(server, name, handler, **on_provider, Publish=True, PublishTo="LATEST_PUBLISHED", **members)
    wait_active(server, name, PUBLISHED)
    client.put_function_scaling_config(
        FunctionName=name,
        Qualifier=PUBLISHED,
        FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1},
    )


def deploy_on_demand(server: Lambstead, name: str, handler: Handler) -> None:
    """Create a function without a capacity provider; its environments come with its invocations."""
    create(server, name, handler)
    wait_active(server, name, "$LATEST")


def create(server: Lambstead, name: str, handler: Handler, **members: Any) -> None:  # Any: members of the request
    """Create a function of this handler."""
    client_of(server).create_function(
        FunctionName=name,
        Runtime=handler.runtime,
        Role=ROLE,
        Handler=handler.handler,
        Code={"ZipFile": zipped(handler.files)},
        MemorySize=2048,
        Timeout=30,
        **members,
    )


def wait_active(server: Lambstead, name: str, qualifier: str) -> None:
    """Return once the version is Active; ends the benchmark if it fails."""
    client = client_of(server)
    deadline = time.monotonic() + START_SECONDS
    while (version := client.get_function_configuration(FunctionName=name, Qualifier=qualifier))[
        "State"
    ] == "Pending" and time.monotonic() < deadline:
        time.sleep(0.1)
    if version["State"] != "Active":
        raise SystemExit(f"The function {name} is {version['State']}: {version.get('StateReason')}")


def zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if name == "bootstrap" else 0o644) << 16
            package.writestr(entry, text)
    return buffer.getvalue()


Start = Callable[[], AbstractContextManager[list[Contender]]]
"""Starts contenders, and ends them."""
OURS: Sequence[Start] = (
    echo,
    partial(lambstead_with, "link"),
    partial(lambstead_with, "official"),
)


# --- processes -----------------------------------------------------------------------------------------------------------


@contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    stdout: int | None = subprocess.DEVNULL,
    stderr: "int | io.BufferedWriter | None" = None,
) -> Iterator["subprocess.Popen[str]"]:
    """A process and everything it starts, for the time of the context."""
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, cwd=cwd, stdout=stdout, stderr=stderr, text=True
    )
    try:
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """Stop cleanly; what is still there after that is ended by force, so that a benchmark leaves nothing behind."""
    tree = []
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    for left in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_answered(url: str, process: "subprocess.Popen[str]", body: bytes = b'{"a": 1}') -> None:
    """Return once a POST is answered with 200."""
    deadline = time.monotonic() + START_SECONDS
    because = ""
    while time.monotonic() < deadline and process.poll() is None:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            because = f"{error.code}: {error.read(300)!r}"
        except OSError as error:
            because = str(error)
        time.sleep(0.2)
    raise SystemExit(f"{url} is not answered: {because or f'the process ended with {process.poll()}'}")
