"""Listings of objects (versions 1 and 2, and "versions") and of unfinished uploads."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import bucket_of, moment, owner_of
from celaje.cloud.s3.attributes import declared_checksum, kind_of
from celaje.cloud.s3.conditions import quoted
from celaje.cloud.s3.grants import initiator_of, owner_of_object
from celaje.cloud.s3.store.listing import Page
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Bucket, StoredObject
from celaje.cloud.s3.store.refusals import invalid_argument
from celaje.cloud.s3.store.versions import NULL, is_version_id
from celaje.cloud.s3.versions import told_version

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

MOST_KEYS = 1000

Told = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What every listing is asked: `after` is the place that it begins after, `told` how keys are written."""

    prefix: bytes
    delimiter: bytes
    after: bytes
    limit: int
    told: Told
    encoding: str | None

    def answer(self, prefixes: list[bytes], more: bool) -> dict[str, object]:
        """What every listing answers."""
        return {
            "Prefix": self.told(self.prefix),
            "Delimiter": self.told(self.delimiter) if self.delimiter else None,
            "EncodingType": self.encoding,
            "IsTruncated": more,
            "CommonPrefixes": [{"Prefix": self.told(each)} for each in prefixes],
        }


def _asked(request: Mapping[str, object], after: str, limit: str) -> Asked:
    """The same of a request, whose members `after` and `limit` are its place and its limit. InvalidArgument."""
    encoding = request.get("EncodingType")
    encoding = None if encoding is None else str(encoding)
    return Asked(
        _bytes(request, "Prefix"),
        _bytes(request, "Delimiter"),
        _bytes(request, after),
        _limit(request.get(limit), limit),
        _told(encoding),
        encoding,
    )


