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

Event = dict[str, float]

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


SLOTS_HELD: Event = {"s": HELD_S - 0.01, "cpu_s": 0.005}
CORES_PER_VCPU = 0.1
"""So ten environments of one vCPU share a core, and what they take of it is far from what this machine has."""
CPU_BOUND_S = 0.01
"""Processor time of an invocation: ten a second are all that an environment has."""


class Load:
    """Callers that arrive at a rate of their own, whatever becomes of those before them; what became of each."""

    def __init__(self, server: Server, aws: "LambdaClient", name: str, event: Event = SLOTS_HELD) -> None:
        self._server, self._aws, self._name, self._event = server, aws, name, event
        self._answers: list[Future[str]] = []
        self._pause = threading.Event()

    def run(self, slots: Callable[[float], float], seconds: float) -> None:
        """As many arrivals as keep `slots(t)` in use, for so long."""
        self.arrive(lambda t: slots(t) / HELD_S, seconds)

    def arrive(self, rate: Callable[[float], float], seconds: float) -> None:
        """`rate(t)` arrivals a second, for so long or until it is stopped."""
        began = time.monotonic()
        due = 0.0
        while due < seconds and not self._pause.is_set():
            self._pause.wait(max(0.0, began + due - time.monotonic()))
            self._answers.append(self._server.clients.submit(self._one))
            due += 1 / rate(due)

    def stop(self) -> None:
        self._pause.set()

    def outcomes(self) -> Counter[str]:
        """How often each outcome came, once all are there."""
        return Counter(answer.result(60) for answer in self._answers)

    def _one(self) -> str:
        try:
            answer = invoke(self._aws, self._name, self._event)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return answer.error or str(answer.payload)


def scaling(server: Server) -> dict[str, Any]:
    """How the scaling of the only version stands, once it was evaluated."""
    (document,) = wait_for(lambda: server.status()["scaling"], "it was evaluated")
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


def test_cpu_that_doubles_in_five_minutes_is_served_by_more_environments_until_the_load_ends(tmp_path: Path) -> None:
    """Most slots are free all the time: only what the environments take of their vCPUs says that there are too few of them."""
    settings = {"cores_per_vcpu": str(CORES_PER_VCPU), "min_environments": "3"}
    with running(tmp_path / "d", scaling_time_scale=str(TIME_SCALE), **settings) as server:
        aws = server.aws
        publish_managed(aws, "work", WORK, create_provider(aws), slots=8)
        load = Load(server, aws, "work", {"s": 0, "cpu_s": CPU_BOUND_S})
        load.arrive(lambda t: 18 * 2 ** (t / FIVE_MINUTES), FIVE_MINUTES)
        assert load.outcomes().keys() == {"done"}, "nobody was throttled"
        assert scaling(server)["throttles"] == {}
        out = [text for text in decided(server, "scale work") if "no more than" not in text]
        assert out
        assert all("CPU at" in text and "target 67%" in text for text in out), "slots had no part in it"
        wait_for(lambda: len(server.environments("work")) == 3, "it is back at its minimum")
        assert scaling(server)["desired"] == 3


def test_cpu_that_grows_faster_is_throttled_for_want_of_cpu_and_served_again_when_there_is_more(tmp_path: Path) -> None:
    settings = {"cores_per_vcpu": str(CORES_PER_VCPU), "slot_wait": "100ms"}
    with running(tmp_path / "d", scaling_time_scale=str(TIME_SCALE), **settings) as server:
        aws = server.aws
        # Three environments of one vCPU each are what an instance of four has room for: thirty invocations a second.
        provider = create_provider(aws, CapacityProviderScalingConfig={"MaxVCpuCount": 4})
        publish_managed(aws, "work", WORK, provider, slots=2)
        # They wait a little too, so that slots run out on machines where nothing can hold an environment to its vCPU.
        event = {"s": 0.05, "cpu_s": CPU_BOUND_S}
        load = Load(server, aws, "work", event)
        crowd = threading.Thread(target=load.arrive, args=(lambda _: 100, 60))
        crowd.start()
        try:
            wait_for(lambda: scaling(server)["throttles"].get("CPU", 0) > 50, "what is missing is CPU")
            assert len(server.environments("work")) == 3, "as many as the limit allows"
            stuck = wait_for(lambda: (s := scaling(server)) and s["obstacle"] and s, "it says why it cannot grow")
            assert stuck["obstacle"]["code"] == "CapacityProviderScalingLimitExceeded"
        finally:
            load.stop()
            crowd.join()
        assert load.outcomes().keys() == {"done", "TooManyRequestsException"}
        gentle = Load(server, aws, "work", event)
        gentle.arrive(lambda _: 10, 2)
        assert gentle.outcomes().keys() == {"done"}
