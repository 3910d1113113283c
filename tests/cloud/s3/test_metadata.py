"""Metadata of users, as S3 decodes and encodes it (RFC 2047); raw headers, since botocore sends ASCII alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("=?UTF-8?B?w4RNw4Raw5XDkSBTMw==?=", "=?UTF-8?Q?=C3=84M=C3=84Z=C3=95=C3=91_S3?="),
        ("=?utf-8?q?test=5F=E2=80=94=5F2=3F.pdf?=", "=?UTF-8?Q?test=5F=E2=80=94=5F2=3F.pdf?="),
        ("=?ISO-8859-1?Q?caf=E9?=", "=?UTF-8?Q?caf=C3=A9?="),
        ("=?UTF-8?Q?actually-ascii?=", "actually-ascii"),
        ("=?UTF-8?B?YWJj?=", "abc"),
        ("=?UTF-8?B?AAECAw==?=", "=?UTF-8?B?AAECAw==?="),  # what cannot be printed
        ("=?UTF-8?Q?a=0D=0Ab?=", "=?UTF-8?B?YQ0KYg==?="),  # and would end a header
        ("=?no-such-charset?Q?a?=", "=?no-such-charset?Q?a?="),
        ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ .", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ."),
        ("a_b =? c", "a_b =? c"),
    ],
)
def test_encoded_words_are_decoded_and_what_is_not_ascii_is_told_encoded(
    client: S3Client, bucket: str, sent: str, told: str
) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"", Metadata={"text": sent})
    assert client.head_object(Bucket=bucket, Key="key")["Metadata"] == {"text": told}
    client.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key")
    assert client.get_object(Bucket=bucket, Key="copy")["Metadata"] == {"text": told}


def test_a_value_in_iso_8859_1_is_text_too(served: Served, bucket: str) -> None:
    signer = client_of(served.endpoint)

    def say(params: dict[str, dict[str, str]], **_: object) -> None:
        params["headers"]["x-amz-meta-text"] = "Größe"  # Python's HTTP client sends it in ISO 8859-1

    signer.meta.events.register("before-call.s3.PutObject", say)
    signer.put_object(Bucket=bucket, Key="key", Body=b"")
    assert signer.head_object(Bucket=bucket, Key="key")["Metadata"] == {"text": "=?UTF-8?Q?Gr=C3=B6=C3=9Fe?="}
    signer.close()


def test_the_limit_is_of_the_text(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"", Metadata={"a": "x" * 2047})
    with refused("MetadataTooLarge", 400):
        client.put_object(Bucket=bucket, Key="key", Body=b"", Metadata={"a": "x" * 2048})
