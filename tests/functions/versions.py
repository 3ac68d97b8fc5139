"""One workflow in the versions that a developer might deploy one after the other."""

import pathlib
import time

from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import Duration

VERSION = "FIRST"


@durable_execution
def handler(event, context):
    def mark(what):
        (pathlib.Path(event["folder"]) / f"{what}-{time.time_ns()}").touch()
        return what

    def branch(name):
        return lambda child: child.step(lambda _: mark(name), name=name)

    done = [context.step(lambda _: mark("reserve"), name="reserve")]
    if VERSION == "MORE":
        context.wait(Duration.from_seconds(1), name="new wait")
    done += context.parallel([branch("left"), branch("right")], name="both").get_results()
    if VERSION != "LESS":
        context.wait(Duration.from_seconds(1), name="pause")
    if event.get("approval"):
        done.append(context.create_callback(name="approval").result())
    if VERSION == "RESULT":
        done.append("more")
    if VERSION == "CRASH":
        raise SystemExit(3)
    return done
