"""Objects that pages' forms put: what boto3's generate_presigned_post makes, and what somebody makes of it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BOUNDARY = "a-boundary"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return ElementTree.fromstring(self.body).findtext("Code") or ""

    @property
    def message(self) -> str:
        return ElementTree.fromstring(self.body).findtext("Message") or ""


def form(fields: Mapping[str, str], file: bytes | None, name: str = "cat.png", after: bytes = b"") -> bytes:
    """A form as browsers send it."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    if file is not None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + file + b"\r\n")
    return b"".join(parts) + after + f"--{BOUNDARY}--\r\n".encode()


def post(served: Served, bucket: str, body: bytes, boundary: str = f"; boundary={BOUNDARY}") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    try:
        connection.request("POST", f"/{bucket}", body, {"Content-Type": f"multipart/form-data{boundary}"})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def found(client: S3Client, bucket: str) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture(params=["s3", "s3v4"])
def signer(request: pytest.FixtureRequest, served: Served) -> S3Client:
    """A client that signs forms by version 2, as boto3 does in us-east-1 unasked, or by version 4."""
    return client_of(served.endpoint, signature_version=request.param)


def test_a_form_puts_its_file(signer: S3Client, client: S3Client, bucket: str, served: Served) -> None:
    made = signer.generate_presigned_post(
        bucket,
        "pets/${filename}",
        Fields={
            "acl": "bucket-owner-full-control",
            "Content-Type": "image/png",
            "x-amz-meta-Owner": "Zoe",
            "success_action_status": "201",
        },
        Conditions=[
            {"acl": "bucket-owner-full-control"},
            ["starts-with", "$Content-Type", "image/"],
            ["starts-with", "$x-amz-meta-owner", ""],
            ["eq", "$success_action_status", "201"],
            ["content-length-range", 1, 10_000_000],
        ],
    )
    assert made["url"].rstrip("/").endswith(bucket)
    file = os.urandom(3_000_000) + b"\r\n--" + BOUNDARY.encode()[:-1]
    answer = post(served, bucket, form(made["fields"], file, "C:\\pictures\\cät.png"))
    assert answer.status == 201, answer.body
    told = {each.tag: each.text for each in ElementTree.fromstring(answer.body)}
    etag = f'"{hashlib.md5(file).hexdigest()}"'
    assert told == {
        "Location": f"http://127.0.0.1:{served.port}/{bucket}/pets/c%C3%A4t.png",
        "Bucket": bucket,
        "Key": "pets/cät.png",
        "ETag": etag,
    }
    assert (answer.headers["etag"], answer.headers["location"]) == (etag, told["Location"])
    got = client.get_object(Bucket=bucket, Key="pets/cät.png")
    assert got["Body"].read() == file
    assert (got["ContentType"], got["Metadata"]) == ("image/png", {"owner": "Zoe"})


