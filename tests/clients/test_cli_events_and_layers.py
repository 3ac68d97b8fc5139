"""Asynchronous invokes, layers and event source mappings as a user types them into the unmodified aws CLI."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.harness import ROLE, Server, running, wait_for

SOURCE = "import tint\n\ndef handler(event, context):\n    print('tint', tint.NAME, event['n'])\n"


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("cli") / "data") as server:
        yield server


def aws(server: Server, *arguments: str) -> dict[str, Any]:
    """What `aws lambda …` prints; it has to succeed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ |= {"AWS_ENDPOINT_URL": server.url, "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull}
    environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    command = [str(Path(sys.executable).parent / "aws"), "lambda", *arguments]
    result = subprocess.run(command, env=environ, cwd=server.data, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout) if result.stdout else {}
    return document


def archive(server: Server, name: str, **files: str) -> str:
    with zipfile.ZipFile(server.data / name, "w") as opened:
        for path, text in files.items():
            opened.writestr(path, text)
    return f"fileb://{name}"


def test_an_event_reaches_a_function_with_a_layer(server: Server) -> None:
    layer = archive(server, "layer.zip", **{"python/tint.py": "NAME = 'green'"})
    published = aws(
        *(server, "publish-layer-version", "--layer-name", "tint", "--zip-file", layer),
        *("--compatible-runtimes", "python3.13"),
    )
    assert published["Version"] == 1
    code = archive(server, "code.zip", **{"app.py": SOURCE})
    aws(
        *(server, "create-function", "--function-name", "painter", "--runtime", "python3.13", "--role", ROLE),
        *("--handler", "app.handler", "--zip-file", code, "--layers", published["LayerVersionArn"]),
    )
    aws(server, "wait", "function-active-v2", "--function-name", "painter")
    answer = aws(
        *(server, "invoke", "--function-name", "painter", "--invocation-type", "Event"),
        *("--payload", '{"n": 7}', "out.json"),
    )
    assert answer == {"StatusCode": 202}
    logs = server.data / "logs" / "painter"
    wait_for(lambda: any("tint green 7" in path.read_text() for path in logs.glob("*.log")), "the event ran")
    assert [layer["LayerName"] for layer in aws(server, "list-layers")["Layers"]] == ["tint"]


def test_an_event_source_mapping_is_created_and_listed(server: Server) -> None:
    code = archive(server, "poller.zip", **{"app.py": "def handler(event, context):\n    return 1\n"})
    aws(
        *(server, "create-function", "--function-name", "poller", "--runtime", "python3.13", "--role", ROLE),
        *("--handler", "app.handler", "--zip-file", code),
    )
    created = aws(
        *(server, "create-event-source-mapping", "--function-name", "poller", "--batch-size", "5"),
        *("--event-source-arn", "arn:aws:sqs:us-east-1:000000000000:q"),
    )
    assert (created["State"], created["BatchSize"]) == ("Creating", 5)
    wait_for(
        lambda: aws(server, "get-event-source-mapping", "--uuid", created["UUID"])["State"] == "Enabled",
        "it is enabled",
    )
    listed = aws(server, "list-event-source-mappings", "--function-name", "poller")["EventSourceMappings"]
    assert [each["UUID"] for each in listed] == [created["UUID"]]
