"""How long a publish takes beside a hundred versions that serve, and what those cost while nothing is published.

    python -m bench.publish                   # 100 versions of three environments each on one provider: 300 real environments

The functions are a custom runtime of fifty lines of C, so that hundreds of environments fit a small machine and what is measured is Lambstead's own.
All versions but one are published at once; then, while callers invoke them in turn at a steady rate, one more function is created, published and deleted,
again and again: AWS allows 100 versions on a provider. Each time it is taken how long it is from the request to the answer that the version is Active, as its
user sees it. Then the server is left alone but for the callers, and the CPU time that it and its agents take is read. Needs a C compiler.
"""

import argparse
import contextlib
import http.client
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from bench.contenders import AUTHORIZATION, PUBLISHED, ROLE, Lambstead, client_of, lambstead

from bench import machine

SOURCE = Path(__file__).parents[1] / "tests" / "functions" / "bootstrap.c"
PROVIDER = "fleet"
UP_SECONDS = 600.0
"""Deadline until all versions are Active."""
GOAL_S = 3.0
POLL_S = 0.02
IDLE_S = 20.0
"""So long the CPU time of a server without publishes is read."""


def main() -> None:
    given = arguments()
    load_before = machine.load_average()
    with (
        tempfile.TemporaryDirectory(prefix="lambstead-bench-") as folder,
        lambstead(min_environments=str(given.environments), isolation=given.isolation) as server,
    ):
        deployment = Deployment(server, bootstrap(Path(folder)))
        took = deployment.publish_all(given.versions - 1)
        environments = (given.versions - 1) * given.environments
        print(
            f"{given.versions - 1} versions of {given.environments} environments are Active after {took:.1f} s", end=""
        )
        agents = psutil.Process(server.pid).children()
        print(f", on {len(agents)} instances; {resident_mib(server.pid):,.0f} MiB resident in all.")
        with invoked(server, deployment.names, given.rate) as callers:
            times = [deployment.publish_one() for _ in range(given.publishes)]
            cpu = cpu_share(server.pid)
        print(f"Publish to Active, {given.publishes} times one after the other: {spread(times)} s.")
        print(f"Meanwhile {callers.served} invocations at {given.rate}/s were answered, {callers.failed} failed.")
        print(
            f"CPU with {environments} environments and these callers: server {cpu[0]:.1%}, agents {cpu[1]:.1%} of a core."
        )
        print(machine.Conditions.now(load_before, "python -m bench.publish " + " ".join(sys.argv[1:])).sentence())
    if callers.failed or not callers.served or max(times) > GOAL_S:
        sys.exit(f"Invocations failed, or a publish took longer than {GOAL_S:g} s.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a publish takes beside a hundred versions that serve.")
    parser.add_argument(
        "--versions", type=int, default=100, help="on the provider, the one that comes and goes included"
    )
    parser.add_argument("--environments", type=int, default=3, help="of each version")
    parser.add_argument("--publishes", type=int, default=10)
    parser.add_argument("--rate", type=int, default=50, help="invocations per second meanwhile")
    parser.add_argument(
        "--isolation", default="auto", help="how functions are kept apart: auto, sandbox, landlock, process"
    )
    return parser.parse_args()


def spread(seconds: Sequence[float]) -> str:
    return f"median {statistics.median(seconds):.2f}, {min(seconds):.2f} to {max(seconds):.2f}"


