"""Texts made to be read slowly, or not to be written again. Those that take a signature are signed; the others anybody
may send. A daemon that tries a text in all the ways in which it can be divided answers none of these, nor anybody else.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from celaje.cloud.aws.scalars import read_float, read_timestamp
from tests.cloud.served import Owner, ServedCloud, refusal

_NUMBERS = itertools.count()
LONG = 50_000  # characters; a head has at most 64 KiB


def told(cloud: ServedCloud, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the answer to a request that nobody signed."""
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def bucket(owner: Owner) -> str:
    name = f"hostile-texts-{next(_NUMBERS)}"
    s3 = owner.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="book", Body=b"text")
    return name


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "a.s3" + "-" * 200 + "!"},
        {"Host": "a.s3" + ".a-" * 80 + ".localhos"},
        {"Host": "a.s3" * (LONG // 4)},
        {"If-Modified-Since": "1" * LONG + "x"},
        {"If-Modified-Since": "1." * (LONG // 2)},
        {"x-amz-copy-source-if-unmodified-since": "9" * LONG + "e"},
    ],
    ids=["dashes", "pairs", "names", "digits", "points", "copy"],
)
def test_nobody_keeps_the_daemon_busy_with_a_header(served_cloud, headers):
    status, body = told(served_cloud, "GET", "/no-such-bucket-here/key", headers)
    assert 400 <= status < 500
    assert b"<Error>" in body


def test_nobody_keeps_the_daemon_busy_with_text_between_elements(served_cloud):
    document = b"<CORSConfiguration>" + (b"x" * 36 + b"<a/>") * 99_000 + b"</CORSConfiguration>"
    digest = base64.b64encode(hashlib.md5(document).digest()).decode()
    status, body = told(served_cloud, "PUT", "/no-such-bucket-here?cors", {"Content-MD5": digest}, document)
    assert (status, b"<Code>MalformedXML</Code>" in body) == (400, True)


def test_ranges_and_grants_are_read_once(owner, bucket):
    s3 = owner.client("s3")
    spaces = " " * LONG
    for given in (f"bytes={spaces}x", f"{spaces}byte", f"bytes=1{spaces}x"):
        assert s3.get_object(Bucket=bucket, Key="book", Range=given)["Body"].read() == b"text"
    for given in (f'id="{spaces}"x', f'id=a{spaces}"b', f"{spaces}i"):
        assert refusal(s3.create_bucket, Bucket=f"{bucket}-x", GrantRead=given)[0] == "InvalidArgument"


@pytest.mark.parametrize("text", ["1" * 1_000_000 + "x", "1." + "1" * 1_000_000, "1e" + "1" * 1_000_000])
def test_a_number_of_a_million_digits_is_none(text):
    for read in (read_float, read_timestamp):
        with pytest.raises(ValueError, match="a"):
            read(text)


HALF = "\\ud800"  # of a pair of surrogates: JSON can say it, UTF-8 cannot


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "Action": "HALF:x", "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "HALF"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"StringEquals": {"HALF": "x"}}},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"StringEquals": {"aws:userid": "HALF"}}},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Sid": "HALF"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "HALF": "x"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Principal": {"HALF": "x"}},
        {"Effect": "HALF", "Action": "s3:*", "Resource": "*"},
    ],
)
def test_a_policy_with_half_a_character_is_refused(owner, bucket, statement: dict[str, Any]):
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).replace("HALF", HALF)
    iam, s3 = owner.client("iam"), owner.client("s3")
    malformed = "MalformedPolicyDocument"
    assert refusal(iam.create_policy, PolicyName="p", PolicyDocument=text)[0] == malformed
    assert refusal(iam.create_role, RoleName="r", AssumeRolePolicyDocument=text)[0] == malformed
    assert refusal(iam.simulate_custom_policy, PolicyInputList=[text], ActionNames=["s3:GetObject"])[0] == malformed
    assert refusal(s3.put_bucket_policy, Bucket=bucket, Policy=text)[0] == "MalformedPolicy"


ENDED = "a\r\nSet-Cookie: session=stolen"


@pytest.mark.parametrize("member", ["CacheControl", "ContentDisposition", "ContentEncoding", "ContentType"])
def test_no_answer_has_a_header_that_a_link_wrote_into_another(owner, bucket, member):
    s3 = owner.client("s3")
    for value in (ENDED, "a\0b"):
        code, message = refusal(s3.get_object, Bucket=bucket, Key="book", **{f"Response{member}": value})
        assert (code, "control characters" in message) == ("InvalidArgument", True)
    assert s3.get_object(Bucket=bucket, Key="book", **{f"Response{member}": "a\tb"})["Body"].read() == b"text"


