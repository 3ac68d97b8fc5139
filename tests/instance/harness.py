"""A tiny gateway for tests: a real Unix server that speaks the link to a real agent process.

`running_agent` starts both. Facts are awaited with a deadline: `Gateway.until` wakes on every frame, `eventually` looks again and again at
what no frame tells (processes, files).
"""

import asyncio
import contextlib
import itertools
import json
import sys
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lambstead.core.log_streams import instance_mark, stream_of
from lambstead.instance.strays import find_strays
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import (
    AgentHello,
    Control,
    EnvironmentDegraded,
    EnvironmentExited,
    EnvironmentFailed,
    EnvironmentReady,
    Error,
    Hello,
    Invoke,
    Reject,
    Result,
    Slots,
    StartEnvironment,
    StopEnvironment,
    ToAgent,
    decode_control,
    encode_control,
)

PATIENCE = 60.0
"""Seconds until a fact that does not come fails the test: generous, because machines are shared."""

Json = Any  # a JSON document of a test, indexed freely

About = TypeVar("About", EnvironmentReady, EnvironmentFailed, EnvironmentExited, EnvironmentDegraded)


@dataclass(frozen=True)
class Answer:
    """What came back for one invocation."""

    head: Result | Error | Reject
    payload: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.payload)


@dataclass
class EnvironmentLink:
    """The gateway's end of one environment."""

    gateway: "Gateway"
    environment_id: str
    link: LinkConnection
    log_path: Path
    log_stream: str = ""
    slots: int = 0
    """Idle slots as a gateway counts them: SLOTS, less INVOKEs, plus REJECTs."""
    slot_changes: list[int] = field(default_factory=list)
    is_open: bool = True
    ready: EnvironmentReady | None = None
    _streams: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _waiting: dict[int, "asyncio.Future[Answer]"] = field(default_factory=dict)

    def send(
        self, event: Json = None, *, timeout_ms: int = 30_000, payload: bytes | None = None, **head: Any
    ) -> "Invocation":
        """Send one INVOKE; `head` overrides members of the message."""
        stream = next(self._streams)
        request_id = head.pop("request_id", str(uuid.uuid4()))
        deadline_ms = head.pop("deadline_ms", int(time.time() * 1000) + timeout_ms)
        arn = "arn:aws:lambda:us-east-1:000000000000:function:tested:1"
        message = Invoke(request_id, deadline_ms, timeout_ms, arn, **head)
        body = json.dumps(event).encode() if payload is None else payload
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = answer
        self.slots -= 1
        self.link.send(Kind.INVOKE, stream, msgspec.json.encode(message), body)
        return Invocation(stream, request_id, answer)

    async def invoke(self, event: Json = None, **options: Any) -> Answer:
        """One invocation and its answer."""
        async with asyncio.timeout(PATIENCE):
            return await self.send(event, **options).answer

    def cancel(self, invocation: "Invocation") -> None:
        self.link.send(Kind.CANCEL, invocation.stream)

    async def until_slots(self, wanted: int) -> None:
        await self.gateway.until(lambda: self.slots == wanted, lambda: f"{wanted} slots, there are {self.slots}")

    async def stop(self) -> EnvironmentExited:
        self.gateway.order(StopEnvironment(self.environment_id, "the test is over"))
        return await self.exited()

    async def exited(self) -> EnvironmentExited:
        return await self.gateway.message(EnvironmentExited, self.environment_id)

    def log(self) -> str:
        return self.log_path.read_text()

    def log_records(self, type_: str) -> list[Json]:
        """Records of the platform in the log, for example `platform.report`."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("type") == type_]

    def frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.SLOTS:
                change = msgspec.json.decode(frame.head, type=Slots).change
                self.slots += change
                self.slot_changes.append(change)
            case Kind.RESULT:
                self._settle(frame, msgspec.json.decode(frame.head, type=Result))
            case Kind.ERROR:
                self._settle(frame, msgspec.json.decode(frame.head, type=Error))
            case Kind.REJECT:
                self.slots += 1
                self._settle(frame, msgspec.json.decode(frame.head, type=Reject))
            case other:
                raise AssertionError(f"an executor sent {other!r}")

    def _settle(self, frame: Frame, head: Result | Error | Reject) -> None:
        # A second answer for one stream finds nothing to pop and fails the test: settled exactly once.
        self._waiting.pop(frame.stream).set_result(Answer(head, frame.payload))


@dataclass(frozen=True)
class Invocation:
    stream: int
    request_id: str
    answer: "asyncio.Future[Answer]"


class Gateway:
    """The server's side of one agent."""

    def __init__(
        self, folder: Path, runtimes_dir: Path, tcp_host: str = "", prefix: tuple[str, ...] = (), level: str = "process"
    ) -> None:
        """With `tcp_host` the agent comes over TCP; `prefix` is put before its command; `level` isolates its environments."""
        self.level = level
        self.folder = folder
        self.tcp_host = tcp_host
        self.prefix = prefix
        self.token = uuid.uuid4().hex
        self.runtimes_dir = runtimes_dir
        self.socket_path = folder / "s.sock"
        self.instance_id = f"i-{uuid.uuid4().hex[:17]}"
        self.messages: list[Control] = []
        self.links: dict[str, EnvironmentLink] = {}
        self.control: LinkConnection | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.hello_after = 0.0
        self.errors: list[str] = []
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._agent_log = open(folder / "agent.log", "ab")  # noqa: SIM115  # closed by end
        self._roles: dict[LinkConnection, EnvironmentLink] = {}

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        where = ["--socket", str(self.socket_path)]
        if self.tcp_host:
            self._server = await loop.create_server(
                lambda: LinkConnection(self._frame, self._lost, lambda link: link.tune_tcp()), self.tcp_host, 0
            )
            where = ["--server", f"{self.tcp_host}:{self._server.sockets[0].getsockname()[1]}"]
        else:
            self._server = await loop.create_unix_server(
                lambda: LinkConnection(self._frame, self._lost), str(self.socket_path)
            )
        started = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            *(*self.prefix, sys.executable, "-m", "lambstead.instance.agent", *where),
            *("--instance-id", self.instance_id, "--state-dir", str(self.folder / "state")),
            *("--sockets-dir", str(self.folder / "sockets"), "--runtimes-dir", str(self.runtimes_dir)),
            *("--isolation", self.level),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=self._agent_log,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.token}\n".encode())
        self.process.stdin.close()
        await self.until(lambda: any(isinstance(m, AgentHello) for m in self.messages), lambda: "AgentHello")
        self.hello_after = time.monotonic() - started

    async def end(self) -> None:
        assert self._server is not None
        assert self.process is not None
        self._server.close()
        self._agent_log.close()
        for link in [*self._roles, self.control]:
            if link is not None:
                link.close()
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        await self.process.wait()

    def order(self, message: ToAgent) -> None:
        assert self.control is not None
        self.control.send(Kind.CONTROL, 0, payload=encode_control(message))

    def start_message(self, code: str | None, **options: Any) -> StartEnvironment:
        """A StartEnvironment for a module `main` with this source; `options` override its members.

        Mode `linked` is on demand with a worker that speaks the link.
        """
        environment_id = options.pop("environment_id", uuid.uuid4().hex)
        code_path = self.folder / f"code-{environment_id[:8]}"
        if code is not None:
            code_path.mkdir()
            (code_path / "main.py").write_text(textwrap.dedent(code))
        mode = options.pop("mode", "managed-instances")
        if mode == "linked":
            mode, options["relays_workers"] = "on-demand", True
        defaults: dict[str, Any] = {
            "runtime": "python3.13",
            "handler": "main.handler",
            "code_path": str(code_path),
            "function_name": "tested",
            "function_version": "1",
            "function_arn": "arn:aws:lambda:us-east-1:000000000000:function:tested:1",
            "memory_mb": 2048,
            "vcpus": 1.0,
            "timeout_ms": 30_000,
            "init_timeout_ms": 60_000,
            "ephemeral_storage_mb": 512,
            "max_concurrency": 1,
            "variables": {},
            "region": "us-east-1",
            "account_id": "000000000000",
            "log_format": "JSON" if mode == "managed-instances" else "Text",
            "log_group": "/aws/lambda/tested",
            "log_stream": stream_of(self.instance_id, environment_id, "1", datetime(2026, 11, 21, tzinfo=UTC)),
            "log_path": str(self.folder / f"{environment_id}.log"),
        }
        return StartEnvironment(environment_id=environment_id, mode=mode, **(defaults | options))

    async def start(self, code: str | None, **options: Any) -> EnvironmentLink:
        """Start an environment and wait until it is ready."""
        message = self.start_message(code, **options)
        self.order(message)
        ready = await self.message(EnvironmentReady, message.environment_id)
        # Another socket than the message's: it may be read later.
        await self.until(lambda: message.environment_id in self.links, lambda: "the environment's link")
        environment = self.links[message.environment_id]
        environment.ready = ready
        environment.log_path = Path(message.log_path)
        environment.log_stream = message.log_stream
        return environment

    async def start_failing(self, code: str | None, **options: Any) -> EnvironmentFailed:
        """Start an environment and wait until it failed."""
        message = self.start_message(code, **options)
        self.order(message)
        return await self.message(EnvironmentFailed, message.environment_id)

    async def message(self, kind: type[About], environment_id: str) -> About:
        """The first message of this kind about this environment."""

        def found() -> list[About]:
            return [m for m in self.messages if isinstance(m, kind) and m.environment_id == environment_id]

        await self.until(lambda: bool(found()), lambda: f"{kind.__name__}; there came {self.messages[1:]}")
        return found()[0]

    async def until(self, fact: Callable[[], bool], wanted: Callable[[], str]) -> None:
        """Wait for a fact that a frame brings about."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not fact():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE:.0f} s for {wanted()}") from None

    async def agent_gone(self) -> int:
        """The agent's exit code, once it ended."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    def agent_words(self) -> str:
        """What the agent said on its standard error so far."""
        return (self.folder / "agent.log").read_text()

    def processes(self) -> list[int]:
        """Every living process of this instance's environments."""
        return find_strays(instance_mark(self.instance_id))

    def _frame(self, link: LinkConnection, frame: Frame) -> None:
        if frame.kind is Kind.CONTROL:
            self.control = link
            self.messages.append(decode_control(frame.payload))
        elif frame.kind is Kind.HELLO:
            environment_id = msgspec.json.decode(frame.head, type=Hello).environment_id
            environment = EnvironmentLink(self, environment_id, link, self.folder / f"{environment_id}.log")
            self._roles[link] = self.links[environment_id] = environment
        else:
            self._roles[link].frame(frame)
        self._changed.set()

    def _lost(self, link: LinkConnection, exc: Exception | None) -> None:
        environment = self._roles.pop(link, None)
        if environment is not None:
            environment.is_open = False
        self._changed.set()


@contextlib.asynccontextmanager
async def running_agent(
    folder: Path, runtimes_dir: Path, tcp_host: str = "", prefix: tuple[str, ...] = (), level: str = "process"
) -> AsyncIterator[Gateway]:
    """A gateway with a real agent connected; at the end nothing of either may be left."""
    gateway = Gateway(folder, runtimes_dir, tcp_host, prefix, level)
    await gateway.begin()
    try:
        yield gateway
    finally:
        await gateway.end()
        await eventually(lambda: not gateway.processes(), "no process of the instance is left")


async def eventually(fact: Callable[[], bool], wanted: str) -> None:
    """Wait for a fact that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s until {wanted}"
        await asyncio.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
