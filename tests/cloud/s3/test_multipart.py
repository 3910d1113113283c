"""Multipart uploads, by boto3 and its transfer manager."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from boto3.s3.transfer import TransferConfig

from celaje.cloud.aws.checksums import Checksum
from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MEBIBYTE = 1 << 20
BODIES = [os.urandom(5 * MEBIBYTE), os.urandom(5 * MEBIBYTE + 3), os.urandom(1000)]


def checksum(algorithm: str, body: bytes) -> str:
    found = Checksum(algorithm)
    found.update(body)
    return found.base64


def multipart_etag(bodies: list[bytes]) -> str:
    md5s = b"".join(hashlib.md5(body).digest() for body in bodies)
    return f'"{hashlib.md5(md5s).hexdigest()}-{len(bodies)}"'


def test_a_transfer_in_parts_comes_back_in_parts(client: S3Client, bucket: str) -> None:
    body = os.urandom(21 * MEBIBYTE)
    config = TransferConfig(multipart_threshold=5 * MEBIBYTE, multipart_chunksize=5 * MEBIBYTE)
    client.upload_fileobj(io.BytesIO(body), bucket, "key", Config=config)
    assert client.head_object(Bucket=bucket, Key="key")["ETag"].endswith('-5"')
    got = io.BytesIO()
    client.download_fileobj(bucket, "key", got, Config=config)
    assert got.getvalue() == body
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == body
    client.copy({"Bucket": bucket, "Key": "key"}, bucket, "copy", Config=config)
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == body
    client.copy_object(Bucket=bucket, Key="whole", CopySource={"Bucket": bucket, "Key": "key"})
    whole = client.get_object(Bucket=bucket, Key="whole")
    assert whole["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert whole["Body"].read() == body


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"), ("SHA256", "COMPOSITE")],
)
def test_an_upload_has_the_checksum_that_it_was_begun_with(
    client: S3Client, bucket: str, algorithm: str, kind: str
) -> None:
    member = f"Checksum{algorithm}"
    upload = client.create_multipart_upload(
        Bucket=bucket, Key="key", ChecksumAlgorithm=algorithm, ChecksumType=kind, Metadata={"a": "b"}
    )
    assert (upload["ChecksumAlgorithm"], upload["ChecksumType"]) == (algorithm, kind)
    names: dict[str, Any] = {"Bucket": bucket, "Key": "key", "UploadId": upload["UploadId"]}
    parts = []
    for number, body in enumerate(BODIES, 1):
        answer = client.upload_part(**names, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        assert answer[member] == checksum(algorithm, body)  # type: ignore[literal-required]
        parts.append({"PartNumber": number, "ETag": answer["ETag"], member: answer[member]})  # type: ignore[literal-required]
    listed = client.list_parts(**names, MaxParts=2)
    assert [each["PartNumber"] for each in listed["Parts"]] == [1, 2]
    assert listed["IsTruncated"]
    rest = client.list_parts(**names, PartNumberMarker=listed["NextPartNumberMarker"])
    assert [(each["PartNumber"], each["Size"]) for each in rest["Parts"]] == [(3, 1000)]
    done = client.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    assert done["ETag"] == multipart_etag(BODIES)
    whole = b"".join(BODIES)
    if kind == "FULL_OBJECT":
        expected = checksum(algorithm, whole)
    else:
        digests = b"".join(base64.b64decode(checksum(algorithm, body)) for body in BODIES)
        expected = checksum(algorithm, digests) + "-3"
    assert (done[member], done["ChecksumType"]) == (expected, kind)  # type: ignore[literal-required]
    again = client.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    assert again["ETag"] == done["ETag"]
    head = client.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert (head[member], head["Metadata"]) == (expected, {"a": "b"})  # type: ignore[literal-required]
    part = client.get_object(Bucket=bucket, Key="key", PartNumber=2)
    assert (part["Body"].read(), part["PartsCount"]) == (BODIES[1], 3)
    assert part["ContentRange"] == f"bytes {len(BODIES[0])}-{len(BODIES[0] + BODIES[1]) - 1}/{len(whole)}"
    across = client.get_object(Bucket=bucket, Key="key", Range=f"bytes={len(BODIES[0]) - 5}-{len(BODIES[0]) + 4}")
    assert across["Body"].read() == BODIES[0][-5:] + BODIES[1][:5]
    attributes = client.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["ObjectParts", "Checksum"])
    assert attributes["ObjectParts"]["TotalPartsCount"] == 3
    assert attributes["Checksum"][member] == expected.removesuffix("-3")  # type: ignore[literal-required]  # as S3
    copied = client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "key"})[
        "CopyObjectResult"
    ]  # which is in parts no more
    assert (copied[member], copied["ChecksumType"]) == (checksum(algorithm, whole), "FULL_OBJECT")  # type: ignore[literal-required]
    with refused("InvalidPartNumber", 416):
        client.get_object(Bucket=bucket, Key="key", PartNumber=4)


def test_an_upload_with_checksums_of_its_parts_takes_none_without(served: Served, bucket: str) -> None:
    client = client_of(served.endpoint, request_checksum_calculation="when_required")
    upload = client.create_multipart_upload(Bucket=bucket, Key="key", ChecksumAlgorithm="SHA256")
    names: dict[str, Any] = {"Bucket": bucket, "Key": "key", "UploadId": upload["UploadId"]}
    with refused("InvalidRequest"):
        client.upload_part(**names, PartNumber=1, Body=b"body")
    with refused("InvalidRequest"):
        client.upload_part(**names, PartNumber=1, Body=b"body", ChecksumAlgorithm="CRC32")
    part = client.upload_part(**names, PartNumber=1, Body=b"body", ChecksumAlgorithm="SHA256")
    listed: dict[str, Any] = {"PartNumber": 1, "ETag": part["ETag"]}
    with refused("InvalidRequest"):
        client.complete_multipart_upload(**names, MultipartUpload={"Parts": [listed]})
    listed["ChecksumSHA256"] = part["ChecksumSHA256"]
    assert client.complete_multipart_upload(**names, MultipartUpload={"Parts": [listed]})["ETag"]
    plain = client.create_multipart_upload(Bucket=bucket, Key="plain")
    names = {"Bucket": bucket, "Key": "plain", "UploadId": plain["UploadId"]}
    part = client.upload_part(**names, PartNumber=1, Body=b"body")
    client.complete_multipart_upload(**names, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})


def test_parts_are_copied_from_ranges_of_objects(client: S3Client, bucket: str) -> None:
    source = os.urandom(11 * MEBIBYTE)
    client.put_object(Bucket=bucket, Key="source", Body=source)
    upload = client.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    names: dict[str, Any] = {"Bucket": bucket, "Key": "key", "UploadId": upload}
    ranges = [(0, 5 * MEBIBYTE), (5 * MEBIBYTE, 11 * MEBIBYTE)]
    parts = []
    for number, (start, end) in enumerate(ranges, 1):
        answer = client.upload_part_copy(
            **names,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": "source"},
            CopySourceRange=f"bytes={start}-{end - 1}",
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    whole = client.upload_part_copy(**names, PartNumber=3, CopySource={"Bucket": bucket, "Key": "source"})
    parts.append({"PartNumber": 3, "ETag": whole["CopyPartResult"]["ETag"]})
    for text in ("bytes=0-99999999", "bytes=5-", "0-5", "bytes=7-3"):
        with refused("InvalidArgument"):
            client.upload_part_copy(
                **names, PartNumber=4, CopySource={"Bucket": bucket, "Key": "source"}, CopySourceRange=text
            )
    client.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == source + source


def test_a_completion_that_cannot_be_is_refused_and_the_upload_stays(client: S3Client, bucket: str) -> None:
    upload = client.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    names: dict[str, Any] = {"Bucket": bucket, "Key": "key", "UploadId": upload}
    etags = [client.upload_part(**names, PartNumber=n, Body=b"small")["ETag"] for n in (1, 2)]

    def complete(*parts: tuple[int, str]) -> None:
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        client.complete_multipart_upload(**names, MultipartUpload={"Parts": listed})

    with refused("EntityTooSmall", 400):
        complete((1, etags[0]), (2, etags[1]))
    with refused("InvalidPart", 400):
        complete((1, '"0"'))
    with refused("InvalidPart", 400):
        complete((3, etags[0]))
    with refused("InvalidPartOrder", 400):
        complete((2, etags[1]), (1, etags[0]))
    with refused("MalformedXML", 400):
        complete()
    with refused("InvalidArgument", 400):
        client.upload_part(**names, PartNumber=10_001, Body=b"")
    with refused("NoSuchUpload", 404):
        client.upload_part(Bucket=bucket, Key="other", UploadId=upload, PartNumber=1, Body=b"")
    with refused("InvalidRequest", 400):
        client.complete_multipart_upload(
            **names, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etags[0]}]}, MpuObjectSize=4
        )
    with refused("NoSuchKey", 404):
        client.get_object(Bucket=bucket, Key="key")
    complete((2, etags[1]))
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"small"
    with refused("NoSuchUpload", 404):
        client.list_parts(**names)


def test_a_completion_that_names_what_was_put_meanwhile_is_a_conflict(client: S3Client, bucket: str) -> None:
    def begun() -> dict[str, object]:
        upload = client.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
        names: dict[str, Any] = {"Bucket": bucket, "Key": "key", "UploadId": upload}
        etag = client.upload_part(**names, PartNumber=1, Body=b"parts")["ETag"]
        return {**names, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}}

    with refused("NoSuchKey", 404):
        client.complete_multipart_upload(**begun(), IfMatch='"etag"')
    before = client.put_object(Bucket=bucket, Key="key", Body=b"before")["ETag"]
    upload = begun()
    time.sleep(0.01)
    during = client.put_object(Bucket=bucket, Key="key", Body=b"during")["ETag"]
    with refused("PreconditionFailed", 412):
        client.complete_multipart_upload(**upload, IfMatch=before)
    with refused("ConditionalRequestConflict", 409):
        client.complete_multipart_upload(**upload, IfMatch=during)
    time.sleep(0.01)
    client.complete_multipart_upload(**begun(), IfMatch=during)
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"parts"


def test_the_listings_of_uploads_say_who_began_them_and_how_they_are_checked(client: S3Client, bucket: str) -> None:
    upload = client.create_multipart_upload(
        Bucket=bucket, Key="key", ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE"
    )["UploadId"]
    client.create_multipart_upload(Bucket=bucket, Key="plain")
    owner = client.list_buckets()["Owner"]["ID"]
    checked, plain = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert (checked["ChecksumAlgorithm"], checked["ChecksumType"]) == ("SHA256", "COMPOSITE")
    assert "ChecksumType" not in plain
    parts = client.list_parts(Bucket=bucket, Key="key", UploadId=upload)
    assert (parts["ChecksumAlgorithm"], parts["ChecksumType"]) == ("SHA256", "COMPOSITE")
    for told in (checked, plain, parts):
        assert told["Initiator"] == {"ID": owner}
        assert told["Owner"] == {"ID": owner}


def test_uploads_are_listed_and_aborted(client: S3Client, bucket: str) -> None:
    keys = ["a/1", "a/2", "b", "b", "c"]
    begun = [(key, client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]) for key in keys]
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [(each["Key"], each["UploadId"]) for page in pages for each in page.get("Uploads", [])] == begun
    rolled = client.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert rolled["CommonPrefixes"] == [{"Prefix": "a/"}]
    for key, upload in begun:
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x")
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    with refused("NoSuchUpload", 404):
        client.abort_multipart_upload(Bucket=bucket, Key=keys[0], UploadId=begun[0][1])
