"""Which service a request is for, who may ask, and how each refusal is worded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from celaje.cloud.aws.message import HttpAnswer, HttpRequest
from celaje.cloud.aws.routing import bucket_of_host
from tests.cloud.aws.conftest import ACCOUNT, KEY, SECRET, Served, serving

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def open_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that takes any key."""
    with serving(tmp_path_factory.mktemp("open"), lambda options: options.update(any_key=True)) as server:
        yield server


def post(
    served: Served,
    body: bytes,
    service: str = "ec2",
    region: str = "us-east-1",
    key: str = KEY,
    secret: str = SECRET,
    headers: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Status, code and message of a form that is signed."""
    request = AWSRequest(
        "POST", served.endpoint + "/", {"Content-Type": FORM, "Host": "127.0.0.1", **(headers or {})}, body
    )
    SigV4Auth(Credentials(key, secret), service, region).add_auth(request)
    return outcome(send(served, "POST", "/", dict(request.headers.items()), body))


def send(
    served: Served, method: str, path: str, headers: dict[str, str], body: bytes = b"", source: str = "127.0.0.1"
) -> HttpAnswer:
    path, _, query = path.partition("?")
    named = [(name.lower(), value) for name, value in headers.items()]
    assert served.gateway is not None
    return served.gateway.answer(HttpRequest(method, path, query, named, body, source))


def outcome(answer: HttpAnswer) -> tuple[int, str, str]:
    assert isinstance(answer.body, bytes)
    if answer.status < 400:
        return answer.status, "", ""
    tree = ElementTree.fromstring(answer.body)
    return answer.status, tree.findtext(".//{*}Code") or "", tree.findtext(".//{*}Message") or ""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"Action=DescribeVolumes", (200, "", "")),
        (b"Action=DescribeVolumes&VolumeId.0=vol-1", (200, "", "")),
        (b"Version=2016-11-15", (400, "MissingParameter", "The request must contain the parameter Action")),
        (b"Action=Fly", (400, "InvalidAction", "The action Fly is not valid for this web service.")),
        (b"Action=DescribeVolumes&Colour=blue", (400, "UnknownParameter", "The parameter Colour is not recognized")),
        (
            b"Action=DescribeVolumes&Filter.1.Colour=blue",
            (400, "UnknownParameter", "The parameter Filter.1.Colour is not recognized"),
        ),
        (b"Action=DeleteVolume", (400, "MissingParameter", "The request must contain the parameter VolumeId")),
        (
            b"Action=DescribeVolumes&MaxResults=many",
            (400, "InvalidParameterValue", "Value (many) for parameter maxResults is invalid. Expected an integer"),
        ),
        (
            b"Action=DescribeVolumes&DryRun=perhaps",
            (400, "InvalidParameterValue", "Value (perhaps) for parameter dryRun is invalid. Expected true or false"),
        ),
        (
            b"Action=DescribeVolumes&MaxResults=5&MaxResults=6",
            (
                400,
                "MalformedQueryString",
                "The parameter MaxResults is given more than once, or both alone and as a group",
            ),
        ),
        (b"Action=DescribeVolumes&NextToken=%ff", (400, "MalformedQueryString", "")),
        (b"Action=DescribeVolumes&Version=2010-01-01", (400, "NoSuchVersion", "")),
    ],
)
def test_ec2_refuses_in_its_own_words(served: Served, body: bytes, expected: tuple[int, str, str]) -> None:
    status, code, message = post(served, body)
    assert (status, code) == expected[:2]
    assert message.startswith(expected[2])


def test_the_query_protocol_lists_all_that_is_wrong(served: Served) -> None:
    status, code, message = post(served, b"Action=CreateRole&RoleName=a%20b", "iam")
    assert (status, code) == (400, "ValidationError")
    assert message == (
        "2 validation errors detected: Value null at 'assumeRolePolicyDocument' failed to satisfy constraint: "
        "Member must not be null; Value 'a b' at 'roleName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [\\w+=,.@-]+"
    )


def test_json_is_refused_as_json(served: Served) -> None:
    with pytest.raises(ClientError) as refused:
        served.client("ssm", config=Config(parameter_validation=False)).get_parameter(Name="")
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_form_that_nobody_signed_is_told_so_by_its_service(served: Served) -> None:
    for version, status, code in [
        ("2016-11-15", 401, "AuthFailure"),
        ("2011-06-15", 403, "MissingAuthenticationToken"),
        ("2010-05-08", 403, "MissingAuthenticationToken"),
    ]:
        body = f"Action=GetCallerIdentity&Version={version}".encode()
        assert outcome(send(served, "POST", "/", {"Host": "localhost", "Content-Type": FORM}, body))[:2] == (
            status,
            code,
        )


def test_an_anonymous_request_reaches_s3_as_nobody(served: Served) -> None:
    answer = send(served, "GET", "/here?list-type=2", {"Host": "localhost"})
    assert answer.status == 200
    assert served.requests[-1][0].caller.account == ""


def test_a_region_that_this_cloud_does_not_have_is_refused(served: Served) -> None:
    status, code, message = post(served, b"Action=DescribeVolumes", region="mars-north-1")
    assert (status, code) == (401, "AuthFailure")
    assert "us-east-1, eu-west-1" in message
    assert post(served, b"Action=GetCallerIdentity", "sts", region="mars-north-1")[0] == 200
    with pytest.raises(ClientError) as refused:
        served.client("s3", region="mars-north-1").list_buckets()
    assert refused.value.response["Error"]["Code"] == "AuthorizationHeaderMalformed"
    assert refused.value.response["Error"]["Region"] == "us-east-1"


def test_a_service_that_this_cloud_does_not_have_is_named(served: Served) -> None:
    status, code, message = post(served, b"Action=ListQueues&Version=2012-11-05", "sqs")
    assert (status, code) == (400, "UnsupportedOperation")
    assert "'sqs'" in message


def test_a_body_that_is_too_large_is_refused(served: Served) -> None:
    assert post(served, b"Action=DescribeVolumes&NextToken=" + b"x" * (4 << 20))[:2] == (413, "RequestEntityTooLarge")


def test_any_key_selects_an_account_where_the_server_is_open(open_served: Served) -> None:
    assert open_served.client("sts", "test", "test").get_caller_identity()["Account"] == ACCOUNT
    assert open_served.client("sts", "210987654321", "x").get_caller_identity()["Account"] == "210987654321"
    assert open_served.client("s3", "test", "test").list_buckets()["Buckets"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1:4566", ""]
)
@pytest.mark.parametrize("signer", [("test", "test"), None])
def test_an_open_server_answers_to_its_own_name_only(
    open_served: Served, host: str, signer: tuple[str, str] | None
) -> None:
    if signer is None:
        answer = send(open_served, "GET", "/here?list-type=2", {"Host": host})
    else:
        answer = send(open_served, "POST", "/", signed_headers(*signer, host), b"Action=DescribeVolumes")
    assert outcome(answer)[:2] == (403, "AccessDenied")


def test_an_open_server_answers_no_web_page_and_nobody_from_elsewhere(open_served: Served) -> None:
    body = b"Action=DescribeVolumes"
    good = signed_headers("test", "test", "localhost:4566")
    assert send(open_served, "POST", "/", good, body).status == 200
    assert send(open_served, "POST", "/", {**good, "Origin": "http://localhost"}, body).status == 403
    assert send(open_served, "POST", "/", good, body, source="192.168.1.7").status == 403


def test_a_real_key_is_verified_on_an_open_server_too_and_may_come_from_anywhere(open_served: Served) -> None:
    assert post(open_served, b"Action=DescribeVolumes", secret="wrong")[:2] == (401, "AuthFailure")
    headers = signed_headers(KEY, SECRET, "cloud.example")
    assert send(open_served, "POST", "/", headers, b"Action=DescribeVolumes", source="192.168.1.7").status == 200


def signed_headers(key: str, secret: str, host: str) -> dict[str, str]:
    request = AWSRequest("POST", "http://x/", {"Content-Type": FORM, "Host": host}, b"Action=DescribeVolumes")
    SigV4Auth(Credentials(key, secret), "ec2", "us-east-1").add_auth(request)
    headers: dict[str, Any] = dict(request.headers.items())
    return headers


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("localhost:4566", None),
        ("127.0.0.1:4566", None),
        ("[::1]:4566", None),
        ("s3.localhost", None),
        ("s3.eu-west-1.localhost:4566", None),
        ("s3.amazonaws.com", None),
        ("here.localhost:4566", "here"),
        ("here.s3.localhost:4566", "here"),
        ("my.dotted.bucket.s3.localhost", "my.dotted.bucket"),
        ("here.s3.eu-west-1.localhost:4566", "here"),
        ("here.s3.us-east-1.amazonaws.com", "here"),
        ("Here.LocalHost", "here"),
        ("ec2.us-east-1.localhost", None),
        ("elsewhere.example", None),
    ],
)
def test_buckets_in_host_names(host: str, bucket: str | None) -> None:
    assert bucket_of_host(host) == bucket


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
def test_an_open_server_answers_no_image_of_a_web_page(open_served: Served, site: str) -> None:
    good = signed_headers("test", "test", "localhost:4566")
    body = b"Action=DescribeVolumes"
    assert send(open_served, "POST", "/", {**good, "Sec-Fetch-Site": site}, body).status == 403
    assert send(open_served, "POST", "/", {**good, "Sec-Fetch-Site": "none"}, body).status == 200


def test_an_open_server_wants_real_keys_from_instances(open_served: Served) -> None:
    assert open_served.gateway is not None
    for key, secret, status in (("test", "test", 403), (ACCOUNT, "x", 403), (KEY, SECRET, 200)):
        headers = [(name.lower(), value) for name, value in signed_headers(key, secret, "localhost").items()]
        request = HttpRequest("POST", "/", "", headers, b"Action=DescribeVolumes", "127.0.0.1", inside=True)
        assert open_served.gateway.answer(request).status == status
    anonymous = HttpRequest("GET", "/here", "list-type=2", [("host", "localhost")], inside=True)
    assert open_served.gateway.answer(anonymous).status == 403
