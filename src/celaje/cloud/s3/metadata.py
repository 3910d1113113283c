"""Metadata of users (`x-amz-meta-…`), whose values are more than headers can have.

A client that has other characters than ASCII's encodes them (RFC 2047): S3 decodes such words, keeps the text, and
tells a text that has more than printable ASCII as one encoded word in UTF-8: `Q`, or `B` if there is a character in it
that cannot be printed. A value that comes in other bytes is taken for UTF-8 where it is that, otherwise for ISO 8859-1;
S3 takes it always for the latter, so that a client that sends UTF-8 as it is gets rubbish back from it.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.header import decode_header

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.store.refusals import invalid_argument

LARGEST = 2048
"""Bytes of names and values together."""

_ENCODED = 4
"""Times as long is a text at most that was encoded, in words of 75 characters. What is longer is not decoded: that
takes a time that is quadratic in the words that are begun and not ended."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*")  # RFC 9110, 5.6.2
_PLAIN = frozenset(chr(code) for code in range(0x20, 0x7F)) | {"\t"}
_QUOTED = {code: f"={code:02X}" for code in range(256)}
_QUOTED |= {ord(each): each for each in _PLAIN - set("=?_ ")} | {ord(" "): "_"}


def metadata_of(request: Mapping[str, object]) -> dict[str, str]:
    """What a request gives. MetadataTooLarge; InvalidArgument for a name that no header can have, as links and forms
    may give them: the object's answers would be none."""
    given = request.get("Metadata")
    if not isinstance(given, Mapping):
        return {}
    _check_size(given, _ENCODED * LARGEST)
    for name in given:
        if not _NAME.fullmatch(str(name)):
            raise invalid_argument(f"x-amz-meta-{name}", str(given[name])[:100], "The name of metadata is no header's")
    result = {str(name).lower(): _decoded(str(value)) for name, value in given.items()}
    _check_size(result, LARGEST)
    return result


def _check_size(metadata: Mapping[str, object], most: int) -> None:
    size = sum(len(str(name).encode()) + len(str(value).encode()) for name, value in metadata.items())
    if size > most:
        raise AwsError(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            400,
            {"Size": str(size), "MaxSizeAllowed": str(LARGEST)},
        )


def answered_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What an answer tells."""
    return {name: _encoded(value) for name, value in metadata.items()}


def _decoded(value: str) -> str:
    if "=?" not in value:
        return value
    try:
        pieces = decode_header(value)
        return "".join(
            piece if isinstance(piece, str) else piece.decode(charset or "latin-1", "replace")
            for piece, charset in pieces
        )
    except (HeaderParseError, LookupError, ValueError):
        return value  # it only looks like an encoded word


def _encoded(value: str) -> str:
    if _PLAIN.issuperset(value):
        return value
    data = value.encode("utf-8", "replace")
    if any(each == "\N{REPLACEMENT CHARACTER}" or unicodedata.category(each).startswith("C") for each in value):
        return f"=?UTF-8?B?{base64.b64encode(data).decode()}?="
    return f"=?UTF-8?Q?{data.decode('latin-1').translate(_QUOTED)}?="
