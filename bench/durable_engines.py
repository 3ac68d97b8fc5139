"""Who runs the workflows of `bench.durable`: Lambstead, and of the peers what `bench.peers --install DIR` put there.

Every engine is a context manager that gives a function to measure with. Lambstead and Restate are asked over HTTP by the load generator, in a process of its own,
and the answer comes when the execution has ended. DBOS and AWS's local runner are libraries: their callers are threads of the process that runs
the workflows, which saves them the requests.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.contenders import (
    AUTHORIZATION,
    ROLE,
    START_SECONDS,
    Handler,
    client_of,
    deploy,
    free_port,
    lambstead,
    started,
    zipped,
)
from bench.load import percentile

PROGRAMS = Path(__file__).parent / "programs"
DURABLE = {"DurableConfig": {"ExecutionTimeout": 300}}
SDK = "aws-durable-execution-sdk-python==3.0.0"
"""AWS's SDK that our functions run with; pinned, so that numbers of different days can be compared."""
SLOTS = 16
Report = dict[str, Any]  # rate, p50_us, p99_us, failures, first_failure
Measure = Callable[[str, int, float], Report]
"""Run a workflow (`ten` or `wait`) with so many callers for so many seconds."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Something that runs workflows."""

    name: str
    measure: Measure
    is_ours: bool = False


Start = Callable[[], AbstractContextManager[list[Engine]]]


def all_engines(peers: Path | None) -> list[Start]:
    """Ours, and every peer that is there."""
    starts: list[Start] = [lambstead_engines]
    if peers is not None:
        folder = peers.resolve()
        python = folder / "durable/bin/python"
        if python.exists():
            if (folder / "node_modules/.bin/restate-server").exists():
                starts.append(partial(restate, folder))
            starts += [partial(dbos_sqlite, python), partial(local_runner, python)]
            if shutil.which("initdb"):
                starts.append(partial(dbos_postgres, python))
    return starts


# --- over HTTP ---------------------------------------------------------------------------------------------------------------


def over_http(url: str, headers: Sequence[str], callers: int, seconds: float) -> Report:
    """The load generator's report on one URL; its requests are whole executions."""
    command = [sys.executable, "-m", "bench.load", url, "--connections", str(callers), "--requests", "10000000"]
    command += ["--warm-up", str(2 * callers), "--limit-seconds", str(seconds)]
    command += [word for header in headers for word in ("--header", header)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=10 * seconds + 60)
    report: Report = json.loads(result.stdout)
    return report


@contextmanager
def lambstead_engines() -> Iterator[list[Engine]]:
    """One server with the workflows on a managed instance, and once more on demand. AWS's Python SDK in both, unmodified."""
    files = {"lambda_workflows.py": (PROGRAMS / "lambda_workflows.py").read_text(), **sdk_files()}
    with lambstead() as server:
        aws = client_of(server)
        for workflow in ("ten", "wait"):
            handler = Handler("Python", "python3.13", f"lambda_workflows.{workflow}", files)
            deploy(server, workflow, handler, SLOTS, **DURABLE)
            aws.create_function(
                FunctionName=f"{workflow}-on-demand",
                Runtime=handler.runtime,
                Role=ROLE,
                Handler=handler.handler,
                Code={"ZipFile": zipped(files)},
                MemorySize=2048,
                Timeout=30,
                **DURABLE,
            )
            aws.get_waiter("function_active_v2").wait(FunctionName=f"{workflow}-on-demand")

        def managed(workflow: str, callers: int, seconds: float) -> Report:
            url = server.invoke_url(workflow) + "?Qualifier=$LATEST.PUBLISHED"
            return over_http(url, [AUTHORIZATION], callers, seconds)

        def on_demand(workflow: str, callers: int, seconds: float) -> Report:
            url = server.invoke_url(f"{workflow}-on-demand") + "?Qualifier=$LATEST"
            return over_http(url, [AUTHORIZATION], callers, seconds)

        yield [
            Engine("Lambstead, managed instance", managed, is_ours=True),
            Engine("Lambstead, on demand", on_demand, is_ours=True),
        ]


