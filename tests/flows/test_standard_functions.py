"""Functions without a capacity provider: environments on demand, one invocation each, kept warm."""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError
from tests.harness import Server, create_function, invoke, package, wait_active, wait_for, wait_updated

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

PID = "import os\ndef handler(event, context):\n    print('hello', event)\n    return os.getpid()\n"
BARRIER = """
import os, pathlib, time

def handler(event, context):
    folder = pathlib.Path(event["folder"])
    (folder / str(os.getpid())).touch()
    while not (folder / "open").exists():
        time.sleep(0.005)
    return os.getpid()
"""


def deploy(aws: "LambdaClient", name: str, source: str, **members: object) -> None:
    created = create_function(aws, name, source, **members)
    assert created["State"] == "Pending"
    wait_active(aws, name, "$LATEST")


def test_the_first_invocation_starts_an_environment_and_the_next_reuses_it(server: Server, aws: "LambdaClient") -> None:
    deploy(aws, "warm", PID)
    assert not server.environments("warm"), "nothing runs before it is needed"
    first = invoke(aws, "warm")
    assert first.version == "$LATEST"
    assert [invoke(aws, "warm").payload for _ in range(3)] == [first.payload] * 3


def test_invocations_at_once_run_in_environments_of_their_own(
    server: Server, aws: "LambdaClient", tmp_path: Path
) -> None:
    deploy(aws, "parallel", BARRIER, Timeout=60)
    running = [server.clients.submit(invoke, aws, "parallel", {"folder": str(tmp_path)}) for _ in range(3)]
    wait_for(lambda: len(list(tmp_path.iterdir())) == 3, "three environments run one each")
    (tmp_path / "open").touch()
    assert len({future.result(30).payload for future in running}) == 3


def test_a_failing_init_is_the_answer_of_the_invocation_that_caused_it(aws: "LambdaClient") -> None:
    deploy(aws, "unborn", "import nowhere\n")
    answer = invoke(aws, "unborn")
    assert (answer.status, answer.error) == (200, "Unhandled")
    assert answer.payload["errorType"] == "Runtime.ImportModuleError"
    assert answer.payload["requestId"] == ""


def test_a_time_out_ends_the_environment_and_the_next_invocation_gets_a_new_one(aws: "LambdaClient") -> None:
    source = "import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.getpid()\n"
    deploy(aws, "slow", source, Timeout=1)
    before = invoke(aws, "slow", 0).payload
    late = invoke(aws, "slow", 30)
    assert late.error == "Unhandled"
    assert late.payload["errorType"] == "Sandbox.Timedout"
    assert late.payload["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
    assert invoke(aws, "slow", 0).payload != before


def test_the_tail_of_the_log_comes_with_the_answer(aws: "LambdaClient") -> None:
    deploy(aws, "tailed", PID)
    invoke(aws, "tailed", "earlier")
    answer = aws.invoke(FunctionName="tailed", LogType="Tail", Payload=b'"now"')
    request_id = answer["ResponseMetadata"]["RequestId"]
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert tail.startswith(f"START RequestId: {request_id} Version: $LATEST")
    assert "hello now\n" in tail
    assert f"REPORT RequestId: {request_id}\tDuration: " in tail
    assert "earlier" not in tail


def test_numbered_versions_of_standard_functions_are_active_at_once(aws: "LambdaClient") -> None:
    deploy(aws, "plain", PID)
    one = aws.publish_version(FunctionName="plain")
    assert (one["Version"], one["State"]) == ("1", "Active")
    aws.update_function_code(FunctionName="plain", ZipFile=package("def handler(e, c):\n    return 'two'\n"))
    wait_updated(aws, "plain")
    assert invoke(aws, "plain").payload == "two"
    assert isinstance(invoke(aws, "plain", Qualifier="1").payload, int)
    assert aws.delete_function(FunctionName="plain")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        invoke(aws, "plain")


def test_a_crash_and_an_exit_are_told_apart_and_do_not_stop_the_next_invocation(aws: "LambdaClient") -> None:
    deploy(aws, "fragile", "import os, signal, sys\ndef handler(event, context):\n    exec(event)\n    return 'fine'\n")
    killed = invoke(aws, "fragile", "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.payload["errorType"] == "Runtime.ExitError"
    assert killed.payload["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    left = invoke(aws, "fragile", "os._exit(3)")
    assert left.payload["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
    assert invoke(aws, "fragile", "pass").payload == "fine"


def test_dry_run_checks_and_runs_nothing(server: Server, aws: "LambdaClient") -> None:
    deploy(aws, "dry", PID)
    assert aws.invoke(FunctionName="dry", InvocationType="DryRun")["StatusCode"] == 204
    assert not server.environments("dry")
    with pytest.raises(ClientError, match="Function not found"):
        aws.invoke(FunctionName="nobody", InvocationType="DryRun")


def test_client_context_trace_and_variables_reach_the_function(aws: "LambdaClient") -> None:
    source = (
        "import os\ndef handler(event, context):\n"
        "    return {'custom': context.client_context.custom, 'variable': os.environ['COLOUR'],"
        " 'trace': os.environ['_X_AMZN_TRACE_ID'], 'memory': context.memory_limit_in_mb,"
        " 'left': context.get_remaining_time_in_millis()}\n"
    )
    deploy(aws, "context", source, Environment={"Variables": {"COLOUR": "blå"}}, Timeout=7, MemorySize=256)
    encoded = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    seen = invoke(aws, "context", ClientContext=encoded).payload
    assert (seen["custom"], seen["variable"], seen["memory"]) == ({"k": "v"}, "blå", "256")
    assert seen["trace"].startswith("Root=1-")
    assert 5_000 < seen["left"] <= 7_000


def test_payloads_up_to_six_megabytes_pass_and_larger_ones_are_refused(aws: "LambdaClient") -> None:
    deploy(
        aws,
        "big",
        "def handler(event, context):\n    return event if len(event) < 6_000_000 else len(event)\n",
        Timeout=30,
        MemorySize=512,
    )
    assert len(invoke(aws, "big", "x" * 5_900_000).payload) == 5_900_000
    assert invoke(aws, "big", "x" * (6_291_556 - 2)).payload == 6_291_554
    with pytest.raises(ClientError) as caught:
        invoke(aws, "big", "x" * 6_291_556)
    assert caught.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    deploy(aws, "bigger", "def handler(event, context):\n    return 'x' * 7_000_000\n", Timeout=30)
    answer = invoke(aws, "bigger")
    assert answer.payload["errorType"] == "Function.ResponseSizeTooLarge"
    assert "exceeded maximum allowed payload size (6291556 bytes)" in answer.payload["errorMessage"]


def test_an_idle_environment_is_stopped(runtimes: Path, tmp_path: Path) -> None:
    from tests.harness import running

    with running(tmp_path / "data", idle_environment="1s", instance_poll="100ms") as server:
        deploy(server.aws, "idle", PID)
        invoke(server.aws, "idle")
        assert server.environments("idle")
        wait_for(lambda: not server.environments("idle"), "the idle environment is gone")
        assert isinstance(invoke(server.aws, "idle").payload, int)
