"""Real functions under AWS's real interface client, started by a real agent."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.instance.harness import Gateway, Json, eventually

from lambstead.link.messages import EnvironmentDegraded, EnvironmentFailed, Error, Result

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["managed-instances", "on-demand", "linked"])
ON_DEMAND = pytest.mark.parametrize("mode", ["on-demand", "linked"])

ECHO = """
    def handler(event, context):
        return event
"""

MEETING = """
    import os, pathlib, time

    def handler(event, context):
        folder = pathlib.Path(event["folder"])
        (folder / str(os.getpid())).touch()
        while not (folder / "go").exists():
            time.sleep(0.002)
        return os.getpid()
"""


@MODES
async def test_a_function_answers_what_it_is_asked(gateway: Gateway, mode: str) -> None:
    environment = await gateway.start(ECHO, mode=mode)
    events: list[Json] = [{"käse": "🧀", "n": [1, 2.5, None, True]}, "text", None, [], "x" * 1_000_000]
    for event in events:
        answer = await environment.invoke(event)
        assert isinstance(answer.head, Result)
        assert answer.head.content_type == "application/json"
        assert answer.json == event
        await environment.until_slots(1)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
async def test_as_many_invocations_run_at_once_as_there_are_slots_each_in_a_process_of_its_own(
    gateway: Gateway, tmp_path: Path, concurrency: int
) -> None:
    environment = await gateway.start(MEETING, max_concurrency=concurrency)
    assert environment.slots == concurrency
    assert environment.slot_changes == [concurrency]
    folder = tmp_path / "meeting"
    folder.mkdir()
    invocations = [environment.send({"folder": str(folder)}) for _ in range(concurrency)]
    await eventually(lambda: len(os.listdir(folder)) == concurrency, "every invocation runs")
    refused = await environment.invoke({"folder": str(folder)})
    assert "no idle slot" in refused.head.because  # type: ignore[union-attr]  # any other head fails the test
    (folder / "go").touch()
    pids = {(await invocation.answer).json for invocation in invocations}
    assert len(pids) == concurrency
    assert {str(pid) for pid in pids} == set(os.listdir(folder)) - {"go"}
    await environment.until_slots(concurrency)


async def test_on_demand_one_process_serves_one_invocation_after_the_other(gateway: Gateway) -> None:
    environment = await gateway.start(
        """
        import os
        count = 0
        def handler(event, context):
            global count
            count += 1
            return [os.getpid(), count]
        """,
        mode="on-demand",
    )
    assert environment.ready is not None
    for expected in (1, 2, 3):
        assert (await environment.invoke()).json == [environment.ready.pid, expected]
        await environment.until_slots(1)


@MODES
async def test_an_exception_comes_back_with_its_stack_trace(gateway: Gateway, mode: str) -> None:
    environment = await gateway.start(
        """
        def inner(event):
            raise ValueError(f"not {event}")

        def handler(event, context):
            inner(event)
        """,
        mode=mode,
    )
    invocation = environment.send("good")
    answer = await invocation.answer
    assert answer.head == Error("Function.Unknown", "function")
    assert answer.json["errorType"] == "ValueError"
    assert answer.json["errorMessage"] == "not good"
    assert answer.json["requestId"] == invocation.request_id
    first, second = answer.json["stackTrace"]
    assert "main.py" in first
    assert "in handler" in first
    assert "in inner" in second
    await environment.until_slots(1)
    assert "not good" in environment.log()


@MODES
async def test_the_context_is_the_invocations_own(gateway: Gateway, mode: str) -> None:
    environment = await gateway.start(
        """
        import os
        def handler(event, context):
            return {
                "id": context.aws_request_id, "arn": context.invoked_function_arn, "name": context.function_name,
                "version": context.function_version, "memory": context.memory_limit_in_mb, "group": context.log_group_name,
                "stream": context.log_stream_name, "left": context.get_remaining_time_in_millis(),
                "client": context.client_context and context.client_context.custom, "tenant": context.tenant_id,
                "cognito": context.identity and context.identity.cognito_identity_id,
                "trace": os.environ.get("_X_AMZN_TRACE_ID"),
            }
        """,
        mode=mode,
        tenant_id="blue",
    )
    invocation = environment.send(
        timeout_ms=20_000,
        trace_id="Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1",
        client_context='{"custom": {"k": "v"}}',
        cognito_identity='{"cognitoIdentityId": "me", "cognitoIdentityPoolId": "pool"}',
        tenant_id="blue",
    )
    context = (await invocation.answer).json
    assert 10_000 < context.pop("left") <= 20_000
    assert context == {
        "id": invocation.request_id,
        "arn": "arn:aws:lambda:us-east-1:000000000000:function:tested:1",
        "name": "tested",
        "version": "1",
        "memory": "2048",
        "group": "/aws/lambda/tested",
        "stream": environment.log_stream,
        "client": {"k": "v"},
        "tenant": "blue",
        "cognito": "me",
        "trace": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1",
    }


INIT_FAILURES: list[tuple[str, str | None, dict[str, Any], str, str]] = [
    ("an exception", "raise KeyError('at import')", {}, "Runtime.Unknown", "at import"),
    ("a missing module", ECHO, {"handler": "absent.handler"}, "Runtime.ImportModuleError", "No module named 'absent'"),
    ("a missing function", ECHO, {"handler": "main.absent"}, "Runtime.HandlerNotFound", "missing on module 'main'"),
    ("a handler without a dot", ECHO, {"handler": "main"}, "Runtime.MalformedHandlerName", "Bad handler 'main'"),
    ("a syntax error", "def handler(:", {}, "Runtime.UserCodeSyntaxError", "Syntax error in module 'main'"),
]


@MODES
@pytest.mark.parametrize(
    ("code", "options", "error_type", "message"),
    [case[1:] for case in INIT_FAILURES],
    ids=[case[0] for case in INIT_FAILURES],
)
async def test_a_failing_init_is_reported_with_the_runtimes_own_document(
    gateway: Gateway, mode: str, code: str, options: dict[str, Any], error_type: str, message: str
) -> None:
    concurrency = 4 if mode == "managed-instances" else 1
    failed = await gateway.start_failing(code, mode=mode, max_concurrency=concurrency, **options)
    assert failed.error_type == error_type
    assert failed.reason_code == "FunctionError.RuntimeInitError"
    document = json.loads(failed.error_document)
    assert message in document["errorMessage"]
    assert document["requestId"] == ""
    assert isinstance(document["stackTrace"], list)
    assert gateway.processes() == []
    assert gateway.links == {}


@MODES
async def test_an_exit_during_init_is_reported(gateway: Gateway, mode: str) -> None:
    failed = await gateway.start_failing("import sys; sys.exit(3)", mode=mode)
    assert (failed.error_type, failed.reason_code) == ("Runtime.ExitError", "FunctionError.RuntimeInitError")
    # In managed mode a worker exits; the main process then ends with status 0, which AWS calls no reason.
    status = "exit status 3" if mode != "managed-instances" else "without providing a reason"
    assert status in json.loads(failed.error_document)["errorMessage"]


async def test_an_init_that_takes_too_long_is_reported_and_killed(gateway: Gateway) -> None:
    failed = await gateway.start_failing("import time; time.sleep(1000)", init_timeout_ms=300, max_concurrency=2)
    assert (failed.error_type, failed.reason_code) == ("Sandbox.Timedout", "FunctionError.InitTimeout")
    assert "0.30 seconds" in json.loads(failed.error_document)["errorMessage"]
    assert gateway.processes() == []


async def test_a_worker_lost_during_init_leaves_an_environment_with_the_others(
    gateway: Gateway, tmp_path: Path
) -> None:
    environment = await gateway.start(
        f"""
        import os, signal
        try:
            os.mkdir({str(tmp_path / "first")!r})
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)

        def handler(event, context):
            return "served"
        """,
        max_concurrency=3,
    )
    await environment.until_slots(2)
    assert (await environment.invoke()).json == "served"


@pytest.mark.parametrize(
    ("options", "reason_code", "word"),
    [
        ({"runtime": "dotnet8"}, "InvalidRuntime", "not built yet"),
        ({"runtime": "provided.al2023"}, "FunctionError.InvalidEntryPoint", "Couldn't find valid bootstrap(s)"),
        ({"runtime": "cobol"}, "InvalidRuntime", "no runtime called"),
        ({"code_path": "/does/not/exist"}, "FunctionError.InvalidWorkingDirectory", "/does/not/exist"),
        ({"log_path": "/does/not/exist"}, "InternalError", "log file"),
    ],
)
async def test_what_cannot_be_started_is_reported_with_the_missing_piece(
    gateway: Gateway, options: dict[str, Any], reason_code: str, word: str
) -> None:
    failed = await gateway.start_failing(ECHO, **options)
    assert failed.reason_code == reason_code
    assert word in json.loads(failed.error_document)["errorMessage"]


SLOW = """
    import pathlib, time

    def handler(event, context):
        if event:
            while not pathlib.Path(event).exists():
                time.sleep(0.002)
        print("finished", flush=True)
        return "finished"
