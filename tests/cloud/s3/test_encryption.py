"""Encryption at rest, by boto3, and by looking at what is on the disk."""

from __future__ import annotations

import base64
import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from celaje.cloud.s3.store.receive import LARGEST_ROW
from celaje.cloud.settings import Settings
from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MEBIBYTE = 1 << 20
BY_DEFAULT: dict[str, Any] = {
    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
}
SIZES = (0, 1, 1000, LARGEST_ROW, LARGEST_ROW + 1, 3 * MEBIBYTE + 7)


def text(size: int, seed: int = 0) -> bytes:
    """Bytes of which every 64 that follow each other are found nowhere else."""
    return random.Random(seed).randbytes(size)


def on_disk(home: Path, plain: bytes) -> bool:
    """Whether some 64 bytes of it are in a file of the store."""
    pieces = [plain[at : at + 64] for at in range(0, len(plain), 4096)]
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    return any(piece in content for piece in pieces if len(piece) >= 32 for content in files)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def test_what_is_asked_to_be_encrypted_is_nowhere_on_the_disk(home: Path) -> None:
    with Served(home) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        for number, size in enumerate(SIZES):
            body = text(size, number)
            put = client.put_object(
                Bucket="a-bucket", Key=str(number), Body=body, ServerSideEncryption="AES256", ChecksumAlgorithm="SHA256"
            )
            assert put["ServerSideEncryption"] == "AES256"
            assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'  # of the plain text, as S3's
            got = client.get_object(Bucket="a-bucket", Key=str(number), ChecksumMode="ENABLED")
            assert (got["ServerSideEncryption"], got["ContentLength"], got["ChecksumSHA256"]) == (
                "AES256",
                size,
                put["ChecksumSHA256"],
            )
            assert got["Body"].read() == body  # and boto3 has held the checksum against it
            head = client.head_object(Bucket="a-bucket", Key=str(number))
            assert (head["ServerSideEncryption"], head["ContentLength"]) == ("AES256", size)
            assert not on_disk(home, body)
        plain = text(100_000, 99)
        put = client.put_object(Bucket="a-bucket", Key="plain", Body=plain)
        assert "ServerSideEncryption" not in put
        assert "ServerSideEncryption" not in client.head_object(Bucket="a-bucket", Key="plain")
        assert on_disk(home, plain)
        client.close()
    assert (home / "cloud" / "s3" / "master-key").stat().st_mode & 0o777 == 0o600
    with Served(home) as served:  # and it is read again after a restart
        client = client_of(served.endpoint)
        for number, size in enumerate(SIZES):
            assert client.get_object(Bucket="a-bucket", Key=str(number))["Body"].read() == text(size, number)
        client.close()


@pytest.mark.parametrize("size", [50_000, 3 * MEBIBYTE + 7])
def test_ranges_of_encrypted_objects_are_decrypted_from_where_they_begin(
    client: S3Client, bucket: str, size: int
) -> None:
    body = text(size)
    client.put_object(Bucket=bucket, Key="key", Body=body, ServerSideEncryption="AES256")
    chance = random.Random(1)
    for _ in range(20):
        start = chance.randrange(size)
        end = chance.randrange(start, size)
        got = client.get_object(Bucket=bucket, Key="key", Range=f"bytes={start}-{end}")
        assert got["ContentRange"] == f"bytes {start}-{end}/{size}"
        assert got["Body"].read() == body[start : end + 1]
    assert client.get_object(Bucket=bucket, Key="key", Range="bytes=-5")["Body"].read() == body[-5:]


def test_a_bucket_encrypts_by_default_what_says_nothing_once_it_is_told_to(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="before", Body=b"before")
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        client.get_bucket_encryption(Bucket=bucket)
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=BY_DEFAULT)
    assert client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"] == BY_DEFAULT
    assert client.put_object(Bucket=bucket, Key="after", Body=b"after")["ServerSideEncryption"] == "AES256"
    copied = client.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/before")
    assert copied["ServerSideEncryption"] == "AES256"
    assert "ServerSideEncryption" not in client.head_object(Bucket=bucket, Key="before")
    client.delete_bucket_encryption(Bucket=bucket)
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        client.get_bucket_encryption(Bucket=bucket)
    assert "ServerSideEncryption" not in client.put_object(Bucket=bucket, Key="last", Body=b"last")
    assert client.get_object(Bucket=bucket, Key="after")["Body"].read() == b"after"
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"before"


