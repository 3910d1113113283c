"""Features of S3 that are left out, as clients meet them unasked: nothing of the kind was ever set, said as S3 says it.

To set one is NotImplemented, by name: the gateway says that of every operation that no module has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import bucket_of
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.refusals import invalid_request
from celaje.cloud.s3.versions import found_object

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3


class LeftOutActions:
    """What is asked of analytics, inventory, metrics, tiers, locks and the like."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    # --- configurations by id, of which there are none ---

    def list_bucket_analytics_configurations(
        self, call: Call, request: s3.ListBucketAnalyticsConfigurationsRequestTypeDef
    ) -> Answer:
        return self._none(call, request)

    def list_bucket_inventory_configurations(
        self, call: Call, request: s3.ListBucketInventoryConfigurationsRequestTypeDef
    ) -> Answer:
        return self._none(call, request)

    def list_bucket_metrics_configurations(
        self, call: Call, request: s3.ListBucketMetricsConfigurationsRequestTypeDef
    ) -> Answer:
        return self._none(call, request)

    def list_bucket_intelligent_tiering_configurations(
        self, call: Call, request: s3.ListBucketIntelligentTieringConfigurationsRequestTypeDef
    ) -> Answer:
        return self._none(call, request)

    def get_bucket_analytics_configuration(
        self, call: Call, request: s3.GetBucketAnalyticsConfigurationRequestTypeDef
    ) -> Answer:
        raise self._no_such(call, request)

    def get_bucket_inventory_configuration(
        self, call: Call, request: s3.GetBucketInventoryConfigurationRequestTypeDef
    ) -> Answer:
        raise self._no_such(call, request)

    def get_bucket_metrics_configuration(
        self, call: Call, request: s3.GetBucketMetricsConfigurationRequestTypeDef
    ) -> Answer:
        raise self._no_such(call, request)

    def get_bucket_intelligent_tiering_configuration(
        self, call: Call, request: s3.GetBucketIntelligentTieringConfigurationRequestTypeDef
    ) -> Answer:
        raise self._no_such(call, request)

    # --- locks of objects, in buckets that have none ---

    def get_object_retention(self, call: Call, request: s3.GetObjectRetentionRequestTypeDef) -> Answer:
        raise self._no_lock(call, request)

    def get_object_legal_hold(self, call: Call, request: s3.GetObjectLegalHoldRequestTypeDef) -> Answer:
        raise self._no_lock(call, request)

    # --- taking away what is not there ---

    def delete_bucket_replication(self, call: Call, request: s3.DeleteBucketReplicationRequestTypeDef) -> Answer:
        bucket_of(self._store, call, request)
        return {}

    def _none(self, call: Call, request: Mapping[str, object]) -> Answer:
        bucket_of(self._store, call, request)
        return {"IsTruncated": False}

    def _no_such(self, call: Call, request: Mapping[str, object]) -> AwsError:
        bucket = bucket_of(self._store, call, request)
        return AwsError(
            "NoSuchConfiguration", "The specified configuration does not exist.", 404, {"BucketName": bucket.name}
        )

    def _no_lock(self, call: Call, request: Mapping[str, object]) -> AwsError:
        found_object(self._store, bucket_of(self._store, call, request), request)
        return invalid_request("Bucket is missing Object Lock Configuration")
