"""What no client sends: every answer is S3's, and never a mistake of the server's."""

from __future__ import annotations

import http.client
import re
from typing import TYPE_CHECKING

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.cloud.s3.server import ACCOUNTS, SECRET, Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def asked(
    served: Served, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """The status and code of the answer to a request of ours, signed as it should be."""
    url = served.endpoint + path
    request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
    S3SigV4Auth(Credentials(ACCOUNTS[0], SECRET), "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request(method, path, body, dict(request.headers.items()))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    code = re.search(r"<Code>(\w+)</Code>", text)
    return answer.status, code[1] if code else ""


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("PUT", "/{bucket}/%FF%FE", b"", (400, "InvalidURI")),
        ("GET", "/{bucket}/key?partNumber=x", b"", (400, "InvalidArgument")),
        ("GET", "/{bucket}/key?partNumber=0", b"", (416, "InvalidPartNumber")),
        ("GET", "/{bucket}?list-type=2&max-keys=-1", b"", (400, "InvalidArgument")),
        ("GET", "/{bucket}?list-type=2&max-keys=99999999999999999999", b"", (400, "InvalidArgument")),
        ("GET", "/{bucket}?list-type=2&continuation-token=%00", b"", (400, "InvalidArgument")),
        ("GET", "/{bucket}?list-type=2&encoding-type=x", b"", (400, "InvalidArgument")),
        ("POST", "/{bucket}/key?uploadId=none", b"<nonsense", (400, "MalformedXML")),
        ("POST", "/{bucket}?delete", b"", (400, "InvalidRequest")),
        ("PUT", "/{bucket}/key?partNumber=99999&uploadId=x", b"", (400, "InvalidArgument")),
        ("PUT", "/{bucket}/key?partNumber=1&uploadId=../../x", b"", (404, "NoSuchUpload")),
        ("GET", "/{bucket}/key?uploadId=x&part-number-marker=-1", b"", (404, "NoSuchUpload")),
        ("GET", "/.chunks?list-type=2", b"", (400, "InvalidBucketName")),
        ("GET", "/.chunks/ab/abcd", b"", (400, "InvalidBucketName")),
        ("PUT", "/.chunks", b"", (400, "InvalidBucketName")),
        ("DELETE", "/.chunks/ab/abcd", b"", (400, "InvalidBucketName")),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    served: Served, client: S3Client, bucket: str, method: str, path: str, body: bytes, refusal: tuple[int, str]
) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"body")
    assert asked(served, method, path.format(bucket=bucket), body) == refusal


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-copy-source": "%FF"},
        {"x-amz-copy-source": "/"},
        {"x-amz-copy-source": "a?versionId=1"},
        {"x-amz-copy-source": ".chunks/ab/abcd"},
        {"x-amz-storage-class": "NONE"},
        {"x-amz-acl": "everybody"},
        {"x-amz-tagging": "a=%FF"},
        {"x-amz-checksum-crc32": "x"},
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "AAAA"},
        {"x-amz-sdk-checksum-algorithm": "ROT13"},
        {"x-amz-meta-x": "y" * 3000},
        {"if-none-match": '"tag"'},
        {"if-match": '"tag"'},
        {"x-amz-server-side-encryption": "AES128"},
        {"x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-server-side-encryption": "AES256", "x-amz-server-side-encryption-aws-kms-key-id": "key"},
        {"x-amz-object-lock-mode": "GOVERNANCE"},
    ],
)
def test_a_header_that_cannot_be_is_refused_and_nothing_is_put(
    served: Served, client: S3Client, bucket: str, headers: dict[str, str]
) -> None:
    status, code = asked(served, "PUT", f"/{bucket}/key", b"body", headers)
    assert 400 <= status < 500 or code == "NotImplemented"
    assert code
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
