"""What sleeping durable executions cost: a store with a million of them, and a start of the server on it.

    python -m bench.sleeping                 # 1,000,000 executions; about five minutes and 3 GB of disk
    python -m bench.sleeping --executions 100000

The executions are written into the store by the rules themselves, as the server would write them: started, invoked once, one WAIT of a year checkpointed, invocation ended.
Only the HTTP in front of that is left out. Measured: memory of the server beside that of a server on an empty store, time from its start to its first answer, and how
long a new execution takes among the sleepers. Ends with 1 if a target of the project is missed.
"""

import argparse
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import uvloop
from bench.contenders import AUTHORIZATION, Handler, client_of, deploy, lambstead_on
from bench.durable_engines import PROGRAMS, over_http, sdk_files

from bench import machine
from lambstead.core.durable.checkpoints import CheckpointRequest, checkpoint
from lambstead.core.durable.identifiers import checkpoint_token
from lambstead.core.durable.lifecycle import Backoff, Returned, Start, begin_invocation, invocation_ended, start
from lambstead.core.durable.model import Action, DurableConfig, OperationType
from lambstead.core.durable.triggers import wakes_at
from lambstead.core.durable.updates import OperationUpdate
from lambstead.store.port import Transaction
from lambstead.store.sqlite import SqliteStore

EXECUTIONS = 1_000_000
BATCH = 5_000
"""Executions that one transaction writes."""
YEAR_S = 365 * 24 * 3600
CONFIG = DurableConfig(execution_timeout_s=366 * 24 * 3600)
FUNCTION = "wait"
BYTES_PER_EXECUTION = 4_000
START_S = 10.0


def asleep(number: int, now: datetime) -> Callable[[Transaction], None]:
    """Writes one execution that waits for a year, change by change as the server makes them."""
    order = Start(str(uuid.uuid4()), f"sleeper-{number}", FUNCTION, "$LATEST.PUBLISHED", CONFIG, '{"n": 1}')
    started, first = start(order, now)
    begun = begin_invocation(started, str(uuid.uuid4()), now)
    running = begun.applied_to(started)
    wait = OperationUpdate(uuid.uuid4().hex, OperationType.WAIT, Action.START, name="pause", wait_s=YEAR_S)
    token = checkpoint_token(running.execution)
    asked = checkpoint(running, CheckpointRequest(token, None, [wait]), {}, now).change
    assert asked is not None
    waiting = asked.applied_to(running)
    live = waiting.execution.live
    assert live is not None
    ended = invocation_ended(waiting, live.request_id, Returned(b'{"Status": "PENDING"}'), Backoff(), now)
    assert ended is not None
    sleeping = ended.applied_to(waiting)
    changes = [(begun, running), (asked, waiting), (ended, sleeping)]

    def write(tx: Transaction) -> None:
        tx.start_durable_execution(started, first, wakes_at(started))
        for change, state in changes:
            tx.save_durable_change(change, wakes_at(state))

    return write


async def fill(data: Path, executions: int) -> None:
    """Put so many sleepers into the store of a server that is stopped."""
    store = await SqliteStore.open(data / "lambstead.db")
    try:
        for first in range(0, executions, BATCH):
            now = datetime.now(UTC).replace(microsecond=0)
            writes = [asleep(number, now) for number in range(first, min(first + BATCH, executions))]

            def work(tx: Transaction, writes: list[Callable[[Transaction], None]] = writes) -> None:
                for write in writes:
                    write(tx)

            await store.write(work)
            print(f"\r{first + len(writes):,} written", end="", file=sys.stderr, flush=True)
    finally:
        await store.close()
        print(file=sys.stderr)


def measured(data: Path) -> tuple[float, int, float]:
    """Start the server on the store: seconds to its first answer, its memory in bytes once it has looked at what is due, seconds of a new execution."""
    began = time.monotonic()
    with lambstead_on(data) as server:
        with closing(client_of(server)) as aws:
            aws.list_functions(MaxItems=1)
        took = time.monotonic() - began
        url = server.invoke_url(FUNCTION) + "?Qualifier=$LATEST.PUBLISHED"
        report = over_http(url, [AUTHORIZATION], 1, 3.0)
        if report["failures"]:
            raise SystemExit(f"A new execution failed: {report['first_failure']}")
        return took, psutil.Process(server.pid).memory_info().rss, report["p50_us"] / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--executions", type=int, default=EXECUTIONS)
    parser.add_argument("--directory", type=Path, help="where the store is made; it needs 3 kB for each execution")
    given = parser.parse_args()
    print(machine.Conditions.now(machine.load_average(), "python -m bench.sleeping").sentence())
    with tempfile.TemporaryDirectory(prefix="lambstead-bench-", dir=given.directory) as folder:
        data = Path(folder)
        with lambstead_on(data) as server:
            files = {"lambda_workflows.py": (PROGRAMS / "lambda_workflows.py").read_text(), **sdk_files()}
            handler = Handler("Python", "python3.13", f"lambda_workflows.{FUNCTION}", files)
            deploy(server, FUNCTION, handler, 4, DurableConfig={"ExecutionTimeout": 300})
        empty_s, empty_bytes, empty_execution_s = measured(data)
        uvloop.run(fill(data, given.executions))
        size = sum(file.stat().st_size for file in data.glob("lambstead.db*"))
        full_s, full_bytes, execution_s = measured(data)
    each = max(0.0, (full_bytes - empty_bytes) / given.executions)
    print(
        f"{given.executions:,} sleeping executions, {size / 1e9:.2f} GB on disk: first answer {full_s:.1f} s after the start (empty store: {empty_s:.1f} s), "
        f"{full_bytes / 1e6:.0f} MB resident ({empty_bytes / 1e6:.0f} MB), {each:.0f} bytes of memory each; "
        f"step, wait 1 s, step among them takes {execution_s:.2f} s ({empty_execution_s:.2f} s)."
    )
    if each > BYTES_PER_EXECUTION or full_s > START_S:
        sys.exit(1)


if __name__ == "__main__":
    main()
