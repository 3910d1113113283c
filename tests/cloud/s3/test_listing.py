"""Listings, by boto3 and its paginators."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.cloud.s3.refusals import refused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEYS = ["a", "a/b", "a/c/d", "a/c/e", "b c", "b+c", "c/", "c/d", "é", "ü/x"]


@pytest.fixture
def filled(client: S3Client, bucket: str) -> str:
    shuffled = list(KEYS)
    random.Random(1).shuffle(shuffled)
    for key in shuffled:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2", "list_object_versions"])
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_pages_tell_each_key_and_common_prefix_once(
    client: S3Client, filled: str, operation: str, size: int, delimiter: str
) -> None:
    keys: list[str] = []
    prefixes: list[str] = []
    more: dict[str, Any] = {"Delimiter": delimiter} if delimiter else {}
    for page in client.get_paginator(operation).paginate(  # type: ignore[call-overload]
        Bucket=filled, PaginationConfig={"PageSize": size}, **more
    ):
        found = page.get("Contents", []) + page.get("Versions", [])
        keys += [each["Key"] for each in found]
        prefixes += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        assert len(found) + len(page.get("CommonPrefixes", [])) <= size
    if delimiter:
        assert keys == ["a", "b c", "b+c", "é"]
        assert prefixes == ["a/", "c/", "ü/"]
    else:
        assert keys == KEYS
        assert prefixes == []


def test_a_prefix_and_a_place_to_begin_narrow_a_listing(client: S3Client, filled: str) -> None:
    page = client.list_objects_v2(Bucket=filled, Prefix="a/", Delimiter="/")
    assert [each["Key"] for each in page["Contents"]] == ["a/b"]
    assert page["CommonPrefixes"] == [{"Prefix": "a/c/"}]
    assert page["KeyCount"] == 2
    assert [each["Key"] for each in client.list_objects_v2(Bucket=filled, StartAfter="b+c")["Contents"]] == KEYS[6:]
    assert [each["Key"] for each in client.list_objects(Bucket=filled, Marker="b+c")["Contents"]] == KEYS[6:]
    assert client.list_objects_v2(Bucket=filled, Prefix="zzz")["KeyCount"] == 0
    nothing = client.list_objects_v2(Bucket=filled, MaxKeys=0)
    assert (nothing["KeyCount"], nothing["IsTruncated"]) == (0, False)
    assert client.list_objects_v2(Bucket=filled, MaxKeys=5000)["MaxKeys"] == 1000


def test_an_entry_tells_what_the_object_has(client: S3Client, filled: str) -> None:
    entry = client.list_objects_v2(Bucket=filled, Prefix="b c", FetchOwner=True)["Contents"][0]
    head = client.head_object(Bucket=filled, Key="b c")
    assert (entry["ETag"], entry["Size"], entry["StorageClass"]) == (head["ETag"], 3, "STANDARD")
    assert entry["LastModified"] == head["LastModified"]
    assert entry["ChecksumAlgorithm"] == ["CRC32"]
    assert len(entry["Owner"]["ID"]) == 64


def test_what_no_listing_can_be_asked_is_refused(client: S3Client, filled: str) -> None:
    with refused("InvalidArgument"):
        client.list_objects_v2(Bucket=filled, ContinuationToken="nonsense")
    with refused("InvalidArgument"):
        client.list_objects_v2(Bucket=filled, ContinuationToken="")
    with refused("InvalidArgument"):
        client.list_objects_v2(Bucket=filled, MaxKeys=-1)
    with refused("InvalidArgument"):
        client.list_objects_v2(Bucket=filled, EncodingType="base64")
