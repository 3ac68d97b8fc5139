"""Why the same request costs 5 µs of CPU or 40: who has to be woken, and on which CPU.

    python -m bench.placement

With one connection, every request finds its server asleep. Whoever writes to a socket on whose other end a process sleeps wakes it, and pays for that in its own
CPU time: next to nothing on the same CPU, but another CPU has to be interrupted, which in a virtual machine means leaving the guest. With many
connections the server is still busy when the next request comes, and nobody is woken. So CPU per request at one connection says more about where the
scheduler put the processes than about their code; this shows it, by pinning them, for the bare echo and for Lambstead. Needs two CPUs and Linux.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from bench.contenders import Contender, echo, lambstead_with

from bench import machine

SECONDS = 2.0
CONNECTIONS = (1, 16)


@dataclass(frozen=True, slots=True)
class Placement:
    """On which CPUs the contender's processes may run, and on which the client."""

    name: str
    contender: Sequence[int]
    client: Sequence[int]


def placements() -> list[Placement]:
    both = sorted(os.sched_getaffinity(0))
    first, second = both[0], both[1]
    return [
        Placement("as the scheduler likes", both, both),
        Placement("all on one CPU", [first], [first]),
        Placement("client on the other CPU", [first], [second]),
    ]


def main() -> None:
    print(machine.Conditions.now(machine.load_average(), "python -m bench.placement").sentence())
    print(f"{'':56}{'p50 µs':>8}{'CPU µs':>8}{'interrupts':>12}{'others':>8}   (per request)")
    with echo() as bare, lambstead_with("link") as ours:
        for contender in (bare[0], ours[0]):
            for connections in CONNECTIONS:
                for placement in placements():
                    show(contender, connections, placement)


def show(contender: Contender, connections: int, placement: Placement) -> None:
    for process in [psutil.Process(contender.pid), *psutil.Process(contender.pid).children(recursive=True)]:
        process.cpu_affinity(list(placement.contender))
    before = rescheduling_interrupts()
    report = load(contender, connections, placement.client)
    interrupts = (rescheduling_interrupts() - before) / max(1, report["requests"])
    title = f"{contender.name}, c = {connections}, {placement.name}"
    cpu = sum(report["cpu_us"].values())
    print(f"{title:56}{report['p50_us']:8.0f}{cpu:8.1f}{interrupts:12.2f}{report['others_share']:8.0%}")


def load(contender: Contender, connections: int, cpus: Sequence[int]) -> dict[str, Any]:
    headers = [word for header in contender.headers for word in ("--header", header)]
    command = [sys.executable, "-m", "bench.load", contender.url, "--connections", str(connections), *headers]
    command += ["--requests", "10000000", "--limit-seconds", str(SECONDS), "--watch", str(contender.pid)]
    command += ["--cpus", ",".join(map(str, cpus))]
    report: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return report


def rescheduling_interrupts() -> int:
    """How often a CPU was interrupted because it had to run something else, since the machine started."""
    for line in Path("/proc/interrupts").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "RES":
            return sum(int(word) for word in rest.split() if word.isdigit())
    return 0


if __name__ == "__main__":
    main()