def test_a_form_is_answered_as_it_asks(client: S3Client, bucket: str, served: Served) -> None:
    def answered(**fields: str) -> Answer:
        made = client.generate_presigned_post(
            bucket, "key", Fields=fields, Conditions=[{name: value} for name, value in fields.items()]
        )
        return post(served, bucket, form(made["fields"], b"body"))

    plain = answered()
    assert (plain.status, plain.body) == (204, b"")
    assert answered(success_action_status="200").status == 200
    assert answered(success_action_status="404").status == 204
    etag = hashlib.md5(b"body").hexdigest()
    led = answered(success_action_redirect="http://example.test/done?a=b")
    assert led.status == 303
    assert led.headers["location"] == f"http://example.test/done?a=b&bucket={bucket}&key=key&etag=%22{etag}%22"
    assert answered(redirect="javascript:alert(1)").status == 204
    tagged = "<Tagging><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag></TagSet></Tagging>"
    assert answered(tagging=tagged).status == 204
    assert client.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == [{"Key": "a", "Value": "b c"}]


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"key": "other"}, "AccessDenied", 'Policy Condition failed: ["starts-with", "$key", "user/"]'),
        ({"Content-Type": "text/html"}, "AccessDenied", 'failed: ["eq", "$content-type", "image/png"]'),
        ({"x-amz-meta-more": "1"}, "AccessDenied", "Extra input fields: x-amz-meta-more"),
        ({"x-amz-signature": "0" * 64}, "SignatureDoesNotMatch", "signature"),
        ({"x-amz-credential": "nobody/20260101/us-east-1/s3/aws4_request"}, "InvalidAccessKeyId", "does not exist"),
        ({"x-amz-date": None}, "InvalidArgument", "'x-amz-date'"),
        ({"policy": None}, "InvalidArgument", "'policy'"),
        ({"key": None}, "InvalidArgument", "'key'"),
    ],
)
def test_a_form_that_somebody_has_changed_puts_nothing(
    bucket: str, client: S3Client, served: Served, changed: dict[str, str | None], code: str, message: str
) -> None:
    made = client_of(served.endpoint, signature_version="s3v4").generate_presigned_post(
        bucket,
        "user/me",
        Fields={"Content-Type": "image/png"},
        Conditions=[["starts-with", "$key", "user/"], {"Content-Type": "image/png"}],
    )
    fields: dict[str, Any] = {**made["fields"], **changed}
    answer = post(served, bucket, form({name: value for name, value in fields.items() if value is not None}, b"body"))
    assert answer.code == code, answer.body
    assert message in answer.message
    assert answer.status == (400 if code == "InvalidArgument" else 403)
    assert found(client, bucket) == []


@pytest.mark.parametrize(("size", "code"), [(9, "EntityTooSmall"), (2_000_001, "EntityTooLarge"), (2_000_000, None)])
def test_a_file_has_the_size_that_its_form_allows(
    client: S3Client, bucket: str, served: Served, size: int, code: str | None
) -> None:
    made = client.generate_presigned_post(bucket, "key", Conditions=[["content-length-range", 10, 2_000_000]])
    answer = post(served, bucket, form(made["fields"], bytes(size)))
    if code is None:
        assert answer.status == 204
    else:
        assert (answer.status, answer.code) == (400, code)
    assert found(client, bucket) == ([] if code else ["key"])


@pytest.mark.parametrize(
    "policy",
    [
        b"no json",
        b"[]",
        b'{"conditions": []}',
        b'{"expiration": "2040-01-01T00:00:00Z"}',
        b'{"expiration": "tomorrow", "conditions": []}',
        b'{"expiration": "2040-01-01T00:00:00Z", "conditions": {}}',
        b'{"expiration": "2040-01-01T00:00:00Z", "conditions": [{}]}',
        b'{"expiration": "2040-01-01T00:00:00Z", "conditions": [["content-length-range", 0]]}',
        b'{"expiration": "2040-01-01T00:00:00Z", "conditions": [["content-length-range", -1, 5]]}',
        b'{"expiration": "2040-01-01T00:00:00Z", "conditions": [["ends-with", "$key", "k"]]}',
        b'{"expiration": "2040-01-01T00:00:00Z", "conditions": [["eq", "key", "k"]]}',
        b"[" * 100_000,
    ],
)
def test_a_policy_that_is_none_is_refused(bucket: str, served: Served, policy: bytes) -> None:
    text = base64.b64encode(policy[:9000]).decode()
    answer = post(served, bucket, form(signed(text), b"body"))
    assert (answer.status, answer.code) == (400, "InvalidPolicyDocument"), answer.body


def test_a_policy_ends(bucket: str, served: Served) -> None:
    document = {"expiration": "2020-01-01T00:00:00Z", "conditions": [{"bucket": bucket}, {"key": "key"}]}
    answer = post(served, bucket, form(signed(base64.b64encode(json.dumps(document).encode()).decode()), b"body"))
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert "expired" in answer.message


@pytest.mark.parametrize("name", ["a b", "a:b", "\xe4", "a\x01", "a\x7f", "a(b)"])
def test_no_form_puts_an_object_whose_metadata_no_answer_could_tell(
    signer: S3Client, client: S3Client, bucket: str, served: Served, name: str
) -> None:
    made = signer.generate_presigned_post(bucket, "key", Conditions=[["starts-with", f"$x-amz-meta-{name}", ""]])
    answer = post(served, bucket, form({**made["fields"], f"x-amz-meta-{name}": "1"}, b"body"))
    assert (answer.status, answer.code) == (400, "InvalidArgument"), answer.body
    assert found(client, bucket) == []


