"""A closed loop for engines that live inside the program: as many threads as callers, each running one workflow after the other.

Prints a JSON list of latencies in nanoseconds, and the seconds that all took. Imported by programs of other interpreters: nothing but the standard library.
"""

import json
import threading
import time
from collections.abc import Callable


def take_turns(workflow: Callable[[], object], callers: int, seconds: float) -> None:
    """Warm up with one run each, then measure."""
    latencies: list[int] = []

    def turns(deadline: float) -> None:
        while True:
            began = time.perf_counter_ns()
            workflow()
            latencies.append(time.perf_counter_ns() - began)
            if time.monotonic() > deadline:
                return

    def all_at_once(deadline: float) -> float:
        threads = [threading.Thread(target=turns, args=(deadline,)) for _ in range(callers)]
        began = time.perf_counter()
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return time.perf_counter() - began

    all_at_once(0.0)
    latencies.clear()
    took = all_at_once(time.monotonic() + seconds)
    print(json.dumps({"latencies_ns": latencies, "seconds": took}), flush=True)
