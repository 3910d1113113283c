"""Versions of objects, by boto3."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.cloud.s3.refusals import refused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SIZES = (10, 300_000)  # a row, a file


def set_versioning(client: S3Client, bucket: str, status: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


@pytest.fixture
def versioned(client: S3Client, bucket: str) -> str:
    """A new bucket that keeps versions."""
    set_versioning(client, bucket, "Enabled")
    return bucket


def put(client: S3Client, bucket: str, key: str, body: bytes) -> str | None:
    return client.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId")


def get(client: S3Client, bucket: str, key: str, version: str | None = None) -> bytes:
    if version is None:
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()
    answer = client.get_object(Bucket=bucket, Key=key, VersionId=version)
    assert answer["VersionId"] == version
    return answer["Body"].read()


def listed(client: S3Client, bucket: str, **more: object) -> list[tuple[str, str, bool, bool]]:
    """(key, version, newest, marker) of every version, in the order that S3 tells them."""
    found = []
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, **more):
        found += [(each, False) for each in page.get("Versions", ())]
        found += [(each, True) for each in page.get("DeleteMarkers", ())]  # type: ignore[misc]
    return [(each["Key"], each["VersionId"], each["IsLatest"], marker) for each, marker in found]


def headers_of(error: ClientError) -> dict[str, str]:
    return error.response["ResponseMetadata"]["HTTPHeaders"]


@pytest.mark.parametrize("size", SIZES)
def test_each_put_is_a_version_that_can_be_read_and_deleted(client: S3Client, versioned: str, size: int) -> None:
    bodies = [os.urandom(size) for _ in range(3)]
    ids = [put(client, versioned, "key", body) for body in bodies]
    assert len(set(ids)) == 3
    assert None not in ids
    assert get(client, versioned, "key") == bodies[2]
    for version, body in zip(ids, bodies, strict=True):
        assert get(client, versioned, "key", version) == body
    assert listed(client, versioned) == [("key", ids[at], at == 2, False) for at in (2, 1, 0)]
    # The newest goes for good, and the one before it is the key's again.
    deleted = client.delete_object(Bucket=versioned, Key="key", VersionId=ids[2])
    assert deleted["VersionId"] == ids[2]
    assert "DeleteMarker" not in deleted
    assert get(client, versioned, "key") == bodies[1]
    client.delete_object(Bucket=versioned, Key="key", VersionId=ids[0])
    assert listed(client, versioned) == [("key", ids[1], True, False)]
    with refused("NoSuchVersion", 404):
        get(client, versioned, "key", ids[2])


def test_a_deleted_key_has_a_marker_and_comes_back_with_its_deletion(client: S3Client, versioned: str) -> None:
    version = put(client, versioned, "key", b"kept")
    deleted = client.delete_object(Bucket=versioned, Key="key")
    assert deleted["DeleteMarker"]
    marker = deleted["VersionId"]
    assert "Contents" not in client.list_objects_v2(Bucket=versioned)
    with pytest.raises(ClientError) as nothing:
        client.get_object(Bucket=versioned, Key="key")
    assert nothing.value.response["Error"]["Code"] == "NoSuchKey"
    assert headers_of(nothing.value)["x-amz-delete-marker"] == "true"
    assert headers_of(nothing.value)["x-amz-version-id"] == marker
    with pytest.raises(ClientError) as not_allowed:
        client.head_object(Bucket=versioned, Key="key", VersionId=marker)
    assert not_allowed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 405
    assert headers_of(not_allowed.value)["allow"] == "DELETE"
    for ask, method in ((client.get_object, "GET"), (client.get_object_tagging, "GET")):
        with pytest.raises(ClientError) as not_allowed:
            ask(Bucket=versioned, Key="key", VersionId=marker)  # type: ignore[operator]  # methods of two types
        told = not_allowed.value.response["Error"]
        assert (told["Code"], told["Method"], told["ResourceType"]) == ("MethodNotAllowed", method, "DeleteMarker")
        assert headers_of(not_allowed.value)["allow"] == "DELETE"
    assert get(client, versioned, "key", version) == b"kept"
    assert listed(client, versioned) == [("key", version, False, False), ("key", marker, True, True)]
    undone = client.delete_object(Bucket=versioned, Key="key", VersionId=marker)
    assert (undone["DeleteMarker"], undone["VersionId"]) == (True, marker)
    assert get(client, versioned, "key") == b"kept"


def test_what_was_there_before_versions_is_the_null_version(client: S3Client, bucket: str) -> None:
    put(client, bucket, "key", b"old")
    assert "VersionId" not in client.head_object(Bucket=bucket, Key="key")
    set_versioning(client, bucket, "Enabled")
    assert client.head_object(Bucket=bucket, Key="key")["VersionId"] == "null"
    version = put(client, bucket, "key", b"new")
    assert get(client, bucket, "key", "null") == b"old"
    assert listed(client, bucket) == [("key", version, True, False), ("key", "null", False, False)]
    client.delete_object(Bucket=bucket, Key="key", VersionId="null")
    assert listed(client, bucket) == [("key", version, True, False)]


@pytest.mark.parametrize("size", SIZES)
def test_suspended_versioning_replaces_the_null_version_and_no_other(
    client: S3Client, versioned: str, size: int
) -> None:
    kept = os.urandom(size)
    version = put(client, versioned, "key", kept)
    set_versioning(client, versioned, "Suspended")
    assert client.get_bucket_versioning(Bucket=versioned)["Status"] == "Suspended"
    for body in (os.urandom(size), os.urandom(size)):
        assert put(client, versioned, "key", body) is None
        assert get(client, versioned, "key") == body == get(client, versioned, "key", "null")
        assert listed(client, versioned) == [("key", "null", True, False), ("key", version, False, False)]
    deleted = client.delete_object(Bucket=versioned, Key="key")
    assert (deleted["VersionId"], deleted["DeleteMarker"]) == ("null", True)
    # The marker is the null version now.
    assert listed(client, versioned) == [("key", version, False, False), ("key", "null", True, True)]
    set_versioning(client, versioned, "Enabled")
    newest = put(client, versioned, "key", b"")
    set_versioning(client, versioned, "Suspended")
    put(client, versioned, "key", b"x")
    assert listed(client, versioned) == [
        ("key", "null", True, False),
        ("key", newest, False, False),
        ("key", version, False, False),
    ]
    assert get(client, versioned, "key", version) == kept


def test_a_bucket_goes_only_without_any_version(client: S3Client, versioned: str) -> None:
    version = put(client, versioned, "key", b"")
    marker = client.delete_object(Bucket=versioned, Key="key")["VersionId"]
    for each in (version, marker):
        with refused("BucketNotEmpty", 409):
            client.delete_bucket(Bucket=versioned)
        client.delete_object(Bucket=versioned, Key="key", VersionId=each)
    client.delete_bucket(Bucket=versioned)


def test_many_versions_are_deleted_at_once(client: S3Client, versioned: str) -> None:
    ids = [put(client, versioned, "key", b"1"), put(client, versioned, "key", b"2")]
    put(client, versioned, "other", b"3")
    answer = client.delete_objects(
        Bucket=versioned,
        Delete={"Objects": [{"Key": "key", "VersionId": ids[0]}, {"Key": "other"}, {"Key": "key", "VersionId": "?"}]},
    )
    first, second = answer["Deleted"]
    assert first == {"Key": "key", "VersionId": ids[0]}
    assert (second["Key"], second["DeleteMarker"]) == ("other", True)
    assert "VersionId" not in second
    assert [(each["Code"], each["VersionId"]) for each in answer["Errors"]] == [("InvalidArgument", "?")]
    marker = second["DeleteMarkerVersionId"]
    answer = client.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "other", "VersionId": marker}]})
    assert answer["Deleted"] == [
        {"Key": "other", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker}
    ]
    assert get(client, versioned, "other") == b"3"


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
def test_pages_of_versions_are_one_list(client: S3Client, versioned: str, page: int) -> None:
    expected: list[tuple[str, str | None]] = []
    for key in ("a", "b/1", "b/2", "c d"):
        made = [put(client, versioned, key, b"") for _ in range(3)]
        made.append(client.delete_object(Bucket=versioned, Key=key)["VersionId"])
        expected += [(key, version) for version in reversed(made)]
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=versioned, PaginationConfig={"PageSize": page}
    )
    found: list[tuple[str, str | None]] = []
    newest = []
    for each in pages:
        entries = [*each.get("Versions", ()), *each.get("DeleteMarkers", ())]
        assert len(entries) <= page
        found += [(entry["Key"], entry["VersionId"]) for entry in entries]
        newest += [entry["VersionId"] for entry in entries if entry["IsLatest"]]
    assert sorted(found) == sorted(expected)  # type: ignore[type-var]
    assert sorted(newest) == sorted(str(version) for _, version in expected[::4])
    answer = client.list_object_versions(Bucket=versioned, Delimiter="/", MaxKeys=page)
    if page == 1000:
        assert [each["Prefix"] for each in answer["CommonPrefixes"]] == ["b/"]
        assert (len(answer["Versions"]), len(answer["DeleteMarkers"])) == (6, 2)


def test_a_listing_goes_on_although_its_marker_is_gone(client: S3Client, versioned: str) -> None:
    ids = [put(client, versioned, "key", b"") for _ in range(4)]
    first = client.list_object_versions(Bucket=versioned, MaxKeys=2)
    assert (first["NextKeyMarker"], first["NextVersionIdMarker"]) == ("key", ids[2])
    client.delete_object(Bucket=versioned, Key="key", VersionId=ids[2])
    rest = client.list_object_versions(Bucket=versioned, KeyMarker="key", VersionIdMarker=ids[2])
    assert [each["VersionId"] for each in rest["Versions"]] == [ids[1], ids[0]]
    with refused("InvalidArgument"):
        client.list_object_versions(Bucket=versioned, VersionIdMarker=ids[2])


def test_a_version_is_copied_and_says_which(client: S3Client, versioned: str) -> None:
    old = put(client, versioned, "key", b"old")
    put(client, versioned, "key", b"new")
    restored = client.copy_object(
        Bucket=versioned, Key="key", CopySource={"Bucket": versioned, "Key": "key", "VersionId": str(old)}
    )
    assert restored["CopySourceVersionId"] == old
    assert get(client, versioned, "key", restored["VersionId"]) == b"old" == get(client, versioned, "key")
    upload = client.create_multipart_upload(Bucket=versioned, Key="parts")["UploadId"]
    part = client.upload_part_copy(
        Bucket=versioned,
        Key="parts",
        UploadId=upload,
        PartNumber=1,
        CopySource={"Bucket": versioned, "Key": "key", "VersionId": str(old)},
    )
    assert part["CopySourceVersionId"] == old
    done = client.complete_multipart_upload(
        Bucket=versioned,
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]},
    )
    assert get(client, versioned, "parts", done["VersionId"]) == b"old"
    marker = client.delete_object(Bucket=versioned, Key="key")["VersionId"]
    with refused("InvalidRequest"):
        client.copy_object(
            Bucket=versioned, Key="x", CopySource={"Bucket": versioned, "Key": "key", "VersionId": marker}
        )


def test_versions_have_tags_of_their_own(client: S3Client, versioned: str) -> None:
    old = str(client.put_object(Bucket=versioned, Key="key", Body=b"", Tagging="of=old")["VersionId"])
    put(client, versioned, "key", b"")
    assert client.get_object_tagging(Bucket=versioned, Key="key")["TagSet"] == []
    told = client.get_object_tagging(Bucket=versioned, Key="key", VersionId=old)
    assert (told["TagSet"], told["VersionId"]) == ([{"Key": "of", "Value": "old"}], old)
    tagging = {"TagSet": [{"Key": "a", "Value": "b"}]}
    client.put_object_tagging(Bucket=versioned, Key="key", VersionId=old, Tagging=tagging)
    assert client.head_object(Bucket=versioned, Key="key", VersionId=old)["TagCount"] == 1
    client.delete_object_tagging(Bucket=versioned, Key="key", VersionId=old)
    assert client.get_object_tagging(Bucket=versioned, Key="key", VersionId=old)["TagSet"] == []


def test_versions_that_cannot_be_are_refused(client: S3Client, versioned: str) -> None:
    put(client, versioned, "key", b"")
    with refused("InvalidArgument", 400):
        client.get_object(Bucket=versioned, Key="key", VersionId="nonsense")
    with refused("NoSuchVersion", 404):
        client.get_object(Bucket=versioned, Key="key", VersionId="null")
    with refused("MalformedXML", 400):
        set_versioning(client, versioned, "On")
    with refused("IllegalVersioningConfigurationException", 400):
        client.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={})
    with refused("NotImplemented", 501):
        client.put_bucket_versioning(
            Bucket=versioned, VersioningConfiguration={"Status": "Enabled", "MFADelete": "Enabled"}
        )


def test_a_condition_is_held_against_what_the_key_has(client: S3Client, versioned: str) -> None:
    put(client, versioned, "key", b"")
    with refused("PreconditionFailed", 412):
        client.put_object(Bucket=versioned, Key="key", Body=b"", IfNoneMatch="*")
    client.delete_object(Bucket=versioned, Key="key")
    client.put_object(Bucket=versioned, Key="key", Body=b"again", IfNoneMatch="*")
    assert get(client, versioned, "key") == b"again"


def test_versions_have_access_control_lists_of_their_own(client: S3Client, versioned: str) -> None:
    client.put_bucket_ownership_controls(
        Bucket=versioned, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    client.delete_public_access_block(Bucket=versioned)
    old = put(client, versioned, "key", b"old")
    new = put(client, versioned, "key", b"new")
    client.put_object_acl(Bucket=versioned, Key="key", VersionId=old, ACL="public-read")
    grants = [len(client.get_object_acl(Bucket=versioned, Key="key", VersionId=each)["Grants"]) for each in (old, new)]
    assert grants == [2, 1]
    client.put_object_acl(Bucket=versioned, Key="key", ACL="public-read")
    assert len(client.get_object_acl(Bucket=versioned, Key="key")["Grants"]) == 2