def test_copies_are_as_their_own_request_says_and_a_copy_onto_itself_may_encrypt(home: Path) -> None:
    body = text(200_000)
    with Served(home) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        client.put_object(Bucket="a-bucket", Key="key", Body=body, Metadata={"a": "b"})
        assert on_disk(home, body)
        itself: dict[str, Any] = {"Bucket": "a-bucket", "Key": "key"}
        with refused("InvalidRequest", 400):
            client.copy_object(**itself, CopySource=itself)
        made = client.copy_object(**itself, CopySource=itself, ServerSideEncryption="AES256")
        assert made["ServerSideEncryption"] == "AES256"
        head = client.head_object(**itself)
        assert (head["Metadata"], head["ServerSideEncryption"]) == ({"a": "b"}, "AES256")
        assert client.get_object(**itself)["Body"].read() == body
        # Encrypted to encrypted: the same file under a second name. To plain: decrypted.
        client.copy_object(Bucket="a-bucket", Key="twin", CopySource=itself, ServerSideEncryption="AES256")
        client.delete_object(**itself)
        assert client.get_object(Bucket="a-bucket", Key="twin")["Body"].read() == body
        client.close()
    assert not on_disk(home, body)  # the plain file is gone with its row
    with Served(home) as served:
        client = client_of(served.endpoint)
        plain = client.copy_object(Bucket="a-bucket", Key="plain", CopySource="a-bucket/twin")
        assert "ServerSideEncryption" not in plain
        assert client.get_object(Bucket="a-bucket", Key="plain")["Body"].read() == body
        client.close()
    assert on_disk(home, body)


def test_the_parts_of_an_encrypted_upload_are_encrypted_and_copied_parts_too(home: Path) -> None:
    first, last = text(5 * MEBIBYTE + 3, 1), text(70_001, 2)
    source = text(6 * MEBIBYTE, 3)
    with Served(home) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        client.put_object(Bucket="a-bucket", Key="source", Body=source, ServerSideEncryption="AES256")
        upload = client.create_multipart_upload(
            Bucket="a-bucket", Key="key", ServerSideEncryption="AES256", ChecksumAlgorithm="CRC32"
        )
        assert upload["ServerSideEncryption"] == "AES256"
        names: dict[str, Any] = {"Bucket": "a-bucket", "Key": "key", "UploadId": upload["UploadId"]}
        parts = []

        def note(number: int, answer: object) -> None:
            assert isinstance(answer, dict)
            assert answer["ServerSideEncryption"] == "AES256"
            told = answer.get("CopyPartResult", answer)
            parts.append({"PartNumber": number, "ETag": told["ETag"], "ChecksumCRC32": told["ChecksumCRC32"]})

        note(1, client.upload_part(**names, PartNumber=1, Body=first, ChecksumAlgorithm="CRC32"))
        whole = {"Bucket": "a-bucket", "Key": "source"}
        note(2, client.upload_part_copy(**names, PartNumber=2, CopySource=whole))
        span = f"bytes=17-{5 * MEBIBYTE + 16}"
        note(3, client.upload_part_copy(**names, PartNumber=3, CopySource=whole, CopySourceRange=span))
        note(4, client.upload_part(**names, PartNumber=4, Body=last, ChecksumAlgorithm="CRC32"))
        done = client.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
        assert done["ServerSideEncryption"] == "AES256"
        expected = first + source + source[17 : 5 * MEBIBYTE + 17] + last
        got = client.get_object(Bucket="a-bucket", Key="key")
        assert (got["ServerSideEncryption"], got["Body"].read()) == ("AES256", expected)
        for start, end in ((len(first) - 9, len(first) + 9), (5, len(expected) - 3)):
            got = client.get_object(Bucket="a-bucket", Key="key", Range=f"bytes={start}-{end}")
            assert got["Body"].read() == expected[start : end + 1]
        assert client.get_object(Bucket="a-bucket", Key="key", PartNumber=4)["Body"].read() == last
        # A plain upload's parts are plain, also those that come from an encrypted object.
        upload = client.create_multipart_upload(Bucket="a-bucket", Key="plain")
        assert not on_disk(home, first + source + last)
        answer = client.upload_part_copy(
            Bucket="a-bucket", Key="plain", UploadId=upload["UploadId"], PartNumber=1, CopySource=whole
        )
        assert "ServerSideEncryption" not in answer
        assert on_disk(home, source)
        client.close()


