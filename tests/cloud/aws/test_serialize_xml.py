"""Answers as XML: what is empty, what is escaped, what is there although nobody said it."""

from __future__ import annotations

import pytest

from celaje.cloud.aws.codec import codec
from celaje.cloud.aws.serialize_xml import escaped


def written(service: str, operation: str, answer: dict[str, object]) -> str:
    body = codec(service, operation).write(answer, "request-1").body
    assert isinstance(body, bytes)
    return body.decode()


def test_the_namespace_of_ec2_ends_with_a_slash() -> None:
    assert written("ec2", "DescribeVolumes", {"Volumes": []}) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">\n'
        "<requestId>request-1</requestId>\n"
        "<volumeSet></volumeSet></DescribeVolumesResponse>"
    )


def test_an_operation_without_output_returns_true() -> None:
    assert "<return>true</return>" in written("ec2", "DeleteVolume", {})


def test_what_is_none_is_left_out_and_what_is_empty_is_an_empty_element() -> None:
    text = written(
        "ec2", "CreateVolume", {"SnapshotId": "", "KmsKeyId": None, "Tags": [], "Encrypted": False, "Size": 0}
    )
    assert "<snapshotId></snapshotId>" in text
    assert "<tagSet></tagSet>" in text
    assert "<encrypted>false</encrypted><size>0</size>" in text
    assert "kms" not in text


def test_the_query_protocol_wraps_its_result() -> None:
    text = written("sts", "GetCallerIdentity", {"Account": "1"})
    assert '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">' in text
    assert "<GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult>" in text
    assert "<ResponseMetadata><RequestId>request-1</RequestId></ResponseMetadata>" in text


def test_an_attribute_stands_in_its_element() -> None:
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "o"}, "Permission": "READ"}
    text = written("s3", "GetBucketAcl", {"Grants": [grant]})
    assert 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>o</ID></Grantee>' in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ('<a href="x">&', "&lt;a href=&quot;x&quot;&gt;&amp;"),
        ("ünï 🙂", "ünï 🙂"),
        ("a\nb\tc", "a\nb\tc"),
        ("a\rb\x00\x1f\uffff", "a&#xd;b&#x0;&#x1f;&#xffff;"),
    ],
)
def test_text_is_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected
