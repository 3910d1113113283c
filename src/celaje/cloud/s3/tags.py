"""Tags of buckets and objects: their limits, and the ways in which requests have them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.store.refusals import invalid_argument

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

Tags = tuple[tuple[str, str], ...]

MOST_OF_OBJECT = 10
MOST_OF_BUCKET = 50
_LONGEST_KEY = 128
_LONGEST_VALUE = 256


def checked(tags: Iterable[tuple[str, str]], most: int) -> Tags:
    """The tags, if an object (or bucket) may have them. InvalidTag; BadRequest if there are too many."""
    result = tuple(tags)
    if len(result) > most:
        noun = "Object" if most == MOST_OF_OBJECT else "Bucket"
        raise AwsError("BadRequest", f"{noun} tags cannot be greater than {most}")
    if len({key for key, _ in result}) < len(result):
        raise AwsError("InvalidTag", "Cannot provide multiple Tags with the same key")
    for key, value in result:
        if not 0 < len(key) <= _LONGEST_KEY or not _is_text(key):
            raise AwsError("InvalidTag", "The TagKey you have provided is invalid", 400, {"TagKey": key[:200]})
        if len(value) > _LONGEST_VALUE or not _is_text(value):
            raise AwsError("InvalidTag", "The TagValue you have provided is invalid", 400, {"TagKey": key})
        if key.lower().startswith("aws:"):
            raise AwsError("InvalidTag", "System tags cannot be added/updated by requester", 400, {"TagKey": key})
    return result


def _is_text(text: str) -> bool:
    """Letters, numbers and separators of any script, and some others. What XML cannot carry is not among them."""
    return all(each.isalnum() or each in "_.:/=+-@" or unicodedata.category(each) == "Zs" for each in text)


def of_header(text: str | None) -> Tags:
    """Those of x-amz-tagging, which is encoded as a query. InvalidArgument; InvalidTag."""
    if not text:
        return ()
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:
        raise invalid_argument(
            "x-amz-tagging",
            text[:200],
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query",
        ) from None
    for key, _ in pairs:
        if key.lower().startswith("aws:"):
            raise AwsError("InvalidTag", "Your TagKey cannot be prefixed with aws:", 400, {"TagKey": key[:200]})
    return checked(pairs, MOST_OF_OBJECT)


def of_members(members: Iterable[s3.TagTypeDef], most: int) -> Tags:
    """Those of a TagSet. InvalidTag."""
    return checked(((each["Key"], each["Value"]) for each in members), most)


def answered(tags: Tags) -> list[dict[str, str]]:
    """Tags as answers have them: in the order of their keys, however they came."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags)]
