"""`make demo` and `make demo-stop`: the Fibonacci function on a managed instance, deployed by the real aws CLI.

`start` makes sure that a server runs on `.demo/` of this checkout, that the Python runtime is installed, and then types
the commands that a user of AWS types, printing each. Everything can be repeated: a running server is used again, an existing
function gets the code of the checkout. The server is left running; `stop` ends it and keeps its data.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from lambstead.cli.running_server import RunningServer, find_server

CHECKOUT = Path(__file__).resolve().parents[1]
DATA = CHECKOUT / ".demo"
SERVER_LOG = DATA / "server.log"
PACKAGE = DATA / "fibonacci.zip"
ANSWER = DATA / "answer.json"
FUNCTION_SOURCE = CHECKOUT / "examples" / "fibonacci-terraform" / "function" / "fibonacci.py"
SCRIPTS = Path(sys.executable).parent

PREFERRED_PORT = 4566
START_LIMIT = timedelta(seconds=30)
LOG_LINES_SHOWN = 15

ACCOUNT_ARN = "arn:aws:{service}:{region}:{account}:{resource}"
PROVIDER = "demo"
FUNCTION = "fibonacci"
RUNTIME = "python3.13"
PUBLISHED = "$LATEST.PUBLISHED"


class DemoFailed(Exception):
    """The demo cannot go on; the text says what happened and what to look at."""


def main(arguments: list[str]) -> int:
    """Run `start` or `stop`; the exit code for the shell."""
    actions = {"start": start, "stop": stop}
    if len(arguments) != 1 or arguments[0] not in actions:
        print("usage: demo.py start|stop", file=sys.stderr)
        return 2
    try:
        actions[arguments[0]]()
    except DemoFailed as failed:
        print(f"\nThe demo has stopped: {failed}", file=sys.stderr)
        return 1
    return 0


def start() -> None:
    """Everything from nothing to the function's answer."""
    DATA.mkdir(exist_ok=True)
    install_runtime()
    server = running_or_started()
    client = AwsCli(server)
    make_capacity_provider(client)
    deploy_function(client)
    invoke_function(client)
    say_what_next(server)


def stop() -> None:
    """End the server; what it keeps stays in `.demo/`."""
    code = subprocess.run([*lambstead(), "down", "--data", str(DATA)]).returncode
    if code:
        raise DemoFailed(f"the server did not stop (lambstead down: exit code {code}).{server_log_end()}")


def install_runtime() -> None:
    """The Python interface client, from the package registry; the command shows its own progress."""
    heading(f"1. The runtime {RUNTIME}")
    command = [*lambstead(), "runtime", "install", RUNTIME, "--data", str(DATA)]
    if code := subprocess.run(command).returncode:
        raise DemoFailed(f"the runtime {RUNTIME} could not be installed (exit code {code}); the reason stands above.")


