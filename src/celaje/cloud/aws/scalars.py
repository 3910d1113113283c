"""Scalar values as text, in both directions: what a request's parameters and headers say, and what answers write.

Reading refuses with `ValueError`, whose text completes "expected …"; the protocol's dialect words the rest.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}\Z", re.ASCII)
# Bounded, and in one way only: a text of digits must not be tried in all the ways in which it can be divided.
_FLOAT = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?\Z", re.ASCII)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?([Zz]|[+-]\d\d:?\d\d)?\Z", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_integer(text: str) -> int:
    """32 bits, signed."""
    return _integer(text, 32)


def read_long(text: str) -> int:
    return _integer(text, 64)


def _integer(text: str, bits: int) -> int:
    if not _INTEGER.match(text):
        raise ValueError("an integer")
    value = int(text)
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise ValueError(f"an integer of {bits} bits")
    return value


def read_float(text: str) -> float:
    if not _FLOAT.match(text):
        raise ValueError("a number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return value


def read_boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered == "true":
        return True
    if lowered == "false":
        return False
    raise ValueError("true or false")


def read_blob(text: str) -> bytes:
    """Base64, with or without padding and line ends."""
    bare = "".join(text.split())
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("base64") from error


def read_timestamp(text: str) -> datetime:
    """ISO 8601, RFC 822 or seconds since 1970: clients send each of them, whatever the model names."""
    match = _ISO.match(text)
    try:
        if match is not None:
            year, month, day, hour, minute, second, fraction, zone = match.groups()
            moment = datetime(
                int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
                int((fraction or "0").ljust(6, "0")[:6]), tzinfo=UTC,
            )  # fmt: skip
            if zone and zone not in "Zz":
                offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
                moment += offset if zone[0] == "-" else -offset
            return moment
        if _FLOAT.match(text):
            return _EPOCH + timedelta(seconds=float(text))
        if "," in text:
            moment = parsedate_to_datetime(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        pass
    raise ValueError("a timestamp such as 2026-01-31T12:00:00Z")


def read_string(text: str) -> str:
    return text


READERS: dict[str, Callable[[str], object]] = {
    "string": read_string,
    "character": read_string,
    "integer": read_integer,
    "long": read_long,
    "float": read_float,
    "double": read_float,
    "boolean": read_boolean,
    "blob": read_blob,
    "timestamp": read_timestamp,
}


def write_iso(moment: datetime) -> str:
    """`2026-01-31T12:00:00.000Z`: milliseconds always, as EC2 and S3 have them in their answers."""
    return _in_utc(moment).isoformat(timespec="milliseconds")[:-6] + "Z"


def write_iso_seconds(moment: datetime) -> str:
    """`2026-01-31T12:00:00Z`, as STS and IAM have it."""
    return _in_utc(moment).isoformat(timespec="seconds")[:-6] + "Z"


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def write_http_date(moment: datetime) -> str:
    """`Sat, 31 Jan 2026 12:00:00 GMT` (RFC 9110 section 5.6.7), as in headers."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def write_epoch(moment: datetime) -> float | int:
    """Seconds since 1970, whole where they are whole, as in JSON."""
    seconds = (moment.astimezone(UTC) - _EPOCH) / timedelta(seconds=1)
    return int(seconds) if seconds == int(seconds) else round(seconds, 3)


def write_boolean(value: object) -> str:
    return "true" if value else "false"


def write_blob(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
