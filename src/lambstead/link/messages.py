"""Messages between the server and its executors: heads of invocation frames, and the control messages of an agent.

Heads are JSON arrays of these structs (positions are the protocol; new fields are appended with defaults): workers read and
write them with nothing but their standard library. Control messages are MessagePack and
are tagged by their class name. Times are epoch milliseconds, durations milliseconds, sizes as named.
"""

from typing import Literal

import msgspec

Mode = Literal["managed-instances", "on-demand"]
"""`managed-instances`: many invocations at once, `AWS_LAMBDA_MAX_CONCURRENCY` set. `on-demand`: one invocation at a time."""

SettledBy = Literal["function", "platform"]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """First frame of an invocation link connection."""

    version: int
    environment_id: str
    instance_id: str = ""
    """Over TCP: whose connection it is. Empty on one host, where the socket says so."""
    token: str = ""
    """Over TCP: the secret of the instance's agent."""
    is_worker: bool = False
    """Over TCP: the connection is that of one worker, relayed by the agent."""


class Slots(msgspec.Struct, frozen=True, array_like=True):
    """A change in the number of idle slots of the environment behind this connection."""

    change: int


class Invoke(msgspec.Struct, frozen=True, array_like=True):
    """One event for one slot; the payload of the frame is the event."""

    request_id: str
    deadline_ms: int
    timeout_ms: int
    invoked_arn: str
    trace_id: str = ""
    client_context: str = ""
    """JSON text as the runtime receives it (already decoded from the base64 of the API)."""
    cognito_identity: str = ""
    tenant_id: str = ""


class Result(msgspec.Struct, frozen=True, array_like=True):
    """The function's answer; the payload of the frame is the body it posted."""

    content_type: str = "application/json"


STREAM_WINDOW_BYTES = 1024 * 1024
"""What an executor may send of each streamed answer before the first WINDOW."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Head of the first CHUNK of an answer; the others have none. The payload of the frame is the part."""

    content_type: str


class Window(msgspec.Struct, frozen=True, array_like=True):
    """The gateway has passed on so many bytes of a streamed answer, and has room for as many more."""

    size_bytes: int


class Error(msgspec.Struct, frozen=True, array_like=True):
    """The invocation failed; the payload is the error document (`errorType`, `errorMessage`, …) as JSON."""

    error_type: str
    settled_by: SettledBy = "function"
    """`function`: the runtime posted it. `platform`: time-out, crash, over-size; the document was made by the agent."""


class Reject(msgspec.Struct, frozen=True, array_like=True):
    """The slot promised for this invocation is gone (worker died while idle); the event was not delivered to anyone."""

    because: str


class GatewayHello(msgspec.Struct, frozen=True, array_like=True):
    """gateway process → server, head of its HELLO: it accepts requests from now on."""

    version: int
    number: int
    """Which of the gateway processes it is, from 0."""


class Call(msgspec.Struct, frozen=True, array_like=True):
    """gateway process → server, head of INVOKE: an event for a function as the caller named it; the payload of the frame is the event."""

    request_id: str
    function: str
    qualifier: str | None
    trace_id: str
    client_context: str = ""
    tenant_id: str = ""
    is_streaming: bool = False
    """The answer is wanted in parts, as they come."""


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """server → gateway process, head of RESULT and END: how the invocation ended; the payload is what did not come in parts."""

    executed_version: str
    is_error: bool = False
    error_type: str = ""


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """server → gateway process, payload of ERROR: the invocation was refused, or lost by the platform."""

    shape: str
    """The name of the AWS error."""
    message: str
    facts: dict[str, str | int | float | bool | None]


class AgentHello(msgspec.Struct, frozen=True, tag=True):
    """agent → server: first message of the control connection."""

    version: int
    instance_id: str
    pid: int
    token: str = ""
    """Over TCP: the agent's secret."""


