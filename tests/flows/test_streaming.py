"""Streamed responses through AWS's own event-stream parser: parts when they come, errors in the middle, a client that does not read."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    FUNCTIONS,
    Server,
    archive,
    create_function,
    create_provider,
    custom_runtime,
    invoke,
    on_provider,
    running,
    wait_active,
    wait_for,
    with_runtime,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

SLOTS = 4
NODE = archive({"index.mjs": (FUNCTIONS / "streaming.mjs").read_text()})
CUSTOM = custom_runtime("streaming_bootstrap.py")
KINDS = ["node-managed", "node-standard", "node20-standard", "custom-managed", "custom-standard"]


@pytest.fixture(scope="module")
def streaming(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Fast enough that the limit on bandwidth is felt only where a test asks for more than its burst.
    with running(tmp_path_factory.mktemp("streaming") / "data", stream_kib_per_second="65536") as server:
        create_provider(server.aws)
        yield server


@pytest.fixture(scope="module")
def aws(streaming: Server) -> "LambdaClient":
    return streaming.aws


@pytest.fixture(scope="module", params=KINDS)
def function(aws: "LambdaClient", request: pytest.FixtureRequest) -> str:
    """A function that streams, by runtime and mode."""
    return deployed(aws, request.param)


def deployed(aws: "LambdaClient", kind: str, name: str = "", timeout_s: int = 30) -> str:
    """A streaming function of this kind, called like it unless named."""
    name = name or kind
    family, mode = kind.split("-")
    runtime = {"node": "nodejs24.x", "node20": "nodejs20.x", "custom": "provided.al2023"}[family]
    members: dict[str, Any] = {
        "Runtime": with_runtime(runtime),
        "Handler": "index.handler",
        "Code": {"ZipFile": CUSTOM if family == "custom" else NODE},
        "Timeout": timeout_s,
    }
    if mode == "managed":
        arn = aws.get_capacity_provider(CapacityProviderName="pool")["CapacityProvider"]["CapacityProviderArn"]
        members |= on_provider(arn, SLOTS, Publish=True, PublishTo="LATEST_PUBLISHED")
    create_function(aws, name, "", **members)
    if mode == "managed":
        wait_active(aws, name)
    else:
        wait_active(aws, name, "$LATEST")
    return name


class Stream:
    """One streamed answer, read event by event."""

    def __init__(self, aws: "LambdaClient", function: str, event: Any, **members: Any) -> None:
        self.answer = aws.invoke_with_response_stream(
            FunctionName=function, Payload=json.dumps(event).encode(), **members
        )
        self.events = iter(self.answer["EventStream"])
        self.complete: dict[str, Any] | None = None

    def part(self) -> bytes | None:
        """The next part; None at the end, when `complete` is set."""
        event = next(self.events)
        if "PayloadChunk" in event:
            return bytes(event["PayloadChunk"]["Payload"])
        self.complete = dict(event["InvokeComplete"])
        with pytest.raises(StopIteration):
            next(self.events)
        return None

    def rest(self) -> bytes:
        return b"".join(iter(self.part, None))


def test_parts_come_when_they_are_written(aws: "LambdaClient", function: str, tmp_path: Path) -> None:
    """The function waits for a file between two parts, and the file is made only once the first part is here."""
    stream = Stream(aws, function, {"do": "wait", "file": str(tmp_path / "go"), "first": "käse 🧀", "second": "later"})
    assert stream.answer["StatusCode"] == 200
    assert stream.answer["ExecutedVersion"] == ("$LATEST.PUBLISHED" if "managed" in function else "$LATEST")
    assert stream.part() == "käse 🧀".encode()
    (tmp_path / "go").touch()
    assert stream.rest() == b"later"
    assert stream.complete == {}


def test_an_answer_of_many_parts_is_whole_and_in_order(aws: "LambdaClient", function: str) -> None:
    stream = Stream(aws, function, {"do": "many", "count": 3_000, "size": 1_000})
    body = stream.rest()
    assert body == b"".join(b"%08d" % n + b"x" * 992 for n in range(3_000))
    assert stream.complete == {}


def test_an_empty_answer_has_no_parts(aws: "LambdaClient", function: str) -> None:
    stream = Stream(aws, function, {"do": "many", "count": 0, "size": 1_000})
    assert stream.rest() == b""
    assert stream.complete == {}


def test_an_error_in_the_middle_comes_after_what_was_written(
    aws: "LambdaClient", function: str, tmp_path: Path
) -> None:
    stream = Stream(aws, function, {"do": "break", "first": "half a sent", "file": str(tmp_path / "go")})
    assert stream.part() == b"half a sent"
    (tmp_path / "go").touch()
    assert stream.rest() == b""
    assert stream.complete is not None
    assert stream.complete["ErrorCode"] == "Unhandled"
    details = json.loads(stream.complete["ErrorDetails"])
    assert (details["errorType"], details["errorMessage"]) == ("RangeError", "broken off: 🧀")
    assert Stream(aws, function, {"do": "many", "count": 1, "size": 8}).rest() == b"00000000"


def test_the_end_of_the_runtime_in_the_middle_is_told(aws: "LambdaClient", function: str, tmp_path: Path) -> None:
    stream = Stream(aws, function, {"do": "exit", "first": "last words", "file": str(tmp_path / "go")})
    assert stream.part() == b"last words"
    (tmp_path / "go").touch()
    assert stream.rest() == b""
    assert stream.complete is not None
    details = json.loads(stream.complete["ErrorDetails"])
    # A thread that ends (Node.js, many at once) takes its connection with it and not the process.
    expected = "Runtime.TruncatedResponse" if function == "node-managed" else "Runtime.ExitError"
    assert details["errorType"] == expected
    wait_for(lambda: _answers(aws, function), "the function answers again")


def _answers(aws: "LambdaClient", function: str) -> bool:
    try:
        return Stream(aws, function, {"do": "many", "count": 1, "size": 8}).rest() == b"00000000"
    except ClientError:
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_time_out_in_the_middle_is_told(aws: "LambdaClient", kind: str, tmp_path: Path) -> None:
    function = deployed(aws, kind, f"short-{kind}", timeout_s=1)
    event = {"do": "wait", "file": str(tmp_path / "go"), "first": "one", "second": "two"}
    stream = Stream(aws, function, event)
    assert stream.rest() == b"one"
    assert stream.complete is not None
    details = json.loads(stream.complete["ErrorDetails"])
    assert details["errorType"] == "Sandbox.Timedout"
    assert details["errorMessage"].endswith("Task timed out after 1.00 seconds")
    (tmp_path / "go").touch()
    wait_for(lambda: _answers(aws, function), "the function answers again")


# --- the two ways of asking and the two ways of answering ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["node-managed", "custom-standard"])
def test_a_plain_invoke_gets_the_whole_of_a_streamed_answer(aws: "LambdaClient", kind: str) -> None:
    name = deployed(aws, kind, f"whole-{kind}")
    answer = aws.invoke(FunctionName=name, Payload=json.dumps({"do": "many", "count": 1_000, "size": 1_000}).encode())
    body = answer["Payload"].read()
    assert len(body) == 1_000_000
    assert body[-1_000:].startswith(b"00000999")
    assert "FunctionError" not in answer


@pytest.mark.parametrize("kind", ["node-managed", "custom-standard"])
def test_a_plain_invoke_of_a_stream_that_breaks_gets_the_error(aws: "LambdaClient", kind: str) -> None:
    answer = invoke(aws, deployed(aws, kind, f"broken-{kind}"), {"do": "break", "first": "half"})
    assert answer.error == "Unhandled"
    assert answer.payload["errorMessage"] == "broken off: 🧀"


def test_a_plain_invoke_of_a_stream_above_six_megabytes_is_refused(aws: "LambdaClient") -> None:
    answer = invoke(aws, deployed(aws, "node-managed", "too-long"), {"do": "many", "count": 7_000, "size": 1_000})
    assert answer.payload["errorType"] == "Function.ResponseSizeTooLarge"


BUFFERED = "def handler(event, context):\n    if event.get('fail'):\n        raise KeyError('gone')\n    return {'text': 'x' * event['size']}\n"


@pytest.fixture(scope="module")
def buffered(aws: "LambdaClient") -> str:
    """A Python function on demand: its answers come whole."""
    create_function(aws, "buffered", BUFFERED)
    wait_active(aws, "buffered", "$LATEST")
    return "buffered"


@pytest.fixture(scope="module")
def buffered_managed(aws: "LambdaClient") -> str:
    """The same with workers that speak the link themselves."""
    arn = aws.get_capacity_provider(CapacityProviderName="pool")["CapacityProvider"]["CapacityProviderArn"]
    create_function(
        aws, "buffered-managed", BUFFERED, **on_provider(arn, 2, Publish=True, PublishTo="LATEST_PUBLISHED")
    )
    wait_active(aws, "buffered-managed")
    return "buffered-managed"


@pytest.mark.parametrize("size", [0, 1_000_000, 6_000_000])
def test_a_whole_answer_can_be_asked_for_as_a_stream(
    aws: "LambdaClient", buffered: str, buffered_managed: str, size: int
) -> None:
    for name in (buffered, buffered_managed):
        stream = Stream(aws, name, {"size": size})
        assert json.loads(stream.rest()) == {"text": "x" * size}
        assert stream.complete == {}


def test_an_error_of_a_function_that_does_not_stream_comes_in_the_last_event(
    aws: "LambdaClient", buffered: str, buffered_managed: str
) -> None:
    for name in (buffered, buffered_managed):
        stream = Stream(aws, name, {"fail": True})
        assert stream.rest() == b""
        assert stream.complete is not None
        assert stream.complete["ErrorCode"] == "Unhandled"
        assert json.loads(stream.complete["ErrorDetails"])["errorType"] == "KeyError"


def test_the_tail_of_the_log_comes_in_the_last_event(aws: "LambdaClient", buffered: str, buffered_managed: str) -> None:
    stream = Stream(aws, buffered, {"size": 1}, LogType="Tail")
    stream.rest()
    assert stream.complete is not None
    assert b"REPORT RequestId" in base64.b64decode(stream.complete["LogResult"])
    with pytest.raises(ClientError, match="Tail logs are not supported"):
        Stream(aws, buffered_managed, {"size": 1}, LogType="Tail")


def test_what_can_be_refused_is_refused_before_the_stream_begins(aws: "LambdaClient", buffered: str) -> None:
    dry = aws.invoke_with_response_stream(FunctionName=buffered, InvocationType="DryRun")
    assert dry["StatusCode"] == 204
    dry["EventStream"].close()
    with pytest.raises(ClientError) as missing:
        Stream(aws, "nobody", {})
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(ClientError) as broken:
        aws.invoke_with_response_stream(FunctionName=buffered, Payload=b"{not json")
    assert broken.value.response["Error"]["Code"] == "InvalidRequestContentException"


# --- back-pressure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["node-managed", "custom-managed"])
def test_a_client_that_does_not_read_holds_the_function_back_and_nobody_else(
    streaming: Server, aws: "LambdaClient", kind: str, tmp_path: Path
) -> None:
    """190 MB that nobody reads: neither server nor agent may gather them, and other streams of the environment go on.

    The kernel's socket buffers do gather some on the way, up to 33 MB each where `tcp_rmem` allows it.
    """
    function, progress = deployed(aws, kind, f"held-{kind}"), tmp_path / "progress"
    event = {"do": "report", "file": str(progress), "count": 2_900, "size": 65_536}
    slow = Stream(aws, function, event)
    slow.part()
    wait_for(lambda: progress.exists() and _stands_still(progress), "the function stands still")
    written = int(progress.read_text() or 0)
    assert written < 2_000, f"{written} of 2,900 parts were written though nobody read"
    before = _memory(streaming)
    other = Stream(aws, function, {"do": "many", "count": 300, "size": 10_000})
    assert len(other.rest()) == 3_000_000, "another stream of the same environment flows"
    assert _memory(streaming) - before < 30 * 1024 * 1024
    assert int(progress.read_text()) == written, "the slow one still stands"
    assert len(slow.rest()) > 0
    assert slow.complete == {}
    assert int(progress.read_text()) == 2_900


def _stands_still(progress: Path) -> bool:
    before = progress.read_text()
    threading.Event().wait(0.3)
    return before == progress.read_text() != ""


def _memory(server: Server) -> int:
    processes = [psutil.Process(server.process.pid), *server.agents()]
    return sum(int(process.memory_info().rss) for process in processes)


@pytest.mark.parametrize("kind", ["node-managed", "custom-standard"])
def test_a_client_that_goes_away_lets_the_function_finish(aws: "LambdaClient", kind: str, tmp_path: Path) -> None:
    function, progress = deployed(aws, kind, f"left-{kind}"), tmp_path / "progress"
    stream = Stream(aws, function, {"do": "report", "file": str(progress), "count": 640, "size": 65_536})
    stream.part()
    stream.answer["EventStream"].close()
    wait_for(lambda: progress.exists() and progress.read_text() == "640", "the function wrote everything")
    assert _answers(aws, function)


def test_a_response_flows_no_faster_than_it_may_after_its_burst(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "data", stream_kib_per_second="4096") as server:
        deployed(server.aws, "custom-standard")
        assert Stream(server.aws, "custom-standard", {"do": "many", "count": 1, "size": 8}).rest()
        began = time.monotonic()
        stream = Stream(server.aws, "custom-standard", {"do": "many", "count": 160, "size": 65_536})
        assert len(stream.rest()) == 10 * 1024 * 1024
        took = time.monotonic() - began
    # 6 MiB at once and a window of 1 MiB ahead; the other 3 MiB need 0.75 s.
    assert took > 0.6


def test_streams_of_one_environment_flow_side_by_side(streaming: Server, aws: "LambdaClient", tmp_path: Path) -> None:
    function = deployed(aws, "node-managed", "beside")

    def one(number: int) -> bytes:
        event = {"do": "wait", "file": str(tmp_path / "go"), "first": f"{number}", "second": "!"}
        stream = Stream(aws, function, event)
        first = stream.part()
        (tmp_path / f"first-{number}").touch()
        assert first is not None
        return first + stream.rest()

    asked = [streaming.clients.submit(one, number) for number in range(SLOTS)]
    wait_for(lambda: len(list(tmp_path.glob("first-*"))) == SLOTS, "every stream has its first part")
    (tmp_path / "go").touch()
    assert sorted(each.result(30) for each in asked) == [f"{n}!".encode() for n in range(SLOTS)]


@pytest.mark.parametrize("kind", ["node-managed", "node-standard", "node20-standard"])
def test_an_http_response_stream_has_its_prelude(aws: "LambdaClient", kind: str) -> None:
    body = Stream(aws, deployed(aws, kind, f"http-{kind}"), {"do": "http"}).rest()
    prelude, _, rest = body.partition(b"\0" * 8)
    assert json.loads(prelude) == {"statusCode": 201, "headers": {"x-test": "yes"}}
    assert rest == b"hello"
