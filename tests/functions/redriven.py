"""Workflows that fail until a file says that the world is in order again."""

import pathlib
import time

from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import CallbackConfig, Duration, StepConfig
from aws_durable_execution_sdk_python.retries import RetryDecision

ONCE = StepConfig(retry_strategy=lambda error, attempt: RetryDecision.no_retry())


def mark(event, what):
    (pathlib.Path(event["folder"]) / f"{what}-{time.time_ns()}").touch()


def charge(event):
    mark(event, "charge")
    if not (pathlib.Path(event["folder"]) / "mended").exists():
        raise ValueError("the card reader is broken")
    return "charged"


def order(event, context):
    reserved = context.step(lambda _: mark(event, "reserve") or "reserved", name="reserve")
    return [reserved, context.step(lambda _: charge(event), name="charge", config=ONCE)]


def branches(event, context):
    def good(child):
        return child.step(lambda _: mark(event, "good") or "good", name="good")

    def bad(child):
        return child.step(lambda _: charge(event), name="charge", config=ONCE)

    done = context.parallel([good, bad], name="both")
    done.throw_if_error()
    return done.get_results()


def approval(event, context):
    waiting = CallbackConfig(timeout=Duration.from_seconds(event["timeout"]))
    return context.create_callback(name="approval", config=waiting).result()


def parent(event, context):
    return context.invoke("redriven:$LATEST", {**event, "do": "order"}, name="order")


def plain(event, context):
    return context.invoke("charger", {"folder": event["folder"]}, name="charge")


@durable_execution
def handler(event, context):
    return globals()[event["do"]](event, context)


def plain_handler(event, context):
    return charge(event)
