"""`make bench`: what an invocation costs, beside a bare echo server in the same run.

A real server on a temporary data directory gets a trivial Python function on a capacity provider; `bench.load` then calls it
over 1, 16 and 64 connections, and `bench.echo` in between. Printed and kept (`bench/results/*.json`): CPU µs per invocation of
the server, the agent and the function's processes, p50, p99, rate, and the ratio of the server's CPU to the echo's. The whole
run stays below two minutes: every load has a limit on count and on time.
"""

import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

from lambstead.config import Settings

RESULTS = Path(__file__).parent / "results"
CONNECTIONS = (1, 16, 64)
INVOCATIONS = {1: 5000, 16: 10_000, 64: 10_000}
ECHOES = {1: 20_000, 16: 200_000, 64: 200_000}
"""About a second of work each: the kernel counts CPU time in steps of 10 ms."""
WARM_UP_REQUESTS = 500
LIMIT_SECONDS = 8.0
START_SECONDS = 60.0
"""The first start may install the Python interface client."""
SLOTS = 16
FUNCTION = "bench"
PUBLISHED = "$LATEST.PUBLISHED"
SOURCE = "def handler(event, context):\n    return event\n"
AUTHORIZATION = (
    "Authorization: AWS4-HMAC-SHA256 Credential=bench/20250101/us-east-1/lambda/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
)
"""The form of a signature: the server accepts any credentials, and signing is the client's cost."""

Report = dict[str, Any]  # the JSON of bench.load.Report


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    pid: int


def main() -> None:
    with (
        echo_server() as echo,
        tempfile.TemporaryDirectory(prefix="lambstead-bench-") as data,
        lambstead(data) as server,
    ):
        deploy(server.url)
        rows = [(load_echo(echo, c), load_invocations(server, c)) for c in CONNECTIONS]
    print_table(rows)
    print(f"\nKept in {keep(rows).relative_to(Path.cwd())}")
    if failed := [report for pair in rows for report in pair if report["failures"]]:
        sys.exit(f"{failed[0]['failures']} requests failed, so these numbers say little: {failed[0]['first_failure']}")


@contextmanager
def echo_server() -> Iterator[Server]:
    process = subprocess.Popen([sys.executable, "-m", "bench.echo"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        try:
            yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}/", process.pid)
        finally:
            process.terminate()


@contextmanager
def lambstead(data: str) -> Iterator[Server]:
    """A server of its own, stopped cleanly at the end. Its log is shown if it does not come up."""
    environment = {
        **os.environ,
        # The interface client is installed once for all benchmarks; waiting for a slot is not an error here.
        "LAMBSTEAD_RUNTIMES_DIR": str(Settings.load(os.environ, Path.home()).runtimes_dir),
        "LAMBSTEAD_SLOT_WAIT": "30s",
    }
    log = Path(data) / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lambstead", "up", "--port", "0", "--data", data],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        if "http://" not in ready:
            raise SystemExit(f"The server did not become ready.\n{log.read_text(errors='replace')[-3000:]}")
        yield Server(ready.split()[-1], process.pid)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """Stop cleanly; what is still there after that is ended by force, so that a benchmark leaves nothing behind."""
    tree = []
    with suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in tree:
        with suppress(psutil.NoSuchProcess):
            left.kill()


def deploy(url: str) -> None:
    """Put the function on a capacity provider and wait until its published version is Active."""
    client = boto3.client(
        "lambda",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    provider = client.create_capacity_provider(
        CapacityProviderName="bench",
        VpcConfig={"SubnetIds": ["subnet-0"], "SecurityGroupIds": []},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": "arn:aws:iam::000000000000:role/operator"},
    )["CapacityProvider"]["CapacityProviderArn"]
    client.create_function(
        FunctionName=FUNCTION,
        Runtime="python3.13",
        Role="arn:aws:iam::000000000000:role/function",
        Handler="bench.handler",
        Code={"ZipFile": zipped("bench.py", SOURCE)},
        MemorySize=2048,
        Timeout=30,
        CapacityProviderConfig={
            "LambdaManagedInstancesCapacityProviderConfig": {
                "CapacityProviderArn": provider,
                "PerExecutionEnvironmentMaxConcurrency": SLOTS,
            }
        },
        Publish=True,
        PublishTo="LATEST_PUBLISHED",
    )
    deadline = time.monotonic() + START_SECONDS
    while (version := client.get_function_configuration(FunctionName=FUNCTION, Qualifier=PUBLISHED))[
        "State"
    ] == "Pending" and time.monotonic() < deadline:
        time.sleep(0.1)
    if version["State"] != "Active":
        raise SystemExit(f"The function is {version['State']}: {version.get('StateReason')}")


def zipped(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr(name, text)
    return buffer.getvalue()


def load_echo(echo: Server, connections: int) -> Report:
    return load(echo, echo.url, connections, ECHOES[connections], [])


def load_invocations(server: Server, connections: int) -> Report:
    url = f"{server.url}/2015-03-31/functions/{FUNCTION}/invocations"
    return load(server, url, connections, INVOCATIONS[connections], ["--header", AUTHORIZATION])


def load(server: Server, url: str, connections: int, requests: int, headers: list[str]) -> Report:
    """One run of the load generator in its own process."""
    counts = ["--connections", str(connections), "--requests", str(requests)]
    limits = ["--warm-up", str(WARM_UP_REQUESTS), "--limit-seconds", str(LIMIT_SECONDS)]
    command = [sys.executable, "-m", "bench.load", url, *counts, *limits, "--watch", str(server.pid), *headers]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=10 * LIMIT_SECONDS)
    report: Report = json.loads(result.stdout)
    return report


def print_table(rows: list[tuple[Report, Report]]) -> None:
    print(f"CPU µs and latency per request · {cpu_name()} · {os.cpu_count()} cores · load {os.getloadavg()[0]:.1f}")
    print(f"{'':18}{'server':>8}{'agent':>8}{'workers':>8}{'p50 µs':>9}{'p99 µs':>9}{'per s':>8}{'× echo':>8}")
    for echo, invocation in rows:
        print_row(f"echo    c = {echo['connections']}", echo, "")
        ratio = invocation["cpu_us"]["server"] / max(echo["cpu_us"]["server"], 0.001)
        print_row(f"invoke  c = {invocation['connections']}", invocation, f"{ratio:.1f}")


def print_row(name: str, report: Report, ratio: str) -> None:
    cpu = "".join(
        f"{report['cpu_us'][level]:8.0f}" if level in report["cpu_us"] else f"{'-':>8}"
        for level in ("server", "agent", "workers")
    )
    print(f"{name:18}{cpu}{report['p50_us']:9.0f}{report['p99_us']:9.0f}{report['rate']:8.0f}{ratio:>8}")


def keep(rows: list[tuple[Report, Report]]) -> Path:
    """Write the numbers with what they depend on; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    document = {
        "at": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "slots": SLOTS,
        "runs": [{"echo": echo, "invoke": invocation} for echo, invocation in rows],
    }
    file = RESULTS / f"invoke-{now:%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(document, indent=2) + "\n")
    return file


def cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