def test_how_an_object_is_encrypted_is_told_and_not_asked(served: Served, bucket: str) -> None:
    client = client_of(served.endpoint)
    client.put_object(Bucket=bucket, Key="key", Body=b"text", ServerSideEncryption="AES256")

    def ask(params: dict[str, dict[str, str]], **_: object) -> None:
        params["headers"]["x-amz-server-side-encryption"] = "AES256"

    client.meta.events.register("before-call.s3", ask)
    with refused("InvalidArgument", 400):
        client.get_object(Bucket=bucket, Key="key")
    with refused("400", 400):
        client.head_object(Bucket=bucket, Key="key")
    client.close()


def test_each_version_is_kept_as_it_was_put(client: S3Client, bucket: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    bodies = [text(size, size) for size in (10, 100_000, 20, 200_000)]
    made = []
    for number, body in enumerate(bodies):
        given: dict[str, Any] = {"ServerSideEncryption": "AES256"} if number < 2 else {}
        made.append(client.put_object(Bucket=bucket, Key="key", Body=body, **given)["VersionId"])
    for number, (body, version) in enumerate(zip(bodies, made, strict=True)):
        got = client.get_object(Bucket=bucket, Key="key", VersionId=version)
        assert got["Body"].read() == body
        assert ("ServerSideEncryption" in got) == (number < 2)
    tags = [{"Key": "a", "Value": "b"}]
    client.put_object_tagging(Bucket=bucket, Key="key", VersionId=made[1], Tagging={"TagSet": tags})
    for version in made[2:]:
        client.delete_object(Bucket=bucket, Key="key", VersionId=version)
    got = client.get_object(Bucket=bucket, Key="key")
    assert (got["ServerSideEncryption"], got["Body"].read(), got["TagCount"]) == ("AES256", bodies[1], 1)


def test_each_body_has_a_key_of_its_own(home: Path) -> None:
    body = bytes(100_000)
    with Served(home) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        for key in ("one", "two"):
            client.put_object(Bucket="a-bucket", Key=key, Body=body, ServerSideEncryption="AES256")
        client.close()
    one, two = (path.read_bytes() for path in (home / "cloud" / "s3" / "contents").rglob("*") if path.is_file())
    assert len(one) == len(two) == 76 + len(body)
    differing = sum(a != b for a, b in zip(one[76:], two[76:], strict=True))
    assert differing > 0.98 * len(body)


def key_file(home: Path) -> Path:
    return home / "cloud" / "s3" / "master-key"


def another_key(path: Path) -> None:
    with Served(path.parent / "elsewhere") as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="b-bucket")
        client.put_object(Bucket="b-bucket", Key="key", Body=b"", ServerSideEncryption="AES256")
        client.close()
    path.write_bytes(key_file(path.parent / "elsewhere").read_bytes())


def altered(path: Path) -> None:
    digits = path.read_bytes()
    path.write_bytes(digits[:-2] + (b"1\n" if digits[-2:] == b"0\n" else b"0\n"))


@pytest.mark.parametrize("damage", [Path.unlink, altered, another_key, lambda path: path.chmod(0o644)])
def test_without_its_key_an_object_is_refused_and_never_garbage(home: Path, damage: object) -> None:
    assert callable(damage)
    small, large = text(1000, 1), text(100_000, 2)
    with Served(home) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        for key, body in (("small", small), ("large", large)):
            client.put_object(Bucket="a-bucket", Key=key, Body=body, ServerSideEncryption="AES256")
        client.put_object(Bucket="a-bucket", Key="plain", Body=b"plain")
        client.close()
    kept = key_file(home).read_bytes()
    damage(key_file(home))
    with Served(home) as served:
        client = client_of(served.endpoint)
        for key in ("small", "large"):
            with refused("InternalError", 500):
                client.get_object(Bucket="a-bucket", Key=key)
            with refused("InternalError", 500):
                client.copy_object(Bucket="a-bucket", Key="copy", CopySource=f"a-bucket/{key}")
            assert client.head_object(Bucket="a-bucket", Key=key)["ServerSideEncryption"] == "AES256"
        # No other key is made, and nothing is kept plain that was to be encrypted.
        with refused("InternalError", 500):
            client.put_object(Bucket="a-bucket", Key="new", Body=b"new", ServerSideEncryption="AES256")
        assert client.get_object(Bucket="a-bucket", Key="plain")["Body"].read() == b"plain"
        keys = [each["Key"] for each in client.list_objects_v2(Bucket="a-bucket")["Contents"]]
        assert keys == ["large", "plain", "small"]
        # As soon as it is put back, all is well: no restart is needed.
        key_file(home).write_bytes(kept)
        key_file(home).chmod(0o600)
        assert client.get_object(Bucket="a-bucket", Key="small")["Body"].read() == small
        assert client.get_object(Bucket="a-bucket", Key="large")["Body"].read() == large
        client.put_object(Bucket="a-bucket", Key="new", Body=b"new", ServerSideEncryption="AES256")
        key_file(home).unlink()
        with refused("InternalError", 500):  # what could not be read after a restart is not taken
            client.put_object(Bucket="a-bucket", Key="newer", Body=b"new", ServerSideEncryption="AES256")
        client.close()


