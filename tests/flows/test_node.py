"""What is particular to Node.js functions: handlers, threads, module systems, deaths."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import (
    PUBLISHED,
    Server,
    archive,
    create_function,
    create_provider,
    invoke,
    on_provider,
    wait_active,
    wait_for,
    with_runtime,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

MEETING = """
import { existsSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';

export const handler = async (event, context) => {
  await readFile(import.meta.filename);  // a pool thread of libuv, of which polls must not take any
  writeFileSync(`${event.folder}/in-${context.awsRequestId}`, '');
  while (!existsSync(`${event.folder}/open`)) await sleep(5);
  return threadId;
};
"""


@pytest.fixture(scope="module")
def provider(aws: "LambdaClient") -> str:
    return create_provider(aws)


def deploy(aws: "LambdaClient", name: str, source: str, runtime: str = "nodejs24.x", **members: Any) -> None:
    """A standard function of one file."""
    file = members.pop("file", "index.mjs")
    request = {"Handler": "index.handler", "Code": {"ZipFile": archive({file: source})}, **members}
    create_function(aws, name, "", Runtime=with_runtime(runtime), **request)
    if "Publish" not in members:
        wait_active(aws, name, "$LATEST")


def publish(aws: "LambdaClient", name: str, source: str, provider: str, slots: int = 4, **members: Any) -> None:
    """A function of one file on the provider."""
    deploy(aws, name, source, **on_provider(provider, slots, Publish=True, PublishTo="LATEST_PUBLISHED", **members))


def failed(aws: "LambdaClient", name: str) -> Any:
    def version() -> Any:
        found = aws.get_function_configuration(FunctionName=name, Qualifier=PUBLISHED)
        return found if found["State"] == "Failed" else None

    return wait_for(version, f"{name} failed")


# --- many at once -------------------------------------------------------------------------------------------------------


def test_one_thread_runs_as_many_as_there_are_slots_and_not_one_more(
    server: Server, aws: "LambdaClient", provider: str, tmp_path: Path
) -> None:
    threads = {"Variables": {"AWS_LAMBDA_NODEJS_WORKER_COUNT": "1"}}
    publish(aws, "one-thread", MEETING, provider, slots=8, Timeout=60, Environment=threads)
    wait_active(aws, "one-thread")
    asked = [server.clients.submit(invoke, aws, "one-thread", {"folder": str(tmp_path)}) for _ in range(9)]
    wait_for(lambda: len(list(tmp_path.glob("in-*"))) == 8, "eight run at once")
    [environment] = server.environments("one-thread")
    assert environment["busy"] == 8
    # The client polls on whatever it runs; only the platform holds the ninth back.
    assert len(list(tmp_path.glob("in-*"))) == 8
    (tmp_path / "open").touch()
    answers = [each.result(30) for each in asked]
    assert {(answer.error, answer.payload) for answer in answers} == {(None, 1)}


def test_invocations_spread_over_the_threads(
    server: Server, aws: "LambdaClient", provider: str, tmp_path: Path
) -> None:
    threads = {"Variables": {"AWS_LAMBDA_NODEJS_WORKER_COUNT": "4"}}
    publish(aws, "four-threads", MEETING, provider, slots=8, Timeout=60, Environment=threads)
    wait_active(aws, "four-threads")
    asked = [server.clients.submit(invoke, aws, "four-threads", {"folder": str(tmp_path)}) for _ in range(8)]
    wait_for(lambda: len(list(tmp_path.glob("in-*"))) == 8, "eight run at once")
    (tmp_path / "open").touch()
    # The oldest poll gets the next event, so the first four meet four threads.
    assert {each.result(30).payload for each in asked} == {1, 2, 3, 4}


def test_an_uncaught_error_ends_its_thread_is_logged_and_the_environment_is_replaced(
    server: Server, aws: "LambdaClient", provider: str
) -> None:
    source = """
    export const handler = async (event) => {
      if (event.fail) { setImmediate(() => { throw new Error('nobody catches this'); }); await new Promise(() => {}); }
      return process.pid;
    };
    """
    publish(aws, "uncaught", source, provider, Timeout=2)
    wait_active(aws, "uncaught")
    before = invoke(aws, "uncaught", {}).payload
    answer = invoke(aws, "uncaught", {"fail": True})
    assert answer.payload["errorType"] == "Sandbox.Timedout"
    lines = [json.loads(line) for line in server.logs("uncaught").splitlines() if "nobody catches this" in line]
    assert lines[0]["level"] == "ERROR"
    assert "A worker thread ended; 3 of 4 are left." in server.logs("uncaught")
    wait_for(lambda: invoke(aws, "uncaught", {}).payload != before, "a whole environment takes over")


def test_the_end_of_the_process_ends_everything_that_it_ran(
    server: Server, aws: "LambdaClient", provider: str, tmp_path: Path
) -> None:
    source = MEETING.replace("return threadId;", "process.kill(process.pid, 'SIGKILL'); await new Promise(() => {});")
    publish(aws, "killed", source, provider, slots=3, Timeout=60)
    wait_active(aws, "killed")
    asked = [server.clients.submit(invoke, aws, "killed", {"folder": str(tmp_path)}) for _ in range(3)]
    wait_for(lambda: len(list(tmp_path.glob("in-*"))) == 3, "three run at once")
    (tmp_path / "open").touch()
    assert {each.result(30).payload["errorType"] for each in asked} == {"Runtime.ExitError"}


# --- handlers -----------------------------------------------------------------------------------------------------------

CALLBACK = """
exports.handler = (event, context, callback) => {
  setTimeout(() => event.fail ? callback(new TypeError('called back')) : callback(null, { called: 'back' }), 5);
};
"""


@pytest.mark.parametrize("runtime", ["nodejs22.x", "nodejs24.x"])
def test_callback_style_handlers_are_refused_at_init_on_managed_instances(
    aws: "LambdaClient", provider: str, runtime: str
) -> None:
    name = f"called-{runtime[:8]}"
    publish(aws, name, CALLBACK, provider, runtime=runtime, file="index.js")
    reason = failed(aws, name)
    assert reason["StateReasonCode"] == "FunctionError.RuntimeInitError"
    assert "callback-based function handlers" in reason["StateReason"]


@pytest.mark.parametrize("runtime", ["nodejs20.x", "nodejs22.x"])
def test_standard_functions_before_24_may_call_back(aws: "LambdaClient", runtime: str) -> None:
    name = f"calls-{runtime[:8]}"
    deploy(aws, name, CALLBACK, runtime, file="index.js")
    assert [invoke(aws, name, {}).payload for _ in range(3)] == [{"called": "back"}] * 3
    error = invoke(aws, name, {"fail": True})
    assert (error.payload["errorType"], error.payload["errorMessage"]) == ("TypeError", "called back")
    assert invoke(aws, name, {}).payload == {"called": "back"}


def test_a_standard_function_from_24_on_may_not_call_back(aws: "LambdaClient") -> None:
    deploy(aws, "calls-no-more", CALLBACK, file="index.js")
    assert invoke(aws, "calls-no-more", {}).payload["errorType"] == "Runtime.CallbackHandlerDeprecated"


def test_a_handler_that_returns_without_an_answer_answers_null_when_nothing_is_left_to_do(aws: "LambdaClient") -> None:
    deploy(aws, "silent", "exports.handler = () => { setTimeout(() => {}, 20); };", "nodejs22.x", file="index.js")
    assert [invoke(aws, "silent").payload for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("size", [10, 400_000])
def test_an_error_that_ends_the_process_is_still_the_answer(aws: "LambdaClient", size: int) -> None:
    """AWS's 3.x client posts the error and calls process.exit in the same breath."""
    source = """
    exports.handler = async (event) => {
      setTimeout(() => { throw new RangeError('x'.repeat(event.size)); }, 5);
      await new Promise(() => {});
    };
    """
    name = f"exits-{size}"
    deploy(aws, name, source, "nodejs20.x", file="index.js")
    for _ in range(3):
        answer = invoke(aws, name, {"size": size})
        assert answer.payload["errorType"] == "RangeError"
        assert answer.payload["errorMessage"] == "x" * size


def test_the_largest_answer_goes_through_and_a_larger_one_is_an_error(aws: "LambdaClient", provider: str) -> None:
    publish(aws, "large", "export const handler = async (event) => 'x'.repeat(event.size);", provider)
    wait_active(aws, "large")
    most = 6_291_556 - 2
    assert len(invoke(aws, "large", {"size": most}).payload) == most
    assert invoke(aws, "large", {"size": most + 1}).payload["errorType"] == "Function.ResponseSizeTooLarge"
    assert len(invoke(aws, "large", {"size": 10}).payload) == 10


def test_events_of_six_megabytes_come_in(aws: "LambdaClient") -> None:
    deploy(aws, "hungry", "export const handler = async (event) => event.text.length;")
    text = "ü" * 3_000_000  # JSON escapes it: two bytes become six
    assert invoke(aws, "hungry", {"text": text[:1_000_000]}).payload == 1_000_000


def test_a_handler_that_does_not_exist_fails_in_awss_words(aws: "LambdaClient") -> None:
    deploy(aws, "nobody", "export const other = 1;")
    answer = invoke(aws, "nobody")
    assert answer.payload["errorType"] == "Runtime.HandlerNotFound"
    assert answer.payload["errorMessage"] == "index.handler is undefined or not exported"


def test_features_that_aws_switches_off_can_be_switched_on(aws: "LambdaClient") -> None:
    files = {
        "index.js": "exports.handler = async () => { try { return require('./other.mjs').value; } catch (e) { return e.code; } };",
        "other.mjs": "export const value = 42;",
    }
    code = {"ZipFile": archive(files)}
    on = {"Variables": {"NODE_OPTIONS": "--experimental-require-module --no-warnings"}}
    for name, members, seen in (("esm-off", {}, "ERR_REQUIRE_ESM"), ("esm-on", {"Environment": on}, 42)):
        deploy(aws, name, "", "nodejs22.x", Code=code, **members)
        assert invoke(aws, name).payload == seen


def test_modules_of_layers_are_found(aws: "LambdaClient") -> None:
    module = {"nodejs/node_modules/shared/index.js": "module.exports = 'from the layer';"}
    layer = aws.publish_layer_version(LayerName="shared", Content={"ZipFile": archive(module)})["LayerVersionArn"]
    source = "const shared = require('shared'); exports.handler = async () => shared;"
    deploy(aws, "layered", source, file="index.cjs", Layers=[layer])
    assert invoke(aws, "layered").payload == "from the layer"


def test_client_context_and_unicode_headers_arrive(aws: "LambdaClient") -> None:
    import base64

    deploy(aws, "context", "export const handler = async (event, context) => context.clientContext;")
    document = {"custom": {"käse": "🧀"}}
    text = base64.b64encode(json.dumps(document, ensure_ascii=False).encode()).decode()
    assert invoke(aws, "context", ClientContext=text).payload == document
