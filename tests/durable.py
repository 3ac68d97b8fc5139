"""Durable functions with AWS's own Python SDK, for tests: the package, the deployment, what an execution came to."""

import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness import CHECKOUT, ROLE, create_function, wait_active, wait_for

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

SDK = "aws-durable-execution-sdk-python==3.0.0"
"""Pinned: what it sends and expects is part of what the tests state."""
LATEST = "$LATEST"
FINAL = ("SUCCEEDED", "FAILED", "TIMED_OUT", "STOPPED")


@functools.cache
def sdk_files() -> Mapping[str, bytes]:
    """The files of AWS's SDK, unmodified, fetched once per checkout. Its only dependency, boto3, comes with the runtime."""
    kept = CHECKOUT / ".venv" / SDK.replace("==", "-")
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            fresh = Path(folder) / "sdk"
            order = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-deps",
                "--no-compile",
                "--target",
                str(fresh),
                SDK,
            ]
            subprocess.run(order, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
            shutil.rmtree(fresh / "bin", ignore_errors=True)
            if not kept.exists():
                fresh.rename(kept)
    return {str(path.relative_to(kept)): path.read_bytes() for path in sorted(kept.rglob("*.py"))}


def durable_package(source: str) -> bytes:
    """A function's module `app` with the SDK beside it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("app.py", source)
        for name, content in sdk_files().items():
            opened.writestr(name, content)
    return archive.getvalue()


def create_durable(aws: "LambdaClient", name: str, source: str, **members: Any) -> None:
    """A durable function on demand, once it can be invoked; executions may take a minute."""
    request = {
        "Code": {"ZipFile": durable_package(source)},
        "Role": ROLE,
        "Timeout": 20,
        "MemorySize": 256,
        "DurableConfig": {"ExecutionTimeout": 60},
        **members,
    }
    create_function(aws, name, "", **request)
    if "CapacityProviderConfig" not in members:
        wait_active(aws, name, "$LATEST")


def start_execution(
    aws: "LambdaClient", function: str, event: Any = None, qualifier: str = LATEST, name: str | None = None
) -> str:
    """Start an execution without waiting for it; its ARN."""
    named = {} if name is None else {"DurableExecutionName": name}
    answer = aws.invoke(
        FunctionName=function,
        Qualifier=qualifier,
        InvocationType="Event",
        Payload=json.dumps(event).encode(),
        **named,  # type: ignore[arg-type]  # a member that need not be there
    )
    assert answer["StatusCode"] == 202
    return answer["DurableExecutionArn"]


def status_of(aws: "LambdaClient", arn: str) -> str:
    return aws.get_durable_execution(DurableExecutionArn=arn)["Status"]


def finished(aws: "LambdaClient", arn: str, seconds: float = 30) -> dict[str, Any]:
    """The execution once it has ended."""

    def ended() -> dict[str, Any] | None:
        found = dict(aws.get_durable_execution(DurableExecutionArn=arn))
        return found if found["Status"] in FINAL else None

    return wait_for(ended, f"{arn} ends", seconds)


def history(aws: "LambdaClient", arn: str) -> list[dict[str, Any]]:
    """All events; fails if one is missing."""
    events: list[dict[str, Any]] = []
    marker: dict[str, Any] = {}
    while True:
        page = aws.get_durable_execution_history(DurableExecutionArn=arn, IncludeExecutionData=True, **marker)
        events += [dict(each) for each in page["Events"]]
        if not page.get("NextMarker"):
            break
        marker = {"Marker": page["NextMarker"]}
    assert [each["EventId"] for each in events] == list(range(1, len(events) + 1)), "the history has a hole"
    return events


def types(events: list[dict[str, Any]]) -> list[str]:
    return [each["EventType"] for each in events]


def event_of(aws: "LambdaClient", arn: str, kind: str) -> dict[str, Any]:
    """The first event of this type, once there is one."""
    return wait_for(lambda: next((each for each in history(aws, arn) if each["EventType"] == kind), None), kind)
