"""Tags of buckets and of objects: set, told, taken away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3 import tags
from celaje.cloud.s3.access import bucket_of, change_object, object_of
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Attributes, Bucket, StoredObject
from celaje.cloud.s3.versions import answered_version, found_object

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3


class TaggingActions:
    """What is asked of tags."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get_bucket_tagging(self, call: Call, request: s3.GetBucketTaggingRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        if not bucket.tags:
            raise AwsError("NoSuchTagSet", "The TagSet does not exist", 404, {"BucketName": bucket.name})
        return {"TagSet": tags.answered(bucket.tags)}

    def put_bucket_tagging(self, call: Call, request: s3.PutBucketTaggingRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        given = tags.of_members(request["Tagging"].get("TagSet", ()), tags.MOST_OF_BUCKET)
        self._store.buckets.tag(bucket, given).result()
        return {}

    def delete_bucket_tagging(self, call: Call, request: s3.DeleteBucketTaggingRequestTypeDef) -> Answer:
        self._store.buckets.tag(bucket_of(self._store, call, request), ()).result()
        return {}

    def get_object_tagging(self, call: Call, request: s3.GetObjectTaggingRequestTypeDef) -> Answer:
        bucket, found = object_of(self._store, call, request, found_object)
        return {"TagSet": tags.answered(found.attributes.tags), "VersionId": answered_version(bucket, found)}

    def put_object_tagging(self, call: Call, request: s3.PutObjectTaggingRequestTypeDef) -> Answer:
        return self._tag(
            call, request, lambda: tags.of_members(request["Tagging"].get("TagSet", ()), tags.MOST_OF_OBJECT)
        )

    def delete_object_tagging(self, call: Call, request: s3.DeleteObjectTaggingRequestTypeDef) -> Answer:
        return self._tag(call, request, lambda: ())

    def _tag(self, call: Call, request: Mapping[str, object], given: Callable[[], tags.Tags]) -> Answer:
        def changed(bucket: Bucket, found: StoredObject) -> Callable[[Attributes], Attributes]:
            wanted = given()
            return lambda old: msgspec.structs.replace(old, tags=wanted)

        bucket, found = change_object(self._store, call, request, found_object, changed)
        return {"VersionId": answered_version(bucket, found)}
