"""Names: what a bucket's may be, what a key may be, how both are found in a request, and what an answer's headers take.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_to_bytes

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.store.refusals import invalid_argument

LONGEST_KEY = 1024
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# "General purpose bucket naming rules": 3 to 63 of lower case letters, digits, dots and hyphens, a letter or digit at
# both ends of every label.
_BUCKET = re.compile(r"(?=.{3,63}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+\Z")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def is_bucket_name(name: str) -> bool:
    """Whether a bucket may have that name. What begins with a dot never may: such names are the store's own."""
    return (
        _BUCKET.match(name) is not None
        and _ADDRESS.match(name) is None
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
    )


def of_header(argument: str, text: str) -> str:
    """A text that a header of an answer is to have. InvalidArgument where it would end the header, or cannot be in one
    (RFC 9110, 5.5)."""
    if _CONTROL.search(text):
        raise invalid_argument(argument, text[:200], f"{argument} must have no control characters: a header tells it")
    return text


def key_of(text: str) -> bytes:
    """A key's bytes. KeyTooLongError; InvalidURI where the text is not UTF-8."""
    try:
        key = text.encode()
    except UnicodeEncodeError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None
    if len(key) > LONGEST_KEY:
        raise AwsError(
            "KeyTooLongError",
            "Your key is too long",
            400,
            {"Size": str(len(key)), "MaxSizeAllowed": str(LONGEST_KEY)},
        )
    return key


def copy_source(text: str) -> tuple[str, bytes, str | None]:
    """The bucket, the key and the version of x-amz-copy-source (`bucket/key` or `/bucket/key`, percent-encoded, perhaps
    with `?versionId=`). InvalidArgument."""
    path, mark, query = text.partition("?versionId=")
    try:
        source = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None
    bucket, _, key = source.removeprefix("/").partition("/")
    if not bucket or not key:
        raise invalid_argument(
            "x-amz-copy-source", text, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )
    return bucket, key_of(key), unquote(query) if mark else None
