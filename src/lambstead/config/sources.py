"""Where a setting's value comes from: a flag, the environment, the file; and what it must look like."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple

from lambstead.config.durations import duration_text, parse_duration
from lambstead.core.egress import parse_rules

Switch = Literal["on", "off"]

ENVIRONMENT_PREFIX: Final = "LAMBSTEAD_"
MARKS_OF_CHILDREN: Final = frozenset({"LAMBSTEAD_ENVIRONMENT_ID", "LAMBSTEAD_INSTANCE_ID"})
"""Set by agents for the processes they start, by which these are found again; no settings."""
SECRETS: Final = frozenset({"secret_access_key"})
"""Settings whose value no message shows."""

_URL = r"https?://[A-Za-z0-9.\-\[\]:]+/?"
_ZONE = r"[a-z]{2}(-[a-z]+)+-\d{1,2}[a-z]"


class SettingsError(Exception):
    """A setting cannot be used: the operator's mistake, told in one sentence that names the key and the bad value."""


class _Found(NamedTuple):
    """A value as somebody wrote it; None when nobody did."""

    place: str
    """Where it stands, for messages."""
    value: object | None
    base: Path
    """What a relative path is relative to."""


class Sources:
    """The places a setting may come from. Each method returns one checked value or raises SettingsError."""

    def __init__(
        self,
        flags: Mapping[str, object],
        environ: Mapping[str, str],
        file_values: Mapping[str, object],
        file: Path,
        home: Path,
    ) -> None:
        self._flags = flags
        self._environ = environ
        self._file_values = file_values
        self._file = file
        self._home = home

    def integer(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        text = str(value).strip()
        # Sixteen digits are far beyond every limit here and far below what int() refuses.
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,16}", text) and not isinstance(value, bool) else None
        if number is None or not least <= number <= most:
            raise SettingsError(f"{place}: {_shown(value)} is not a whole number from {least} to {most}.")
        return number

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A number from `least` to `most`."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        text = str(value).strip()
        number = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None
        if number is None or isinstance(value, bool) or not least <= number <= most:
            raise SettingsError(f"{place}: {_shown(value)} is not a number from {least:g} to {most:g}.")
        return number

    def duration(self, key: str, default: timedelta, least: timedelta, most: timedelta) -> timedelta:
        """A duration from `least` to `most`."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        found = None if isinstance(value, bool) else parse_duration(str(value))
        if found is None or not least <= found <= most:
            raise SettingsError(
                f"{place}: {_shown(value)} is not a duration from {duration_text(least)} to {duration_text(most)} "
                "(write 500ms, 2s, 10m or 1h)."
            )
        return found

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """One of `choices`."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        if value not in choices:
            raise SettingsError(f"{place}: {_shown(value)} is not one of {', '.join(choices)}.")
        return str(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        text = str(value).strip().lower()
        if text not in ("true", "false", "1", "0"):
            raise SettingsError(f"{place}: {_shown(value)} is neither true nor false.")
        return text in ("true", "1")

    def switch(self, key: str, default: Switch) -> Switch:
        """`on` or `off`; true and false as TOML has them, and as a flag gives them, are the same."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        if value is True or value == "on":
            return "on"
        if value is False or value == "off":
            return "off"
        raise SettingsError(f"{place}: {_shown(value)} is not one of on, off.")

    def matching(self, key: str, default: str, pattern: str, example: str) -> str:
        """A text that `pattern` matches from end to end."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            shown = "the value" if key in SECRETS else _shown(value)
            raise SettingsError(f"{place}: {shown} does not look like one; an example is {example}.")
        return value

    def url(self, key: str) -> str:
        """An http or https URL without a path; empty if nobody names one."""
        return self.matching(key, "", _URL, "http://127.0.0.1:9324")

    def endpoints(self, key: str) -> str:
        """URLs by the signing name of a service; empty if nobody says."""
        place, value, _ = self._find(key)
        if value is None:
            return ""
        for each in str(value).split(","):
            service, _, url = each.partition("=")
            if not re.fullmatch(r"[a-z0-9-]+", service.strip()) or not re.fullmatch(_URL, url.strip()):
                raise SettingsError(
                    f"{place}: {_shown(each)} is not a service and its URL; an example is dynamodb=http://127.0.0.1:8000."
                )
        return str(value)

    def subnet_zones(self, key: str) -> str:
        """Zones by subnet; empty if nobody says."""
        place, value, _ = self._find(key)
        if value is None:
            return ""
        for each in str(value).split(","):
            subnet, _, zone = each.partition("=")
            if not re.fullmatch(r"subnet-[0-9A-Za-z]+", subnet.strip()) or not re.fullmatch(_ZONE, zone.strip()):
                raise SettingsError(
                    f"{place}: {_shown(each)} is not a subnet and its zone; an example is subnet-1=us-east-1c."
                )
        return str(value)

    def egress_rules(self, key: str) -> str:
        """What security groups stand for; empty if nobody says."""
        place, value, _ = self._find(key)
        if value is None:
            return ""
        try:
            parse_rules(str(value))
        except ValueError as exc:
            raise SettingsError(f"{place}: {exc}.") from exc
        return str(value)

    def loopback(self, key: str, default: str) -> str:
        """An address of this machine that no other machine can reach."""
        place, value, _ = self._find(key)
        if value is None:
            return default
        if not _is_loopback(value):
            raise SettingsError(
                f"{place}: {_shown(value)} is not a loopback address. Lambstead accepts any credentials, so it only "
                "listens where no other machine can reach it; use 127.0.0.1."
            )
        return str(value)

    def path(self, key: str, default: Path) -> Path:
        """An absolute path; relative ones in the file are relative to the file."""
        place, value, base = self._find(key)
        if value is None:
            return default
        text = str(value)
        if not isinstance(value, str | Path) or not text.strip() or "\0" in text:
            raise SettingsError(f"{place}: {_shown(value)} is not a path.")
        path = self._home / text[2:] if text.startswith("~/") else Path(text)
        return path if path.is_absolute() else base / path

    def refuse_unknown(self, known: Sequence[str]) -> None:
        """Raise SettingsError for the first key of the file or the environment that is no setting."""
        in_file = [key for key in known if key != "data_dir"]
        for key in self._file_values:
            if key not in in_file:
                raise SettingsError(f"{self._file}: {key} is not a setting of this file{_nearest(key, in_file)}")
        endings = [_variable(key).removeprefix(ENVIRONMENT_PREFIX) for key in known]
        for name in self._environ:
            ending = name.removeprefix(ENVIRONMENT_PREFIX)
            if name != ending and ending not in endings and name not in MARKS_OF_CHILDREN:
                nearest = _nearest(ending, endings, ENVIRONMENT_PREFIX)
                raise SettingsError(f"The environment variable {name} is not a setting{nearest}")

    def _find(self, key: str) -> _Found:
        """The value of the first place that has one. An empty environment variable counts as unset."""
        if (value := self._flags.get(key)) is not None:
            return _Found(f"--{key.removesuffix('_dir').replace('_', '-')}", value, Path.cwd())
        if text := self._environ.get(_variable(key)):
            return _Found(_variable(key), text, Path.cwd())
        return _Found(f"{self._file}: {key}", self._file_values.get(key), self._file.parent)


def _variable(key: str) -> str:
    """The environment variable of a setting. The data directory is called like its flag."""
    return ENVIRONMENT_PREFIX + ("DATA" if key == "data_dir" else key.upper())


def read_file(file: Path) -> Mapping[str, object]:
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{file} cannot be read: {exc}.") from exc
    if not text:
        return {}
    import tomllib  # 15 ms that a command without a file need not spend

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{file} is not valid TOML: {exc}.") from exc


def _is_loopback(value: object) -> bool:
    if value in ("localhost", "127.0.0.1"):
        return True
    import ipaddress  # the usual answers do not need it

    try:
        return isinstance(value, str) and ipaddress.ip_address(value).is_loopback
    except ValueError:
        return False


def _shown(value: object) -> str:
    """The bad value, quoted and short enough for one line."""
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """The end of a sentence that refuses `name`: a proposal where one is near."""
    import difflib  # only after a mistake

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else "."