class ListingActions:
    """What is asked of many keys at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def list_objects(self, call: Call, request: s3.ListObjectsRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        asked = _asked(request, "Marker", "MaxKeys")
        page = self._page(bucket, asked)
        return {
            **asked.answer(page.prefixes, page.last is not None),
            "Name": bucket.name,
            "Prefix": _as_it_is(asked),
            "Marker": asked.told(asked.after),
            "MaxKeys": asked.limit,
            "NextMarker": asked.told(page.last) if page.last is not None and asked.delimiter else None,
            "Contents": [_described(bucket, found, asked.told, owner=True) for found in page.entries],
        }

    def _page(self, bucket: Bucket, asked: Asked) -> Page[StoredObject]:
        return self._store.objects.page(
            bucket, prefix=asked.prefix, delimiter=asked.delimiter, after=asked.after, limit=asked.limit
        )

    def list_objects_v2(self, call: Call, request: s3.ListObjectsV2RequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        asked = _asked(request, "StartAfter", "MaxKeys")
        start, token = asked.after, request.get("ContinuationToken")
        if token is not None:
            asked = replace(asked, after=_place(token))
        page = self._page(bucket, asked)
        owner = bool(request.get("FetchOwner"))
        return {
            **asked.answer(page.prefixes, page.last is not None),
            "Name": bucket.name,
            "StartAfter": asked.told(start) if start else None,
            "MaxKeys": asked.limit,
            "KeyCount": len(page.entries) + len(page.prefixes),
            "ContinuationToken": token,
            "NextContinuationToken": _token(page.last) if page.last is not None else None,
            "Contents": [_described(bucket, found, asked.told, owner=owner) for found in page.entries],
        }

    def list_object_versions(self, call: Call, request: s3.ListObjectVersionsRequestTypeDef) -> Answer:
        """Each object of a bucket that never had versions is its one version, `null`."""
        bucket = bucket_of(self._store, call, request)
        asked = _asked(request, "KeyMarker", "MaxKeys")
        marker = request.get("VersionIdMarker") or None
        if marker is not None and not asked.after:
            raise invalid_argument(
                "version-id-marker", marker[:200], "A version-id marker cannot be specified without a key marker."
            )
        if marker is not None and not is_version_id(marker):
            raise invalid_argument("version-id-marker", marker[:200], "Invalid version id specified")
        page = self._store.objects.versions_page(
            bucket,
            prefix=asked.prefix,
            delimiter=asked.delimiter,
            after=asked.after,
            after_version="" if marker == NULL else marker,
            limit=asked.limit,
        )
        last_is_version = bool(page.entries) and page.entries[-1][0].key == page.last
        return {
            **asked.answer(page.prefixes, page.last is not None),
            "Name": bucket.name,
            "KeyMarker": asked.told(asked.after),
            "VersionIdMarker": marker or "",
            "MaxKeys": asked.limit,
            "NextKeyMarker": asked.told(page.last) if page.last is not None else None,
            "NextVersionIdMarker": told_version(page.entries[-1][0].version) if last_is_version else None,
            "Versions": [
                {
                    **_described(bucket, found, asked.told, owner=True),
                    "VersionId": told_version(found.version),
                    "IsLatest": newest,
                }
                for found, newest in page.entries
                if not found.marker
            ],
            "DeleteMarkers": [
                {
                    "Key": asked.told(found.key),
                    "VersionId": told_version(found.version),
                    "IsLatest": newest,
                    "LastModified": moment(found.modified),
                    "Owner": owner_of(bucket.account),
                }
                for found, newest in page.entries
                if found.marker
            ],
        }

    def list_multipart_uploads(self, call: Call, request: s3.ListMultipartUploadsRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        asked = _asked(request, "KeyMarker", "MaxUploads")
        after_upload = request.get("UploadIdMarker", "") if asked.after else ""
        page = self._store.uploads.page(
            bucket,
            prefix=asked.prefix,
            delimiter=asked.delimiter,
            after=asked.after,
            after_upload=after_upload,
            limit=asked.limit,
        )
        last_is_upload = bool(page.entries) and page.entries[-1].key == page.last
        return {
            **asked.answer(page.prefixes, page.last is not None),
            "Bucket": bucket.name,
            "KeyMarker": asked.told(asked.after),
            "UploadIdMarker": after_upload,
            "MaxUploads": asked.limit,
            "NextKeyMarker": asked.told(page.last) if page.last is not None else None,
            "NextUploadIdMarker": page.entries[-1].identifier if last_is_upload else None,
            "Uploads": [
                {
                    "Key": asked.told(upload.key),
                    "UploadId": upload.identifier,
                    "Initiated": moment(upload.initiated),
                    "Initiator": initiator_of(bucket, upload),
                    "Owner": owner_of(upload.plan.attributes.owner or bucket.account),
                    "StorageClass": upload.plan.attributes.storage_class,
                    **declared_checksum(upload.plan),
                }
                for upload in page.entries
            ],
        }


def _described(bucket: Bucket, found: StoredObject, told: Told, *, owner: bool) -> dict[str, object]:
    checksum = found.attributes.checksum
    return {
        "Key": told(found.key),
        "LastModified": moment(found.modified),
        "ETag": quoted(found.etag),
        "Size": found.size,
        "StorageClass": found.attributes.storage_class,
        "ChecksumAlgorithm": [checksum.algorithm] if checksum is not None else None,
        "ChecksumType": kind_of(checksum) if checksum is not None else None,
        "Owner": owner_of(owner_of_object(bucket, found.attributes)) if owner else None,
    }


def _as_it_is(asked: Asked) -> str:
    """The prefix as version 1 tells it, whose clients decode all else: not encoded, if XML can have it."""
    prefix = asked.prefix.decode()
    return prefix if prefix.replace("\n", "").isprintable() else asked.told(asked.prefix)


def _told(encoding: str | None) -> Told:
    """How keys are written in an answer: XML cannot have every character, so clients ask for percent-encoding."""
    if encoding is None:
        return lambda key: key.decode()
    if encoding != "url":
        raise invalid_argument("encoding-type", encoding[:200], "Invalid Encoding Method specified in Request")
    return lambda key: quote(key, safe="/")


def _bytes(request: Mapping[str, object], member: str) -> bytes:
    try:
        return str(request.get(member) or "").encode()
    except UnicodeEncodeError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None


def _limit(given: object, name: str) -> int:
    if given is None:
        return MOST_KEYS
    if not isinstance(given, int) or not 0 <= given < 1 << 31:
        raise invalid_argument(name, str(given), f"Argument {name} must be an integer between 0 and 2147483647")
    return min(given, MOST_KEYS)


def _token(last: bytes) -> str:
    return base64.urlsafe_b64encode(b"1" + last).decode()


def _place(token: str) -> bytes:
    try:
        place = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        place.decode()
    except ValueError:
        place = b""
    if place[:1] != b"1":
        raise invalid_argument("continuation-token", token[:200], "The continuation token provided is incorrect")
    return place[1:]
