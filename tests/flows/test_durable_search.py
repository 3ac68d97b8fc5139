"""Search over all durable executions, custom attributes, and subscribers of status changes: through the door users use."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.durable import create_durable, event_of, finished, start_execution
from tests.harness import FUNCTIONS, Server, create_function, running, wait_active, wait_for

WORKFLOWS = (FUNCTIONS / "workflows.py").read_text()
HEARS = """
def handler(event, context):
    print("heard", event["detail-type"], event["detail"]["status"], event["detail"]["durableExecutionArn"])
"""


def json_of(server: Server, *arguments: str) -> Any:
    done = server.command("durable", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def start_with(server: Server, attributes: dict[str, str], function: str, name: str, do: str) -> str:
    aws = server.aws
    header = {"x-lambstead-attributes": json.dumps(attributes)}
    aws.meta.events.register("before-call.lambda.Invoke", lambda params, **_: params["headers"].update(header))
    return start_execution(aws, function, {"do": do}, name=name)


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("search")) as server:
        create_durable(server.aws, "orders", WORKFLOWS)
        create_durable(server.aws, "refunds", WORKFLOWS)
        yield server


def test_executions_of_all_functions_are_found_by_what_is_known_of_them(server: Server) -> None:
    arns = {
        "order-1": start_with(server, {"customer": "7", "region": "eu"}, "orders", "order-1", "fails"),
        "order-2": start_with(server, {"customer": "8", "region": "eu"}, "orders", "order-2", "callback"),
        "refund-1": start_with(server, {"customer": "7"}, "refunds", "refund-1", "callback"),
    }
    assert finished(server.aws, arns["order-1"])["Status"] == "FAILED"

    def names(*arguments: str) -> list[str]:
        """Of the executions of this test: others may have been there before."""
        found = [each["DurableExecutionName"] for each in json_of(server, "list", *arguments)]
        return [name for name in found if name in arns]

    assert names() == ["refund-1", "order-2", "order-1"]
    assert names("--name", "order-*") == ["order-2", "order-1"]
    assert names("--name", "order-?", "--status", "failed") == ["order-1"]
    assert names("--function", "refunds", "--status", "RUNNING", "--status", "FAILED") == ["refund-1"]
    assert names("--attribute", "customer=7") == ["refund-1", "order-1"]
    assert names("--attribute", "customer=7", "--attribute", "region=eu") == ["order-1"]
    assert names("--function", "orders", "--attribute", "customer=8") == ["order-2"]
    assert names("--attribute", "customer=9") == []
    assert names("--after", "2999-01-01") == []
    assert names("--before", "2999-01-01T00:00:00Z", "--limit", "2") == ["refund-1", "order-2"]
    table = server.command("durable", "list", "--limit", "1")
    assert "refund-1" in table.stdout
    assert "--limit 1" in table.stderr

    execution = arns["order-2"]
    assert json_of(server, "attributes", execution, "customer=9", "note=a=b", "--remove", "region") == {
        "customer": "9",
        "note": "a=b",
    }
    assert names("--attribute", "customer=9") == ["order-2"]
    assert json_of(server, "show", execution)["Attributes"] == {"customer": "9", "note": "a=b"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--status", "BROKEN"], "'BROKEN' is not a status"),
        (["list", "--after", "yesterday"], "after must be a time"),
        (["list", "--name", "a/b"], "not a pattern of names"),
        (["list", "--attribute", "nothing"], "NAME=VALUE"),
        (["attributes", "nosuch", "a=b"], "no durable execution nosuch"),
        (["subscribe", "http://"], "not a URL"),
        (["subscribe", "nosuch"], "Function not found"),
        (["unsubscribe", "nosuch"], "no subscription nosuch"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(server: Server, arguments: list[str], words: str) -> None:
    refused = server.command("durable", *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr


class Subscriber:
    """An HTTP server that answers `status` and remembers what it was sent."""

    def __init__(self, status: int = 200) -> None:
        heard: list[dict[str, Any]] = []
        self.heard, self.status = heard, status
        me = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(me.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/changes?from=lambstead"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def statuses(self, arn: str) -> list[str]:
        found = [each["detail"] for each in self.heard if each["detail"]["durableExecutionArn"] == arn]
        return [each["status"] for each in found]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_subscribers_hear_of_changes_of_status(server: Server) -> None:
    create_function(server.aws, "hears", HEARS)
    wait_active(server.aws, "hears", "$LATEST")
    everything, failures = Subscriber(), Subscriber()
    subscription = json_of(server, "subscribe", everything.url)["Id"]
    server.command("durable", "subscribe", failures.url, "--function", "orders", "--status", "FAILED")
    server.command("durable", "subscribe", "hears", "--status", "FAILED")
    assert len(json_of(server, "subscriptions")) == 3

    refund = start_execution(server.aws, "refunds", {"do": "step_wait_step", "n": 1})
    order = start_execution(server.aws, "orders", {"do": "fails"})
    wait_for(lambda: sorted(everything.statuses(refund)) == ["RUNNING", "SUCCEEDED"], "both changes of the refund")
    wait_for(lambda: failures.statuses(order) == ["FAILED"], "the failure")
    wait_for(lambda: f"FAILED {order}" in server.logs("hears"), "the function heard of it")
    assert failures.statuses(refund) == []
    event = next(each for each in failures.heard if each["detail"]["status"] == "FAILED")
    assert event["detail-type"] == "Durable Execution Status Change"
    assert (event["source"], event["resources"]) == ("aws.lambda", [])
    assert event["detail"]["endTimestamp"] > event["detail"]["startTimestamp"]

    assert server.command("durable", "unsubscribe", subscription).returncode == 0
    stopped = start_execution(server.aws, "orders", {"do": "fails"})
    wait_for(lambda: failures.statuses(stopped) == ["FAILED"], "the other subscriber still hears")
    assert everything.statuses(stopped) == []
    everything.close()
    failures.close()


def test_an_event_reaches_its_subscriber_though_both_were_down(runtimes: Path, tmp_path: Path) -> None:
    subscriber = Subscriber(status=503)
    with running(tmp_path) as first:
        create_durable(first.aws, "orders", WORKFLOWS)
        first.command("durable", "subscribe", subscriber.url)
        arn = start_execution(first.aws, "orders", {"do": "callback"})
        event_of(first.aws, arn, "CallbackStarted")
        wait_for(lambda: subscriber.heard, "it was tried")
        first.aws.stop_durable_execution(DurableExecutionArn=arn)
        first.kill()
    tried = len(subscriber.heard)
    subscriber.status = 200
    with running(tmp_path):
        wait_for(lambda: len(subscriber.heard) >= tried + 2, "both events come again")
        assert sorted(subscriber.statuses(arn)[tried:]) == ["RUNNING", "STOPPED"]
    subscriber.close()
