"""The Fibonacci sequence up to its n-th member, as an AWS Lambda function.

Event: `{"n": 10}`. Answer: a status code, a header and a body, which is a JSON string as API Gateway expects it. Every
event gets an answer; what is wrong with it is said with status 400. The function keeps nothing between invocations, so
any number of them may run at once.
"""

import json

MAX_N = 1000


class BadInput(Exception):
    """The event names no usable n; the sentence is for the caller."""


def handler(event, context):
    """Entry point: `fibonacci.handler`."""
    try:
        n = requested_n(event)
    except BadInput as wrong:
        return answer(400, {"error": str(wrong)})
    return answer(200, {"n": n, "sequence": sequence(n)})


def requested_n(event):
    """The n of the event, from 0 to 1000. Null counts as absent; true, 10.0 and "10" are no integers."""
    n = event.get("n") if isinstance(event, dict) else None
    if n is None:
        raise BadInput("Input parameter 'n' is required")
    if not isinstance(n, int) or isinstance(n, bool):
        raise BadInput("Input must be an integer")
    if n < 0:
        raise BadInput("Input must be a non-negative integer")
    if n > MAX_N:
        raise BadInput(f"Input must not exceed {MAX_N}")
    return n


def sequence(n):
    """The members 0 to n: n + 1 numbers."""
    members = [0, 1]
    while len(members) <= n:
        members.append(members[-1] + members[-2])
    return members[: n + 1]


def answer(status_code, body):
    return {
        "statusCode": status_code,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(body),
    }
