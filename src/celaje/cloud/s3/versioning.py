"""Whether a bucket keeps versions: PutBucketVersioning and GetBucketVersioning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import bucket_of, refuse_unimplemented
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import ENABLED, SUSPENDED

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3


class VersioningActions:
    """What is asked of a bucket's versioning."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get_bucket_versioning(self, call: Call, request: s3.GetBucketVersioningRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        return {"Status": bucket.settings.versioning or None}

    def put_bucket_versioning(self, call: Call, request: s3.PutBucketVersioningRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        wanted = request["VersioningConfiguration"]
        refuse_unimplemented(request, ("MFA",))
        if wanted.get("MFADelete") == ENABLED:
            raise AwsError("NotImplemented", "MFA Delete is not implemented: no device could confirm it", 501)
        status = wanted.get("Status")
        if status is None:
            raise AwsError(
                "IllegalVersioningConfigurationException",
                "The Versioning element must be specified: Status is Enabled or Suspended",
            )
        if status not in (ENABLED, SUSPENDED):
            raise AwsError(
                "MalformedXML",
                "The XML you provided was not well-formed or did not validate against our published schema: Status is"
                " Enabled or Suspended",
            )
        self._store.buckets.set(bucket, versioning=status).result()
        return {}
