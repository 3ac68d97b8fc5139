"""The durable order, as its README says: deployed by its script and run by its script, with the real aws CLI."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from tests.durable import finished, history, start_execution, types
from tests.harness import CHECKOUT, Server, with_runtime

EXAMPLE = CHECKOUT / "examples" / "durable-order-cdk"
LINES = (
    "Validating order order-7",
    "Order validated, waiting 5 seconds before processing",
    "Processing order order-7",
    "Step-wait-step execution completed",
)


def script(server: Server, name: str, *arguments: str) -> str:
    """What a script of the example prints; fails with all of it unless it exits with 0."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
    }
    done = subprocess.run(
        [EXAMPLE / name, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(240)
@pytest.mark.parametrize("language", ["python", "typescript"])
def test_the_scripts_of_the_readme_deploy_and_run_it(runtimes: Path, server: Server, language: str) -> None:
    if language == "typescript":
        with_runtime("nodejs24.x")
    function = f"durable-order-{language}"
    assert f"{function} is deployed" in script(server, "deploy.sh", language)
    printed = script(server, "run.sh", function, "order-7")

    _, _, logs = printed.partition("== Logs\n")
    logs, _, result = logs.partition("== Result\n")
    logged = [json.loads(line)["message"] for line in logs.splitlines() if line]
    assert tuple(logged) == LINES, "each line once, and only this execution's"
    order = json.loads(result)
    assert set(order) == {"orderId", "status", "validatedAt", "processedAt"}
    assert (order["orderId"], order["status"]) == ("order-7", "processed")
    moments = [datetime.fromisoformat(order[name]) for name in ("validatedAt", "processedAt")]
    assert (moments[1] - moments[0]).total_seconds() >= 5, "it waited in between"

    (arn,) = [line for line in printed.splitlines() if line.startswith("arn:")]
    events = history(server.aws, arn)
    assert types(events) == [
        "ExecutionStarted",
        *("StepStarted", "StepSucceeded", "WaitStarted", "InvocationCompleted"),
        *("WaitSucceeded", "StepStarted", "StepSucceeded", "InvocationCompleted", "ExecutionSucceeded"),
    ]
    named = [each.get("Name") for each in events if each["EventType"] in ("StepStarted", "WaitStarted")]
    assert named == ["validate-order", "wait-before-processing", "process-order"]

    for bad in ({}, {"orderId": 7}, {"orderId": ""}):
        failed = finished(server.aws, start_execution(server.aws, function, bad))
        assert failed["Status"] == "FAILED"
        assert failed["Error"]["ErrorMessage"] == "orderId is required: a text that is not empty"
