"""The environment variables of a runtime process, as AWS sets them.

Managed-instances and on-demand environments differ: `AWS_LAMBDA_MAX_CONCURRENCY` and the log socket exist only in the first (their mere
presence switches interface clients to concurrent mode). A customer's variable wins over a default that AWS lets customers change, and
is dropped if its name is reserved or begins with an underscore. Nothing of the host's own environment is passed on.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lambstead.instance.isolation import LANG_DIR, RUNTIME_DIR, TASK_ROOT, TEMP_DIR
from lambstead.link.messages import StartEnvironment

RESERVED = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_LAMBDA_METADATA_API",
        "AWS_LAMBDA_METADATA_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""Names a customer cannot set. The control plane refuses most of them at deployment; here they are dropped."""

XRAY_DAEMON = "127.0.0.1:2000"
"""AWS's address is 169.254.100.1:2000, inside the environment. Without a network of its own, that datagram would leave this machine."""

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials of the function's role as SDKs expect them."""

    access_key_id: str
    secret_access_key: str
    session_token: str

    @classmethod
    def placeholder(cls) -> "Credentials":
        """Well-formed credentials that no AWS account knows: a function cannot reach a real account with them by accident."""
        key_id = "ASIA" + "".join(secrets.choice(_BASE32) for _ in range(16))
        return cls(key_id, secrets.token_urlsafe(30), secrets.token_urlsafe(192))


@dataclass(frozen=True, slots=True)
class RuntimeSite:
    """Where this environment's runtime finds things."""

    runtime_api: str
    """host:port"""
    task_root: Path
    runtime_dir: Path
    temp_path: Path
    program_dir: Path | None
    """Of the runtime's own program; None where it has none. With a root of its own it is in `/var/lang/bin`, as on AWS."""
    log_socket: Path | None
    """Managed-instances mode only."""
    layers: Path | None = None
    """The folder that stands in for `/opt`; None without layers."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The runtime's own, which a customer's of the same name replaces."""


def runtime_variables(start: StartEnvironment, site: RuntimeSite, credentials: Credentials) -> dict[str, str]:
    """Every variable of the runtime's main process."""
    variables = _changeable(start, site)
    variables |= {name: value for name, value in start.variables.items() if is_customers(name)}
    variables |= _fixed(start, site, credentials)
    if start.mode == "managed-instances":
        variables |= _managed(start, site)
    if start.endpoint_url:
        variables.setdefault("AWS_ENDPOINT_URL", start.endpoint_url)
    return variables


def is_customers(name: str) -> bool:
    """Whether a customer's variable of this name reaches the function."""
    return bool(name) and not name.startswith("_") and name not in RESERVED


def _changeable(start: StartEnvironment, site: RuntimeSite) -> dict[str, str]:
    opt = site.layers or Path("/opt")
    own_root = site.task_root == TASK_ROOT
    program_dir = LANG_DIR / "bin" if own_root else site.program_dir
    own_programs = f"{program_dir}:" if program_dir is not None else ""
    own_libraries = f"{LANG_DIR}/lib:/lib64:/usr/lib64:{RUNTIME_DIR}:{RUNTIME_DIR}/lib:" if own_root else ""
    variables = {
        "LANG": "en_US.UTF-8",
        "LD_LIBRARY_PATH": f"{own_libraries}{site.task_root}:{site.task_root}/lib:{opt}/lib",
        "PATH": f"{own_programs}/usr/local/bin:/usr/bin/:/bin:{opt}/bin",
        **({"TMPDIR": str(site.temp_path)} if site.temp_path != TEMP_DIR else {}),
        "TZ": ":UTC",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": XRAY_DAEMON,
        **site.variables,
    }
    # On-demand functions with Text logs get neither: a level would change what Python's root logger lets through.
    if start.mode == "managed-instances" or start.log_format == "JSON":
        variables |= {"AWS_LAMBDA_LOG_FORMAT": start.log_format, "AWS_LAMBDA_LOG_LEVEL": start.application_log_level}
    return variables


def _fixed(start: StartEnvironment, site: RuntimeSite, credentials: Credentials) -> dict[str, str]:
    host, _, port = XRAY_DAEMON.partition(":")
    return {
        "_HANDLER": start.handler,
        "_AWS_XRAY_DAEMON_ADDRESS": host,
        "_AWS_XRAY_DAEMON_PORT": port,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
        "AWS_DEFAULT_REGION": start.region,
        "AWS_REGION": start.region,
        **_execution_env(start.runtime),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(start.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": start.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": start.function_version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": initialization_type(start),
        "AWS_LAMBDA_LOG_GROUP_NAME": start.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": start.log_stream,
        "AWS_LAMBDA_RUNTIME_API": site.runtime_api,
        "LAMBDA_RUNTIME_DIR": str(site.runtime_dir),
        "LAMBDA_TASK_ROOT": str(site.task_root),
        "PWD": str(site.task_root),
        "SHLVL": "0",
    }


def _execution_env(runtime: str) -> dict[str, str]:
    """Custom runtimes have no such variable (Developer Guide, environment variables)."""
    return {} if runtime.startswith("provided") else {"AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime}"}


def _managed(start: StartEnvironment, site: RuntimeSite) -> dict[str, str]:
    variables = {"AWS_LAMBDA_MAX_CONCURRENCY": str(start.max_concurrency)}
    if site.log_socket is not None:
        variables["_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET"] = str(site.log_socket)
    return variables


def initialization_type(start: StartEnvironment) -> str:
    """The value of `AWS_LAMBDA_INITIALIZATION_TYPE` and of the platform's log records."""
    return "lambda-managed-instances" if start.mode == "managed-instances" else start.initialization_type
