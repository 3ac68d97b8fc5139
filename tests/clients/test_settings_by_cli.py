"""Permissions and concurrency as a user types them: the unmodified aws CLI in front of a real server."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.harness import Server, create_function, wait_active, wait_for


def aws(server: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ = {
        **clean,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [str(Path(sys.executable).parent / "aws"), "lambda", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)


def test_permissions_and_concurrency_from_the_command_line(server: Server, tmp_path: Path) -> None:
    create_function(server.aws, "typed", "def handler(event, context):\n    return event\n")
    wait_active(server.aws, "typed", "$LATEST")
    server.aws.publish_version(FunctionName="typed")
    named = ("--function-name", "typed")
    added = aws(
        server,
        *("add-permission", *named, "--statement-id", "s3", "--action", "lambda:InvokeFunction"),
        *("--principal", "s3.amazonaws.com", "--source-arn", "arn:aws:s3:::bucket"),
    )
    assert added.returncode == 0, added.stderr
    assert json.loads(json.loads(added.stdout)["Statement"])["Principal"] == {"Service": "s3.amazonaws.com"}

    reserved = aws(server, "put-function-concurrency", *named, "--reserved-concurrent-executions", "0")
    assert json.loads(reserved.stdout) == {"ReservedConcurrentExecutions": 0}
    refused = aws(server, "invoke", *named, str(tmp_path / "out.json"))
    assert refused.returncode != 0
    assert "TooManyRequestsException" in refused.stderr
    assert aws(server, "delete-function-concurrency", *named).returncode == 0

    version = (*named, "--qualifier", "1")
    put = aws(server, "put-provisioned-concurrency-config", *version, "--provisioned-concurrent-executions", "1")
    assert json.loads(put.stdout)["Status"] == "IN_PROGRESS"
    wait_for(
        lambda: json.loads(aws(server, "get-provisioned-concurrency-config", *version).stdout)["Status"] == "READY",
        "the environment is initialised",
    )