def test_no_configuration_of_a_bucket_writes_into_its_answers(owner, bucket):
    s3 = owner.client("s3")
    cors = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "ExposeHeaders": [ENDED]}
    assert refusal(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": [cors]})[0] == "InvalidArgument"
    rule = {
        "ID": ENDED,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    assert (
        refusal(s3.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})[0]
        == "InvalidArgument"
    )
    s3.create_multipart_upload(Bucket=bucket, Key="book")


def test_a_simulation_is_as_large_as_it_can_be_carried_out(owner):
    iam = owner.client("iam")

    def simulated(documents: int, patterns: int, actions: int) -> str:
        resources = [f"arn:aws:s3:::b/*{number}*" for number in range(patterns)]
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": resources}]}
        try:
            iam.simulate_custom_policy(
                PolicyInputList=[json.dumps(policy)] * documents,
                ActionNames=[f"s3:Get{number}" for number in range(actions)],
                ResourceArns=["arn:aws:s3:::b/nothing"],
            )
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return ""

    assert simulated(1, 4000, 10) == ""
    assert simulated(1, 100, 1000) == ""
    assert simulated(1, 4000, 1000) == "InvalidInput"
    assert simulated(3, 4000, 1) == "InvalidInput"


def test_what_is_kept_of_a_bucket_in_memory_is_bounded(owner, bucket):
    s3 = owner.client("s3")
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": [f"https://{number}.example"]} for number in range(100)]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    rules[0]["AllowedOrigins"] = [f"https://{number}.example" for number in range(6000)]
    assert refusal(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": rules})[0] == "InvalidRequest"
    for place in ({"Prefix": "p" * 1025}, {"Filter": {"Prefix": "p" * 1025}}):
        rule = {"ID": "x", "Status": "Enabled", "Expiration": {"Days": 1}, **place}
        lifecycle = {"Rules": [rule]}
        assert (
            refusal(s3.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration=lifecycle)[0]
            == "InvalidRequest"
        )
    grantee = {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}
    listed = [{"Grantee": grantee, "Permission": "READ"}] * 20_000
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    policy = {"Grants": listed, "Owner": {"ID": "x"}}
    assert refusal(s3.put_bucket_acl, Bucket=bucket, AccessControlPolicy=policy)[0] == "MalformedACLError"


@pytest.mark.parametrize("tag", ["a=%01", "%00=b", "a=b%0Ac", "a%26b=c", "a=%F0%9F%98%80"])
def test_no_tag_makes_an_answer_that_nobody_can_read(owner, bucket, tag):
    s3 = owner.client("s3")
    assert refusal(s3.put_object, Bucket=bucket, Key="tagged", Body=b"", Tagging=tag)[0] == "InvalidTag"
    s3.put_object(Bucket=bucket, Key="tagged", Body=b"", Tagging="%C3%A9t%C3%A9+1=a.b:c/d=e%2Bf-g@h_%E7%8C%AB")
    assert s3.get_object_tagging(Bucket=bucket, Key="tagged")["TagSet"] == [
        {"Key": "été 1", "Value": "a.b:c/d=e+f-g@h_猫"}
    ]


def test_a_filter_is_no_longer_than_what_it_looks_at(owner):
    ec2 = owner.client("ec2")
    for value in ("*" + "a" * 1024, "?" * 1_000_000):
        asked = [{"Name": "instance-type", "Values": ["t3.nano", value]}]
        assert refusal(ec2.describe_instance_types, Filters=asked)[0] == "InvalidParameterValue"
    assert ec2.describe_instance_types(Filters=[{"Name": "instance-type", "Values": ["*" * 1000 + "3.nano"]}])


def test_words_that_are_begun_and_not_ended_are_not_looked_for_again_and_again(owner, bucket):
    s3 = owner.client("s3")
    for value in ("=?x?q?a" * 8000, "=?x?b?a " * 7000 + "b"):
        code, _ = refusal(s3.put_object, Bucket=bucket, Key="book", Body=b"", Metadata={"a": value})
        assert code == "MetadataTooLarge"
    encoded = "=?UTF-8?Q?" + "=C3=A9" * 10 + "?="
    s3.put_object(Bucket=bucket, Key="book", Body=b"", Metadata={"a": " ".join([encoded] * 100)})
