"""Every runtime in every mode through AWS's client: the same questions, the same kind of answers.

Node.js needs npm the first time, and CI has it; a machine without npm skips those rows and says so.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import (
    FUNCTIONS,
    PUBLISHED,
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
TIMEOUT_S = 2


@dataclass(frozen=True)
class Runtime:
    """One row: what to deploy, and how this runtime words an error."""

    identifier: str
    code: bytes
    handler: str
    error_type: str
    trace_member: str
    init_error_type: str
    slots: int = SLOTS


def _text(name: str) -> str:
    return (FUNCTIONS / name).read_text()


BOOTSTRAP = custom_runtime()
"""Python that sees nothing but its standard library: the interpreter of the tests is sure to be there."""

ROWS = {
    "python3.13": Runtime(
        "python3.13", archive({"app.py": _text("matrix.py")}), "app.handler", "ValueError", "stackTrace", "LookupError"
    ),
    "nodejs20.x": Runtime(
        "nodejs20.x", archive({"index.js": _text("matrix.cjs")}), "index.handler", "TypeError", "trace", "RangeError"
    ),
    "nodejs22.x": Runtime(
        "nodejs22.x",
        archive({"app/index.js": _text("matrix.cjs")}),
        "app/index.handler",
        "TypeError",
        "trace",
        "RangeError",
    ),
    "nodejs24.x": Runtime(
        "nodejs24.x", archive({"index.mjs": _text("matrix.mjs")}), "index.handler", "TypeError", "trace", "RangeError"
    ),
    "provided.al2023": Runtime("provided.al2023", BOOTSTRAP, "any.thing", "ValueError", "stackTrace", "LookupError"),
    "provided.al2": Runtime("provided.al2", BOOTSTRAP, "any.thing", "ValueError", "stackTrace", "LookupError"),
}
STANDARD_ONLY = ("nodejs20.x", "provided.al2")
CELLS = [
    (row, mode)
    for row in ROWS
    for mode in ("managed", "standard")
    if (row, mode) not in [(s, "managed") for s in STANDARD_ONLY]
]


@dataclass(frozen=True)
class Deployed:
    """One cell: a function of this runtime in this mode, ready to be invoked."""

    server: Server
    aws: "LambdaClient"
    runtime: Runtime
    is_managed: bool
    name: str

    def __call__(self, do: str, **event: Any) -> Any:
        return invoke(self.aws, self.name, {"do": do, **event})


@pytest.fixture(scope="module")
def matrix_server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("matrix") / "data") as server:
        create_provider(server.aws)
        yield server


def deploy(server: Server, runtime: Runtime, name: str, *, managed: bool, **members: Any) -> None:
    request: dict[str, Any] = {
        "Runtime": with_runtime(runtime.identifier),
        "Handler": runtime.handler,
        "Code": {"ZipFile": runtime.code},
        "Timeout": TIMEOUT_S,
        **members,
    }
    if managed:
        arn = server.aws.get_capacity_provider(CapacityProviderName="pool")["CapacityProvider"]["CapacityProviderArn"]
        request |= on_provider(arn, runtime.slots, Publish=True, PublishTo="LATEST_PUBLISHED")
    create_function(server.aws, name, "", **request)
    if not managed:
        wait_active(server.aws, name, "$LATEST")


@pytest.fixture(scope="module", params=CELLS, ids=lambda cell: "-".join(cell))
def cell(matrix_server: Server, request: pytest.FixtureRequest) -> Deployed:
    row, mode = request.param
    runtime, name = ROWS[row], f"matrix-{row.replace('.', '-')}-{mode}"
    variables = {"GREETING": "grüß dich 🧀", "EMPTY": ""}
    deploy(matrix_server, runtime, name, managed=mode == "managed", Environment={"Variables": variables})
    if mode == "managed":
        wait_active(matrix_server.aws, name)
    return Deployed(matrix_server, matrix_server.aws, runtime, mode == "managed", name)


@pytest.mark.parametrize("value", [{"käse": "🧀", "n": [1, 2.5, None, True]}, "text", None, [], 0, "ü" * 500_000])
def test_what_goes_in_comes_out(cell: Deployed, value: Any) -> None:
    answer = cell("echo", value=value)
    assert (answer.status, answer.error, answer.payload) == (200, None, value)
    assert answer.version == (PUBLISHED if cell.is_managed else "$LATEST")


def test_a_megabyte_goes_in_and_out(cell: Deployed) -> None:
    text = "0123456789abcdef" * 65_536
    assert cell("echo", value=text).payload == text


def test_an_error_comes_with_its_type_and_its_stack(cell: Deployed) -> None:
    answer = cell("fail", message="äh 🧀")
    assert (answer.status, answer.error) == (200, "Unhandled")
    assert answer.payload["errorType"] == cell.runtime.error_type
    assert answer.payload["errorMessage"] == "äh 🧀"
    assert answer.payload[cell.runtime.trace_member], "the stack"
    assert cell("echo", value=1).payload == 1


def test_the_context_names_the_invocation(cell: Deployed) -> None:
    first, second = cell("context").payload, cell("context").payload
    assert first["id"] != second["id"]
    assert first["arn"].endswith(f":function:{cell.name}" + (f":{PUBLISHED}" if cell.is_managed else ""))


def test_the_environment_has_awss_variables_and_the_customers(cell: Deployed) -> None:
    seen = cell("variables").payload
    assert seen["GREETING"] == "grüß dich 🧀"
    assert seen["EMPTY"] == ""
    assert seen["_HANDLER"] == cell.runtime.handler
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == cell.name
    assert seen["AWS_LAMBDA_INITIALIZATION_TYPE"] == ("lambda-managed-instances" if cell.is_managed else "on-demand")
    assert seen.get("AWS_LAMBDA_MAX_CONCURRENCY") == (str(SLOTS) if cell.is_managed else None)
    is_custom = cell.runtime.identifier.startswith("provided")
    assert seen.get("AWS_EXECUTION_ENV") == (None if is_custom else f"AWS_Lambda_{cell.runtime.identifier}")
    assert seen.get("cwd", seen["LAMBDA_TASK_ROOT"]) == seen["LAMBDA_TASK_ROOT"]
    assert not any(name.startswith(("LAMBSTEAD_", "VIRTUAL_ENV", "npm_")) for name in seen)


def test_a_time_out_is_told_in_awss_words_and_the_function_goes_on(cell: Deployed) -> None:
    answer = cell("overstay", seconds=TIMEOUT_S + 1)
    assert answer.error == "Unhandled"
    assert answer.payload["errorType"] == "Sandbox.Timedout"
    assert answer.payload["errorMessage"].endswith("Error: Task timed out after 2.00 seconds")
    assert cell("echo", value="still here").payload == "still here"


def test_as_many_run_at_once_as_there_is_room(cell: Deployed, tmp_path: Path) -> None:
    if cell.is_managed:  # how busy it is shall add no environment
        cell.server.aws.put_function_scaling_config(
            FunctionName=cell.name,
            Qualifier=PUBLISHED,
            FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1},
        )
        wait_for(lambda: len(cell.server.environments(cell.name)) == 1, "one environment is left")
    wait_for(lambda: not cell.is_managed or _free_slots(cell) == SLOTS, "all slots are free again")
    asked = [cell.server.clients.submit(cell, "meet", folder=str(tmp_path)) for _ in range(SLOTS)]
    wait_for(lambda: len(list(tmp_path.glob("in-*"))) == SLOTS, f"{SLOTS} run at once")
    if cell.is_managed:
        assert len(cell.server.environments(cell.name)) == 1, "in one environment"
    (tmp_path / "open").touch()
    answers = [each.result(30) for each in asked]
    assert all(answer.error is None for answer in answers), answers
    assert {f"in-{answer.payload}" for answer in answers} == {path.name for path in tmp_path.glob("in-*")}


def _free_slots(cell: Deployed) -> int:
    return SLOTS - sum(int(environment["busy"]) for environment in cell.server.environments(cell.name))


def test_what_it_prints_is_in_its_log_with_its_request(cell: Deployed) -> None:
    cell("print", text="hört, hört 🧀")
    wait_for(lambda: "hört, hört 🧀" in cell.server.logs(cell.name), "the line is in the log")
    line = next(line for line in cell.server.logs(cell.name).splitlines() if "hört, hört" in line)
    if cell.is_managed and cell.runtime.identifier.startswith("nodejs"):
        record = json.loads(line)
        assert (record["level"], record["message"]) == ("INFO", "hört, hört 🧀")
        assert f'"{record["requestId"]}"' in cell.server.logs(cell.name).replace(line, "")


def test_an_exit_is_told_with_its_status_and_the_function_comes_back(cell: Deployed) -> None:
    answer = cell("exit", code=3)
    assert answer.error == "Unhandled"
    if cell.is_managed and cell.runtime.identifier.startswith("nodejs"):
        # Only the thread ends, and nobody can know what it ran: the invocation ends by its deadline, as on AWS.
        assert answer.payload["errorType"] == "Sandbox.Timedout"
    else:
        assert answer.payload["errorType"] == "Runtime.ExitError"
        assert "Runtime exited" in answer.payload["errorMessage"]
        if not cell.is_managed or cell.runtime.identifier.startswith("provided"):
            assert answer.payload["errorMessage"].endswith("Runtime exited with error: exit status 3")
    assert wait_for(lambda: _answers(cell), "the function answers again")


def _answers(cell: Deployed) -> bool:
    try:
        return bool(cell("echo", value="back").payload == "back")
    except cell.aws.exceptions.TooManyRequestsException:
        return False


@pytest.mark.parametrize(("row", "mode"), CELLS)
def test_a_failing_init_is_told_in_the_functions_words(matrix_server: Server, row: str, mode: str) -> None:
    runtime, name = ROWS[row], f"broken-{row.replace('.', '-')}-{mode}"
    broken = {"Variables": {"BROKEN": "1"}}
    deploy(matrix_server, runtime, name, managed=mode == "managed", Environment=broken, Timeout=30)
    if mode == "standard":
        answer = invoke(matrix_server.aws, name)
        assert answer.error == "Unhandled"
        assert answer.payload["errorType"] == runtime.init_error_type
        assert _init_words(row) in answer.payload["errorMessage"]
        return

    def failed() -> Any:
        found = matrix_server.aws.get_function_configuration(FunctionName=name, Qualifier=PUBLISHED)
        return found if found["State"] == "Failed" else None

    version = wait_for(failed, "the version failed")
    assert version["StateReasonCode"] == "FunctionError.RuntimeInitError"
    assert _init_words(row) in version["StateReason"]


def _init_words(row: str) -> str:
    return "no init today" if row.startswith("python") else "no init today: 🧀"
