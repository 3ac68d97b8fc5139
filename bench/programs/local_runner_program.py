"""The workflows under AWS's own local runner, in process: `local_runner_program.py ten|wait CALLERS SECONDS`. Runs with the peers' interpreter."""

import logging
import sys

import lambda_workflows
from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner
from turns import take_turns

if __name__ == "__main__":
    name, callers, seconds = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    handler = {"ten": lambda_workflows.ten, "wait": lambda_workflows.wait}[name]
    with DurableFunctionTestRunner(handler=handler, skip_time=False, execution_timeout=60) as runner:

        def once() -> None:
            result = runner.run(input="1")
            if result.status.value != "SUCCEEDED":
                raise SystemExit(f"an execution ended {result.status}")

        take_turns(once, int(callers), float(seconds))
