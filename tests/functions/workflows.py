"""Workflows as users write them with AWS's SDK; the event says which one to run."""

import json
import os
import pathlib
import time

import boto3
from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    Duration,
    StepConfig,
    StepSemantics,
    WaitForCallbackConfig,
)
from aws_durable_execution_sdk_python.retries import RetryDecision
from aws_durable_execution_sdk_python.waits import WaitForConditionConfig, WaitForConditionDecision


def note(event, what):
    """Leave a trace that survives the process."""
    if event.get("folder"):
        (pathlib.Path(event["folder"]) / f"{what}-{time.time_ns()}").touch()


def noted(event, what):
    return len(list(pathlib.Path(event["folder"]).glob(f"{what}-*")))


def until(event, what):
    """Hold on until the test says so."""
    while not (pathlib.Path(event["folder"]) / what).exists():
        time.sleep(0.005)


def step_wait_step(event, context):
    first = context.step(lambda _: note(event, "first") or event["n"] + 1, name="first")
    context.wait(Duration.from_seconds(event.get("seconds", 1)), name="pause")
    return {"first": first, "second": context.step(lambda _: note(event, "second") or first * 2, name="second")}


def retried(event, context):
    def flaky(_):
        note(event, "attempt")
        if noted(event, "attempt") < event["attempts"]:
            raise ValueError("not yet")
        return "done"

    def again(error, attempt):
        return RetryDecision.retry(Duration.from_seconds(1)) if attempt < 4 else RetryDecision.no_retry()

    return context.step(flaky, name="flaky", config=StepConfig(retry_strategy=again))


def at_most_once(event, context):
    def dies(_):
        note(event, "attempt")
        if noted(event, "attempt") == 1:
            os._exit(1)
        return "survived"

    def again(error, attempt):
        return RetryDecision.retry(Duration.from_seconds(1))

    config = StepConfig(retry_strategy=again, step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)
    return context.step(dies, name="dies", config=config)


def callback(event, context):
    timeouts = CallbackConfig(
        timeout=Duration.from_seconds(event.get("timeout", 0)),
        heartbeat_timeout=Duration.from_seconds(event.get("heartbeat", 0)),
    )
    waiting = context.create_callback(name="approval", config=timeouts)
    try:
        return {"approved": waiting.result()}
    except Exception as error:
        return {"error": str(error), "type": type(error).__name__}


def wait_for_callback(event, context):
    def submit(callback_id, _):
        boto3.client("lambda").send_durable_execution_callback_success(
            CallbackId=callback_id, Result=json.dumps("from the submitter").encode()
        )

    return context.wait_for_callback(submit, name="outside", config=WaitForCallbackConfig())


def condition(event, context):
    def poll(state, _):
        return state + 1

    def decide(state, attempt):
        if state >= 3:
            return WaitForConditionDecision.stop_polling()
        return WaitForConditionDecision.continue_waiting(Duration.from_seconds(1))

    return context.wait_for_condition(
        poll, config=WaitForConditionConfig(wait_strategy=decide, initial_state=0), name="poll"
    )


def parallel(event, context):
    def branch(seconds):
        def run(child):
            child.wait(Duration.from_seconds(seconds), name=f"wait {seconds}")
            return child.step(lambda _: seconds * 10, name="ten times")

        return run

    return context.parallel([branch(1), branch(2)], name="both").get_results()


def mapped(event, context):
    def item(child, value, index, items):
        return child.step(lambda _: value * value, name="square")

    return context.map(event["items"], item, name="squares").get_results()


def nested(event, context):
    def inner(child):
        value = child.step(lambda _: "x" * event["size"], name="make")
        child.wait(Duration.from_seconds(1))
        return value

    made = context.run_in_child_context(inner, name="child")
    context.wait(Duration.from_seconds(1))
    return len(made)


def chained(event, context):
    try:
        return {"answer": context.invoke(event["function"], event.get("payload", {}), name="call")}
    except Exception as error:
        return {"error": str(error), "type": type(error).__name__}


def large(event, context):
    return "x" * event["size"]


def many_steps(event, context):
    return sum(context.step(lambda _, n=n: n, name=f"step {n}") for n in range(event["steps"]))


def fails(event, context):
    raise RuntimeError("as asked")


def held(event, context):
    def step(_):
        note(event, "began")
        until(event, "open")
        return "held"

    value = context.step(step, name="hold")
    return context.step(lambda _: value + "!", name="after")


def crashes(event, context):
    note(event, "invocation")
    if noted(event, "invocation") <= event["times"]:
        os._exit(1)
    return "survived"


@durable_execution
def handler(event, context):
    return globals()[event["do"]](event, context)
