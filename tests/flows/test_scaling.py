"""Scaling by load with real processes: the clock of scaling runs thirty times faster, so five minutes are ten seconds."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from botocore.exceptions import ClientError
from tests.harness import PUBLISHED, Server, create_provider, invoke, publish_managed, running, wait_for

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

TIME_SCALE = 30
FIVE_MINUTES = 300 / TIME_SCALE
WORK = """
import time

def handler(event, context):
    until = time.process_time() + event["cpu_s"]
    while time.process_time() < until:
        pass
    time.sleep(event["s"])
    return "done"
"""
HELD_S = 0.3
"""How long an invocation keeps its slot; little of it is CPU, which this machine has less of than its instances."""


class Load:
    """Callers that arrive at a rate of their own, whatever becomes of those before them; what became of each."""

    def __init__(self, server: Server, aws: "LambdaClient", name: str) -> None:
        self._server, self._aws, self._name = server, aws, name
        self._answers: list[Future[str]] = []
        self._pause = threading.Event()

    def run(self, slots: Callable[[float], float], seconds: float) -> None:
        """As many arrivals as keep `slots(t)` in use, for so long."""
        began = time.monotonic()
        due = 0.0
        while due < seconds:
            self._pause.wait(max(0.0, began + due - time.monotonic()))
            self._answers.append(self._server.clients.submit(self._one))
            due += HELD_S / slots(due)

    def outcomes(self) -> Counter[str]:
        """How often each outcome came, once all are there."""
        return Counter(answer.result(60) for answer in self._answers)

    def _one(self) -> str:
        try:
            answer = invoke(self._aws, self._name, {"s": HELD_S - 0.01, "cpu_s": 0.005})
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return answer.error or str(answer.payload)


def scaling(server: Server) -> dict[str, Any]:
    (document,) = server.status()["scaling"]
    return dict(document)


def decided(server: Server, words: str) -> list[str]:
    return [f"{d['what']}: {d['because']}" for d in server.status()["decisions"] if words in d["what"]]


def set_bounds(aws: "LambdaClient", name: str, least: int, most: int) -> None:
    aws.put_function_scaling_config(
        FunctionName=name,
        Qualifier=PUBLISHED,
        FunctionScalingConfig={"MinExecutionEnvironments": least, "MaxExecutionEnvironments": most},
    )

    def applied() -> bool:
        found = aws.get_function_scaling_config(FunctionName=name, Qualifier=PUBLISHED)
        bounds = found["AppliedFunctionScalingConfig"]
        return (bounds.get("MinExecutionEnvironments"), bounds.get("MaxExecutionEnvironments")) == (least, most)

    wait_for(applied, "the bounds are applied")


def test_load_that_doubles_in_five_minutes_is_served_and_capacity_goes_again_when_it_ends(tmp_path: Path) -> None:
    with running(tmp_path / "d", scaling_time_scale=str(TIME_SCALE), min_environments="3") as server:
        aws = server.aws
        publish_managed(aws, "work", WORK, create_provider(aws), slots=2)
        set_bounds(aws, "work", 3, 6)
        load = Load(server, aws, "work")
        load.run(lambda t: 3.5 * 2 ** (t / FIVE_MINUTES), FIVE_MINUTES)
        assert load.outcomes().keys() == {"done"}, "nobody was throttled"
        assert scaling(server)["throttles"] == {}
        grown = scaling(server)["desired"]
        assert 5 <= grown <= 6
        assert any("slots wanted at once, target 67%" in text for text in decided(server, "scale work"))
        wait_for(lambda: len(server.environments("work")) == 3, "it is back at its minimum")
        assert any("no more than" in text for text in decided(server, "scale work"))


def test_load_that_grows_faster_is_throttled_until_capacity_comes_and_says_what_was_missing(tmp_path: Path) -> None:
    with running(tmp_path / "d", scaling_time_scale=str(TIME_SCALE), slot_wait="100ms") as server:
        aws = server.aws
        # Three environments of one vCPU each are what an instance of four has room for.
        provider = create_provider(aws, CapacityProviderScalingConfig={"MaxVCpuCount": 4})
        publish_managed(aws, "work", WORK, provider, slots=2)
        load = Load(server, aws, "work")
        load.run(lambda _: 20, 3)
        outcomes = load.outcomes()
        assert outcomes.keys() == {"done", "TooManyRequestsException"}
        stuck = wait_for(lambda: (s := scaling(server)) and s["obstacle"] and s, "it says why it cannot grow")
        assert stuck["obstacle"]["code"] == "CapacityProviderScalingLimitExceeded"
        refused = {"Concurrency": outcomes["TooManyRequestsException"]}
        wait_for(lambda: scaling(server)["throttles"] == refused, "every refusal is counted with its cause")
        assert len(server.environments("work")) == 3, "as many as the limit allows"
        assert any("more arrives than is served" in text for text in decided(server, "scale work"))
        aws.update_capacity_provider(CapacityProviderName="pool", CapacityProviderScalingConfig={"MaxVCpuCount": 12})
        load = Load(server, aws, "work")
        load.run(lambda _: 6, 2)
        wait_for(lambda: len(server.environments("work")) > 3, "it grows as soon as it may")


def test_killing_one_of_three_instances_under_load_fails_only_what_ran_there(tmp_path: Path) -> None:
    with running(tmp_path / "d", scaling_time_scale=str(TIME_SCALE), min_environments="3") as server:
        aws = server.aws
        publish_managed(aws, "work", WORK, create_provider(aws), slots=4)
        load = Load(server, aws, "work")
        pool = threading.Thread(target=load.run, args=(lambda _: 6, 6.0))
        pool.start()
        wait_for(lambda: sum(e["busy"] for e in server.environments("work")) >= 4, "all of them are in use")
        agents = server.agents()
        assert len(agents) == 3
        os.kill(agents[0].pid, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(agents[0].pid) or len(server.agents()) >= 2, "it is dead")
        pool.join()
        outcomes = load.outcomes()
        assert outcomes["TooManyRequestsException"] == 0
        assert outcomes["done"] > 0
        assert sum(outcomes.values()) - outcomes["done"] <= 4, outcomes
        wait_for(lambda: len(server.environments("work")) >= 3, "it is replaced")
        zones = {i["zone"] for p in server.status()["providers"] for i in p["instances"] if i["environments"]}
        assert len(zones) == 3
