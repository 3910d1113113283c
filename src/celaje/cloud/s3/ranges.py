"""Ranges of an object (RFC 9110, 14): one at a time, as S3 has it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.store.records import StoredObject
from celaje.cloud.s3.store.refusals import invalid_argument, invalid_request

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*\Z", re.ASCII)
_COPY_RANGE = re.compile(r"bytes=(\d+)-(\d+)\Z", re.ASCII)
_LONGEST = 56  # characters of a range: two numbers of 20 digits, and what stands around them


@dataclass(frozen=True, slots=True)
class Span:
    """`length` bytes from `start`. `header`: Content-Range, where a part of the whole was asked for; `part`: its
    number."""

    start: int
    length: int
    header: str | None = None
    part: int | None = None


def wanted_span(found: StoredObject, header: str | None, part: int | None) -> Span:
    """What a GET or HEAD asks for: the whole, a range, or a part. InvalidRange and InvalidPartNumber (416)."""
    if part is not None:
        if header is not None:
            raise invalid_request("Cannot specify both Range header and partNumber query parameter")
        return _of_part(found, part)
    parsed = _RANGE.match(header) if header is not None and len(header) <= _LONGEST else None
    # What is no range of bytes, or several, is not looked at, and the whole is the answer.
    if header is None or parsed is None or parsed.groups() == ("", ""):
        return Span(0, found.size)
    first, last = parsed.groups()
    if not first:
        length = min(int(last), found.size)
        start = found.size - length
    else:
        start = int(first)
        if last and int(last) < start:
            return Span(0, found.size)
        length = min(int(last) + 1 if last else found.size, found.size) - start
    if length <= 0:
        raise AwsError(
            "InvalidRange",
            "The requested range is not satisfiable",
            416,
            {"RangeRequested": header, "ActualObjectSize": str(found.size)},
        )
    return _with_header(start, length, found.size)


def _with_header(start: int, length: int, size: int, part: int | None = None) -> Span:
    header = f"bytes {start}-{start + length - 1}/{size}" if length else None
    return Span(start, length, header, part)


def _of_part(found: StoredObject, number: int) -> Span:
    parts = found.attributes.parts
    if not 1 <= number <= max(1, len(parts)):
        raise AwsError(
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            416,
            {"PartNumberRequested": str(number), "ActualPartCount": str(max(1, len(parts)))},
        )
    if not parts:
        return _with_header(0, found.size, found.size, number)
    # Parts are told by their place, which is their number where none was left out.
    start = sum(part.size for part in parts[: number - 1])
    return _with_header(start, parts[number - 1].size, found.size, number)


def copied_span(found: StoredObject, header: str | None) -> Span:
    """What of its source a part copies; it must lie within it. InvalidArgument."""
    if header is None:
        return Span(0, found.size)
    parsed = _COPY_RANGE.match(header) if len(header) <= _LONGEST else None
    if parsed is None:
        raise invalid_argument(
            "x-amz-copy-source-range",
            header[:200],
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the"
            " zero-based offsets of the first and last bytes to copy",
        )
    first, last = map(int, parsed.groups())
    if first > last or last >= found.size:
        raise invalid_argument(
            "x-amz-copy-source-range",
            header,
            f"Range specified is not valid for source object of size: {found.size}",
        )
    return Span(first, last - first + 1)
