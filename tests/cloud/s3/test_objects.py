"""Objects, by boto3."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import os
import urllib.error
import urllib.request
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.cloud.s3.conftest import client_of, name_the_source
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HOUR = datetime.timedelta(hours=1)


def get(client: S3Client, bucket: str, key: str, **more: object) -> bytes:
    return client.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000, 9_000_000])
def test_a_body_of_any_size_comes_back(client: S3Client, bucket: str, size: int) -> None:
    body = os.urandom(size)
    put = client.put_object(Bucket=bucket, Key="key", Body=body)
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = client.get_object(Bucket=bucket, Key="key")
    assert got["Body"].read() == body
    assert got["ContentLength"] == size
    assert client.head_object(Bucket=bucket, Key="key")["ContentLength"] == size


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "/", "//a//", ".", "a b+c%2Fd?e=f&g#h", "ключ ☁", "a\tb\x01", "x" * 1024, "é" * 512]
)
def test_a_key_may_be_any_text(client: S3Client, bucket: str, key: str) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert get(client, bucket, key) == key.encode()
    assert [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert get(client, bucket, "copy") == key.encode()
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "copy"}]})
    client.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_a_key_that_is_too_long_is_refused(client: S3Client, bucket: str) -> None:
    with refused("KeyTooLongError", 400):
        client.put_object(Bucket=bucket, Key="x" * 1025, Body=b"")


def test_what_a_client_says_of_an_object_is_told_again(client: S3Client, bucket: str) -> None:
    expires = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    client.put_object(
        Bucket=bucket,
        Key="key",
        Body=b"body",
        Metadata={"Author": "somebody", "empty": ""},
        ContentType="text/plain; charset=utf-8",
        CacheControl="no-cache",
        ContentDisposition='attachment; filename="x"',
        ContentEncoding="gzip",
        ContentLanguage="es",
        Expires=expires,
        StorageClass="STANDARD_IA",
        Tagging="a=1&b=%C3%A9",
        WebsiteRedirectLocation="/elsewhere",
    )
    got = client.get_object(Bucket=bucket, Key="key")
    assert got["Body"].read() == b"body"
    for answer in (client.head_object(Bucket=bucket, Key="key"), got):
        assert answer["Metadata"] == {"author": "somebody", "empty": ""}
        assert answer["ContentType"] == "text/plain; charset=utf-8"
        assert answer["CacheControl"] == "no-cache"
        assert answer["ContentDisposition"] == 'attachment; filename="x"'
        assert answer["ContentEncoding"] == "gzip"
        assert answer["ContentLanguage"] == "es"
        assert answer["Expires"] == expires
        assert answer["StorageClass"] == "STANDARD_IA"
        assert answer["WebsiteRedirectLocation"] == "/elsewhere"
        assert answer["AcceptRanges"] == "bytes"
    assert client.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == [
        {"Key": "a", "Value": "1"},
        {"Key": "b", "Value": "é"},
    ]
    overridden = client.get_object(
        Bucket=bucket, Key="key", ResponseContentType="a/b", ResponseCacheControl="x", ResponseExpires=expires + HOUR
    )
    assert overridden["Body"].read() == b"body"
    assert (overridden["ContentType"], overridden["CacheControl"]) == ("a/b", "x")
    assert overridden["Expires"] == expires + HOUR
    assert client.head_object(Bucket=bucket, Key="key")["CacheControl"] == "no-cache"
    client.put_object(Bucket=bucket, Key="plain", Body=b"")
    assert client.head_object(Bucket=bucket, Key="plain")["ContentType"] == "binary/octet-stream"
    with refused("MetadataTooLarge"):
        client.put_object(Bucket=bucket, Key="key", Body=b"", Metadata={"x": "y" * 2048})
    with refused("InvalidStorageClass"):
        client.put_object(Bucket=bucket, Key="key", Body=b"", StorageClass="GLACIER")


def test_ranges_are_answered_with_what_they_name(client: S3Client, bucket: str) -> None:
    body = os.urandom(100_000)
    client.put_object(Bucket=bucket, Key="key", Body=body)
    for text, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=99999-", 99_999, 100_000),
        ("bytes=50000-999999999", 50_000, 100_000),
        ("bytes=-7", 99_993, 100_000),
        ("bytes=-999999999", 0, 100_000),
    ):
        answer = client.get_object(Bucket=bucket, Key="key", Range=text)
        assert answer["Body"].read() == body[start:end]
        assert answer["ContentRange"] == f"bytes {start}-{end - 1}/100000"
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert client.head_object(Bucket=bucket, Key="key", Range=text)["ContentLength"] == end - start
    for text in ("bytes=5-4", "bytes=x", "lines=1-2", "bytes=0-1,4-5"):
        answer = client.get_object(Bucket=bucket, Key="key", Range=text)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert len(answer["Body"].read()) == 100_000
    for text in ("bytes=100000-", "bytes=-0"):
        with refused("InvalidRange", 416):
            client.get_object(Bucket=bucket, Key="key", Range=text)


def test_conditions_of_reading_are_held_against_the_object(client: S3Client, bucket: str) -> None:
    etag = client.put_object(Bucket=bucket, Key="key", Body=b"x")["ETag"]
    now = client.head_object(Bucket=bucket, Key="key")["LastModified"]
    assert get(client, bucket, "key", IfMatch=etag) == b"x"
    assert get(client, bucket, "key", IfMatch="*") == b"x"
    assert get(client, bucket, "key", IfNoneMatch='"other"') == b"x"
    assert get(client, bucket, "key", IfModifiedSince=now - HOUR) == b"x"
    assert get(client, bucket, "key", IfUnmodifiedSince=now) == b"x"
    # The tag decides before the date.
    assert get(client, bucket, "key", IfMatch=etag, IfUnmodifiedSince=now - HOUR) == b"x"
    assert get(client, bucket, "key", IfNoneMatch='"other"', IfModifiedSince=now) == b"x"
    for more in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": now - HOUR}):
        with refused("PreconditionFailed", 412):
            get(client, bucket, "key", **more)
    for more in ({"IfNoneMatch": etag}, {"IfNoneMatch": "*"}, {"IfModifiedSince": now}):
        with refused("304", 304):
            get(client, bucket, "key", **more)
        with refused("304", 304):
            client.head_object(Bucket=bucket, Key="key", **more)


def test_what_is_not_modified_is_still_named(served: Served, client: S3Client, bucket: str) -> None:
    etag = client.put_object(Bucket=bucket, Key="key", Body=b"x")["ETag"]
    signer = client_of(served.endpoint, signature_version="s3v4")
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key", "IfNoneMatch": etag})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, headers={"If-None-Match": etag}))
    assert caught.value.code == 304
    assert caught.value.headers["ETag"] == etag
    assert caught.value.read() == b""
    caught.value.close()
    signer.close()


def test_conditions_of_writing_are_held_against_what_is_there(client: S3Client, bucket: str) -> None:
    etag = client.put_object(Bucket=bucket, Key="key", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        client.put_object(Bucket=bucket, Key="key", Body=b"2", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        client.put_object(Bucket=bucket, Key="key", Body=b"2", IfMatch='"other"')
    with refused("NoSuchKey", 404):
        client.put_object(Bucket=bucket, Key="absent", Body=b"2", IfMatch=etag)
    client.put_object(Bucket=bucket, Key="key", Body=b"2", IfMatch=etag)
    with refused("PreconditionFailed", 412):
        client.delete_object(Bucket=bucket, Key="key", IfMatch=etag)
    client.delete_object(Bucket=bucket, Key="key", IfMatch=hashlib.md5(b"2").hexdigest())
    with refused("NoSuchKey", 404):
        get(client, bucket, "key")
    for given in ("*", etag):
        with refused("NoSuchKey", 404):
            client.delete_object(Bucket=bucket, Key="key", IfMatch=given)
    for more in ({"IfMatch": "*"}, {"IfNoneMatch": etag}, {"IfMatch": etag, "IfNoneMatch": "*"}):
        with refused("NotImplemented", 501):
            client.put_object(Bucket=bucket, Key="key", Body=b"3", **more)
    deleted = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "ETag": etag}, {"Key": "key"}]})
    assert [each["Code"] for each in deleted["Errors"]] == ["NoSuchKey"]
    assert len(deleted["Deleted"]) == 1


def test_a_copy_onto_itself_changes_something_or_is_refused(client: S3Client, bucket: str) -> None:
    itself: dict[str, Any] = {"Bucket": bucket, "Key": "key"}
    client.put_object(**itself, Body=b"text", Metadata={"a": "1"})
    for more in ({}, {"Tagging": "a=1", "TaggingDirective": "REPLACE"}, {"ChecksumAlgorithm": "SHA256"}):
        with refused("InvalidRequest", 400):
            client.copy_object(**itself, CopySource=itself, **more)
    for more in (
        {"StorageClass": "STANDARD"},  # S3 takes this for a change, although it has it
        {"WebsiteRedirectLocation": "/elsewhere"},
        {"ServerSideEncryption": "AES256"},
        {"MetadataDirective": "REPLACE", "Metadata": {"a": "1"}},
    ):
        client.copy_object(**itself, CopySource=itself, **more)
        head = client.head_object(**itself)
        assert (get(client, bucket, "key"), head["Metadata"]) == (b"text", {"a": "1"})
        assert head.get("WebsiteRedirectLocation") == more.get("WebsiteRedirectLocation")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    client.copy_object(**itself, CopySource=itself)
    assert client.head_object(**itself)["ServerSideEncryption"] == "AES256"


def crc32(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_checksums_are_verified_kept_and_told(client: S3Client, bucket: str, algorithm: str, size: int) -> None:
    if algorithm in ("CRC32C", "CRC64NVME"):
        pytest.importorskip("awscrt")
    body = os.urandom(size)
    put = client.put_object(Bucket=bucket, Key="key", Body=body, ChecksumAlgorithm=algorithm)
    value = put[f"Checksum{algorithm}"]  # type: ignore[literal-required]
    assert put["ChecksumType"] == "FULL_OBJECT"
    head = client.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == value  # type: ignore[literal-required]
    assert f"Checksum{algorithm}" not in client.head_object(Bucket=bucket, Key="key")
    got = client.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")  # boto3 verifies it
    assert got["Body"].read() == body
    wrong: dict[str, Any] = {f"Checksum{algorithm}": base64.b64encode(bytes(len(base64.b64decode(value)))).decode()}
    with refused("BadDigest", 400):
        client.put_object(Bucket=bucket, Key="key", Body=body + b"x", **wrong)
    assert get(client, bucket, "key") == body
    attributes = client.get_object_attributes(
        Bucket=bucket, Key="key", ObjectAttributes=["ETag", "Checksum", "ObjectSize", "StorageClass", "ObjectParts"]
    )
    assert attributes["Checksum"][f"Checksum{algorithm}"] == value  # type: ignore[literal-required]
    assert (attributes["ETag"], attributes["ObjectSize"]) == (hashlib.md5(body).hexdigest(), size)


def test_a_wrong_content_md5_is_refused_and_changes_nothing(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"old")
    with refused("BadDigest", 400):
        client.put_object(Bucket=bucket, Key="key", Body=b"new", ContentMD5=base64.b64encode(bytes(16)).decode())
    with refused("InvalidDigest", 400):
        client.put_object(Bucket=bucket, Key="key", Body=b"new", ContentMD5="nonsense")
    assert get(client, bucket, "key") == b"old"


def test_the_source_of_a_copy_may_be_encoded_whole(served: Served, client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a/b", Body=b"text")
    with contextlib.closing(client_of(served.endpoint)) as encoding:
        name_the_source(encoding, f"{bucket}%2Fa%2Fb")  # as Terraform does
        encoding.copy_object(Bucket=bucket, Key="copy", CopySource="a/b")
    assert get(client, bucket, "copy") == b"text"


def test_a_copy_has_the_same_bytes_and_what_was_asked_for(client: S3Client, bucket: str) -> None:
    body = os.urandom(200_000)
    client.put_object(Bucket=bucket, Key="one", Body=body, Metadata={"a": "1"}, ContentType="a/b", Tagging="t=1")
    source = {"Bucket": bucket, "Key": "one"}
    copied = client.copy_object(Bucket=bucket, Key="two", CopySource=source)
    assert copied["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert copied["CopyObjectResult"]["ChecksumCRC32"] == crc32(body)
    client.delete_object(Bucket=bucket, Key="one")
    got = client.get_object(Bucket=bucket, Key="two")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (body, {"a": "1"}, "a/b")
    assert client.get_object_tagging(Bucket=bucket, Key="two")["TagSet"] == [{"Key": "t", "Value": "1"}]
    source = {"Bucket": bucket, "Key": "two"}
    with refused("InvalidRequest"):
        client.copy_object(Bucket=bucket, Key="two", CopySource=source)
    client.copy_object(
        Bucket=bucket, Key="two", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="c/d"
    )
    got = client.get_object(Bucket=bucket, Key="two")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (body, {"b": "2"}, "c/d")
    hashed = client.copy_object(Bucket=bucket, Key="three", CopySource=source, ChecksumAlgorithm="SHA256")
    assert hashed["CopyObjectResult"]["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(body).digest()).decode()
    etag = got["ETag"]
    client.copy_object(Bucket=bucket, Key="four", CopySource=source, CopySourceIfMatch=etag)
    for more in (
        {"CopySourceIfMatch": '"other"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfModifiedSince": got["LastModified"] + HOUR},
        {"CopySourceIfUnmodifiedSince": got["LastModified"] - HOUR},
    ):
        with refused("PreconditionFailed", 412):
            client.copy_object(Bucket=bucket, Key="five", CopySource=source, **more)
    with refused("NoSuchKey", 404):
        client.copy_object(Bucket=bucket, Key="five", CopySource={"Bucket": bucket, "Key": "absent"})
    with refused("InvalidArgument"):
        client.copy_object(Bucket=bucket, Key="five", CopySource="nonsense")


def test_what_is_not_there_is_told_and_deleting_it_is_no_error(client: S3Client, bucket: str) -> None:
    with refused("NoSuchKey", 404):
        get(client, bucket, "absent")
    with refused("404"):
        client.head_object(Bucket=bucket, Key="absent")
    client.delete_object(Bucket=bucket, Key="absent")
    with refused("NoSuchBucket", 404):
        get(client, "no-such-bucket-anywhere", "key")


def test_many_objects_are_deleted_at_once(client: S3Client, bucket: str) -> None:
    for number in range(5):
        client.put_object(Bucket=bucket, Key=f"key {number}", Body=b"")
    names = [{"Key": f"key {number}"} for number in range(4)]
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": [*names, {"Key": "absent"}]})
    assert [each["Key"] for each in answer["Deleted"]] == [f"key {number}" for number in range(4)] + ["absent"]
    quiet = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key 4"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with refused("MalformedXML"):
        client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{each}"} for each in range(1001)]})


def test_a_presigned_url_gets_and_puts_without_a_client(served: Served, bucket: str) -> None:
    signer = client_of(served.endpoint, signature_version="s3v4")
    url = signer.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a key"})
    with urllib.request.urlopen(urllib.request.Request(url, data=b"through a URL", method="PUT")) as answer:
        assert answer.status == 200
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a key"})
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"through a URL"
    for broken in (url.replace("a%20key", "another"), url[:-1] + ("0" if url[-1] != "0" else "1")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(broken)
        assert caught.value.code == 403
        caught.value.close()
    signer.close()


def test_nobody_without_a_signature_gets_anything(served: Served, bucket: str) -> None:
    for path in ("/", f"/{bucket}", f"/{bucket}/key", f"/{bucket}?location"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(served.endpoint + path)
        assert caught.value.code == 403
        assert b"<Code>AccessDenied</Code>" in caught.value.read()
        caught.value.close()


def test_features_that_are_not_there_are_refused_by_name(client: S3Client, bucket: str) -> None:
    with refused("NotImplemented", 501):
        client.put_object(Bucket=bucket, Key="key", Body=b"", ServerSideEncryption="aws:kms")
    with refused("AccessControlListNotSupported", 400):
        client.put_object(Bucket=bucket, Key="key", Body=b"", ACL="public-read")
    with refused("InvalidArgument", 400):
        client.get_object(Bucket=bucket, Key="key", VersionId="abc")
    with refused("NotImplemented", 501):
        client.select_object_content(
            Bucket=bucket,
            Key="key",
            Expression="",
            ExpressionType="SQL",
            InputSerialization={},
            OutputSerialization={},
        )


def test_tags_of_an_object_are_replaced_and_removed(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"body")
    client.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    assert client.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == [{"Key": "k", "Value": "v"}]
    assert client.head_object(Bucket=bucket, Key="key")["TagCount"] == 1
    client.delete_object_tagging(Bucket=bucket, Key="key")
    assert client.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == []
    assert get(client, bucket, "key") == b"body"
    with refused("BadRequest"):
        tags = [{"Key": f"{number}", "Value": ""} for number in range(11)]
        client.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": tags})
