"""What the server says on standard error: one line per event."""

import logging


def log_to_stderr(level: str) -> None:
    """Everything from this level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Fields("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class Fields(logging.Formatter):
    """`time level event key=value …`: one line per event, fields as they were given."""

    _standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = " ".join(f"{key}={value!r}" for key, value in vars(record).items() if key not in self._standard)
        head, newline, rest = line.partition("\n")
        return f"{head} {fields}{newline}{rest}" if fields else line
