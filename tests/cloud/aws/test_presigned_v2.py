"""Links that boto3 makes unless it is told otherwise."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.config import Config

from tests.cloud.aws.conftest import Served
from tests.cloud.aws.test_objects_stream import put


def link(served: Served, method: str = "get_object", expires: int = 600, **parameters: Any) -> str:
    client = served.client("s3", config=Config(signature_version="s3", s3={"addressing_style": "path"}))
    url: str = client.generate_presigned_url(method, {"Bucket": "here", "Key": "k", **parameters}, ExpiresIn=expires)
    assert "AWSAccessKeyId=" in url
    return url


def fetched(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_link_gets_and_puts(served: Served) -> None:
    put(served, b"linked")
    assert fetched(link(served)) == (200, b"linked")
    assert fetched(link(served, "put_object"), "PUT", b"other", **{"Content-Type": ""})[0] == 200


def test_what_a_link_says_of_the_answer_is_signed(served: Served) -> None:
    put(served, b"linked")
    url = link(served, ResponseContentType="text/x-mine", ResponseContentDisposition="attachment; filename=a b")
    assert fetched(url)[0] == 200
    status, body = fetched(url.replace("x-mine", "x-yours"))
    assert (status, b"SignatureDoesNotMatch" in body) == (403, True)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda url: url.replace("/k?", "/other?"), 403, b"SignatureDoesNotMatch"),
        (lambda url: url.replace("Expires=", "Expires=9"), 403, b"SignatureDoesNotMatch"),
        (lambda url: url.replace("Expires=", "Expires=x"), 400, b"AuthorizationHeaderMalformed"),
        (lambda url: url + "&Signature=again", 400, b"AuthorizationHeaderMalformed"),
        (lambda url: url.replace("AWSAccessKeyId=A", "AWSAccessKeyId=B"), 403, b"InvalidAccessKeyId"),
    ],
)
def test_a_link_that_was_changed_is_refused(served: Served, change: Any, status: int, code: bytes) -> None:
    put(served, b"linked")
    found, body = fetched(change(link(served)))
    assert (found, code in body) == (status, True)


def test_a_link_whose_time_is_over_says_so(served: Served) -> None:
    put(served, b"linked")
    status, body = fetched(link(served, expires=-5))
    assert (status, b"Request has expired" in body) == (403, True)


def test_a_link_of_one_method_is_none_of_another(served: Served) -> None:
    put(served, b"linked")
    assert fetched(link(served), "DELETE")[0] == 403


def test_a_link_to_an_upload_of_a_form_acts_in_no_other_service(served: Served) -> None:
    kind = "application/x-www-form-urlencoded"
    url = link(served, "put_object", ContentType=kind).replace("content-type=application%2Fx-www-form-urlencoded&", "")
    form = {"Content-Type": kind}
    before = len(served.requests)
    for body in (b"Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=x", b"Action=DeleteVolume"):
        assert fetched(url, "POST", body, **form)[0] in (400, 401, 403)
    assert len(served.requests) == before


def test_an_object_may_be_called_a_form(served: Served) -> None:
    """As curl and urllib call what they send unless told otherwise."""
    kind = "application/x-www-form-urlencoded"
    assert fetched(link(served, "put_object", ContentType=kind), "PUT", b"a=1&b=2", **{"Content-Type": kind})[0] == 200
    assert fetched(link(served)) == (200, b"a=1&b=2")
    status, body = fetched(link(served, "put_object"), "PUT", b"Action=DeleteVolume", **{"Content-Type": kind})
    assert (status, b"<Error><Code>SignatureDoesNotMatch" in body) == (403, True)


def test_a_link_does_what_it_was_made_for_only(served: Served) -> None:
    put(served, b"linked")
    for other in ("&attributes", "&retention", "&legal-hold=", "&acl"):
        assert fetched(link(served) + other)[0] == 403
    assert fetched(link(served, "put_object") + "&encryption", "PUT", b"x", **{"Content-Type": ""})[0] == 403


def test_a_link_may_say_its_content_type_twice_and_may_list_a_bucket(served: Served) -> None:
    url = link(served, "put_object", ContentType="text/x-mine")
    assert fetched(url, "PUT", b"x", **{"Content-Type": "text/x-mine"})[0] == 200
    assert fetched(url, "PUT", b"x", **{"Content-Type": "text/x-other"})[0] == 403
    client = served.client("s3", config=Config(signature_version="s3", s3={"addressing_style": "path"}))
    listed = client.generate_presigned_url("list_objects_v2", {"Bucket": "here"})
    assert fetched(listed)[0] == 200
