"""Scaling by CPU with real processes: the curve of a load that doubles every five minutes, ends, and comes back too fast.

    python -m bench.scaling                          # prints a row for every half minute
    python -m bench.scaling --plot scaling-live.png  # and draws it

The clock of scaling runs thirty times faster, so five minutes are ten seconds; a vCPU stands for a tenth of a core and is held to it where control
groups can be made. An invocation takes ten milliseconds of processor time, so that an environment of one vCPU can serve ten a second, and at the target of
two thirds 6.7. Most slots stay free: it is CPU that decides. First the load doubles every five minutes for ten minutes, then it is gone until the version is
back at its minimum, then it comes back eightfold at once and stays for eight minutes: more than the headroom, so some of it is throttled until there is capacity.
"""

import argparse
import http.client
import json
import queue
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.contenders import AUTHORIZATION, Handler, Lambstead, deploy, lambstead

from bench import machine
from lambstead.simulation.plots import plot
from lambstead.simulation.run import Result, Row, Summary

TIME_SCALE = 30
CORES_PER_VCPU = 0.1
MINIMUM = 3
SLOTS = 8
CPU_S = 0.01
FUNCTION = Handler(
    "Python",
    "python3.13",
    "work.handler",
    {
        "work.py": "import time\n\n"
        "def handler(event, context):\n"
        f"    until = time.process_time() + {CPU_S}\n"
        "    while time.process_time() < until:\n"
        "        pass\n"
    },
)
FIRST_RATE = 12.0
CALLERS = 64
SAMPLE_S = 1.0
BACK_SECONDS = 60.0
"""Deadline of the way back to the minimum."""
MINUTE = 60 / TIME_SCALE
"""One of scaling's, in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Scaling by CPU with real processes.")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curve (PNG or SVG)")
    given = parser.parse_args()
    load_before = machine.load_average()
    settings = {
        "scaling_time_scale": TIME_SCALE,
        "cores_per_vcpu": CORES_PER_VCPU,
        "min_environments": MINIMUM,
        "slot_wait": "200ms",
    }
    with lambstead(**{name: str(value) for name, value in settings.items()}) as server:
        deploy(server, "work", FUNCTION, SLOTS)
        rows = Curve(server).drawn()
        seen = status(server)
    decisions = [d for d in seen["decisions"] if d["what"].startswith("scale work")]
    conditions = machine.Conditions.now(load_before, "python -m bench.scaling " + " ".join(sys.argv[1:]))
    for decision in decisions:
        print(f"{decision['what']}: {decision['because']}")
    causes = ", ".join(f"{count} for want of {cause}" for cause, count in seen["scaling"][0]["throttles"].items())
    print(f"Throttled: {causes or 'nobody'}.\n{conditions.sentence()}")
    if given.plot:
        title = f"Live: CPU-bound load, times {TIME_SCALE} times faster, vCPUs of {CORES_PER_VCPU:g} cores"
        totals = Summary("work", 0, 0, {}, 0, 0, 0, 0)
        plot(Result(title, rows[-1].second, rows, [], [totals], 0, 0.0), given.plot)


def status(server: Lambstead) -> Any:  # Any: a document
    with urllib.request.urlopen(f"{server.url}/_lambstead/status", timeout=10) as answer:
        return json.loads(answer.read())


class Curve:
    """A load, and what is seen of it."""

    def __init__(self, server: Lambstead) -> None:
        self._server = server
        self._answers: Counter[int] = Counter()
        """By status."""
        self._due: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._began = time.monotonic()
        self._rate = 0.0
        self._rows: list[Row] = []

    def drawn(self) -> list[Row]:
        """The whole play."""
        print(
            f"{'minute':>7}{'load /s':>9}{'served /s':>11}{'throttled /s':>14}{'ready':>7}{'wanted':>8}{'CPU':>6}{'slots':>7}"
        )
        with self._callers(), self._watched():
            self._load(lambda t: FIRST_RATE * 2 ** (t / (5 * MINUTE)), 10 * MINUTE)
            self._until_back()
            self._load(lambda _: FIRST_RATE * 8, 8 * MINUTE)
            self._until_back()
        return self._rows

    def _load(self, rate: Callable[[float], float], seconds: float) -> None:
        began, due = time.monotonic(), 0.0
        while due < seconds:
            time.sleep(max(0.0, began + due - time.monotonic()))
            self._due.put(True)
            self._rate = rate(due)
            due += 1 / self._rate
        self._rate = 0.0

    def _until_back(self) -> None:
        deadline = time.monotonic() + BACK_SECONDS
        while self._scaling()["desired"] > MINIMUM:
            if time.monotonic() > deadline:
                raise SystemExit(f"Not back at the minimum: {self._scaling()}")
            time.sleep(SAMPLE_S / 2)
        time.sleep(2 * SAMPLE_S)

    def _scaling(self) -> dict[str, Any]:
        found = status(self._server)["scaling"]
        return dict(found[0]) if found else {"desired": MINIMUM, "ready": 0, "slots_in_use": 0, "cpu_utilization": 0}

    @contextmanager
    def _callers(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for _ in threads:
                self._due.put(False)
            for thread in threads:
                thread.join()

    def _call(self) -> None:
        address, path = urlsplit(self._server.url), urlsplit(self._server.invoke_url("work")).path
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        while self._due.get():
            connection.request("POST", path, b"{}", dict([AUTHORIZATION.split(": ", 1)]))
            answer = connection.getresponse()
            answer.read()
            self._answers[answer.status] += 1
        connection.close()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            before = Counter(self._answers)
            while not over.wait(SAMPLE_S):
                now = Counter(self._answers)
                self._sample(now[200] - before[200], now[429] - before[429], self._scaling())
                before = now

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _sample(self, served: int, throttled: int, seen: dict[str, Any]) -> None:
        slots = seen["slots_in_use"] / max(1, seen["ready"] * SLOTS)
        cpu = seen["cpu_utilization"] or 0.0
        second = (time.monotonic() - self._began) * TIME_SCALE
        row = Row(second, "work", self._rate, served, throttled, 0, seen["ready"], seen["desired"], slots, cpu, 0, 0.0)
        self._rows.append(row)
        print(
            f"{second / 60:7.1f}{self._rate:9.0f}{served / SAMPLE_S:11.0f}{throttled / SAMPLE_S:14.0f}"
            f"{row.ready:7}{row.desired:8}{cpu:6.0%}{slots:7.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
