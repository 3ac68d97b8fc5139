"""The platform's own lines in a function's log: init, start, report, and what the operator should know.

On-demand functions with Text logs get AWS's `START`/`END`/`REPORT` lines. All others get JSON records `{time, type, record}`, let through by
the function's system log level as AWS's table says: `start`, successful `report` and `initStart` are INFO, anything that failed is
WARN, the details of a successful init are DEBUG on demand. Managed instances never send `platform.runtimeDone`, and their reports
carry a duration and nothing else. Types that begin with `lambstead.` are ours and say what AWS has no record for.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import msgspec

from lambstead.core.platform_records import InvocationStatus, Level, Record, reported, started, timestamp_of
from lambstead.core.runtime_api import timed_out_message
from lambstead.instance.environment_variables import initialization_type
from lambstead.link.messages import StartEnvironment

InitStatus = Literal["success", "error", "timeout"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How an invocation ended, for its report."""

    request_id: str
    status: InvocationStatus
    duration_ms: float
    error_type: str = ""
    timeout_ms: int = 0
    """Only for `timeout`."""


class PlatformLog:
    """Writes one environment's platform lines through `write_line`."""

    def __init__(self, start: StartEnvironment, runtime_version: str, write_line: Callable[[str], None]) -> None:
        self._start = start
        self._runtime_version = runtime_version
        self._write_line = write_line
        self._managed = start.mode == "managed-instances"
        self._text = not self._managed and start.log_format == "Text"
        self._init_type = initialization_type(start)
        self._tenant = {"tenantId": start.tenant_id} if start.tenant_id else {}
        """Developer Guide, "Monitoring tenant-isolated functions": platform events name the tenant in JSON logs."""
        self._init_ms: float | None = None

    @property
    def is_per_invocation(self) -> bool:
        """Whether a report waits for the function's own lines: on-demand, where lines between START and END belong to one invocation."""
        return not self._managed

    def init_started(self) -> None:
        digest = hashlib.sha256(self._runtime_version.encode()).hexdigest()
        version_arn = f"arn:aws:lambda:{self._start.region}::runtime:{digest}"
        if self._text:
            self._write_line(f"INIT_START Runtime Version: {self._runtime_version}\tRuntime Version ARN: {version_arn}")
            return
        record: dict[str, object] = {
            "initializationType": self._init_type,
            "phase": "init",
            "runtimeVersion": self._runtime_version,
            "runtimeVersionArn": version_arn,
            "functionName": self._start.function_name,
            "functionVersion": self._start.function_version,
            "instanceId": self._start.log_stream,
            "instanceMaxMemory": self._start.memory_mb * _MIB,
        }
        self._record("platform.initStart", record, "INFO")

    def init_ended(self, status: InitStatus, init_ms: float, error_type: str = "") -> None:
        self._init_ms = init_ms
        if self._text:
            if status != "success":
                error = f"\tError Type: {error_type}" if error_type else ""
                self._write_line(f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: init\tStatus: {status}{error}")
            return
        record: dict[str, object] = {"initializationType": self._init_type, "phase": "init", "status": status}
        if error_type:
            record["errorType"] = error_type
        failed = status != "success"
        self._record("platform.initRuntimeDone", record, "WARN" if failed else "DEBUG")
        level: Level = "WARN" if failed else "INFO" if self._managed else "DEBUG"
        self._record("platform.initReport", record | {"metrics": {"durationMs": round(init_ms, 3)}}, level)

    def start_lines(self, request_id: str, at: float) -> list[str]:
        """What is said of an invocation that began `at`, in seconds of the epoch."""
        version = self._start.function_version
        if self._text:
            return [f"START RequestId: {request_id} Version: {version}"]
        if self._managed:
            return self._shown(at, started(request_id, version, self._start.function_arn))
        return self._shown(
            at, Record("platform.start", {"requestId": request_id, "version": version, **self._tenant}, "INFO")
        )

    def end_lines(self, ended: Ended, at: float, max_memory_bytes: int) -> list[str]:
        """What is said of an invocation that ended `at`; once, since only the first report tells of the init. Memory counts on demand only."""
        if self._text:
            lines = self._text_report(ended, at, max_memory_bytes)
        elif self._managed:
            lines = self._shown(at, reported(ended.request_id, ended.status, ended.duration_ms, ended.error_type))
        else:
            lines = self._shown(at, *self._reports(ended, max_memory_bytes))
        self._init_ms = None
        return lines

    def note(self, message: str) -> None:
        """Something the operator should know, for example that another Python than the named one runs the function."""
        if self._text:
            self._write_line(f"LAMBSTEAD {message}")
        else:
            self._record("lambstead.note", {"message": message}, "WARN")

    def runtime_exited(self, message: str, error_type: str = "Runtime.ExitError") -> None:
        """The end of the runtime or of a worker, in the platform's words."""
        if self._text:
            self._write_line(f"{message}\n{error_type}")
        else:
            self._record("lambstead.runtimeExit", {"errorType": error_type, "message": message}, "WARN")

    def _text_report(self, ended: Ended, at: float, max_memory_bytes: int) -> list[str]:
        request_id = ended.request_id
        lines = []
        if ended.status == "timeout":
            lines.append(f"{timestamp_of(at)} {request_id} {timed_out_message(ended.timeout_ms)}\n")
        fields = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {ended.duration_ms:.2f} ms",
            f"Billed Duration: {ceil(ended.duration_ms)} ms",
            f"Memory Size: {self._start.memory_mb} MB",
            f"Max Memory Used: {ceil(max_memory_bytes / _MIB)} MB",
        ]
        if self._init_ms is not None:
            fields.append(f"Init Duration: {self._init_ms:.2f} ms")
        if ended.status in ("timeout", "failure"):
            fields.append(f"Status: {'timeout' if ended.status == 'timeout' else 'error'}")
            if ended.status == "failure" and ended.error_type:
                fields.append(f"Error Type: {ended.error_type}")
        return [*lines, f"END RequestId: {request_id}\n" + "\t".join(fields) + "\t"]

    def _reports(self, ended: Ended, max_memory_bytes: int) -> tuple[Record, Record]:
        record: dict[str, object] = {"requestId": ended.request_id, **self._tenant, "status": ended.status}
        if ended.error_type:
            record["errorType"] = ended.error_type
        metrics: dict[str, object] = {"durationMs": round(ended.duration_ms, 3)}
        level: Level = "INFO" if ended.status == "success" else "WARN"
        done = Record(
            "platform.runtimeDone", record | {"metrics": dict(metrics)}, "DEBUG" if level == "INFO" else "WARN"
        )
        metrics |= {
            "billedDurationMs": ceil(ended.duration_ms),
            "memorySizeMB": self._start.memory_mb,
            "maxMemoryUsedMB": ceil(max_memory_bytes / _MIB),
        }
        if self._init_ms is not None:
            metrics["initDurationMs"] = round(self._init_ms, 3)
        return done, Record("platform.report", record | {"metrics": metrics}, level)

    def _shown(self, at: float, *records: Record) -> list[str]:
        """Those that the function's log level lets through."""
        return [
            msgspec.json.encode(record.document(timestamp_of(at))).decode()
            for record in records
            if record.is_shown(self._start.system_log_level)
        ]

    def _record(self, type_: str, record: dict[str, object], level: Level) -> None:
        for line in self._shown(time.time(), Record(type_, record, level)):
            self._write_line(line)
