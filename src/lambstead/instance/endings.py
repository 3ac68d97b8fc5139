"""Why an environment is over, and how that is told: to its log, its callers and the server, in AWS's words."""

import json
from dataclasses import dataclass
from pathlib import Path

from lambstead.core.runtime_api import error_document
from lambstead.link.messages import EnvironmentExited, EnvironmentFailed

EXITS = ("Runtime.ExitError", "Runtime.OutOfMemory")
"""Ends of the runtime itself, whose words its invocations get."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an environment is over."""

    error_type: str
    """Empty when ordered."""
    message: str
    reason_code: str = "FunctionError.RuntimeInitError"
    """Counts only before init is complete."""
    document: str = ""
    """The runtime's own error document; empty to make one of type and message."""

    @property
    def is_exit(self) -> bool:
        """Whether the runtime itself ended."""
        return self.error_type in EXITS

    def last_word(self, environment_id: str, *, was_ready: bool) -> EnvironmentFailed | EnvironmentExited:
        """For the server."""
        if was_ready or not self.error_type:
            return EnvironmentExited(environment_id, self.error_type, self.message)
        document = self.document or error_document(self.error_type, self.message)
        return EnvironmentFailed(environment_id, self.error_type, document, self.reason_code)


def machine_failed(message: str, reason_code: str = "InternalError") -> Ending:
    """It is not the function's fault."""
    return Ending("Runtime.Unknown", message, reason_code)


def spawn_failed(exc: OSError, working_directory: Path) -> Ending:
    """A main process that cannot be started."""
    if not working_directory.is_dir():
        return Ending(
            "Runtime.InvalidWorkingDir",
            f"The code package's folder {working_directory} is not there.",
            "FunctionError.InvalidWorkingDirectory",
        )
    if isinstance(exc, PermissionError):
        return Ending("PermissionDenied", f"The runtime may not be started: {exc}.", "FunctionError.PermissionDenied")
    return Ending(
        "Runtime.InvalidEntrypoint", f"The runtime could not be started: {exc}.", "FunctionError.InvalidEntryPoint"
    )


def init_reported(error_type: str, text: str) -> Ending:
    """The runtime says that its init failed: its document as it is, if that is a JSON object; wrapped as a message if it is anything else."""
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    document = text if isinstance(parsed, dict) else error_document(error_type, text)
    return Ending(error_type, "", "FunctionError.RuntimeInitError", document)
