"""Workers on the link and AWS's client over HTTP give a function's callers, its code and its log the same, byte for byte.

What cannot be alike (request ids, times, process ids, trace ids) is replaced before the comparison; nothing else is.
"""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.harness import (
    PUBLISHED,
    Server,
    create_function,
    create_provider,
    on_provider,
    publish_managed,
    running,
    wait_active,
    wait_for,
)

from lambstead.core.log_streams import TIMES_SUFFIX, Times

SOURCE = """
import json, logging, os, sys, time, traceback

logger = logging.getLogger("app")
started = os.environ.get("_X_AMZN_TRACE_ID")

class Custom(Exception):
    pass

def deep(n):
    if n == 0:
        raise Custom("ånger ☃")
    deep(n - 1)

def handler(event, context):
    what = event.get("do") if isinstance(event, dict) else None
    if what == "raise":
        deep(3)
    if what == "chained":
        try:
            {}["missing"]
        except KeyError as exc:
            raise RuntimeError("outer") from exc
    if what == "unserialisable":
        return {"x": object()}
    if what == "exit":
        sys.exit(event["code"])
    if what == "die":
        os._exit(event["code"])
    if what == "sleep":
        time.sleep(event["s"])
    if what == "big":
        return "x" * event["n"]
    if what == "big error":
        raise Custom("x" * event["n"])
    if what == "interrupt":
        raise KeyboardInterrupt("stop")
    if what == "bytes":
        return b"\\x00\\xff"
    if what == "stack":
        return traceback.format_stack()
    if what == "log":
        print("printed ☃", flush=True)
        print("to stderr", file=sys.stderr)
        logger.warning("warned %s", {"a": 1})
        logging.getLogger().error("failed", extra={"order": 7})
        print("two\\nlines")
    if what == "context":
        cc = context.client_context
        return {
            "arn": context.invoked_function_arn, "name": context.function_name, "version": context.function_version,
            "memory": context.memory_limit_in_mb, "group": context.log_group_name, "stream": bool(context.log_stream_name),
            "left": context.get_remaining_time_in_millis() > 0, "tenant": context.tenant_id,
            "client": cc and {"custom": cc.custom, "env": cc.env, "client": cc.client and cc.client.app_title},
            "identity": context.identity and context.identity.cognito_identity_id,
            "trace": os.environ.get("_X_AMZN_TRACE_ID"), "at_import": started,
            "variables": sorted(k for k in os.environ),
            "modules": [m for m in sys.modules if m.startswith("lambstead")],
        }
    return event
"""

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
CLIENT_CONTEXT = base64.b64encode(
    json.dumps({"client": {"app_title": "t"}, "custom": {"k": "v"}, "env": {"e": "f"}}).encode()
).decode()

BATTERY: dict[str, tuple[bytes, dict[str, str]]] = {
    "a number": (b"7", {}),
    "null": (b"null", {}),
    "nothing": (b"", {}),
    "unicode": ('{"k": "snow ☃ 🐑 \\u0000 \\ud83d\\ude00"}'.encode(), {}),
    "floats": (b"[1e400, -0.0, 1.10, 12345678901234567890]", {}),
    "an exception": (b'{"do": "raise"}', {}),
    "a chained exception": (b'{"do": "chained"}', {}),
    "an answer that is no JSON": (b'{"do": "unserialisable"}', {}),
    "a time-out": (b'{"do": "sleep", "s": 1.5}', {}),
    "after a time-out": (b'{"a": 1}', {}),
    "six megabytes": (json.dumps("x" * 6_291_000).encode(), {}),
    "six megabytes back": (b'{"do": "big", "n": 6291554}', {}),
    "one byte too many": (b'{"do": "big", "n": 6291555}', {}),
    "an error of almost a megabyte": (b'{"do": "big error", "n": 1000000}', {}),
    "an error of more than a megabyte": (b'{"do": "big error", "n": 1050000}', {}),
    "bytes": (b'{"do": "bytes"}', {}),
    "output": (b'{"do": "log"}', {}),
    "the context": (b'{"do": "context"}', {"X-Amzn-Trace-Id": TRACE}),
    "the whole context": (
        b'{"do": "context"}',
        {"X-Amzn-Trace-Id": TRACE, "X-Amz-Client-Context": CLIENT_CONTEXT},
    ),
    "a context in Unicode": (
        b'{"do": "context"}',
        {
            "X-Amzn-Trace-Id": TRACE,
            "X-Amz-Client-Context": base64.b64encode('{"custom": {"☃":\n"å"}}'.encode()).decode(),
        },
    ),
    "sys.exit": (b'{"do": "exit", "code": 3}', {}),
    "sys.exit with 0": (b'{"do": "exit", "code": 0}', {}),
    "os._exit": (b'{"do": "die", "code": 9}', {}),
    "after exits": (b'"still here"', {}),
}
STANDARD_BATTERY = {**BATTERY, "the stack": (b'{"do": "stack"}', {}), "an interrupt": (b'{"do": "interrupt"}', {})}
"""With what shows the program around AWS's client: on a capacity provider that is ours, on demand it is AWS's either way."""


