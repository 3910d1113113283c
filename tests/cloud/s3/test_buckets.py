"""Buckets, by boto3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import ACCOUNTS, Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def test_a_bucket_is_made_waited_for_listed_and_deleted(client: S3Client) -> None:
    made = client.create_bucket(Bucket="a-bucket-of-its-own")
    assert made["Location"] == "/a-bucket-of-its-own"
    client.get_waiter("bucket_exists").wait(Bucket="a-bucket-of-its-own", WaiterConfig={"Delay": 1, "MaxAttempts": 1})
    head = client.head_bucket(Bucket="a-bucket-of-its-own")
    assert head["BucketRegion"] == "us-east-1"
    assert head["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/xml"
    names = [each["Name"] for each in client.list_buckets()["Buckets"]]
    assert "a-bucket-of-its-own" in names
    client.delete_bucket(Bucket="a-bucket-of-its-own")
    with refused("404"):
        client.head_bucket(Bucket="a-bucket-of-its-own")
    with refused("NoSuchBucket", 404):
        client.delete_bucket(Bucket="a-bucket-of-its-own")


def test_buckets_are_listed_in_pages_by_prefix(client: S3Client) -> None:
    for number in range(5):
        client.create_bucket(Bucket=f"paged-{number}")
    pages = client.get_paginator("list_buckets").paginate(Prefix="paged-", PaginationConfig={"PageSize": 2})
    assert [[each["Name"] for each in page["Buckets"]] for page in pages] == [
        ["paged-0", "paged-1"],
        ["paged-2", "paged-3"],
        ["paged-4"],
    ]


def test_a_bucket_is_in_the_region_of_its_location_constraint(served: Served, client: S3Client) -> None:
    abroad = client_of(served.endpoint, region="eu-west-1")
    abroad.create_bucket(Bucket="abroad", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert client.get_bucket_location(Bucket="abroad")["LocationConstraint"] == "eu-west-1"
    client.create_bucket(Bucket="at-home")
    assert client.get_bucket_location(Bucket="at-home")["LocationConstraint"] is None
    with refused("IllegalLocationConstraintException"):
        abroad.create_bucket(Bucket="nowhere")
    for elsewhere in ("us-east-1", "us-east-2", "mars-1"):  # a region's own endpoint knows no other one
        with refused("IllegalLocationConstraintException"):
            abroad.create_bucket(Bucket="nowhere", CreateBucketConfiguration={"LocationConstraint": elsewhere})
    with refused("InvalidLocationConstraint"):
        client.create_bucket(Bucket="nowhere", CreateBucketConfiguration={"LocationConstraint": "ap-south-1"})
    with refused("BucketAlreadyOwnedByYou", 409):
        abroad.create_bucket(Bucket="abroad", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    client.create_bucket(Bucket="at-home")  # in its first region S3 says so again
    abroad.close()


@pytest.mark.parametrize(
    "name",
    ["ab", "A-bucket", "bucket_", "-bucket", "bucket-", "a..b", "192.168.0.1", "xn--bucket", "b-s3alias", "a" * 64],
)
def test_a_name_that_no_bucket_may_have_is_refused(served: Served, name: str) -> None:
    client = client_of(served.endpoint, s3={"addressing_style": "path"})
    with refused("InvalidBucketName", 400):
        client.create_bucket(Bucket=name)
    client.close()


def test_buckets_of_another_account_are_taken_names_and_nothing_else(
    client: S3Client, stranger: S3Client, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"secret")
    upload = client.create_multipart_upload(Bucket=bucket, Key="up")["UploadId"]
    with refused("BucketAlreadyExists", 409):
        stranger.create_bucket(Bucket=bucket)
    assert bucket not in [each["Name"] for each in stranger.list_buckets()["Buckets"]]
    stranger.create_bucket(Bucket=f"strange-{bucket}")
    with refused("403"):
        stranger.head_bucket(Bucket=bucket)
    with refused("403"):
        stranger.head_object(Bucket=bucket, Key="no such key")
    attempts = [
        lambda: stranger.get_object(Bucket=bucket, Key="key"),
        lambda: stranger.get_object(Bucket=bucket, Key="no such key"),
        lambda: stranger.put_object(Bucket=bucket, Key="key", Body=b""),
        lambda: stranger.delete_object(Bucket=bucket, Key="key"),
        lambda: stranger.list_objects_v2(Bucket=bucket),
        lambda: stranger.list_objects(Bucket=bucket),
        lambda: stranger.list_object_versions(Bucket=bucket),
        lambda: stranger.list_multipart_uploads(Bucket=bucket),
        lambda: stranger.list_parts(Bucket=bucket, Key="up", UploadId=upload),
        lambda: stranger.upload_part(Bucket=bucket, Key="up", UploadId=upload, PartNumber=1, Body=b"x"),
        lambda: stranger.abort_multipart_upload(Bucket=bucket, Key="up", UploadId=upload),
        lambda: stranger.copy_object(Bucket=f"strange-{bucket}", Key="k", CopySource=f"{bucket}/key"),
        lambda: stranger.get_bucket_location(Bucket=bucket),
        lambda: stranger.get_bucket_acl(Bucket=bucket),
        lambda: stranger.get_bucket_policy(Bucket=bucket),
        lambda: stranger.get_bucket_tagging(Bucket=bucket),
        lambda: stranger.get_object_tagging(Bucket=bucket, Key="key"),
        lambda: stranger.delete_bucket(Bucket=bucket),
    ]
    for attempt in attempts:
        with refused("AccessDenied", 403):
            attempt()
    [error] = stranger.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key"}]})["Errors"]
    assert (error["Key"], error["Code"]) == ("key", "AccessDenied")
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"secret"


def test_an_expected_owner_is_held_against_the_real_one(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"", ExpectedBucketOwner=ACCOUNTS[0])
    with refused("AccessDenied", 403):
        client.put_object(Bucket=bucket, Key="key", Body=b"", ExpectedBucketOwner=ACCOUNTS[1])


def test_a_bucket_that_is_not_empty_stays(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    with refused("BucketNotEmpty", 409):
        client.delete_bucket(Bucket=bucket)
    client.delete_object(Bucket=bucket, Key="key")
    client.delete_bucket(Bucket=bucket)


def test_what_clients_ask_unasked_is_answered_as_by_s3(client: S3Client, bucket: str) -> None:
    versioning = client.get_bucket_versioning(Bucket=bucket)
    assert "Status" not in versioning
    assert client.get_bucket_acl(Bucket=bucket)["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert client.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    assert "LoggingEnabled" not in client.get_bucket_logging(Bucket=bucket)
    client.get_bucket_notification_configuration(Bucket=bucket)
    absent = {
        "NoSuchBucketPolicy": client.get_bucket_policy,
        "NoSuchCORSConfiguration": client.get_bucket_cors,
        "NoSuchLifecycleConfiguration": client.get_bucket_lifecycle_configuration,
        "NoSuchWebsiteConfiguration": client.get_bucket_website,
        "ServerSideEncryptionConfigurationNotFoundError": client.get_bucket_encryption,
        "ReplicationConfigurationNotFoundError": client.get_bucket_replication,
        "ObjectLockConfigurationNotFoundError": client.get_object_lock_configuration,
        "NoSuchTagSet": client.get_bucket_tagging,
    }
    for code, operation in absent.items():
        with refused(code, 404):
            operation(Bucket=bucket)  # type: ignore[operator]  # methods of many types
    with refused("NotImplemented", 501):
        client.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})


def test_a_bucket_has_the_tags_that_it_was_given(client: S3Client, bucket: str) -> None:
    client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    assert client.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "1"}]
    with refused("InvalidTag"):
        client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}] * 2})
    client.delete_bucket_tagging(Bucket=bucket)
    with refused("NoSuchTagSet"):
        client.get_bucket_tagging(Bucket=bucket)


def test_a_policy_is_taken_without_a_word(client: S3Client, bucket: str) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ACCOUNTS[1]},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    answer = client.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