def running_or_started() -> RunningServer:
    """The server of `.demo/`, started in the background unless it runs already."""
    heading("2. The server")
    server = find_server(DATA)
    if server is not None and is_healthy(server):
        print(f"Lambstead is running at {server.url}; using it.")
        return server
    began = time.monotonic()
    with SERVER_LOG.open("ab") as log:
        process = subprocess.Popen(
            [*lambstead(), "up", "--data", str(DATA), "--port", str(free_port())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C during the demo does not end the server
        )
    server = wait_until_healthy(process)
    print(f"Lambstead is ready at {server.url} after {time.monotonic() - began:.1f} s.")
    return server


def wait_until_healthy(process: "subprocess.Popen[bytes]") -> RunningServer:
    deadline = time.monotonic() + START_LIMIT.total_seconds()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoFailed(f"the server ended with exit code {process.returncode}.{server_log_end()}")
        server = find_server(DATA)
        if server is not None and is_healthy(server):
            return server
        time.sleep(0.05)
    process.terminate()
    raise DemoFailed(f"the server was not ready after {START_LIMIT.total_seconds():.0f} s.{server_log_end()}")


def is_healthy(server: RunningServer) -> bool:
    # An empty ProxyHandler: a proxy of the environment must not be asked about this machine's own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{server.url}/_lambstead/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def free_port() -> int:
    """The port that local AWS tools expect if it is free, else 0: any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PREFERRED_PORT))
        except OSError:
            return 0
    return PREFERRED_PORT


class AwsCli:
    """The unmodified aws CLI of this checkout's environment, pointed to one server."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        printed = subprocess.run(
            [*lambstead(), "env", "--json", "--data", str(DATA)], capture_output=True, text=True, check=True
        )
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        # Neither profiles nor proxies of the user may lead the demo away from this server.
        self._environment = {
            **own,
            **json.loads(printed.stdout),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_PAGER": "",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def arn(self, service: str, resource: str, region: str | None = None) -> str:
        """An ARN of the server's account; `region` empty for global services."""
        return ACCOUNT_ARN.format(
            service=service,
            region=self._server.region if region is None else region,
            account=self._server.account,
            resource=resource,
        )

    def run(self, *arguments: str) -> str:
        """Print the command as a user types it, run it, print and return its output. Raises DemoFailed if it fails."""
        print("\n$ " + as_typed(["aws", *arguments]), flush=True)
        result = self._call(arguments)
        if result.returncode:
            raise DemoFailed(f"aws answered: {result.stderr.strip()}{server_log_end()}")
        if result.stdout:
            print(result.stdout.rstrip(), flush=True)
        return result.stdout

    def exists(self, *arguments: str) -> bool:
        """Whether a Get operation finds its resource. Raises DemoFailed for any other error."""
        result = self._call(arguments)
        if result.returncode and "ResourceNotFoundException" not in result.stderr:
            raise DemoFailed(f"{as_typed(['aws', *arguments])} answered: {result.stderr.strip()}{server_log_end()}")
        return result.returncode == 0

    def _call(self, arguments: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
        command = [str(SCRIPTS / "aws"), *arguments]
        return subprocess.run(command, env=self._environment, cwd=CHECKOUT, capture_output=True, text=True)


def make_capacity_provider(client: AwsCli) -> None:
    """A capacity provider; subnet, security group and role are only names here."""
    heading("3. A capacity provider")
    if client.exists("lambda", "get-capacity-provider", "--capacity-provider-name", PROVIDER):
        print(f"The capacity provider {PROVIDER} exists already.")
        return
    role = client.arn("iam", "role/lambstead-operator", region="")
    client.run(
        *("lambda", "create-capacity-provider", "--capacity-provider-name", PROVIDER),
        *("--vpc-config", "SubnetIds=subnet-0a1b2c3d,SecurityGroupIds=sg-0a1b2c3d"),
        *("--permissions-config", f"CapacityProviderOperatorRoleArn={role}"),
    )


def deploy_function(client: AwsCli) -> None:
    """Create the function, or bring the code of an existing one up to date, publish it and wait for its instance."""
    heading("4. The function")
    with zipfile.ZipFile(PACKAGE, "w", zipfile.ZIP_DEFLATED) as package:
        package.write(FUNCTION_SOURCE, FUNCTION_SOURCE.name)
    code = ("--zip-file", f"fileb://{PACKAGE.relative_to(CHECKOUT)}", "--publish", "--publish-to", "LATEST_PUBLISHED")
    named = ("--function-name", FUNCTION)
    with timed("Published and Active after"):
        if client.exists("lambda", "get-function", *named):
            print("The function exists already; its code is updated.")
            client.run("lambda", "update-function-code", *named, *code)
            client.run("lambda", "wait", "function-updated-v2", *named, "--qualifier", PUBLISHED)
        else:
            client.run("lambda", "create-function", *named, *code, *configuration(client))
        client.run("lambda", "wait", "published-version-active", *named, "--qualifier", PUBLISHED)


def configuration(client: AwsCli) -> tuple[str, ...]:
    """The options of create-function that do not concern the code."""
    provider = client.arn("lambda", f"capacity-provider:{PROVIDER}")
    return (
        *("--runtime", RUNTIME, "--handler", "fibonacci.handler", "--memory-size", "2048", "--timeout", "10"),
        *("--role", client.arn("iam", "role/lambstead-function", region="")),
        "--capacity-provider-config",
        f"LambdaManagedInstancesCapacityProviderConfig={{CapacityProviderArn={provider}}}",
    )


def invoke_function(client: AwsCli) -> None:
    """Ask for n = 10, show the answer, and check it."""
    heading("5. The answer")
    target = str(ANSWER.relative_to(CHECKOUT))
    client.run("lambda", "invoke", "--function-name", FUNCTION, "--payload", '{"n": 10}', target)
    print(f"\n$ cat {target}")
    text = ANSWER.read_text()
    print(text)
    body = json.loads(json.loads(text).get("body", "null"))
    if body != {"n": 10, "sequence": [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55]}:
        raise DemoFailed(f"this is not the answer that the function gives.{server_log_end()}")


def say_what_next(server: RunningServer) -> None:
    data = DATA.relative_to(CHECKOUT)
    print(f"""
Lambstead is still running at {server.url} (data: {data}/, log: {SERVER_LOG.relative_to(CHECKOUT)}).

What to try next, from this directory:

  export PATH="$PWD/.venv/bin:$PATH" LAMBSTEAD_DATA="$PWD/{data}"
  eval "$(lambstead env)"                  # now every AWS client talks to this server

  lambstead status                         # the instance, its environment, its slots
  lambstead invoke {FUNCTION} --payload '{{"n": 20}}'
  lambstead logs {FUNCTION} --tail 20
  aws lambda list-function-versions-by-capacity-provider --capacity-provider-name {PROVIDER}

  make demo                                # again: updates the function's code
  make demo-stop                           # stops the server; the data stays
""")


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what} {time.monotonic() - began:.1f} s (the aws CLI asks every 5 s).")


def as_typed(arguments: list[str]) -> str:
    """The command line, one option per line where it is long."""
    words = [shlex.quote(word) for word in arguments]
    line = " ".join(words)
    return line if len(line) <= 100 else line.replace(" --", " \\\n    --")


def heading(text: str) -> None:
    print(f"\n── {text} " + "─" * max(0, 70 - len(text)), flush=True)


def lambstead() -> list[str]:
    """The command of this checkout; the environment of the caller may hold another one."""
    return [sys.executable, "-m", "lambstead"]


def server_log_end() -> str:
    """The last lines of the server's log, introduced; empty when there is none."""
    try:
        lines = SERVER_LOG.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    except OSError:
        return ""
    shown = "\n".join(f"  | {line}" for line in lines)
    return f"\nThe end of {SERVER_LOG.relative_to(CHECKOUT)}:\n{shown}" if lines else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
