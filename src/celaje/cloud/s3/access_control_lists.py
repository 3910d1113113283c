"""Access control lists of buckets and objects: told and set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3 import grants
from celaje.cloud.s3.access import bucket_of, change_object, object_of
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Attributes, Bucket, StoredObject
from celaje.cloud.s3.versions import found_object

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3


class AclActions:
    """What is asked of lists."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get_bucket_acl(self, call: Call, request: s3.GetBucketAclRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        return grants.answered(bucket.account, bucket.settings.grants if grants.counts(bucket.settings) else None)

    def put_bucket_acl(self, call: Call, request: s3.PutBucketAclRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        _refuse_uncounted(bucket, request.get("ACL"))
        given = grants.requested(call, request, bucket.account, bucket.account)
        if given is None:
            raise AwsError("MissingSecurityHeader", "Your request was missing a required header")
        grants.refuse_public(bucket.settings, given)
        if grants.counts(bucket.settings):
            self._store.buckets.set(bucket, grants=None if given == grants.owners(bucket.account) else given).result()
        return {}

    def get_object_acl(self, call: Call, request: s3.GetObjectAclRequestTypeDef) -> Answer:
        bucket, found = object_of(self._store, call, request, found_object)
        own = found.attributes.grants if grants.counts(bucket.settings) else None
        return grants.answered(grants.owner_of_object(bucket, found.attributes), own)

    def put_object_acl(self, call: Call, request: s3.PutObjectAclRequestTypeDef) -> Answer:
        def changed(bucket: Bucket, found: StoredObject) -> Callable[[Attributes], Attributes]:
            _refuse_uncounted(bucket, request.get("ACL"))
            owner = grants.owner_of_object(bucket, found.attributes)
            given = grants.requested(call, request, owner, bucket.account)
            if given is None:
                raise AwsError("MissingSecurityHeader", "Your request was missing a required header")
            grants.refuse_public(bucket.settings, given)
            if not grants.counts(bucket.settings):
                return lambda old: old
            kept = None if given == grants.owners(owner) else given
            return lambda old: msgspec.structs.replace(old, grants=kept)

        change_object(self._store, call, request, found_object, changed)
        return {}


def _refuse_uncounted(bucket: Bucket, name: object) -> None:
    if not grants.counts(bucket.settings) and name != "bucket-owner-full-control":
        raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")
