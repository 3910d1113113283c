"""Versions as requests name them and answers tell them: `versionId`, x-amz-version-id, x-amz-delete-marker."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import format_datetime

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import moment
from celaje.cloud.s3.names import key_of
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.objects import Opened
from celaje.cloud.s3.store.records import Bucket, StoredObject
from celaje.cloud.s3.store.refusals import invalid_argument, is_marker, no_such_key, no_such_version
from celaje.cloud.s3.store.versions import NULL, is_version_id

_DELETE_MARKER = {"x-amz-delete-marker": "true"}


def wanted_version(bucket: Bucket, text: object, name: str = "versionId") -> str | None:
    """The version that a request names, as the store calls it; None if it names none. InvalidArgument for what cannot
    be one, and in a bucket without versions for all but the null version."""
    if text is None:
        return None
    given = str(text)
    if not given:
        raise invalid_argument(name, given, "Version id cannot be the empty string")
    if not is_version_id(given) or (given != NULL and not bucket.settings.versioning):
        raise invalid_argument(name, given[:200], "Invalid version id specified")
    return "" if given == NULL else given


def told_version(version: str) -> str:
    """A version's id as answers have it."""
    return version or NULL


def answered_version(bucket: Bucket, found: StoredObject) -> str | None:
    """What an answer about an object says of its version: nothing in a bucket that never had any."""
    return told_version(found.version) if bucket.settings.versioning else None


def found_object(store: ObjectStore, bucket: Bucket, request: Mapping[str, object]) -> StoredObject:
    """The object (or the version of it) that a request is about. NoSuchKey; NoSuchVersion; MethodNotAllowed."""
    key = key_of(str(request["Key"]))
    version = wanted_version(bucket, request.get("VersionId"))
    found = store.objects.find(bucket, key, version)
    if found is None or found.marker:
        raise _nothing(store, bucket, key, version, found)
    return found


def opened_object(store: ObjectStore, bucket: Bucket, request: Mapping[str, object]) -> Opened:
    """The same, to read its body."""
    key = key_of(str(request["Key"]))
    version = wanted_version(bucket, request.get("VersionId"))
    try:
        opened = store.objects.open(bucket, key, version)
    except AwsError as refused:
        if refused.code != "NoSuchKey":
            raise
        raise _nothing(store, bucket, key, version, None) from None
    if opened.object.marker:
        raise _nothing(store, bucket, key, version, opened.object)
    return opened


def _nothing(
    store: ObjectStore, bucket: Bucket, key: bytes, version: str | None, found: StoredObject | None
) -> AwsError:
    if found is not None:
        headers = {
            **_DELETE_MARKER,
            "x-amz-version-id": told_version(found.version),
            "Last-Modified": format_datetime(moment(found.modified), usegmt=True),
        }
        return is_marker(headers)
    if version is not None:
        return no_such_version(key, version)
    marker = store.objects.marker(bucket, key) if bucket.settings.versioning else None
    if marker is None:
        return no_such_key(key)
    return no_such_key(key, {**_DELETE_MARKER, "x-amz-version-id": told_version(marker.version)})