def sdk_files() -> dict[str, str]:
    """AWS's SDK as files of a package, fetched from the package registry. Its only dependency, boto3, comes with the runtime."""
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-") as folder:
        order = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", folder, SDK]
        subprocess.run(order, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        return {str(path.relative_to(folder)): path.read_text() for path in sorted(Path(folder).rglob("*.py"))}


@contextmanager
def restate(folder: Path) -> Iterator[list[Engine]]:
    """Restate's server with its defaults, and its Python SDK under hypercorn."""
    service, ingress, admin, node = (free_port() for _ in range(4))
    serving = [str(folder / "durable/bin/hypercorn"), "-b", f"127.0.0.1:{service}", "restate_service:app"]
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-") as data:
        environment = {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_LOG_FILTER": "error",
            "DO_NOT_TRACK": "1",
        }
        command = [str(folder / "node_modules/.bin/restate-server"), "--base-dir", data]
        with (
            started(serving, {"PYTHONPATH": str(PROGRAMS)}, stderr=subprocess.DEVNULL),
            started(command, environment, stderr=subprocess.DEVNULL),
        ):
            register(admin, service)

            def measure(workflow: str, callers: int, seconds: float) -> Report:
                url = f"http://127.0.0.1:{ingress}/Bench/{workflow}"
                return over_http(url, ["Content-Type: application/json"], callers, seconds)

            yield [Engine("Restate, Python SDK", measure)]


def register(admin: int, service: int) -> None:
    """Tell Restate where the service is; both may still be starting."""
    body = json.dumps({"uri": f"http://127.0.0.1:{service}"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin}/deployments", body, {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"Restate does not take the service: {error}") from error
            time.sleep(0.2)


# --- libraries ---------------------------------------------------------------------------------------------------------------


def program(command: Sequence[str], workflow: str, callers: int, seconds: float) -> Report:
    """What one of the programs measured."""
    whole = [*command, workflow, str(callers), str(seconds)]
    result = subprocess.run(whole, capture_output=True, text=True, timeout=10 * seconds + 120)
    if result.returncode:
        failure = (result.stderr.strip().splitlines() or ["no word on the reason"])[-1]
        return {"rate": 0.0, "p50_us": 0.0, "p99_us": 0.0, "failures": 1, "first_failure": failure}
    found = json.loads(result.stdout.splitlines()[-1])
    latencies: list[int] = found["latencies_ns"]
    return {
        "rate": len(latencies) / found["seconds"],
        "p50_us": percentile(latencies, 0.5) / 1000,
        "p99_us": percentile(latencies, 0.99) / 1000,
        "failures": 0,
        "first_failure": "",
    }


@contextmanager
def dbos_sqlite(python: Path) -> Iterator[list[Engine]]:
    """DBOS with its state in a SQLite file."""
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-") as data:
        command = [str(python), str(PROGRAMS / "dbos_program.py"), f"sqlite:///{data}/dbos.sqlite"]
        yield [Engine("DBOS, SQLite", partial(program, command))]


@contextmanager
def dbos_postgres(python: Path) -> Iterator[list[Engine]]:
    """DBOS with its state in a PostgreSQL of its own, with that server's defaults."""
    port = free_port()
    # PostgreSQL refuses to run as root.
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-", dir="/tmp") as data:
        if user:
            shutil.chown(data, "nobody")
        folder = f"{data}/cluster"
        making = ["initdb", "-D", folder, "-U", "bench", "--auth", "trust"]
        subprocess.run(making, check=True, stdout=subprocess.DEVNULL, cwd=data, **user)  # type: ignore[call-overload]
        serving = ["-D", folder, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", data]
        with subprocess.Popen(["postgres", *serving], cwd=data, stderr=subprocess.DEVNULL, **user) as server:  # type: ignore[call-overload]
            try:
                url = f"postgresql://bench@127.0.0.1:{port}/bench"
                command = [str(python), str(PROGRAMS / "dbos_program.py"), url]
                yield [Engine("DBOS, PostgreSQL", partial(program, command))]
            finally:
                server.terminate()


@contextmanager
def local_runner(python: Path) -> Iterator[list[Engine]]:
    """AWS's local runner in process, in its default store: memory, so nothing of it is durable."""
    yield [
        Engine(
            "AWS's local runner (in memory)", partial(program, [str(python), str(PROGRAMS / "local_runner_program.py")])
        )
    ]