def signed(policy: str) -> dict[str, str]:
    """The fields of a form with that policy, signed by version 2."""
    import hmac

    from tests.cloud.s3.server import ACCOUNTS, SECRET

    signature = base64.b64encode(hmac.digest(SECRET.encode(), policy.encode(), "sha1")).decode()
    return {"key": "key", "AWSAccessKeyId": ACCOUNTS[0], "policy": policy, "signature": signature}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "IncorrectNumberOfFilesInPostRequest"),
        (b"no form at all", "MalformedPOSTRequest"),
        (form({"key": "key"}, None), "IncorrectNumberOfFilesInPostRequest"),
        (form({"key": "key", "x": "y" * 30_000}, b"body"), "MaxPostPreDataLengthExceeded"),
        (form({f"field{number}": "" for number in range(3000)}, b"body"), "MaxPostPreDataLengthExceeded"),
        (form({"key": "key"}, b"body").replace(b'name="key"', b"nothing"), "MalformedPOSTRequest"),
        (form({"key": "one"}, None)[:-16] + form({"key": "two"}, b"body"), "MalformedPOSTRequest"),
        (form({"key": "key", "cache-control": "a\r\nX: b"}, b"body"), "InvalidArgument"),
        (form({"key": "key", "x-amz-copy-source": "/other/key"}, b"body"), "InvalidArgument"),
        (form({"key": "key", "tagging": "<!DOCTYPE x>"}, b"body"), "MalformedXML"),
        (form({"key": "key"}, b"body").replace(b"key", b"\xff\xfe", 3), "MalformedPOSTRequest"),
    ],
)
def test_a_form_that_is_none_is_refused(client: S3Client, bucket: str, served: Served, body: bytes, code: str) -> None:
    answer = post(served, bucket, body)
    assert answer.status == 400, answer.body
    assert answer.code == code, answer.body
    assert found(client, bucket) == []


def test_a_form_that_is_cut_short_puts_nothing(client: S3Client, bucket: str, served: Served) -> None:
    whole = form(client.generate_presigned_post(bucket, "key")["fields"], bytes(2_000_000))
    for cut in (10, 30, 1_000_000):
        answer = post(served, bucket, whole[:-cut])
        assert (answer.status, answer.code) == (400, "MalformedPOSTRequest")
    assert found(client, bucket) == []


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=\xe4", "; boundary=" + "x" * 5000])
def test_a_boundary_that_is_none_is_refused(bucket: str, served: Served, boundary: str) -> None:
    answer = post(served, bucket, b"body", boundary)
    assert (answer.status, answer.code) == (400, "MalformedPOSTRequest")


def test_nobodys_form_puts_what_nobody_may_put(client: S3Client, bucket: str, served: Served) -> None:
    body = form({"key": "key"}, b"body", after=form({"more": "ignored"}, None)[: -len(f"--{BOUNDARY}--\r\n")])
    answer = post(served, bucket, body)
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert found(client, bucket) == []
    client.delete_public_access_block(Bucket=bucket)
    resource = f"arn:aws:s3:::{bucket}/key"
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": resource}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert post(served, bucket, body).status == 204
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"body"
    assert post(served, bucket, form({"key": "other"}, b"body")).code == "AccessDenied"


def test_a_form_may_do_what_its_maker_may(stranger: S3Client, client: S3Client, bucket: str, served: Served) -> None:
    made = stranger.generate_presigned_post(bucket, "key")
    answer = post(served, bucket, form(made["fields"], b"body"))
    assert (answer.status, answer.code) == (403, "AccessDenied")
    with refused("404", 404):
        client.head_object(Bucket=bucket, Key="key")
    answer = post(served, "no-such-bucket", form(client.generate_presigned_post("no-such-bucket", "k")["fields"], b"b"))
    assert (answer.status, answer.code) == (404, "NoSuchBucket")