class StartEnvironment(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """server → agent: start one execution environment and report it ready or failed."""

    environment_id: str
    mode: Mode
    runtime: str
    """AWS's identifier, for example `python3.13`."""
    handler: str
    code_path: str
    """Directory with the unpacked code package; read-only for the function."""
    function_name: str
    function_version: str
    function_arn: str
    memory_mb: int
    vcpus: float
    timeout_ms: int
    init_timeout_ms: int
    ephemeral_storage_mb: int
    max_concurrency: int
    """Slots; 1 in on-demand mode."""
    variables: dict[str, str]
    """The customer's environment variables."""
    region: str
    account_id: str
    log_format: Literal["JSON", "Text"]
    application_log_level: str = "INFO"
    system_log_level: str = "INFO"
    log_group: str
    log_stream: str
    log_path: str
    """File that receives the environment's output; its folder exists."""
    initialization_type: Literal["on-demand", "provisioned-concurrency"] = "on-demand"
    """Why it is initialised; in on-demand mode only."""
    endpoint_url: str = ""
    """Where AWS SDKs inside the function find Lambstead itself; empty to leave them alone."""
    layers_path: str = ""
    """Directory with the function's layers, laid over one another; read-only for the function. Empty without layers."""
    link_path: str = ""
    """Socket on which workers of this environment may speak the link themselves; empty to keep to the Runtime API."""
    egress: Literal["none", "nat", "host"] = "host"
    """Where the function may connect to (see `core.egress`)."""
    tenant_id: str = ""
    """The tenant it is for: it takes no other's invocations. Empty without tenant isolation, when it takes those that name no tenant."""
    relays_workers: bool = False
    """Its workers speak the link with the agent, which passes events and answers on: on demand, and where the server cannot be reached by them."""


class StopEnvironment(msgspec.Struct, frozen=True, tag=True):
    """server → agent: end an environment, in-flight work included."""

    environment_id: str
    because: str


class EnvironmentReady(msgspec.Struct, frozen=True, tag=True):
    """agent → server: init is complete; the environment's link connection carries its slots."""

    environment_id: str
    init_ms: float
    pid: int
    note: str = ""
    """What the operator should know, for example that another Python than the named one runs it; empty normally."""


class EnvironmentFailed(msgspec.Struct, frozen=True, tag=True):
    """agent → server: init failed; nothing of the environment is left."""

    environment_id: str
    error_type: str
    """Runtime API spelling, for example `Runtime.ImportModuleError`, `Runtime.ExitError`, `Sandbox.Timedout`."""
    error_document: str
    """JSON text with `errorType`, `errorMessage` and, where the runtime sent one, `stackTrace`."""
    reason_code: str
    """AWS StateReasonCode: `FunctionError.RuntimeInitError`, `FunctionError.InitTimeout`, `InvalidRuntime`, …"""


class EnvironmentExited(msgspec.Struct, frozen=True, tag=True):
    """agent → server: an environment that was ready is gone, by order or by its own end; nothing of it is left."""

    environment_id: str
    error_type: str
    """`Runtime.ExitError`, `Sandbox.Timedout`, or empty when stopped by order."""
    message: str


class EnvironmentDegraded(msgspec.Struct, frozen=True, tag=True):
    """agent → server: workers of a running environment died and will not come back."""

    environment_id: str
    slots_left: int


class EnvironmentReading(msgspec.Struct, frozen=True):
    """What one environment takes."""

    environment_id: str
    cpu_seconds_total: float
    """Since the environment was started; never falls."""
    cpu_utilization: float
    """Since the reading before, as a share of the vCPUs it was granted, from 0 to 1. A grant beyond the machine's cores counts as these."""
    memory_bytes: int


class InstanceReading(msgspec.Struct, frozen=True, tag=True):
    """agent → server, every few seconds: what the environments of the instance that are ready take."""

    environments: list[EnvironmentReading]


class KillEnvironment(msgspec.Struct, frozen=True, tag=True):
    """server → agent: kill the runtime of an environment, as a crash would (a fault on demand)."""

    environment_id: str


class KillWorker(msgspec.Struct, frozen=True, tag=True):
    """server → agent: kill one worker process of an environment, as a crash would (a fault on demand)."""

    environment_id: str


class StopAgent(msgspec.Struct, frozen=True, tag=True):
    """server → agent: stop every environment and exit 0."""

    because: str


ToAgent = StartEnvironment | StopEnvironment | KillEnvironment | KillWorker | StopAgent
FromAgent = (
    AgentHello | EnvironmentReady | EnvironmentFailed | EnvironmentExited | EnvironmentDegraded | InstanceReading
)
Control = ToAgent | FromAgent

_control_decoder: "msgspec.msgpack.Decoder[Control]" = msgspec.msgpack.Decoder(Control)


def encode_control(message: Control) -> bytes:
    """A control message as the payload of a CONTROL frame (stream 0)."""
    return msgspec.msgpack.encode(message)


def decode_control(payload: bytes) -> Control:
    """The control message in the payload of a CONTROL frame. Raises msgspec.DecodeError if it is none."""
    return _control_decoder.decode(payload)
