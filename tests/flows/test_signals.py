"""Signals and queries of executions of AWS's SDK, through the command and a kill of the server."""

import json
from pathlib import Path
from typing import Any

from tests.durable import create_durable, event_of, finished, history, start_execution
from tests.harness import Server, running, wait_for

CART = """
from aws_durable_execution_sdk_python import durable_execution

@durable_execution
def handler(event, context):
    cart = []
    while True:
        item = context.create_callback(name="item").result()
        if item == "checkout":
            break
        cart.append(item)
        context.step(lambda _: list(cart), name="cart")
    address = context.wait_for_callback(lambda callback_id, _: None, name="address")
    return [cart, address]
"""


def asked(server: Server, *arguments: str) -> Any:
    done = server.command("durable", "query", *arguments, "--json")
    return json.loads(done.stdout) if done.returncode == 0 else None


def test_signals_arrive_in_order_and_once_though_the_server_is_killed(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path) as first:
        create_durable(first.aws, "cart", CART)
        arn = start_execution(first.aws, "cart")
        event_of(first.aws, arn, "CallbackStarted")
        early = first.command("durable", "signal", arn, "address", "--payload", "Main Street")
        assert "waits for the next one" in early.stdout
        for item in ("book", "pen", "lamp"):
            assert first.command("durable", "signal", arn, "item", "--payload", item).returncode == 0
        first.kill()
    with running(tmp_path) as second:
        assert second.command("durable", "signal", arn, "item", "--payload", "ink").returncode == 0
        cart = wait_for(
            lambda: (
                (found := asked(second, arn, "cart"))
                and json.loads(found["Results"][0]["Result"])[3:]
                and json.loads(found["Results"][0]["Result"])
            ),
            "four items",
        )
        assert cart == ["book", "pen", "lamp", "ink"]
        shown = second.command("durable", "query", arn).stdout
        assert "Waiting signal address: Main Street" in shown
        opened = wait_for(lambda: asked(second, arn)["Callbacks"], "the next callback is open")
        assert opened[0]["Names"] == ["item"]
        done = second.command("durable", "signal", arn, "item", "--payload", "checkout")
        assert f"completed the callback {opened[0]['CallbackId']}" in done.stdout
        assert json.loads(finished(second.aws, arn)["Result"]) == [["book", "pen", "lamp", "ink"], "Main Street"]
        assert len([each for each in history(second.aws, arn) if each["EventType"] == "CallbackSucceeded"]) == 6
        refused = second.command("durable", "signal", arn, "item")
        assert (refused.returncode, "SUCCEEDED" in refused.stderr) == (2, True)
        missing = second.command("durable", "query", arn, "nosuch")
        assert (missing.returncode, "nothing of the name 'nosuch'" in missing.stderr) == (2, True)
