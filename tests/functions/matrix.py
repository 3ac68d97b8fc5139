"""The function of the runtime matrix for Python: does what its event says."""

import os
import pathlib
import time

if os.environ.get("BROKEN"):
    # Without the cheese: AWS's client posts init errors as Latin-1 and breaks on anything else.
    raise LookupError("no init today")


def handler(event, context):
    match event["do"]:
        case "echo":
            return event["value"]
        case "fail":
            raise ValueError(event["message"])
        case "variables":
            return dict(os.environ)
        case "overstay":
            time.sleep(event["seconds"])
            return "late"
        case "meet":
            folder = pathlib.Path(event["folder"])
            (folder / f"in-{context.aws_request_id}").touch()
            while not (folder / "open").exists():
                time.sleep(0.005)
            return context.aws_request_id
        case "print":
            print(event["text"])
        case "exit":
            os._exit(event["code"])
        case "context":
            return {"id": context.aws_request_id, "arn": context.invoked_function_arn}