Answers = dict[str, tuple[int, str | None, bytes]]
"""Status, function error and comparable body by what was asked."""


def post(server: Server, name: str, body: bytes, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
    """Status, X-Amz-Function-Error and body of one Invoke, without a client that could hide a difference."""
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        connection.request("POST", f"/2015-03-31/functions/{name}/invocations", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("X-Amz-Function-Error"), answer.read()
    finally:
        connection.close()


UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def comparable(text: bytes) -> bytes:
    """Without what differs between any two invocations."""
    text = re.sub(UUID, b"<uuid>", text)
    text = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", b"<time>", text)
    text = re.sub(rb'"((?:d|initD|billedD)urationMs|maxMemoryUsedMB)":[0-9.]+', rb'"\1":<number>', text)
    text = re.sub(rb"((?:Duration|Max Memory Used): )[0-9.]+ ", rb"\1<number> ", text)
    text = re.sub(rb"\[[0-9]{13}\]", b"[<ms>]", text)
    text = re.sub(rb"\[\$LATEST\][0-9a-f]{32}", b"[$LATEST]<stream>", text)
    text = re.sub(rb"packages/[0-9a-f]{64}", b"<package>", text)
    return re.sub(rb"/[^\s\"']*/data/<package>", b"<task root>", text)


@pytest.fixture(scope="module")
def both(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    with (
        running(tmp_path_factory.mktemp("link") / "data", runtime_client="link") as link,
        running(tmp_path_factory.mktemp("official") / "data", runtime_client="official") as official,
    ):
        for server in (link, official):
            create_provider(server.aws)
        yield {"link": link, "official": official}


@pytest.fixture(scope="module")
def played(both: dict[str, Server]) -> dict[str, Answers]:
    """What the battery gave on each server."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(both, pool.map(play, both.values()), strict=True))


def provider_of(server: Server) -> str:
    return server.aws.list_capacity_providers()["CapacityProviders"][0]["CapacityProviderArn"]


def play(server: Server) -> Answers:
    """The battery on one server, in order, on an environment with many workers."""
    publish_managed(server.aws, "battery", SOURCE, provider_of(server), slots=8, Timeout=1)
    return answers(server, "battery", BATTERY)


def answers(server: Server, name: str, battery: dict[str, tuple[bytes, dict[str, str]]]) -> Answers:
    found = {}
    for what, (body, headers) in battery.items():
        status, error, answer = post(server, name, body, headers)
        found[what] = (status, error, comparable(answer))
    return found


def test_callers_get_the_same_bytes(played: dict[str, Answers]) -> None:
    link, official = played["link"], played["official"]
    assert list(link) == list(official)
    for what in link:
        assert link[what] == official[what], what
    assert link["an exception"][1] == "Unhandled"
    assert link["six megabytes back"][1] is None
    assert link["after exits"][2] == b'"still here"'


def lines(server: Server) -> list[str]:
    """The function's own log lines, comparable, in the order of the file; platform records are compared apart."""
    (folder,) = [path for path in (server.data / "logs").iterdir() if path.name == "battery"]
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.log"), key=lambda p: p.stat().st_mtime))
    return comparable(text).decode().splitlines()


def test_the_log_has_the_same_lines(both: dict[str, Server], played: dict[str, Answers]) -> None:
    def complete(server: Server) -> list[str]:
        return [line for line in lines(server) if '"platform.report"' in line]

    for server in both.values():
        wait_for(lambda server=server: len(complete(server)) >= len(BATTERY), "every invocation is reported")  # type: ignore[misc]  # the default binds the loop's value
    logs = {mode: lines(server) for mode, server in both.items()}
    # What AWS's client says about its own HTTP requests (a late answer is told 410) has no counterpart on the link.
    own = {
        mode: [
            line
            for line in log
            if '"type":"' not in line and not re.search("Failed to post (handler|invocation)", line)
        ]
        for mode, log in logs.items()
    }
    # Standard output and standard error are two sources, whose lines have no order among them.
    assert sorted(own["link"]) == sorted(own["official"])
    records = {mode: sorted(_kinds(log)) for mode, log in logs.items()}
    assert records["link"] == records["official"]


STANDARD_FORMATS = {
    "text": {"LogFormat": "Text"},
    "json": {"LogFormat": "JSON", "SystemLogLevel": "DEBUG", "ApplicationLogLevel": "DEBUG"},
}


@pytest.fixture(scope="module", params=STANDARD_FORMATS)
def standard(both: dict[str, Server], request: pytest.FixtureRequest) -> tuple[str, dict[str, Answers]]:
    """A function without a capacity provider by its name, and what the battery gave on each server."""
    name = f"standard-{request.param}"

    def play_standard(server: Server) -> Answers:
        create_function(server.aws, name, SOURCE, Timeout=1, LoggingConfig=STANDARD_FORMATS[request.param])
        wait_active(server.aws, name, "$LATEST")
        return answers(server, name, STANDARD_BATTERY)

    with ThreadPoolExecutor(2) as pool:
        return name, dict(zip(both, pool.map(play_standard, both.values()), strict=True))


def test_callers_of_standard_functions_get_the_same_bytes(standard: tuple[str, dict[str, Answers]]) -> None:
    link, official = standard[1]["link"], standard[1]["official"]
    for what in STANDARD_BATTERY:
        assert link[what] == official[what], what
    assert b"Task timed out after 1.00 seconds" in link["a time-out"][2]
    assert b"exit status 3" in link["sys.exit"][2]
    assert b"exceeded maximum allowed payload size" in link["one byte too many"][2]
    assert link["after exits"][2] == b'"still here"'


def test_the_logs_of_standard_functions_have_the_same_lines_in_the_same_order(
    both: dict[str, Server], standard: tuple[str, dict[str, Answers]]
) -> None:
    """Environment by environment, and in each from one line of the platform to the next: START, what the function printed, END and REPORT.

    One line more is known: what AWS's client cannot post ends it with a traceback, in which our client stands above AWS's.
    """
    name, _ = standard
    logs = {mode: wait_for(lambda s=server: whole_log(s, name), "all is reported") for mode, server in both.items()}  # type: ignore[misc]  # the default binds the loop's value
    for link, official in zip(logs["link"], logs["official"], strict=True):
        assert link == official
    environments = logs["link"]
    assert len(environments) > 4, "time-outs, exits and what is too large each cost one"
    assert sum("REPORT" in block[0] or '"platform.report"' in block[0] for e in environments for block in e) == len(
        STANDARD_BATTERY
    )


def whole_log(server: Server, name: str) -> list[list[list[str]]] | None:
    """What each environment of a standard function logged, in blocks that begin with a line of the platform; None until all is reported.

    In a block the order says nothing: standard output and records are two sources.
    """
    files = sorted((server.data / "logs" / name).glob("*.log"), key=first_time)
    texts = [comparable(file.read_bytes()).decode() for file in files]
    if sum(text.count("REPORT RequestId") + text.count('"platform.report"') for text in texts) < len(STANDARD_BATTERY):
        return None
    return [blocks(text) for text in texts]


def first_time(log: Path) -> int:
    """When the first line was written, in milliseconds."""
    return Times(log.with_suffix(TIMES_SUFFIX).read_bytes(), 0).first_ms


PLATFORM_LINE = re.compile(r'START |END |REPORT |INIT_|LAMBSTEAD |RequestId: |Error: |<time> <uuid> |\{"time"')


OUR_FRAME = re.compile(r'  File "[^"]*/python_link\.py", line \d+, in post_\w+\n    .*\n(    [ ~^]+\n)?')


def blocks(text: str) -> list[list[str]]:
    text = OUR_FRAME.sub("", text)
    found: list[list[str]] = [[""]]
    for line in text.splitlines():
        if PLATFORM_LINE.match(line):
            found.append([line])
        else:
            found[-1].append(line)
    return [[block[0], *sorted(block[1:])] for block in found]


def _kinds(log: list[str]) -> list[str]:
    """Platform records of invocations without their numbers."""
    found: list[dict[str, Any]] = [
        json.loads(re.sub(r"<number>", "0", line)) for line in log if line.startswith('{"time"')
    ]
    return [json.dumps(record) for record in found if record["type"] in ("platform.start", "platform.report")]


@pytest.mark.parametrize(
    "source",
    [
        "import nowhere\n",
        "def handler(:\n",
        "raise ValueError('at import ☃')\n",
        "other = 1\n",
        "import sys\nsys.exit(4)\n",
    ],
    ids=["missing module", "syntax error", "exception", "missing handler", "exit"],
)
def test_init_errors_have_the_same_reason(both: dict[str, Server], source: str, request: pytest.FixtureRequest) -> None:
    name = re.sub(r"\W", "-", request.node.callspec.id)
    reasons = {}
    for mode, server in both.items():
        arn = provider_of(server)
        create_function(server.aws, name, source, **on_provider(arn, 3, Publish=True, PublishTo="LATEST_PUBLISHED"))

        def failed(server: Server = server) -> dict[str, Any] | None:
            found = dict(server.aws.get_function_configuration(FunctionName=name, Qualifier=PUBLISHED))
            return found if found["State"] == "Failed" else None

        configuration = wait_for(failed, f"{name} fails")
        reasons[mode] = (configuration["StateReasonCode"], comparable(configuration["StateReason"].encode()))
    assert reasons["link"] == reasons["official"]
