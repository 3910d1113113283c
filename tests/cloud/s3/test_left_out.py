"""Features that are left out: never set where clients look, and refused by name where they set them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.cloud.s3.refusals import refused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def test_what_was_never_set_is_said_as_s3_says_it(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    assert "AnalyticsConfigurationList" not in client.list_bucket_analytics_configurations(Bucket=bucket)
    assert "InventoryConfigurationList" not in client.list_bucket_inventory_configurations(Bucket=bucket)
    assert not client.list_bucket_metrics_configurations(Bucket=bucket)["IsTruncated"]
    assert not client.list_bucket_intelligent_tiering_configurations(Bucket=bucket)["IsTruncated"]
    for operation in (
        client.get_bucket_analytics_configuration,
        client.get_bucket_inventory_configuration,
        client.get_bucket_metrics_configuration,
        client.get_bucket_intelligent_tiering_configuration,
    ):
        with refused("NoSuchConfiguration", 404):
            operation(Bucket=bucket, Id="some")  # type: ignore[operator]  # methods of many types
    with refused("InvalidRequest", 400):
        client.get_object_retention(Bucket=bucket, Key="key")
    with refused("NoSuchKey", 404):
        client.get_object_legal_hold(Bucket=bucket, Key="none")
    client.delete_bucket_encryption(Bucket=bucket)
    client.delete_bucket_replication(Bucket=bucket)
    with refused("NoSuchBucket", 404):
        client.delete_bucket_replication(Bucket="there-is-none-of-this")


def test_to_set_it_is_refused_by_name(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    with refused("NotImplemented", 501):
        client.put_object_lock_configuration(
            Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
        )
    with pytest.raises(ClientError, match=r"\(NotImplemented\).*ObjectLockEnabledForBucket"):
        client.create_bucket(Bucket=f"locked-{bucket}", ObjectLockEnabledForBucket=True)
    with refused("NoSuchBucket", 404):
        client.list_objects_v2(Bucket=f"locked-{bucket}")
    with refused("InvalidArgument", 400):
        client.delete_object(Bucket=bucket, Key="key", BypassGovernanceRetention=True)
    client.head_object(Bucket=bucket, Key="key")
    with refused("NotImplemented", 501):
        client.put_object(
            Bucket=bucket,
            Key="locked",
            ObjectLockMode="GOVERNANCE",
            ObjectLockRetainUntilDate=datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC),
        )
    with refused("NotImplemented", 501):
        client.put_object_legal_hold(Bucket=bucket, Key="key", LegalHold={"Status": "ON"})
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    with refused("NotImplemented", 501):
        client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    with refused("NotImplemented", 501):
        client.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
    with refused("NotImplemented", 501):
        client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    assert [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["key"]
