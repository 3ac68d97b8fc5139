"""The workflows as AWS Lambda durable functions, with AWS's unmodified SDK: what Lambstead and AWS's local runner run."""

from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import Duration


@durable_execution
def ten(event, context):  # type: ignore[no-untyped-def]  # user code, as users write it
    """Ten steps."""
    return sum(context.step(lambda _, number=number: number, name=f"step {number}") for number in range(10))


@durable_execution
def wait(event, context):  # type: ignore[no-untyped-def]
    """Step, wait 1 s, step."""
    first = context.step(lambda _: 1, name="first")
    context.wait(Duration.from_seconds(1), name="pause")
    return first + context.step(lambda _: 1, name="second")
