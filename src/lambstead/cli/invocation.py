"""`lambstead invoke`: call a function through the Lambda API and show the answer."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, JsonOption, QualifierOption, settings_for
from lambstead.cli.running_server import RunningServer, require_server
from lambstead.config import Settings

if TYPE_CHECKING:
    from lambstead.cli.server_api import Answer

_NEXT_STEPS = {
    "InvalidRequestContentException": "The payload must be JSON; quote it for the shell: --payload '{\"n\": 10}'",
    "NoPublishedVersionException": "Publish first: aws lambda publish-version --publish-to LATEST_PUBLISHED "
    "--function-name NAME",
    "ResourceConflictException": "See how far it is with: lambstead status",
    "ResourceNotFoundException": "See what there is with: lambstead status",
    "TooManyRequestsException": "Every slot is busy. Try again, or see what is running with: lambstead status",
}


def invoke(
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="Name or ARN of the function.")],
    payload: Annotated[
        str, typer.Option("--payload", metavar="JSON|@FILE|-", help="The event; - reads standard input.")
    ] = "{}",
    qualifier: QualifierOption = None,
    tenant_id: Annotated[
        str | None, typer.Option("--tenant-id", help="For whom, if the function isolates tenants.", metavar="ID")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Invoke a function and print its answer.

    The exit code is 1 if the function failed.

    \b
    Examples:
      lambstead invoke fibonacci --payload '{"n": 10}'
      lambstead invoke fibonacci --payload @event.json --qualifier 1
      echo '{"n": 10}' | lambstead invoke fibonacci --payload - --json
      lambstead invoke image-analysis --tenant-id blue
    """
    settings = settings_for(data)
    answer = _call(settings, require_server(settings), function, qualifier, tenant_id, _event(payload))
    if answer.status >= 400:
        error = answer.headers.get("x-amzn-errortype", str(answer.status)).partition(":")[0]
        raise CommandFailed(f"{error}: {answer.sentence}", _NEXT_STEPS.get(error, ""))
    function_error = answer.headers.get("x-amz-function-error")
    print(_report(answer) if as_json else _pretty(answer.body))
    if function_error:
        print(f"The function failed ({function_error}). Its log: lambstead logs {function}", file=sys.stderr)
        raise typer.Exit(1)


def _call(
    settings: Settings,
    server: RunningServer,
    function: str,
    qualifier: str | None,
    tenant_id: str | None,
    event: bytes,
) -> "Answer":
    from lambstead.cli.server_api import exchange, signed_headers, with_query

    path = with_query(f"/2015-03-31/functions/{quote(function, safe='')}/invocations", {"Qualifier": qualifier})
    headers = {**signed_headers(server, settings.access_key_id, "lambda"), "Content-Type": "application/json"}
    if tenant_id is not None:
        headers["X-Amz-Tenant-Id"] = tenant_id
    return exchange(server, "POST", path, event, headers)


def _event(payload: str) -> bytes:
    """The bytes that `--payload` means."""
    if payload == "-":
        return sys.stdin.buffer.read()
    if not payload.startswith("@"):
        return payload.encode()
    try:
        return Path(payload[1:]).read_bytes()
    except OSError as exc:
        raise CommandFailed(f"The payload file {payload[1:]} cannot be read: {exc.strerror}.") from exc


def _report(answer: "Answer") -> str:
    """The whole answer as one JSON document; a payload that is not JSON stands in it as text."""
    try:
        payload = json.loads(answer.body)
    except ValueError:
        payload = answer.body.decode("utf-8", "replace")
    report = {
        "statusCode": answer.status,
        "functionError": answer.headers.get("x-amz-function-error"),
        "executedVersion": answer.headers.get("x-amz-executed-version"),
        "requestId": answer.headers.get("x-amzn-requestid"),
        "payload": payload,
    }
    return json.dumps(report, indent=2, ensure_ascii=False)


def _pretty(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body.decode("utf-8", "replace")