def bootstrap(folder: Path) -> bytes:
    """The zip of the custom runtime."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("bench.publish needs a C compiler (cc) for its function.")
    subprocess.run([compiler, "-Os", "-static", "-w", "-o", folder / "bootstrap", SOURCE], check=True)
    return Path(shutil.make_archive(str(folder / "function"), "zip", folder, "bootstrap")).read_bytes()


class Deployment:
    """A provider and the functions on it."""

    def __init__(self, server: Lambstead, code: bytes) -> None:
        self._client = client_of(server)
        self._code = code
        self._numbers = itertools.count()
        self.names: list[str] = []
        created = self._client.create_capacity_provider(
            CapacityProviderName=PROVIDER,
            VpcConfig={"SubnetIds": ["subnet-1", "subnet-2", "subnet-3"], "SecurityGroupIds": []},
            PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
            CapacityProviderScalingConfig={"MaxVCpuCount": 15_000},
        )
        self._arn = created["CapacityProvider"]["CapacityProviderArn"]

    def publish_all(self, count: int) -> float:
        """Seconds until so many functions are Active."""
        began = time.monotonic()
        self.names = [self._create() for _ in range(count)]
        for name in self.names:
            self._wait(name, began + UP_SECONDS)
        return time.monotonic() - began

    def publish_one(self) -> float:
        """Seconds from the request to the answer that a new function is Active."""
        began = time.monotonic()
        name = self._create()
        self._wait(name, began + UP_SECONDS)
        took = time.monotonic() - began
        self._client.delete_function(FunctionName=name)
        with contextlib.suppress(self._client.exceptions.ResourceNotFoundException):
            while self._state(name) and time.monotonic() < began + UP_SECONDS:
                time.sleep(POLL_S)
        return took

    def _create(self) -> str:
        name = f"f{next(self._numbers)}"
        sizing = {"CapacityProviderArn": self._arn, "PerExecutionEnvironmentMaxConcurrency": 1}
        self._client.create_function(
            FunctionName=name,
            Runtime="provided.al2023",
            Role=ROLE,
            Handler="any",
            Code={"ZipFile": self._code},
            MemorySize=2048,
            CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": sizing},
            Publish=True,
            PublishTo="LATEST_PUBLISHED",
        )
        return name

    def _wait(self, name: str, deadline: float) -> None:
        while (found := self._state(name))["State"] != "Active":
            if found["State"] == "Failed" or time.monotonic() > deadline:
                raise SystemExit(f"{name} is {found['State']}: {found.get('StateReason')}")
            time.sleep(POLL_S)

    def _state(self, name: str) -> dict[str, Any]:  # Any: boto3's documents
        return dict(self._client.get_function_configuration(FunctionName=name, Qualifier=PUBLISHED))


class Callers:
    """What became of the invocations."""

    def __init__(self) -> None:
        self.served = 0
        self.failed = 0


@contextmanager
def invoked(server: Lambstead, names: Sequence[str], rate: int) -> Iterator[Callers]:
    """The functions are invoked in turn, so many times a second, over one connection, for the time of the context."""
    callers, over = Callers(), threading.Event()
    address = urlsplit(server.url)
    headers = dict([AUTHORIZATION.split(": ", 1)])

    def call() -> None:
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        due = time.monotonic()
        for name in itertools.cycle(names):
            if over.wait(max(0.0, due - time.monotonic())):
                break
            due += 1 / rate
            connection.request("POST", urlsplit(server.invoke_url(name)).path, b"{}", headers)
            answer = connection.getresponse()
            if answer.read() == b"{}" and answer.status == 200:
                callers.served += 1
            else:
                callers.failed += 1
        connection.close()

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield callers
    finally:
        over.set()
        thread.join()


def cpu_share(pid: int) -> tuple[float, float]:
    """Shares of a core that the server and its agents take, read for a while."""
    server = psutil.Process(pid)
    agents = server.children()

    def taken(processes: Sequence[psutil.Process]) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    began, before = time.monotonic(), (taken([server]), taken(agents))
    time.sleep(IDLE_S)
    elapsed = time.monotonic() - began
    return (taken([server]) - before[0]) / elapsed, (taken(agents) - before[1]) / elapsed


def resident_mib(pid: int) -> float:
    """Proportional memory of a process and everything that it started."""
    root = psutil.Process(pid)
    return sum(each.memory_full_info().pss for each in (root, *root.children(recursive=True))) / 2**20


if __name__ == "__main__":
    main()
