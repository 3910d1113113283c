"""Tags of objects, by boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.cloud.s3.refusals import refused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def tags(client: S3Client, bucket: str, key: str) -> dict[str, str]:
    found = client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    count = client.head_object(Bucket=bucket, Key=key).get("TagCount", 0)
    assert count == len(found)
    return {each["Key"]: each["Value"] for each in found}


def test_an_object_is_put_with_tags_and_given_others(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a=1&b%20c=%C3%A9&only")
    assert tags(client, bucket, "key") == {"a": "1", "b c": "é", "only": ""}
    client.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": [{"Key": "d", "Value": "2"}]})
    assert tags(client, bucket, "key") == {"d": "2"}
    client.delete_object_tagging(Bucket=bucket, Key="key")
    assert tags(client, bucket, "key") == {}
    client.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a=1")
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    assert tags(client, bucket, "key") == {}


def test_a_bucket_has_tags_and_s3_says_no_more_than_that(client: S3Client, bucket: str) -> None:
    answer = client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "1"}]


def test_a_directive_that_is_none_is_refused_and_nothing_is_copied(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a=1")
    for directive in ({"MetadataDirective": "MOVE"}, {"TaggingDirective": "replace"}):
        with refused("InvalidArgument", 400):
            client.copy_object(Bucket=bucket, Key="new", CopySource=f"{bucket}/key", **directive)  # type: ignore[arg-type]  # on purpose
    with refused("404"):
        client.head_object(Bucket=bucket, Key="new")


def test_a_copy_has_the_tags_of_its_source_or_others_as_the_directive_says(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a=1")
    source = {"Bucket": bucket, "Key": "key"}
    client.copy_object(Bucket=bucket, Key="same", CopySource=source)
    client.copy_object(Bucket=bucket, Key="kept", CopySource=source, Tagging="b=2")
    client.copy_object(Bucket=bucket, Key="new", CopySource=source, Tagging="b=2", TaggingDirective="REPLACE")
    client.copy_object(Bucket=bucket, Key="none", CopySource=source, TaggingDirective="REPLACE")
    told = {key: tags(client, bucket, key) for key in ("same", "kept", "new", "none")}
    assert told == {"same": {"a": "1"}, "kept": {"a": "1"}, "new": {"b": "2"}, "none": {}}


def test_an_upload_says_the_tags_of_what_it_becomes(client: S3Client, bucket: str) -> None:
    upload = client.create_multipart_upload(Bucket=bucket, Key="key", Tagging="a=1")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"x")
    client.complete_multipart_upload(
        Bucket=bucket,
        Key="key",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert tags(client, bucket, "key") == {"a": "1"}


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("BadRequest", [(str(number), "") for number in range(11)]),
        ("InvalidTag", [("a", "1"), ("a", "2")]),
        ("InvalidTag", [("k" * 129, "1")]),
        ("InvalidTag", [("k", "v" * 257)]),
        ("InvalidTag", [("aws:k", "v")]),
    ],
)
def test_tags_that_cannot_be_are_refused_and_change_nothing(
    client: S3Client, bucket: str, code: str, given: list[tuple[str, str]]
) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="kept=1")
    members = [{"Key": key, "Value": value} for key, value in given]
    with refused(code):
        client.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": members})
    header = "&".join(f"{key}={value}" for key, value in given)
    with refused(code):
        client.put_object(Bucket=bucket, Key="key", Body=b"new", Tagging=header)
    assert tags(client, bucket, "key") == {"kept": "1"}
    with refused("NoSuchKey"):
        client.put_object_tagging(Bucket=bucket, Key="none", Tagging={"TagSet": []})


def test_as_many_tags_as_are_allowed_are_kept(client: S3Client, bucket: str) -> None:
    members = [{"Key": f"{number:0>128}", "Value": "v" * 256} for number in range(10)]
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    client.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": members})
    assert len(tags(client, bucket, "key")) == 10


def test_tags_of_a_header_are_not_of_the_systems(client: S3Client, bucket: str) -> None:
    with pytest.raises(ClientError, match="Your TagKey cannot be prefixed with aws:"):
        client.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a=1&aws%3Ab=2")
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
