import { type DurableContext, withDurableExecution } from "@aws/durable-execution-sdk-js";

interface OrderEvent {
  orderId: string;
}

interface OrderResult {
  orderId: string;
  status: "processed";
  validatedAt: string;
  processedAt: string;
}

/** Step, wait, step: the function does not run while it waits, and no step is run again once it has ended. */
async function processOrder(event: OrderEvent, context: DurableContext): Promise<OrderResult> {
  if (typeof event?.orderId !== "string" || event.orderId === "") {
    throw new Error("orderId is required: a text that is not empty");
  }
  const { orderId } = event;

  const validatedAt = await context.step("validate-order", async (step) => {
    step.logger.info(`Validating order ${orderId}`);
    return new Date().toISOString();
  });

  context.logger.info("Order validated, waiting 5 seconds before processing");
  await context.wait("wait-before-processing", { seconds: 5 });

  const processedAt = await context.step("process-order", async (step) => {
    step.logger.info(`Processing order ${orderId}`);
    return new Date().toISOString();
  });

  context.logger.info("Step-wait-step execution completed");
  return { orderId, status: "processed", validatedAt, processedAt };
}

export const handler = withDurableExecution(processOrder);
