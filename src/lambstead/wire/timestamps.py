"""The three timestamp formats of AWS's protocols, read leniently and written exactly.

Read: any of the formats where one is expected, because SDKs differ (epoch numbers with or without a fraction, ISO 8601 with or
without an offset, HTTP dates); a time without an offset is UTC. Written: the format that the model asks for, with milliseconds
at most, as AWS writes. Inside Lambstead a time is an aware datetime; a naive one is a bug of the caller and raises.
"""

import datetime
import email.utils
from typing import Literal, cast

Format = Literal["iso8601", "rfc822", "unixtimestamp"]


class NotATimestamp(ValueError):
    """The value is in none of the formats, or outside the years 1 to 9999."""


def declared(name: str | None, default: Format) -> Format:
    """The format a model names (`timestampFormat`, in any case), or the default of the place where the member travels."""
    return cast(Format, name.lower()) if name else default


def read(value: object) -> datetime.datetime:
    """An aware UTC datetime from a JSON number or from text. Raises NotATimestamp."""
    try:
        match value:
            case bool():
                raise NotATimestamp(value)
            case int() | float():
                return datetime.datetime.fromtimestamp(value, datetime.UTC)
            case str():
                return _read_text(value.strip())
            case _:
                raise NotATimestamp(value)
    except (ValueError, OverflowError, OSError, TypeError, IndexError) as exc:
        raise NotATimestamp(value) from exc


def _read_text(text: str) -> datetime.datetime:
    if text[:3].isalpha():
        return _utc(email.utils.parsedate_to_datetime(text))
    if text.isascii() and text.lstrip("-").replace(".", "", 1).isdigit():
        return datetime.datetime.fromtimestamp(float(text), datetime.UTC)
    return _utc(datetime.datetime.fromisoformat(text))


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)


def write(moment: datetime.datetime | float, fmt: Format) -> str | int | float:
    """The value as JSON carries it: text, or a number for `unixtimestamp`. Numbers are taken as epoch seconds."""
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    moment = moment.astimezone(datetime.UTC)
    match fmt:
        case "unixtimestamp":
            seconds = round(moment.timestamp(), 3)
            return int(seconds) if seconds.is_integer() else seconds
        case "rfc822":
            return email.utils.format_datetime(moment, usegmt=True)
        case "iso8601":
            fraction = f".{moment.microsecond // 1000:03d}" if moment.microsecond >= 1000 else ""
            return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