"""


async def test_a_time_out_in_managed_mode_keeps_the_slot_until_the_code_is_done(
    gateway: Gateway, tmp_path: Path
) -> None:
    environment = await gateway.start(SLOW, max_concurrency=2)
    go = tmp_path / "go"
    invocation = environment.send(str(go), timeout_ms=150)
    answer = await invocation.answer
    assert answer.head == Error("Sandbox.Timedout", "platform")
    assert answer.json == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {invocation.request_id} Error: Task timed out after 0.15 seconds",
    }
    assert environment.slots == 1
    assert (await environment.invoke()).json == "finished"
    await environment.until_slots(1)
    go.touch()
    # The late response is refused with 410, which the interface client logs; then the worker polls again.
    await environment.until_slots(2)
    assert not any(isinstance(message, EnvironmentDegraded) for message in gateway.messages)
    await eventually(lambda: environment.log().count("finished") >= 2, "the late code has printed")
    assert (await environment.invoke()).json == "finished"
    [report] = [
        r["record"]
        for r in environment.log_records("platform.report")
        if r["record"]["requestId"] == invocation.request_id
    ]
    assert report["status"] == "timeout"


@ON_DEMAND
async def test_a_time_out_on_demand_ends_the_environment(gateway: Gateway, mode: str) -> None:
    environment = await gateway.start(SLOW, mode=mode)
    invocation = environment.send("/never", timeout_ms=150)
    assert (await invocation.answer).head == Error("Sandbox.Timedout", "platform")
    exited = await environment.exited()
    assert exited.error_type == "Sandbox.Timedout"
    assert gateway.processes() == []
    assert f"{invocation.request_id} Task timed out after 0.15 seconds" in environment.log()
    assert "Status: timeout" in environment.log()


@pytest.mark.parametrize(("length", "fits"), [(6_291_554, True), (6_291_555, False)])
async def test_a_response_above_six_megabytes_is_an_error_and_the_worker_lives_on(
    gateway: Gateway, length: int, fits: bool
) -> None:
    """The body is the string and its two quotes."""
    environment = await gateway.start("def handler(event, context): return 'x' * event", max_concurrency=2)
    answer = await environment.invoke(length)
    if fits:
        assert len(answer.payload) == 6_291_556
    else:
        assert answer.head == Error("Function.ResponseSizeTooLarge", "platform")
        assert answer.json["errorType"] == "Function.ResponseSizeTooLarge"
    await environment.until_slots(2)
    assert not any(isinstance(message, EnvironmentDegraded) for message in gateway.messages)
    assert (await environment.invoke(3)).json == "xxx"


async def test_a_six_megabyte_event_arrives(gateway: Gateway) -> None:
    environment = await gateway.start("def handler(event, context): return len(event)", max_concurrency=2)
    assert (await environment.invoke("x" * 6_000_000)).json == 6_000_000


VARIABLES = """
    import os, sys
    def handler(event, context):
        return {"env": dict(os.environ), "path": sys.path, "boto3": __import__("boto3").__file__, "builtin": exit.__class__.__name__}
