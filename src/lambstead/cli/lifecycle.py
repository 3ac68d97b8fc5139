"""`lambstead up`, `down` and `reset`: the life of a server and of what it keeps."""

import errno
import json
import socket
import time
from typing import Annotated

import typer

from lambstead.cli.failures import CommandFailed
from lambstead.cli.options import DataOption, JsonOption, settings_for
from lambstead.cli.running_server import RunningServer, find_server, require_server
from lambstead.config import Settings

STOP_MARGIN_SECONDS = 10.0
"""What a server may take to stop beyond the time it gives to running invocations."""
STOP_POLL_SECONDS = 0.02


def up(
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", help="TCP port; 0 takes a free one.  [default: 4566]")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Loopback address.  [default: 127.0.0.1]")
    ] = None,
    data: DataOption = None,
    gateways: Annotated[
        int | None,
        typer.Option("--gateways", metavar="N", help="Processes that accept requests on the port.  [default: 1]"),
    ] = None,
    agent_link: Annotated[
        str | None,
        typer.Option("--agent-link", metavar="unix|tcp", help="How agents of instances connect.  [default: unix]"),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="dev|faithful", help="Set of defaults.  [default: dev]")
    ] = None,
    isolation: Annotated[
        str | None,
        typer.Option(
            "--isolation",
            metavar="LEVEL",
            help="auto, sandbox, landlock, process, oci or gvisor; see `lambstead doctor`.  [default: auto]",
        ),
    ] = None,
    time_skip: Annotated[
        bool, typer.Option("--time-skip", help="Durable executions skip the time in which they only wait.")
    ] = False,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Let `lambstead chaos` break things.  [default: refused]")
    ] = False,
) -> None:
    """Serve in the foreground until SIGINT (Ctrl-C) or SIGTERM.

    Prints one line with the address once the server is ready. A second start on the same data
    directory continues where the first one stopped. Profile dev starts one environment per
    published version, faithful three over three zones as AWS does.

    \b
    Examples:
      lambstead up
      lambstead up --port 0 --data ./state
      lambstead up --profile faithful
      lambstead up --isolation sandbox
      lambstead up --isolation oci
      lambstead up --gateways 4
      lambstead up --time-skip --chaos
    """
    settings = settings_for(
        data,
        port=port,
        host=host,
        gateways=gateways,
        agent_link=agent_link,
        profile=profile,
        isolation=isolation,
        time_skip=time_skip or None,
        chaos=chaos or None,
    )
    _refuse_second_server(settings)
    _prepare_data_dir(settings)
    _refuse_taken_port(settings)
    raise typer.Exit(_serve(settings))


def down(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Stop the server of a data directory and wait for its end.

    Running invocations may finish first. It is no error if no server is running.

    \b
    Examples:
      lambstead down
      lambstead down --data ./state
    """
    settings = settings_for(data)
    server = find_server(settings.data_dir)
    if server is not None:
        _stop(server, settings.stop_wait.total_seconds() + STOP_MARGIN_SECONDS)
    if as_json:
        print(json.dumps({"stopped": server.pid if server else None}))
    elif server is None:
        print(f"No Lambstead server is running on {settings.data_dir}.")
    else:
        print(f"Lambstead at {server.url} has stopped. Its data stays in {settings.data_dir}.")


def reset(
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete all functions, capacity providers and logs.

    Installed runtimes and settings stay.

    \b
    Examples:
      lambstead reset
      lambstead reset --yes
    """
    settings = settings_for(data)
    server = require_server(settings)
    if not yes:
        typer.confirm(f"Delete everything that {server.url} keeps in {settings.data_dir}?", abort=True, err=True)
    from lambstead.cli.server_api import fetch_json

    answer = fetch_json(server, "/_lambstead/reset", method="POST")
    print(
        json.dumps(answer) if as_json else f"Everything in {settings.data_dir} is being deleted; the server stays up."
    )


def _refuse_second_server(settings: Settings) -> None:
    if server := find_server(settings.data_dir):
        raise CommandFailed(
            f"A Lambstead server (process {server.pid}) already serves {settings.data_dir} at {server.url}.",
            "Use that one, stop it with `lambstead down`, or give this one another directory with --data.",
        )


def _prepare_data_dir(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise CommandFailed(
            f"The data directory {settings.data_dir} cannot be made: {exc.strerror}.",
            "Choose another with --data or LAMBSTEAD_DATA.",
        ) from exc


def _refuse_taken_port(settings: Settings) -> None:
    """Try the port before the server is imported: the most common mistake is then told in a tenth of a second."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as exc:
            raise _cannot_listen(settings, exc) from exc


def _cannot_listen(settings: Settings, exc: OSError) -> CommandFailed:
    if exc.errno == errno.EADDRINUSE:
        return CommandFailed(
            f"Port {settings.port} on {settings.host} is taken by another program.",
            "Choose another with --port, or let the system choose one with --port 0.",
        )
    reason = "this user may not" if exc.errno == errno.EACCES else exc.strerror
    return CommandFailed(
        f"Lambstead cannot listen on {settings.authority}: {reason}.",
        "Choose another address with --host or another port with --port.",
    )


def _serve(settings: Settings) -> int:
    # Everything heavy (HTTP, models, store) comes with these imports.
    from lambstead.app import serve
    from lambstead.data_directory import ServerAlreadyRunning
    from lambstead.server.gateways import GatewayNotStarted
    from lambstead.server.http import PortTaken
    from lambstead.store.sqlite import SchemaTooNew

    try:
        return serve(settings, _announce)
    except (ServerAlreadyRunning, PortTaken, GatewayNotStarted, SchemaTooNew) as exc:
        raise CommandFailed(str(exc)) from exc


def _announce(url: str) -> None:
    print(f"Lambstead is ready at {url}", flush=True)


def _stop(server: RunningServer, patience_seconds: float) -> None:
    """Ask the server to stop and return when it has. A zombie has: it only waits for its parent to notice."""
    import psutil

    deadline = time.monotonic() + patience_seconds
    try:
        process = psutil.Process(server.pid)
        process.terminate()
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"The server (process {server.pid}) has not stopped within {patience_seconds:g} s.",
                    f"Look at its output. If it hangs, nothing acknowledged is lost by: kill -9 {server.pid}",
                )
            time.sleep(STOP_POLL_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as exc:
        raise CommandFailed(f"Process {server.pid} belongs to another user and cannot be stopped.") from exc
