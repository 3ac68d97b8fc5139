"""What somebody would pick instead of Lambstead, installed into a throw-away folder and started with its defaults.

    python -m bench.peers --install DIR      # functions-framework and Moto from PyPI, serverless-offline from npm
    python -m bench.invoke --peers DIR ...   # measures those that DIR holds

AWS's runtime interface emulator is measured where its image's layout is found (`/var/runtime/bootstrap`, `/var/task`) and DIR or the path holds
`aws-lambda-rie`. Tests never install anything of this.
Every peer gets the same trivial Python function. Moto without Docker runs no function at all: it answers with a fixed text.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import boto3
from bench.contenders import PYTHON, ROLE, Contender, Start, free_port, started, wait_until_answered, zipped

FROM_PYPI = ("functions-framework", "moto[server,awslambda]")
FROM_NPM = ("serverless@3", "serverless-offline@13")
"""The last versions that start without an account."""
FOR_DURABLE = (
    *("restate-sdk", "hypercorn", "dbos"),
    *("aws-durable-execution-sdk-python==3.0.0", "aws-durable-execution-sdk-python-testing"),
)
"""What `bench.durable` compares with; in an environment of its own, because the two sets do not agree on their dependencies."""
DURABLE_FROM_NPM = ("@restatedev/restate-server",)
RIE = "aws-lambda-rie"
RIE_SLOTS = 64
BOOTSTRAP = Path("/var/runtime/bootstrap")
TASK_ROOT = Path("/var/task")
"""Where the emulator insists on finding the runtime and the function: the layout of AWS's images."""

FRAMEWORK_FUNCTION = "def handler(request):\n    return request.get_data()\n"
SERVERLESS = """
service: bench
provider: {name: aws, runtime: python3.11, stage: dev}
plugins: [serverless-offline]
custom: {serverless-offline: {noPrependStageInUrl: true}}
functions:
  echo: {handler: bench.handler}
"""


def install(folder: Path) -> None:
    """Fetch what the package registries have; raises CalledProcessError if one cannot be reached."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True)
    subprocess.run([folder / "python/bin/pip", "install", "--quiet", *FROM_PYPI], check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "durable"], check=True)
    subprocess.run([folder / "durable/bin/pip", "install", "--quiet", *FOR_DURABLE], check=True)
    if npm := shutil.which("npm"):
        (folder / "package.json").write_text('{"private": true}')
        subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *FROM_NPM, *DURABLE_FROM_NPM],
            cwd=folder,
            check=True,
        )
    else:
        print("serverless-offline and Restate are left out: there is no npm on the path.")


def found(folder: Path | None) -> list[Start]:
    """How to start each peer that is there."""
    starts: list[Start] = []
    if folder is not None:
        folder = folder.resolve()
        if (folder / "python/bin/functions-framework").exists():
            starts.append(partial(functions_framework, folder))
        if (folder / "node_modules/.bin/serverless").exists():
            starts.append(partial(serverless_offline, folder))
        if (folder / "python/bin/moto_server").exists():
            starts.append(partial(moto, folder))
    emulator = shutil.which(RIE, path=f"{folder or ''}:{os.environ.get('PATH', '')}")
    if emulator is not None and BOOTSTRAP.exists():
        starts.append(partial(interface_emulator, Path(emulator)))
    return starts


@contextmanager
def functions_framework(folder: Path) -> Iterator[list[Contender]]:
    """Google's functions-framework under gunicorn."""
    source = folder / "framework.py"
    source.write_text(FRAMEWORK_FUNCTION)
    port = free_port()
    command = [str(folder / "python/bin/functions-framework"), "--target", "handler", "--source", str(source)]
    url = f"http://127.0.0.1:{port}/"
    with started([*command, "--host", "127.0.0.1", "--port", str(port)], stderr=subprocess.DEVNULL) as process:
        wait_until_answered(url, process)
        yield [Contender("functions-framework", url, process.pid, ("Content-Type: application/json",))]


@contextmanager
def serverless_offline(folder: Path) -> Iterator[list[Contender]]:
    """serverless-offline's Lambda endpoint, which runs the handler in a Python process."""
    service = folder / "service"
    service.mkdir(exist_ok=True)
    (service / "serverless.yml").write_text(SERVERLESS)
    (service / "bench.py").write_text(PYTHON.files["bench.py"])
    port, other, websocket = free_port(), free_port(), free_port()
    command = [str(folder / "node_modules/.bin/serverless"), "offline", "--lambdaPort", str(port)]
    command += ["--httpPort", str(other), "--websocketPort", str(websocket), "--host", "127.0.0.1"]
    environment = {"SLS_TELEMETRY_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off", "SLS_INTERACTIVE_SETUP_ENABLE": "0"}
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/bench-dev-echo/invocations"
    with started(command, environment, cwd=service, stderr=subprocess.DEVNULL) as process:
        wait_until_answered(url, process)
        yield [Contender("serverless-offline", url, process.pid)]


@contextmanager
def moto(folder: Path) -> Iterator[list[Contender]]:
    """Moto's server with its Lambda that runs nothing."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [str(folder / "python/bin/moto_server"), "-p", str(port)]
    with started(command, stderr=subprocess.DEVNULL) as process:
        wait_until_answered(f"{base}/moto-api/config", process, json.dumps({"lambda": {"use_docker": False}}).encode())
        keys = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": "us-east-1"}
        trust = '{"Version":"2012-10-17","Statement":[]}'
        boto3.client("iam", endpoint_url=base, **keys).create_role(RoleName="bench", AssumeRolePolicyDocument=trust)
        boto3.client("lambda", endpoint_url=base, **keys).create_function(
            FunctionName="echo",
            Runtime=PYTHON.runtime,
            Role=ROLE.replace("000000000000", "123456789012"),
            Handler=PYTHON.handler,
            Code={"ZipFile": zipped(PYTHON.files)},
        )
        url = f"{base}/2015-03-31/functions/echo/invocations"
        signed = "Authorization: AWS4-HMAC-SHA256 Credential=bench/20250101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=0"
        yield [Contender("Moto (runs no function)", url, process.pid, (signed,))]


@contextmanager
def interface_emulator(binary: Path) -> Iterator[list[Contender]]:
    """AWS's runtime interface emulator in its mode for managed instances, with AWS's own Python client behind it."""
    (TASK_ROOT / "bench.py").write_text(PYTHON.files["bench.py"])
    port, runtime_api = free_port(), free_port()
    environment = {
        "AWS_LAMBDA_MAX_CONCURRENCY": str(RIE_SLOTS),
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "30",
        "AWS_LAMBDA_FUNCTION_HANDLER": PYTHON.handler,
    }
    command = [str(binary), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    command += ["--runtime-api-address", f"127.0.0.1:{runtime_api}", str(BOOTSTRAP), PYTHON.handler]
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    with started(command, environment, cwd=TASK_ROOT, stderr=subprocess.DEVNULL) as process:
        wait_until_answered(url, process)
        yield [Contender(f"AWS's emulator ({RIE_SLOTS} slots)", url, process.pid)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--install", type=Path, metavar="DIR", required=True)
    install(parser.parse_args().install)


if __name__ == "__main__":
    main()
