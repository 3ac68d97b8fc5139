"""The Python twin of the TypeScript function: the same names, log lines and result."""

from datetime import UTC, datetime

from aws_durable_execution_sdk_python import DurableContext, StepContext, durable_execution
from aws_durable_execution_sdk_python.config import Duration


def _now():
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@durable_execution
def handler(event: dict, context: DurableContext) -> dict:
    """Step, wait, step: the function does not run while it waits, and no step is run again once it has ended."""
    order_id = event.get("orderId") if isinstance(event, dict) else None
    if not isinstance(order_id, str) or not order_id:
        raise ValueError("orderId is required: a text that is not empty")

    def validate(step: StepContext) -> str:
        step.logger.info(f"Validating order {order_id}")
        return _now()

    def process(step: StepContext) -> str:
        step.logger.info(f"Processing order {order_id}")
        return _now()

    validated_at = context.step(validate, name="validate-order")
    context.logger.info("Order validated, waiting 5 seconds before processing")
    context.wait(Duration.from_seconds(5), name="wait-before-processing")
    processed_at = context.step(process, name="process-order")
    context.logger.info("Step-wait-step execution completed")
    return {"orderId": order_id, "status": "processed", "validatedAt": validated_at, "processedAt": processed_at}
