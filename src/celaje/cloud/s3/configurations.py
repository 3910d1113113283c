"""What clients ask of a bucket unasked: configurations that no bucket has here, each answered as S3 does where it was
never set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import bucket_of
from celaje.cloud.s3.store.object_store import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3


class ConfigurationActions:
    """What is set of a bucket, or is not."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def _absent(self, call: Call, request: s3.HeadBucketRequestTypeDef, code: str, message: str) -> AwsError:
        bucket = bucket_of(self._store, call, request)
        return AwsError(code, message, 404, {"BucketName": bucket.name})

    # --- what has a value anyway ---

    def get_bucket_request_payment(self, call: Call, request: s3.GetBucketRequestPaymentRequestTypeDef) -> Answer:
        bucket_of(self._store, call, request)
        return {"Payer": "BucketOwner"}

    def get_bucket_logging(self, call: Call, request: s3.GetBucketLoggingRequestTypeDef) -> Answer:
        bucket_of(self._store, call, request)
        return {}

    def get_bucket_notification_configuration(
        self, call: Call, request: s3.GetBucketNotificationConfigurationRequestRequestTypeDef
    ) -> Answer:
        bucket_of(self._store, call, request)
        return {}

    def get_bucket_accelerate_configuration(
        self, call: Call, request: s3.GetBucketAccelerateConfigurationRequestTypeDef
    ) -> Answer:
        bucket_of(self._store, call, request)
        return {}

    # --- what is not there ---

    def get_bucket_website(self, call: Call, request: s3.GetBucketWebsiteRequestTypeDef) -> Answer:
        raise self._absent(
            call,
            request,
            "NoSuchWebsiteConfiguration",
            "The specified bucket does not have a website configuration",
        )

    def get_bucket_replication(self, call: Call, request: s3.GetBucketReplicationRequestTypeDef) -> Answer:
        raise self._absent(
            call,
            request,
            "ReplicationConfigurationNotFoundError",
            "The replication configuration was not found",
        )

    def get_object_lock_configuration(
        self, call: Call, request: s3.GetObjectLockConfigurationRequestTypeDef
    ) -> Answer:
        raise self._absent(
            call,
            request,
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
        )

    # --- taking away what is not there ---

    def delete_bucket_website(self, call: Call, request: s3.DeleteBucketWebsiteRequestTypeDef) -> Answer:
        bucket_of(self._store, call, request)
        return {}

