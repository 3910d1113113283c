"""Objects: put, got, described, copied, deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3 import conditions
from celaje.cloud.s3.access import (
    bucket_of,
    bucket_to_look_in,
    found_bucket,
    may_have,
    moment,
    object_of,
    refuse_unimplemented,
    require,
)
from celaje.cloud.s3.attributes import (
    answered_checksum,
    attributes_of,
    declared_algorithm,
    default_algorithm,
    described,
    refuse_bypass,
    refuse_other_features,
)
from celaje.cloud.s3.bodies import LARGEST_PUT, answer_body, receive, request_body
from celaje.cloud.s3.conditions import quoted
from celaje.cloud.s3.encryption import answered_encryption, key_for, wanted_encryption
from celaje.cloud.s3.expiry import calendar_of, expiration_told
from celaje.cloud.s3.grants import of_new_object
from celaje.cloud.s3.names import copy_source, key_of
from celaje.cloud.s3.ranges import wanted_span
from celaje.cloud.s3.store.checksums import ALGORITHMS
from celaje.cloud.s3.store.group_commit import Pending
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.objects import Change, Condition, Opened
from celaje.cloud.s3.store.receive import Received
from celaje.cloud.s3.store.records import Attributes, Bucket
from celaje.cloud.s3.store.refusals import invalid_argument, invalid_request
from celaje.cloud.s3.versions import answered_version, found_object, opened_object, told_version, wanted_version

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

MOST_DELETED = 1000


class ObjectActions:
    """What is asked of single objects, and of many to be deleted."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    # --- put ---

    def put_object(self, call: Call, request: s3.PutObjectRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        key = key_of(request["Key"])
        attributes = owned(call, bucket, attributes_of(request), request)
        encryption = wanted_encryption(bucket, request)
        condition = conditions.of_writing(request, key)
        if condition is not None:
            condition(self._store.objects.find(bucket, key))  # before a long body; once more when it is put
        body = request_body(request.get("Body", b""))
        received = receive(self._store, body, declared_algorithm(request), encryption=encryption)
        new = self._put(bucket, key, received, attributes, condition).result().after
        assert new is not None
        return {
            "ETag": quoted(received.md5.hex()),
            "VersionId": new.version or None,
            "Expiration": expiration_told(bucket, new, calendar_of(call)),
            **answered_encryption(new.attributes, request),
            **answered_checksum(received.checksum),
        }

    def copy_object(self, call: Call, request: s3.CopyObjectRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        key = key_of(request["Key"])
        refuse_other_features(request)
        _check_directives(request)
        encryption = wanted_encryption(bucket, request)
        condition = conditions.of_writing(request, key)
        algorithm = declared_algorithm(request)
        with opened_source(self._store, call, request) as (source, opened):
            found = opened.object
            conditions.check_source(request, found)
            if found.size > LARGEST_PUT:
                raise invalid_request(
                    "The specified copy source is larger than the maximum allowable size for a copy source:"
                    f" {LARGEST_PUT}"
                )
            if found.attributes.tags and request.get("TaggingDirective", "COPY") != "REPLACE":
                self._require_tags(call, request, source, bucket)
            # What is not the current version may well be copied over it.
            named = "?versionId=" in str(request["CopySource"])
            to_itself = (source.number, found.key) == (bucket.number, key) and not named
            # S3 takes any of these for a change, the storage class that the object has as well.
            by_default = bucket.settings.encryption
            changes = (by_default is not None and not by_default.unasked) or any(
                request.get(member) is not None
                for member in ("StorageClass", "ServerSideEncryption", "SSECustomerKey", "WebsiteRedirectLocation")
            )
            attributes = _copied_attributes(request, found.attributes, to_itself=to_itself and not changes)
            attributes = owned(call, bucket, attributes, request)
            kept = found.attributes.checksum
            wanted = algorithm or (ALGORITHMS[kept.algorithm] if kept else default_algorithm())
            received = self._store.again(opened, wanted, encryption=encryption)
        new = self._put(bucket, key, received, attributes, condition).result().after
        assert new is not None
        return {
            "CopyObjectResult": {
                "ETag": quoted(new.etag),
                "LastModified": moment(new.modified),
                **answered_checksum(received.checksum),
            },
            "VersionId": new.version or None,
            "CopySourceVersionId": found.version or None,
            "Expiration": expiration_told(bucket, new, calendar_of(call)),
            **answered_encryption(new.attributes, request),
        }

    def _require_tags(
        self, call: Call, request: s3.CopyObjectRequestTypeDef, source: Bucket, bucket: Bucket
    ) -> None:
        """AccessDenied where whoever copies an object's tags with it may not read them, or not set them."""
        _, key, version = copy_source(str(request["CopySource"]))
        action = "s3:GetObjectTagging" if version is None else "s3:GetObjectVersionTagging"
        require(self._store, call, source, action, key.decode(), {}, version)
        require(self._store, call, bucket, "s3:PutObjectTagging", str(request["Key"]), request)

    def _put(
        self,
        bucket: Bucket,
        key: bytes,
        received: Received,
        attributes: Attributes,
        condition: Condition | None,
    ) -> Pending[Change]:
        return self._store.objects.put(bucket, key, received, with_checksum(attributes, received), condition)

    # --- get ---

    def get_object(self, call: Call, request: s3.GetObjectRequestTypeDef) -> Answer:
        bucket, opened = object_of(self._store, call, request, opened_object)
        try:
            opened.client_key = key_for(opened.object.attributes, request)
            conditions.check_reading(request, opened.object)
            span = wanted_span(opened.object, request.get("Range"), request.get("PartNumber"))
            answer = described(bucket, opened.object, span, request, calendar_of(call))
            return {**answer, "Body": answer_body(opened, span)}
        except BaseException:
            opened.close()
            raise

    def head_object(self, call: Call, request: s3.HeadObjectRequestTypeDef) -> Answer:
        bucket, found = object_of(self._store, call, request, found_object)
        key_for(found.attributes, request)
        conditions.check_reading(request, found)
        span = wanted_span(found, request.get("Range"), request.get("PartNumber"))
        return described(bucket, found, span, request, calendar_of(call))

    def get_object_attributes(self, call: Call, request: s3.GetObjectAttributesRequestTypeDef) -> Answer:
        bucket, found = object_of(self._store, call, request, found_object)
        attributes = found.attributes
        key_for(attributes, request)
        wanted = request["ObjectAttributes"]
        answer: dict[str, object] = {
            "LastModified": moment(found.modified),
            "VersionId": answered_version(bucket, found),
        }
        if "ETag" in wanted:
            answer["ETag"] = found.etag
        if "Checksum" in wanted:
            # Here alone S3 tells a composite one without the number of its parts.
            answer["Checksum"] = {
                name: value.partition("-")[0] for name, value in answered_checksum(attributes.checksum).items()
            } or None
        if "StorageClass" in wanted:
            answer["StorageClass"] = attributes.storage_class
        if "ObjectSize" in wanted:
            answer["ObjectSize"] = found.size
        if "ObjectParts" in wanted and attributes.parts:
            answer["ObjectParts"] = _parts_answered(attributes, request)
        return answer

    # --- delete ---

    def delete_object(self, call: Call, request: s3.DeleteObjectRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        refuse_unimplemented(request, ("MFA", "IfMatchLastModifiedTime", "IfMatchSize"))
        refuse_bypass(request)
        key = key_of(request["Key"])
        condition = conditions.of_deleting(request.get("IfMatch"), key)
        version = wanted_version(bucket, request.get("VersionId"))
        change = self._store.objects.delete(bucket, key, condition, version).result()
        if version is not None:
            there = change.before is not None and change.before.marker
            return {"VersionId": request.get("VersionId"), "DeleteMarker": there or None}
        marker = change.after
        if marker is None:
            return {}
        return {"VersionId": told_version(marker.version), "DeleteMarker": True}

    def delete_objects(self, call: Call, request: s3.DeleteObjectsRequestTypeDef) -> Answer:
        bucket = bucket_to_look_in(self._store, call, request)
        # A bypass of locks is nobody's matter here, and tools that empty buckets ask for it unasked (as s3-tests do).
        refuse_unimplemented(request, ("MFA",))
        wanted = request["Delete"].get("Objects", ())
        if not 0 < len(wanted) <= MOST_DELETED:
            raise AwsError(
                "MalformedXML",
                "The XML you provided was not well-formed or did not validate against our published schema: a list of"
                f" 1 to {MOST_DELETED} objects was expected",
            )
        deleted: list[dict[str, object]] = []
        errors: list[dict[str, object]] = []
        pending: list[tuple[dict[str, object], Pending[Change]]] = []
        for each in wanted:
            named: dict[str, object] = {"Key": each["Key"], "VersionId": each.get("VersionId")}
            try:
                action = "s3:DeleteObject" if each.get("VersionId") is None else "s3:DeleteObjectVersion"
                require(self._store, call, bucket, action, each["Key"], request, each.get("VersionId"))
                refuse_unimplemented(each, ("LastModifiedTime", "Size"))
                key = key_of(each["Key"])
                condition = conditions.of_deleting(each.get("ETag"), key)
                version = wanted_version(bucket, each.get("VersionId"))
                pending.append((named, self._store.objects.delete(bucket, key, condition, version)))
            except AwsError as refused:
                errors.append({**named, "Code": refused.code, "Message": refused.message})
        for named, change in pending:
            try:
                deleted.append({**named, **_marker_told(change.result())})
            except AwsError as refused:
                errors.append({**named, "Code": refused.code, "Message": refused.message})
        return {"Deleted": None if request["Delete"].get("Quiet") else deleted, "Errors": errors or None}


def _marker_told(change: Change) -> dict[str, object]:
    """What a deletion's answer says of the delete marker that it has made, or deleted."""
    marker = change.after or change.before
    if marker is None or not marker.marker:
        return {}
    return {"DeleteMarker": True, "DeleteMarkerVersionId": told_version(marker.version)}


def with_checksum(attributes: Attributes, received: Received) -> Attributes:
    """The attributes of an object with that body."""
    return msgspec.structs.replace(attributes, checksum=received.checksum)


def owned(call: Call, bucket: Bucket, attributes: Attributes, request: Mapping[str, object]) -> Attributes:
    """The attributes of an object that whoever calls puts there: with its owner, and what the owner gives of it."""
    owner, given = of_new_object(call, bucket, request)
    return msgspec.structs.replace(attributes, owner=owner, grants=given)


@contextlib.contextmanager
def opened_source(
    store: ObjectStore, call: Call, request: Mapping[str, object]
) -> Iterator[tuple[Bucket, Opened]]:
    """The source of a copy, open while the block runs. NoSuchBucket, NoSuchKey, NoSuchVersion, AccessDenied,
    InvalidArgument, InvalidRequest for a delete marker."""
    name, key, version = copy_source(str(request["CopySource"]))
    owner = request.get("ExpectedSourceBucketOwner")
    bucket = found_bucket(store, name, None if owner is None else str(owner))
    action = "s3:GetObject" if version is None else "s3:GetObjectVersion"
    asked = {"Key": key.decode(), "VersionId": version}
    opened = may_have(
        store, call, bucket, (action,), asked, lambda: store.objects.open(bucket, key, wanted_version(bucket, version))
    )
    with contextlib.closing(opened):
        if opened.object.marker:
            raise invalid_request(
                "The source of a copy request may not specifically refer to a delete marker by version id."
            )
        opened.client_key = key_for(opened.object.attributes, request, "CopySource")
        yield bucket, opened


def _check_directives(request: s3.CopyObjectRequestTypeDef) -> None:
    """InvalidArgument where a copy says neither to take along nor to replace."""
    for what, directive in (
        ("metadata", request.get("MetadataDirective")),
        ("tagging", request.get("TaggingDirective")),
    ):
        if directive not in (None, "COPY", "REPLACE"):
            raise invalid_argument(f"x-amz-{what}-directive", directive[:100], f"Unknown {what} directive.")


def _copied_attributes(request: s3.CopyObjectRequestTypeDef, old: Attributes, *, to_itself: bool) -> Attributes:
    """What the copy of an object with `old` attributes has. InvalidRequest for a copy that would change nothing."""
    replaces = request.get("MetadataDirective", "COPY") == "REPLACE"
    given = attributes_of(request)
    storage_class = given.storage_class if request.get("StorageClass") else "STANDARD"
    redirect = given.headers.get("WebsiteRedirectLocation")
    if to_itself and not replaces and storage_class == old.storage_class:
        raise invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the"
            " object's metadata, storage class, website redirect location or encryption attributes."
        )
    headers = dict(given.headers if replaces else old.headers)
    if not replaces:
        headers.pop("WebsiteRedirectLocation", None)
        if redirect is not None:
            headers["WebsiteRedirectLocation"] = redirect
    return Attributes(
        headers=headers,
        metadata=given.metadata if replaces else old.metadata,
        tags=given.tags if request.get("TaggingDirective", "COPY") == "REPLACE" else old.tags,
        storage_class=storage_class,
    )


def _parts_answered(attributes: Attributes, request: s3.GetObjectAttributesRequestTypeDef) -> dict[str, object]:
    after = int(request.get("PartNumberMarker") or 0)
    limit = min(request.get("MaxParts", 1000), 1000)
    if limit < 0 or after < 0:
        raise invalid_argument("max-parts", str(limit), "MaxParts and PartNumberMarker must not be negative")
    following = [part for part in attributes.parts if part.number > after]
    told = following[:limit]
    composite = attributes.checksum is not None and attributes.checksum.composite
    return {
        "TotalPartsCount": len(attributes.parts),
        "PartNumberMarker": after,
        "NextPartNumberMarker": told[-1].number if told else 0,
        "MaxParts": limit,
        "IsTruncated": len(following) > limit,
        "Parts": [
            {"PartNumber": part.number, "Size": part.size, **answered_checksum(part.checksum, kind=False)}
            for part in told
        ]
        if composite
        else None,
    }
