"""Conditions of requests: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since (RFC 9110, 13.1).

An entity tag decides before a date: where If-Match holds, If-Unmodified-Since is not looked at, and where If-None-Match
is given, If-Modified-Since is not.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from email.utils import format_datetime

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import moment
from celaje.cloud.s3.store.objects import Condition
from celaje.cloud.s3.store.records import StoredObject, Upload
from celaje.cloud.s3.store.refusals import conflicting_condition, no_such_key, precondition_failed


def plain_etag(text: str) -> str:
    """An entity tag without quotation marks."""
    return text.strip().removeprefix("W/").strip('"')


def quoted(etag: str) -> str:
    """An entity tag as answers have it."""
    return f'"{etag}"'


def _matches(value: object, etag: str) -> bool:
    return any(each.strip() == "*" or plain_etag(each) == etag for each in str(value).split(","))


def check_reading(request: Mapping[str, object], found: StoredObject) -> None:
    """PreconditionFailed (412) or NotModified (304) if the request's conditions do not hold."""
    modified = moment(found.modified)
    if (wanted := request.get("IfMatch")) is not None:
        if not _matches(wanted, found.etag):
            raise precondition_failed("If-Match")
    elif isinstance(since := request.get("IfUnmodifiedSince"), datetime.datetime) and modified > since:
        raise precondition_failed("If-Unmodified-Since")
    if (unwanted := request.get("IfNoneMatch")) is not None:
        if _matches(unwanted, found.etag):
            raise _not_modified(found)
    elif isinstance(since := request.get("IfModifiedSince"), datetime.datetime) and modified <= since:
        raise _not_modified(found)


def check_source(request: Mapping[str, object], found: StoredObject) -> None:
    """PreconditionFailed if the conditions on the source of a copy (CopySourceIf…) do not hold."""
    named = {
        member: request.get(f"CopySource{member}")
        for member in ("IfMatch", "IfNoneMatch", "IfModifiedSince", "IfUnmodifiedSince")
    }
    try:
        check_reading(named, found)
    except AwsError as refused:
        if refused.status == 304:
            condition = "x-amz-copy-source-If-None-Match"
            if named["IfNoneMatch"] is None:
                condition = "x-amz-copy-source-If-Modified-Since"
            raise precondition_failed(condition) from None
        raise


def of_writing(request: Mapping[str, object], key: bytes) -> Condition | None:
    """What a PUT asks of what is there. NotImplemented for If-None-Match with a tag, If-Match with *, and for both."""
    match, none_match = request.get("IfMatch"), request.get("IfNoneMatch")
    if match is not None and none_match is not None:
        raise _not_implemented("If-Match,If-None-Match", "Multiple conditional request headers present in the request")
    for header, value, taken in (("If-Match", match, match != "*"), ("If-None-Match", none_match, none_match == "*")):
        if value is not None and not taken:
            why = f"We don't accept the provided value of {header} header for this API"
            raise _not_implemented(header, why)
    if match is None and none_match is None:
        return None

    def condition(found: StoredObject | None) -> None:
        if none_match is not None and found is not None:
            raise precondition_failed("If-None-Match")
        if match is not None:
            if found is None:
                raise no_such_key(key)
            if not _matches(match, found.etag):
                raise precondition_failed("If-Match")

    return condition


def of_completing(request: Mapping[str, object], upload: Upload) -> Condition | None:
    """The same of the completion of an upload. ConditionalRequestConflict where what is there is what the request
    names, but was put after the upload was begun."""
    condition = of_writing(request, upload.key)
    if condition is None or request.get("IfMatch") is None:
        return condition

    def unchanged(found: StoredObject | None) -> None:
        condition(found)
        if found is not None and found.modified > upload.initiated:
            raise conflicting_condition("If-Match", upload.key)

    return unchanged


def _not_implemented(header: str, why: str) -> AwsError:
    return AwsError(
        "NotImplemented",
        "A header you provided implies functionality that is not implemented",
        501,
        {"Header": header, "additionalMessage": why},
    )


def of_deleting(match: object, key: bytes) -> Condition | None:
    """What a DELETE asks of what is there. NoSuchKey where that is nothing."""
    if match is None:
        return None

    def condition(found: StoredObject | None) -> None:
        if found is None:
            raise no_such_key(key)
        if not _matches(match, found.etag):
            raise precondition_failed("If-Match")

    return condition


def _not_modified(found: StoredObject) -> AwsError:
    """Has no body; its fields are headers."""
    modified = format_datetime(moment(found.modified), usegmt=True)
    return AwsError("NotModified", "Not Modified", 304, {"ETag": quoted(found.etag), "Last-Modified": modified})