def test_a_body_whose_head_was_altered_is_refused(home: Path) -> None:
    with Served(home) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        client.put_object(Bucket="a-bucket", Key="key", Body=text(100_000), ServerSideEncryption="AES256")
        (path,) = (path for path in (home / "cloud" / "s3" / "contents").rglob("*") if path.is_file())
        whole = path.read_bytes()
        for at in (0, 9, 20, 40, 75):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with refused("InternalError", 500):
                client.get_object(Bucket="a-bucket", Key="key")
        path.write_bytes(whole)
        assert client.get_object(Bucket="a-bucket", Key="key")["Body"].read() == text(100_000)
        client.close()


def test_keys_of_others_are_refused_by_name(client: S3Client, bucket: str) -> None:
    with refused("NotImplemented", 501):
        client.put_object(Bucket=bucket, Key="key", Body=b"", ServerSideEncryption="aws:kms")
    with refused("NotImplemented", 501):
        client.create_multipart_upload(Bucket=bucket, Key="key", ServerSideEncryption="aws:kms:dsse")
    with refused("InvalidArgument", 400):
        client.put_object(Bucket=bucket, Key="key", Body=b"", ServerSideEncryption="AES256", SSEKMSKeyId="a-key")
    rules: list[tuple[str, dict[str, object]]] = [
        ("NotImplemented", {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}),
        ("MalformedXML", {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES512"}}),
        (
            "InvalidArgument",
            {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256", "KMSMasterKeyID": "a-key"}},
        ),
    ]
    for code, rule in rules:
        with refused(code):
            client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    with refused("MalformedXML"):
        client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": []})
    with refused("ServerSideEncryptionConfigurationNotFoundError"):
        client.get_bucket_encryption(Bucket=bucket)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_a_cloud_may_encrypt_what_is_put_into_new_buckets_unasked(tmp_path: Path) -> None:
    with Served(tmp_path, settings=Settings(encrypt_new_buckets=True)) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        assert client.get_bucket_encryption(Bucket="a-bucket")["ServerSideEncryptionConfiguration"] == BY_DEFAULT
        body = text(100_000)
        assert client.put_object(Bucket="a-bucket", Key="key", Body=body)["ServerSideEncryption"] == "AES256"
        assert not on_disk(tmp_path, body)
        with refused("InvalidRequest", 400):  # what nobody asked for is no change
            client.copy_object(Bucket="a-bucket", Key="key", CopySource="a-bucket/key")
        client.delete_bucket_encryption(Bucket="a-bucket")
        assert client.get_bucket_encryption(Bucket="a-bucket")["ServerSideEncryptionConfiguration"] == BY_DEFAULT
        client.close()


KEY: dict[str, Any] = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes(range(32))}
OTHER = bytes(32)
SOURCE: dict[str, Any] = {f"CopySource{name}": value for name, value in KEY.items()}


def test_what_a_client_has_the_key_of_is_read_with_that_key_alone(home: Path) -> None:
    with Served(home) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        for number, size in enumerate(SIZES):
            body, names = text(size, number), {"Bucket": "a-bucket", "Key": str(number)}
            put = client.put_object(**names, Body=body, **KEY)
            assert (put["SSECustomerAlgorithm"], "ServerSideEncryption" in put) == ("AES256", False)
            got = client.get_object(**names, **KEY)
            assert (got["Body"].read(), got["SSECustomerKeyMD5"]) == (body, put["SSECustomerKeyMD5"])
            assert client.head_object(**names, **KEY)["ContentLength"] == size
            for ask in (client.get_object, client.head_object):
                code = "InvalidRequest" if ask == client.get_object else "400"
                with refused(code, 400):
                    ask(**names)  # type: ignore[operator]  # methods of two types
                code = "AccessDenied" if ask == client.get_object else "403"
                with refused(code, 403):
                    ask(**names, SSECustomerAlgorithm="AES256", SSECustomerKey=OTHER)  # type: ignore[operator]
            assert not on_disk(home, body)
        assert not key_file(home).exists()  # the store needs none of its own
        client.put_object(Bucket="a-bucket", Key="plain", Body=b"plain")
        with refused("InvalidRequest", 400):
            client.get_object(Bucket="a-bucket", Key="plain", **KEY)
        client.close()
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    for secret in (bytes(range(32)), base64.b64encode(bytes(range(32))), bytes(range(32)).hex().encode()):
        assert not any(secret in content for content in files)
    with Served(home) as served:
        client = client_of(served.endpoint)
        span: dict[str, Any] = {"Bucket": "a-bucket", "Key": str(len(SIZES) - 1), "Range": "bytes=100001-200000"}
        assert client.get_object(**span, **KEY)["Body"].read() == text(SIZES[-1], len(SIZES) - 1)[100001:200001]
        client.close()


def test_copies_and_parts_have_the_keys_that_their_requests_say(client: S3Client, bucket: str) -> None:
    first, last = text(5 * MEBIBYTE, 1), text(99, 2)
    client.put_object(Bucket=bucket, Key="source", Body=first, **KEY)
    source = {"Bucket": bucket, "Key": "source"}
    with refused("InvalidRequest", 400):
        client.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    copied = client.copy_object(Bucket=bucket, Key="copy", CopySource=source, ServerSideEncryption="AES256", **SOURCE)
    assert copied["ServerSideEncryption"] == "AES256"
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == first
    upload = client.create_multipart_upload(Bucket=bucket, Key="key", **KEY)
    names: dict[str, Any] = {"Bucket": bucket, "Key": "key", "UploadId": upload["UploadId"]}
    for more in ({}, {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": OTHER}):
        with refused("InvalidRequest", 400):
            client.upload_part(**names, PartNumber=1, Body=b"x", **more)
    one = client.upload_part_copy(**names, PartNumber=1, CopySource=source, **KEY, **SOURCE)["CopyPartResult"]
    two = client.upload_part(**names, PartNumber=2, Body=last, **KEY)
    whole = {"Parts": [{"PartNumber": 1, "ETag": one["ETag"]}, {"PartNumber": 2, "ETag": two["ETag"]}]}
    wrong: dict[str, Any] = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": OTHER}
    with refused("InvalidRequest", 400):
        client.complete_multipart_upload(**names, MultipartUpload=whole, **wrong)
    client.complete_multipart_upload(**names, MultipartUpload=whole, **KEY)
    assert client.get_object(Bucket=bucket, Key="key", **KEY)["Body"].read() == first + last
    with refused("AccessDenied", 403):
        client.get_object(Bucket=bucket, Key="key", SSECustomerAlgorithm="AES256", SSECustomerKey=OTHER)
    itself = client.copy_object(Bucket=bucket, Key="key", CopySource=f"{bucket}/key", **KEY, **SOURCE)
    assert itself["SSECustomerAlgorithm"] == "AES256"
    assert client.get_object(Bucket=bucket, Key="key", **KEY)["Body"].read() == first + last


def test_keys_that_cannot_be_are_refused_and_so_are_all_where_a_bucket_takes_none(
    client: S3Client, bucket: str
) -> None:
    encoded, md5 = (base64.b64encode(each).decode() for each in (bytes(range(32)), hashlib.md5(bytes(32)).digest()))
    for given in (
        {"SSECustomerAlgorithm": "AES128", "SSECustomerKey": bytes(32)},
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes(31)},
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": encoded, "SSECustomerKeyMD5": md5},
        {"SSECustomerAlgorithm": "AES256"},
        {**KEY, "ServerSideEncryption": "AES256"},
    ):
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=bucket, Key="key", Body=b"", **given)
        assert caught.value.response["Error"]["Code"] in ("InvalidArgument", "InvalidEncryptionAlgorithmError")
        assert "AQIDBAUG" not in str(caught.value.response)  # no answer repeats a key
    rule = {**BY_DEFAULT["Rules"][0], "BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]}}
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"] == [rule]
    with refused("AccessDenied", 403):
        client.put_object(Bucket=bucket, Key="key", Body=b"", **KEY)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