"""


@MODES
async def test_environment_variables_are_awss(gateway: Gateway, mode: str) -> None:
    managed = mode == "managed-instances"
    customer = {
        "COLOUR": "blau",
        "TZ": "Europe/Berlin",
        "AWS_REGION": "mars-1",
        "_HANDLER": "evil",
        "AWS_LAMBDA_MAX_CONCURRENCY": "99",
    }
    environment = await gateway.start(VARIABLES, mode=mode, variables=customer, endpoint_url="http://127.0.0.1:4566")
    seen = (await environment.invoke()).json
    env = seen["env"]
    expected = {
        "COLOUR": "blau",
        "TZ": "Europe/Berlin",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "_HANDLER": "main.handler",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": "tested",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/tested",
        "AWS_LAMBDA_LOG_STREAM_NAME": environment.log_stream,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances" if managed else "on-demand",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
        "LANG": "en_US.UTF-8",
    }
    assert expected.items() <= env.items()
    assert env.get("AWS_LAMBDA_MAX_CONCURRENCY") == ("1" if managed else None)
    assert env.get("AWS_LAMBDA_LOG_FORMAT") == ("JSON" if managed else None)
    assert ("_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET" in env) is managed
    assert len(env["AWS_ACCESS_KEY_ID"]) == 20
    assert len(env["AWS_SECRET_ACCESS_KEY"]) == 40
    assert len(env["AWS_SESSION_TOKEN"]) > 100
    assert os.path.basename(env["LAMBDA_TASK_ROOT"]).startswith("code-")
    for of_the_host in ("HOME", "VIRTUAL_ENV", "USER"):
        assert of_the_host not in env


async def test_a_function_finds_its_code_then_the_client_then_the_standard_library_and_nothing_of_ours(
    gateway: Gateway,
) -> None:
    environment = await gateway.start(
        VARIABLES, variables={"AWS_ENDPOINT_URL": "http://customer"}, endpoint_url="http://ours"
    )
    seen = (await environment.invoke()).json
    task_root, client_dir, *standard = seen["path"]
    assert task_root == seen["env"]["LAMBDA_TASK_ROOT"]
    assert client_dir == str(gateway.runtimes_dir / "python3.13")
    assert seen["boto3"].startswith(client_dir)
    assert not any("site-packages" in path or "lambstead" in path for path in standard)
    assert seen["builtin"] == "Quitter"
    assert seen["env"]["AWS_ENDPOINT_URL"] == "http://customer"


async def test_bundled_packages_win_over_awss(gateway: Gateway) -> None:
    message = gateway.start_message("import boto3\ndef handler(event, context): return boto3.BUNDLED")
    (Path(message.code_path) / "boto3.py").write_text("BUNDLED = 'mine'")
    environment = await gateway.start(
        None, environment_id=message.environment_id, code_path=message.code_path, log_path=message.log_path
    )
    assert (await environment.invoke()).json == "mine"
    assert not (Path(message.code_path) / "__pycache__").exists()


async def test_the_private_temp_folder_is_the_environments_own_and_goes_with_it(gateway: Gateway) -> None:
    code = """
        import os, tempfile, resource
        def handler(event, context):
            with tempfile.NamedTemporaryFile(delete=False) as file:
                file.write(b"x")
            return {"file": file.name, "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                    "core": resource.getrlimit(resource.RLIMIT_CORE)[1], "session": os.getsid(0),
                    "privileges": [l for l in open("/proc/self/status") if l.startswith("NoNewPrivs")][0].split()[1]}
    """
    first, second = await gateway.start(code), await gateway.start(code)
    seen, other = (await first.invoke()).json, (await second.invoke()).json
    assert os.path.exists(seen["file"])
    assert os.path.dirname(seen["file"]) != os.path.dirname(other["file"])
    assert seen["files"] <= 4096
    assert seen["core"] == 0
    assert seen["privileges"] == "1"
    assert first.ready is not None
    assert seen["session"] == first.ready.pid
    await first.stop()
    assert not os.path.exists(seen["file"])
    assert os.path.exists(other["file"])


async def test_lines_of_concurrent_workers_stay_whole(gateway: Gateway) -> None:
    environment = await gateway.start(
        """
        import sys
        def handler(event, context):
            for number in range(50):
                for piece in ("begin", f" {event} ", "ü" * 200, f" {number}"):
                    sys.stdout.write(piece)
                sys.stdout.write(" end\\n")
                print(f"err {event} {number}", file=sys.stderr)
        """,
        max_concurrency=8,
    )
    await asyncio.gather(*(environment.invoke(n) for n in range(8)))
    expected = sorted([f"begin {e} {'ü' * 200} {n} end" for e in range(8) for n in range(50)])
    errors = sorted([f"err {e} {n}" for e in range(8) for n in range(50)])

    def lines(prefix: str) -> list[str]:
        return sorted(line for line in environment.log().splitlines() if line.startswith(prefix))

    await eventually(
        lambda: len(lines("begin")) >= 400 and len(lines("err ")) >= 400, "everything printed is in the log"
    )
    assert lines("begin") == expected
    assert lines("err ") == errors


async def test_the_log_of_a_managed_function_has_awss_records(gateway: Gateway) -> None:
    environment = await gateway.start(
        """
        import logging
        def handler(event, context):
            logging.getLogger().info("said %s", event)
            if event == "bad":
                raise RuntimeError("bad")
        """
    )
    good, bad = environment.send("good"), None
    await good.answer
    await environment.until_slots(1)
    bad = environment.send("bad")
    await bad.answer
    await environment.until_slots(1)
    await eventually(lambda: len(environment.log_records("platform.report")) == 2, "both are reported")
    [init] = environment.log_records("platform.initStart")
    assert init["record"]["instanceMaxMemory"] == 2048 * 1024 * 1024
    assert init["record"]["instanceId"] == environment.log_stream
    [init_report] = environment.log_records("platform.initReport")
    assert init_report["record"]["status"] == "success"
    assert init_report["record"]["initializationType"] == "lambda-managed-instances"
    assert [r["record"]["requestId"] for r in environment.log_records("platform.start")] == [
        good.request_id,
        bad.request_id,
    ]
    reports = [r["record"] for r in environment.log_records("platform.report")]
    assert [(r["requestId"], r["status"]) for r in reports] == [(good.request_id, "success"), (bad.request_id, "error")]
    assert all(r["metrics"].keys() == {"durationMs"} for r in reports)
    assert environment.log_records("platform.runtimeDone") == []
    await eventually(lambda: "said bad" in environment.log(), "the application's lines are in the log")
    said = next(json.loads(line) for line in environment.log().splitlines() if "said good" in line)
    assert (said["level"], said["requestId"]) == ("INFO", good.request_id)


async def test_the_system_log_level_holds_records_back(gateway: Gateway) -> None:
    environment = await gateway.start(ECHO, system_log_level="WARN")
    await environment.invoke()
    await environment.stop()
    assert environment.log_records("platform.start") == []
    assert environment.log_records("platform.initStart") == []


@ON_DEMAND
async def test_the_log_of_an_on_demand_function_has_awss_lines_in_order(gateway: Gateway, mode: str) -> None:
    environment = await gateway.start("def handler(event, context): print('hello', event)", mode=mode)
    ids = []
    for event in (1, 2):
        invocation = environment.send(event)
        await invocation.answer
        ids.append(invocation.request_id)
        await environment.until_slots(1)
    await eventually(lambda: environment.log().count("REPORT ") == 2, "both are reported")
    init, *lines = environment.log().splitlines()
    assert init.startswith("INIT_START Runtime Version: python:3.13.")
    assert [line.split("\t")[0] for line in lines] == [
        line
        for number, request_id in enumerate(ids, 1)
        for line in (
            f"START RequestId: {request_id} Version: 1",
            f"hello {number}",
            f"END RequestId: {request_id}",
            f"REPORT RequestId: {request_id}",
        )
    ]
    first, second = lines[3].split("\t"), lines[7].split("\t")
    assert [field.split(":")[0] for field in first[1:-1]] == [
        "Duration",
        "Billed Duration",
        "Memory Size",
        "Max Memory Used",
        "Init Duration",
    ]
    assert "Init Duration" not in lines[7]
    assert first[3] == "Memory Size: 2048 MB"
    assert int(second[4].removeprefix("Max Memory Used: ").removesuffix(" MB")) > 3


async def test_another_python_than_the_named_one_is_noted(gateway: Gateway) -> None:
    message = gateway.start_message(ECHO, runtime="python3.99")
    environment = await gateway.start(
        None,
        environment_id=message.environment_id,
        runtime="python3.99",
        code_path=message.code_path,
        log_path=message.log_path,
    )
    assert environment.ready is not None
    assert "python3.99 has no interface client: running on CPython 3." in environment.ready.note
    assert environment.log_records("lambstead.note")[0]["record"]["message"] == environment.ready.note
    assert (await environment.invoke(5)).json == 5


async def test_environments_of_one_agent_live_and_fail_apart(gateway: Gateway) -> None:
    good = await gateway.start(ECHO)
    await gateway.start_failing("raise ValueError")
    dying = await gateway.start("import os\ndef handler(event, context): os._exit(1)")
    await dying.invoke()
    await dying.exited()
    assert (await good.invoke("still here")).json == "still here"
    assert not any(
        isinstance(m, EnvironmentFailed) and m.environment_id == good.environment_id for m in gateway.messages
    )
