"""Faults on demand, as users' own tests inflict them: over HTTP and with the command, under load and with real processes."""

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    PUBLISHED,
    Server,
    create_function,
    create_provider,
    invoke,
    on_provider,
    publish_managed,
    running,
    wait_for,
)

from lambstead.core.log_streams import instance_mark

WORK = """
import pathlib, time

def handler(event, context):
    # Who began where: told before anything can go wrong.
    (pathlib.Path(event["began"]) / context.aws_request_id).write_text(context.log_stream_name)
    time.sleep(event["s"])
    return event["n"]
"""
HELD_S = 0.2


def chaos(server: Server, method: str = "GET", path: str = "", **document: Any) -> tuple[int, Any]:
    """A request to the chaos pages: status and document."""
    body = json.dumps(document).encode() if document else None
    request = urllib.request.Request(f"{server.url}/_lambstead/chaos{path}", body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def inflict(server: Server, fault: str, **members: Any) -> dict[str, Any]:
    status, document = chaos(server, "POST", fault=fault, **members)
    assert status == 201, document
    return dict(document)


def instances(server: Server, provider: str = "pool") -> list[dict[str, Any]]:
    found = (p for p in server.status()["providers"] if p["name"] == provider)
    return [dict(i) for p in found for i in p["instances"]]


class Load:
    """Callers that keep so many invocations running; each is answered, once, and we know what with and where it began."""

    def __init__(self, server: Server, name: str, began: Path, callers: int) -> None:
        self._aws, self._name, self._began = server.aws, name, began
        began.mkdir()
        self._stop = threading.Event()
        self.asked = 0
        self.errors: dict[str, str] = {}
        """Failed invocations by request id, and how."""
        self.refused: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._callers: list[Future[None]] = [server.clients.submit(self._call) for _ in range(callers)]

    def _call(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self.asked += 1
                number = self.asked
            event = {"n": number, "s": HELD_S, "began": str(self._began)}
            try:
                answer = self._aws.invoke(FunctionName=self._name, Payload=json.dumps(event).encode())
            except ClientError as error:
                code = str(error.response["Error"]["Code"])
                with self._lock:
                    if code == "TooManyRequestsException":
                        self.refused[code] += 1
                    else:
                        self.errors[error.response["ResponseMetadata"]["RequestId"]] = code
                continue
            body = json.loads(answer["Payload"].read())
            with self._lock:
                if "FunctionError" in answer:
                    self.errors[answer["ResponseMetadata"]["RequestId"]] = body["errorType"]
                else:
                    self.answered[body] += 1

    def end(self) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.result(60)

    def check(self, dead: set[str]) -> None:
        """Everybody was answered once; only what was on a dead instance, or on its way there, failed; nobody was throttled."""
        assert not self.refused
        assert all(count == 1 for count in self.answered.values())
        assert len(self.answered) + len(self.errors) == self.asked, "every request was settled exactly once"
        began = {path.name: path.read_text() for path in self._began.iterdir()}
        marks = [instance_mark(instance_id) for instance_id in dead]
        begun = {
            r: how for r, how in self.errors.items() if began.get(r)
        }  # the others had not come to write where they are
        elsewhere = {r: how for r, how in begun.items() if not any(mark in began[r] for mark in marks)}
        assert not elsewhere, (elsewhere, {r: began[r] for r in elsewhere}, dead)
        assert len(self.errors) <= len(dead) * len(self._callers), (
            "a death costs at most what every caller had under way"
        )


@pytest.fixture
def spread(runtimes: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that allows chaos, with one function on three instances in three zones, and room for half of its load elsewhere."""
    with running(tmp_path / "d", "--chaos", min_environments="3") as server:
        publish_managed(server.aws, "work", WORK, create_provider(server.aws), slots=8)
        wait_for(lambda: len(server.environments("work")) == 3, "three environments are ready")
        assert len({i["zone"] for i in instances(server)}) == 3
        yield server


def test_killing_any_of_three_instances_fails_only_what_ran_there_and_throttles_nobody(
    spread: Server, tmp_path: Path
) -> None:
    load = Load(spread, "work", tmp_path / "began", callers=6)
    dead: set[str] = set()
    for victim in [i["id"] for i in instances(spread)]:
        wait_for(lambda: sum(e["busy"] for e in spread.environments("work")) >= 4, "they are in use")
        assert inflict(spread, "kill-instance", id=victim)["killed"] == [victim]
        dead.add(victim)
        wait_for(lambda v=victim: v not in {i["id"] for i in instances(spread)}, "it is gone")  # type: ignore[misc]  # a default binds the loop's value
        wait_for(lambda: len(spread.environments("work")) == 3, "it is replaced")
    load.end()
    load.check(dead)
    assert load.errors, "each of the three ran something"
    assert len({i["zone"] for i in instances(spread) if i["environments"]}) == 3


def test_losing_a_zone_fails_only_what_ran_there_and_it_is_used_again_when_it_is_back(
    spread: Server, tmp_path: Path
) -> None:
    load = Load(spread, "work", tmp_path / "began", callers=6)
    wait_for(lambda: sum(e["busy"] for e in spread.environments("work")) >= 4, "they are in use")
    lost = inflict(spread, "lose-zone", zone="us-east-1b")
    (dead,) = lost["killed"]
    wait_for(lambda: dead not in {i["id"] for i in instances(spread)}, "it is gone")
    wait_for(lambda: len(spread.environments("work")) == 3, "the other zones make up for it")
    assert {i["zone"] for i in instances(spread) if i["phase"] == "Running"} == {"us-east-1a", "us-east-1c"}
    load.end()
    load.check({dead})
    assert spread.command("chaos", "clear", lost["active"]["id"]).returncode == 0
    wait_for(
        lambda: (
            "us-east-1b"
            in {i["zone"] for i in instances(spread) if any(e["phase"] == "Ready" for e in i["environments"])}
        ),
        "the zone is used again",
    )


def test_without_capacity_a_version_fails_with_the_reason_and_comes_back_when_there_is_some(
    runtimes: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "d", "--chaos") as server:
        aws = server.aws
        fault = inflict(server, "no-capacity", provider="pool", type="c7i.*")
        arn = create_provider(aws, InstanceRequirements={"AllowedInstanceTypes": ["c7i.xlarge"]})
        create_function(aws, "work", WORK, **on_provider(arn, 2, Publish=True, PublishTo="LATEST_PUBLISHED"))

        def state() -> Mapping[str, Any]:
            return aws.get_function_configuration(FunctionName="work", Qualifier=PUBLISHED)

        failed = wait_for(lambda: (s := state())["State"] == "Failed" and s, "it fails")
        assert failed["StateReasonCode"] == "InsufficientCapacity"
        assert failed["StateReason"].startswith("We currently do not have sufficient c7i.xlarge capacity in the Avail")
        assert not instances(server)
        (active,) = chaos(server)[1]["active"]
        assert active["id"] == fault["active"]["id"]
        assert active["hits"] >= 3, "one launch in each zone at least"
        other = create_provider(aws, "other")
        publish_managed(aws, "elsewhere", WORK, other, slots=2)
        assert chaos(server, "DELETE")[1]["cleared"]
        wait_for(lambda: state()["State"] == "Active", "it comes back by itself")


def test_where_one_instance_type_cannot_be_had_another_one_is_launched_and_both_are_told(
    runtimes: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "d", "--chaos", min_environments="3") as server:
        inflict(server, "no-capacity", provider="pool", type="c7i.xlarge", zone="us-east-1b")
        publish_managed(server.aws, "work", WORK, create_provider(server.aws), slots=2)
        types = {i["zone"]: i["type"] for i in instances(server)}
        assert types == {"us-east-1a": "c7i.xlarge", "us-east-1b": "c6i.xlarge", "us-east-1c": "c7i.xlarge"}
        text = "We currently do not have sufficient c7i.xlarge capacity in the Availability Zone you requested (us-east-1b)."
        decisions = server.status()["decisions"]
        assert [d["because"] for d in decisions if d["what"].endswith("cannot be had")] == [text]
        (instead,) = [d["because"] for d in decisions if d["what"].startswith("launch c6i.xlarge")]
        assert instead.endswith(f"instead of c7i.xlarge: {text}")
        events = server.client("logs").filter_log_events(
            logGroupName="/aws/lambda/capacity-provider/pool", filterPattern="Failed"
        )["events"]
        assert [json.loads(e["message"])["message"] for e in events] == [
            f"Failed to launch c7i.xlarge instance in us-east-1b: {text} - the system will retry"
        ]


def test_an_environment_that_dies_is_replaced_where_it_was_although_there_is_no_capacity(spread: Server) -> None:
    before = {i["id"] for i in instances(spread)}
    inflict(spread, "no-capacity")
    (victim,) = inflict(spread, "kill-environment", function="work")["killed"]
    wait_for(lambda: victim not in {e["id"] for e in spread.environments("work")}, "it is gone")
    wait_for(lambda: len(spread.environments("work")) == 3, "it is replaced")
    assert {i["id"] for i in instances(spread)} == before


def workers(server: Server) -> set[int]:
    """Process ids of all workers: children of the runtimes, which are children of the agents."""
    return {w.pid for a in server.agents() for runtime in a.children() for w in runtime.children()}


def test_one_worker_is_killed_and_the_others_of_its_environment_go_on(spread: Server) -> None:
    wait_for(lambda: len(workers(spread)) == 24, "all workers are there")
    before = workers(spread)
    (victim,) = inflict(spread, "kill-worker", function="work")["killed"]
    wait_for(lambda: len(before - workers(spread)) == 1, "one of them is gone")
    assert victim in {e["id"] for e in spread.environments("work")}
    wait_for(lambda: len(workers(spread)) == 24, "it is replaced")
    assert len(before - workers(spread)) == 1


def test_a_worker_of_the_official_client_costs_its_slot_until_its_environment_is_replaced(
    runtimes: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "d", "--chaos", runtime_client="official") as server:
        publish_managed(server.aws, "work", WORK, create_provider(server.aws), slots=4)
        (victim,) = inflict(server, "kill-worker", function="work")["killed"]
        because = "workers died, 3 slots are left"
        expected = {"what": f"replace {victim}", "because": because}
        wait_for(
            lambda: expected in [{k: d[k] for k in expected} for d in server.status()["decisions"]], "the loss is seen"
        )
        wait_for(lambda: victim not in {e["id"] for e in server.environments("work")}, "it is replaced")


def test_slow_starts_are_late_and_what_waits_for_them_can_be_called_off(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "d", "--chaos") as server:
        aws = server.aws
        late = inflict(server, "slow-start", delay="600s")
        arn = create_provider(aws)
        create_function(aws, "work", WORK, **on_provider(arn, 2, Publish=True, PublishTo="LATEST_PUBLISHED"))
        (instance,) = wait_for(lambda: instances(server), "it was ordered")
        assert instance["phase"] == "Launching"
        assert not server.agents(), "nothing was started"
        chaos(server, "DELETE", f"/{late['active']['id']}")
        inflict(server, "kill-instance", id=instance["id"])
        wait_for(lambda: server.environments("work"), "another one starts at once")
        inflict(server, "slow-start", delay="300ms", of="environment", function="work")
        inflict(server, "kill-environment", function="work")
        wait_for(lambda: server.environments("work", "Starting"), "it starts late")
        wait_for(lambda: server.environments("work"), "and starts")
        (active,) = chaos(server)[1]["active"]
        assert active["hits"] == 1


def test_a_throttled_function_is_refused_with_the_cause_for_a_time_and_no_other(spread: Server, tmp_path: Path) -> None:
    aws = spread.aws
    event = {"n": 1, "s": 0, "began": str(tmp_path)}
    inflict(spread, "throttle", function="work", cause="CallerRateLimitExceeded")
    with pytest.raises(ClientError) as refused:
        invoke(aws, "work", event)
    assert refused.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert refused.value.response["Reason"] == "CallerRateLimitExceeded"  # type: ignore[typeddict-item]  # a member of this error
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    inflict(spread, "throttle", function="other")
    chaos(spread, "DELETE")
    assert invoke(aws, "work", event).payload == 1
    inflict(spread, "throttle", function="work", version="7")
    assert invoke(aws, "work", event).payload == 1, "another version is meant"
    inflict(spread, "throttle", function="work", duration="200ms")

    def served() -> bool:
        try:
            return bool(invoke(aws, "work", event).payload == 1)
        except ClientError:
            return False

    assert not served()
    wait_for(served, "its time is over")
    assert [each["function"] for each in chaos(spread)[1]["active"]] == ["work"], "what is over is not listed"


@pytest.mark.parametrize(
    ("document", "status", "says"),
    [
        ({"fault": "earthquake"}, 400, "must be one of kill-instance"),
        ({"fault": "lose-zone"}, 400, "lose-zone needs zone"),
        ({"fault": "lose-zone", "zones": "a"}, 400, "has no zones; it takes zone, provider and duration"),
        ({"fault": "lose-zone", "zone": 7}, 400, "zone is 7; it must be a text"),
        ({"fault": "slow-start", "delay": "soon"}, 400, "delay is 'soon'; it must be a duration"),
        ({"fault": "slow-start", "delay": "11m"}, 400, "delay must be above 0"),
        ({"fault": "slow-start", "delay": "1s", "function": "f"}, 400, "instances takes none"),
        ({"fault": "throttle", "function": "f", "cause": "Bad"}, 400, "cause is 'Bad'"),
        ({"fault": "kill-instance", "count": "two"}, 400, "whole number"),
        ({"fault": "kill-instance", "count": 0}, 400, "1 or more"),
        ({"fault": "kill-instance", "duration": "1s"}, 400, "A kill takes no time"),
        ({"fault": "kill-instance", "provider": "none"}, 404, "0 running instances can be hit with provider none"),
        ({"fault": "kill-environment", "id": "env-1"}, 404, "0 running environments"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_the_reason_and_does_nothing(
    allowed: Server, document: dict[str, Any], status: int, says: str
) -> None:
    found, answer = chaos(allowed, "POST", **document)
    assert found == status
    assert says in answer["message"]
    assert chaos(allowed)[1] == {"active": []}


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("chaos") / "d", chaos="on") as server:
        yield server


def test_the_command_says_what_it_did_and_the_pages_refuse_what_is_no_json(allowed: Server) -> None:
    begun = allowed.command("chaos", "no-capacity", "--type", "c7i.*", "--duration", "1h")
    assert begun.returncode == 0, begun
    assert "no-capacity type=c7i.*  until 20" in begun.stdout
    listed = json.loads(allowed.command("chaos", "list", "--json").stdout)["active"]
    assert [(each["fault"], each["type"]) for each in listed] == [("no-capacity", "c7i.*")]
    assert allowed.command("chaos", "list").stdout == begun.stdout
    assert allowed.command("chaos", "clear", "fault-no").stderr.startswith(
        f"The server at {allowed.url} refused (404): No fault"
    )
    assert allowed.command("chaos", "clear").stdout.startswith("Cleared: fault-")
    assert allowed.command("chaos", "list").stdout == "No fault is at work.\n"
    refused = allowed.command("chaos", "kill-instance")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "0 running instances can be hit" in refused.stderr
    request = urllib.request.Request(f"{allowed.url}/_lambstead/chaos", b"[1", method="POST")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=10)
    assert error.value.code == 400
    error.value.close()


def test_chaos_is_refused_unless_it_is_enabled(server: Server) -> None:
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", ""), ("DELETE", "/x")):
        status, document = chaos(server, method, path, **({"fault": "kill-instance"} if method == "POST" else {}))
        assert status == 403
        assert "lambstead up --chaos" in document["message"]
    refused = server.command("chaos", "lose-zone", "us-east-1a")
    assert refused.returncode == 2
    assert "Chaos is not enabled on this server. Start it with `lambstead up --chaos`" in refused.stderr
