"""Signature Version 4, signed by botocore and by hand, verified here."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Callable
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from celaje.cloud.aws.aws_chunked import ChunkedBody
from celaje.cloud.aws.denials import Denial, Reason, as_error
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.signature import EMPTY_SHA256, Scope, Verified, claimed, signing_key, verify
from tests.cloud.aws.conftest import KEY, SECRET, TOKEN, Keys

CREDENTIALS = Credentials(KEY, SECRET)
BODY = b"Action=DescribeVolumes&Version=2016-11-15"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def signed(
    signer: Any,
    method: str = "POST",
    url: str = "http://127.0.0.1:4566/",
    headers: dict[str, str] | None = None,
    body: bytes = BODY,
) -> HttpRequest:
    """What the server receives of a request that botocore signed."""
    request = AWSRequest(method=method, url=url, headers={"Host": urlsplit(url).netloc, **(headers or {})}, data=body)
    signer.add_auth(request)
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    received = [
        (name.lower(), value if isinstance(value, str) else value.decode()) for name, value in prepared.headers.items()
    ]
    return HttpRequest(method, parts.path or "/", parts.query, received, body)


def moment_of(request: HttpRequest) -> datetime.datetime:
    """When it says that it was signed."""
    said = dict(request.headers).get("x-amz-date") or dict(parse_qsl(request.query))["X-Amz-Date"]
    return datetime.datetime.strptime(said, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)


def who(request: HttpRequest, at: datetime.datetime | None = None, **options: Any) -> Verified:
    return verify(request, claimed(request), Keys(), at or now(), **options)


def changed(request: HttpRequest, **changes: Any) -> HttpRequest:
    values = {name: getattr(request, name) for name in ("method", "path", "query", "headers", "body")}
    return HttpRequest(**{**values, **changes})


def with_header(request: HttpRequest, name: str, value: str) -> HttpRequest:
    return changed(request, headers=[(each, value if each == name else old) for each, old in request.headers])


EC2 = SigV4Auth(CREDENTIALS, "ec2", "us-east-1")
S3 = S3SigV4Auth(CREDENTIALS, "s3", "us-east-1")


def test_a_request_signed_by_botocore_is_its_signers() -> None:
    verified = who(signed(EC2))
    assert verified.caller.account == "123456789012"
    assert verified.caller.access_key == KEY


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://localhost:4566/?b=2&a=1&a=0&empty=&c", {}),
        ("http://localhost:4566/?x=a%20b%2Fc%7E", {"X-Thing": "  a   b  "}),
        ("http://[::1]:4566/", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}),
        ("http://ec2.us-east-1.amazonaws.com/", {"User-Agent": "x", "X-Amz-Target": "y"}),
    ],
)
def test_queries_and_headers_are_canonical(url: str, headers: dict[str, str]) -> None:
    assert who(signed(EC2, url=url, headers=headers)).caller.account


@pytest.mark.parametrize("path", ["/here/a%20b", "/here//a", "/here/a/../b", "/here/%C3%BC+~'()*!", "/here/a%2Fb", "/"])
def test_paths_of_s3_are_signed_as_they_are_sent(path: str) -> None:
    assert who(signed(S3, "PUT", f"http://localhost:4566{path}?partNumber=1&uploadId=a%2Bb", body=b"x")).caller.account


@pytest.mark.parametrize("path", ["/snapshots/snap-1/blocks/3", "/snapshots/snap%201/blocks"])
def test_paths_of_other_services_are_encoded_twice(path: str) -> None:
    signer = SigV4Auth(CREDENTIALS, "ebs", "us-east-1")
    assert who(signed(signer, "GET", f"http://localhost:4566{path}?blockToken=t", body=b"")).caller.account


@pytest.mark.parametrize(
    "change",
    [
        lambda request: changed(request, method="GET"),
        lambda request: changed(request, path="/other"),
        lambda request: changed(request, query="a=1"),
        lambda request: changed(request, body=request.body + b"&DryRun=true"),
        lambda request: with_header(request, "host", "elsewhere"),
        lambda request: with_header(request, "x-thing", "other"),
        lambda request: changed(request, headers=[*request.headers, ("x-thing", "twice")]),
    ],
)
def test_a_request_that_was_changed_on_its_way_is_refused(change: Callable[[HttpRequest], HttpRequest]) -> None:
    request = signed(EC2, headers={"X-Thing": "one"})
    assert who(request)
    with pytest.raises(Denial) as refused:
        who(change(request))
    assert refused.value.reason is Reason.MISMATCH


def test_a_header_that_was_not_signed_may_change_but_not_be_amazons_at_s3() -> None:
    request = signed(EC2)
    assert who(changed(request, headers=[*request.headers, ("x-more", "1")]))
    request = signed(S3, "GET", "http://localhost/b/k", body=b"")
    with pytest.raises(Denial) as refused:
        who(changed(request, headers=[*request.headers, ("x-amz-acl", "public-read")]))
    assert as_error(refused.value, "rest-xml").fields["HeadersNotSigned"] == "x-amz-acl"


@pytest.mark.parametrize(
    ("signer", "minutes", "taken"),
    [(EC2, 4.9, True), (EC2, 5.1, False), (S3, 14.9, True), (S3, 15.1, False)],
)
def test_a_signature_is_good_for_a_while_around_its_time(signer: Any, minutes: float, taken: bool) -> None:
    request = signed(signer, headers={"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()})
    for direction in (1, -1):
        at = moment_of(request) + direction * datetime.timedelta(minutes=minutes)
        if taken:
            assert who(request, at)
        else:
            with pytest.raises(Denial) as refused:
                who(request, at)
            assert refused.value.reason in (Reason.TOO_EARLY, Reason.TOO_LATE)


def test_temporary_keys_need_their_token_and_end() -> None:
    def attempt(key: str, token: str | None) -> Verified:
        return who(signed(SigV4Auth(Credentials(key, SECRET, token), "ec2", "us-east-1")))

    assert attempt("ASIATEMPORARY", TOKEN).caller.account
    for key, token, reason in [
        ("ASIATEMPORARY", "other", Reason.WRONG_TOKEN),
        ("ASIATEMPORARY", None, Reason.UNKNOWN_KEY),
        (KEY, TOKEN, Reason.WRONG_TOKEN),
        ("ASIAEXPIRED", TOKEN, Reason.EXPIRED_TOKEN),
        ("AKIANOBODY", None, Reason.UNKNOWN_KEY),
    ]:
        with pytest.raises(Denial) as refused:
            attempt(key, token)
        assert refused.value.reason is reason


@pytest.mark.parametrize("service", ["s3", "sts"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_presigned_requests_are_good_until_they_expire(service: str, token: str | None) -> None:
    kind = S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth
    credentials = Credentials("ASIATEMPORARY" if token else KEY, SECRET, token)
    request = signed(
        kind(credentials, service, "us-east-1", expires=600), "GET", "http://localhost:4566/b/k%20?a=b", body=b""
    )
    assert who(request).caller.account
    assert who(request, moment_of(request) + datetime.timedelta(seconds=599))
    with pytest.raises(Denial) as refused:
        who(request, moment_of(request) + datetime.timedelta(seconds=601))
    assert refused.value.reason is Reason.EXPIRED_LINK
    error = as_error(refused.value, "rest-xml")
    assert (error.code, error.message, error.status) == ("AccessDenied", "Request has expired", 403)
    with pytest.raises(Denial) as refused:
        who(changed(request, query=request.query.replace("a=b", "a=c")))
    assert refused.value.reason is Reason.MISMATCH


def test_presigned_requests_last_a_week_at_most() -> None:
    for seconds, taken in [(604_800, True), (604_801, False)]:
        signer = S3SigV4QueryAuth(CREDENTIALS, "s3", "us-east-1", expires=seconds)
        request = signed(signer, "GET", "http://localhost/b/k", body=b"")
        if taken:
            assert who(request)
        else:
            with pytest.raises(Denial, match="604800") as refused:
                who(request)
            assert as_error(refused.value, "rest-xml").code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request",
        "AWS4-HMAC-SHA256 Credential=a/20260131/r/s/aws4_request, SignedHeaders=host, Signature=xyz",
        "AWS4-HMAC-SHA256 Credential=a/20260131/r/s/other, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=a/20260131/r/s/aws4_request, SignedHeaders=Host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=a/20260131/r/s/aws4_request, SignedHeaders=x;host, Signature=" + "0" * 64,
        "AWS4-ECDSA-P256-SHA256 Credential=a, SignedHeaders=host, Signature=0",
        "Bearer token",
        "é",
    ],
)
def test_a_malformed_authorization_is_incomplete(authorization: str) -> None:
    request = with_header(signed(EC2), "authorization", authorization)
    with pytest.raises(Denial) as refused:
        who(request)
    assert refused.value.reason is Reason.INCOMPLETE
    for protocol in ("ec2", "query", "json", "rest-json", "rest-xml"):
        assert 400 <= as_error(refused.value, protocol).status < 500


@pytest.mark.parametrize("date", ["20260131", "2026-01-31T12:00:00Z", "20261331T120000Z", "99990131T120000Z", ""])
def test_a_date_that_is_none_is_refused(date: str) -> None:
    with pytest.raises(Denial):
        who(with_header(signed(EC2), "x-amz-date", date))


def test_a_date_header_in_http_form_is_taken() -> None:
    request = signed(EC2)
    stated, moment = dict(request.headers)["x-amz-date"], moment_of(request)
    scope = Scope(stated[:8], "us-east-1", "ec2")
    http_date = format_datetime(moment, usegmt=True)
    canonical = "\n".join(
        ("POST", "/", "", f"date:{http_date}\nhost:localhost\n", "date;host", hashlib.sha256(BODY).hexdigest())
    )
    text = "\n".join(("AWS4-HMAC-SHA256", stated, str(scope), hashlib.sha256(canonical.encode()).hexdigest()))
    signature = hmac.digest(signing_key(SECRET, scope), text.encode(), "sha256").hex()
    authorization = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders=date;host, Signature={signature}"
    headers = [("host", "localhost"), ("date", http_date), ("authorization", authorization)]
    assert who(HttpRequest("POST", "/", "", headers, BODY)).caller.account


def test_version_2_is_refused_with_what_to_do() -> None:
    old = b"Action=DescribeVolumes&AWSAccessKeyId=KEY&SignatureVersion=2&Signature=abc"
    for request in (
        HttpRequest("POST", "/", "", [("host", "localhost")], old),
        HttpRequest("GET", "/", old.decode(), [("host", "localhost")]),
        HttpRequest("GET", "/b/k", "", [("host", "localhost"), ("authorization", "AWS KEY:abc=")]),
    ):
        with pytest.raises(Denial) as refused:
            claimed(request)
        assert refused.value.reason is Reason.VERSION_2
        assert "version 4" in as_error(refused.value, "ec2").message
        assert as_error(refused.value, "rest-xml").code == "InvalidRequest"


def test_any_key_is_taken_only_where_anything_goes() -> None:
    request = signed(SigV4Auth(Credentials("test", "test"), "ec2", "us-east-1"))
    with pytest.raises(Denial):
        who(request)
    assert who(request, any_key=True).caller.account == "123456789012"
    other = signed(SigV4Auth(Credentials("210987654321", "x"), "ec2", "us-east-1"))
    assert who(other, any_key=True).caller.account == "210987654321"
    wrong = signed(SigV4Auth(Credentials(KEY, "not the secret"), "ec2", "us-east-1"))
    with pytest.raises(Denial):
        who(wrong, any_key=True)


@pytest.mark.parametrize(
    ("protocol", "reason", "code", "status"),
    [
        ("ec2", Reason.UNKNOWN_KEY, "AuthFailure", 401),
        ("ec2", Reason.MISMATCH, "AuthFailure", 401),
        ("ec2", Reason.TOO_LATE, "RequestExpired", 400),
        ("query", Reason.UNKNOWN_KEY, "InvalidClientTokenId", 403),
        ("query", Reason.MISMATCH, "SignatureDoesNotMatch", 403),
        ("query", Reason.MISSING, "MissingAuthenticationToken", 403),
        ("query", Reason.EXPIRED_TOKEN, "ExpiredToken", 403),
        ("json", Reason.UNKNOWN_KEY, "UnrecognizedClientException", 400),
        ("rest-xml", Reason.UNKNOWN_KEY, "InvalidAccessKeyId", 403),
        ("rest-xml", Reason.MISMATCH, "SignatureDoesNotMatch", 403),
        ("rest-xml", Reason.EXPIRED_TOKEN, "ExpiredToken", 400),
        ("rest-xml", Reason.WRONG_TOKEN, "InvalidToken", 400),
        ("rest-xml", Reason.MISSING, "AccessDenied", 403),
    ],
)
def test_each_protocol_has_its_own_codes(protocol: str, reason: Reason, code: str, status: int) -> None:
    error = as_error(Denial(reason), protocol)
    assert (error.code, error.status) == (code, status)


def test_every_reason_has_a_code_in_every_protocol() -> None:
    for reason in Reason:
        if reason not in (Reason.NO_PAYLOAD_HASH, Reason.BAD_PAYLOAD_HASH):
            for protocol in ("ec2", "query", "json", "rest-json", "rest-xml"):
                assert as_error(Denial(reason), protocol).message


# Chunks, signed as AWS's documentation has it ("Signature calculations for the Authorization header: transferring
# payload in multiple chunks").

DATE = "20130524T000000Z"
SCOPE = Scope("20130524", "us-east-1", "s3")
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"


def chunked(data: bytes, size: int, trailer: tuple[str, str] | None = None) -> bytes:
    key = signing_key(SECRET, SCOPE)
    signature = SEED
    framed = b""
    for piece in [*(data[at : at + size] for at in range(0, len(data), size)), b""]:
        text = "\n".join(
            ("AWS4-HMAC-SHA256-PAYLOAD", DATE, str(SCOPE), signature, EMPTY_SHA256, hashlib.sha256(piece).hexdigest())
        )
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        framed += f"{len(piece):x};chunk-signature={signature}\r\n".encode() + piece + (b"\r\n" if piece else b"")
    if trailer is not None:
        name, value = trailer
        hashed = hashlib.sha256(f"{name}:{value}\n".encode()).hexdigest()
        text = "\n".join(("AWS4-HMAC-SHA256-TRAILER", DATE, str(SCOPE), signature, hashed))
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        framed += f"{name}:{value}\r\nx-amz-trailer-signature:{signature}\r\n".encode()
    return framed + b"\r\n"


def read_chunks(framed: bytes, length: int, *, step: int = 1000, trailer: bool = False) -> tuple[bytes, dict[str, str]]:
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    caller = Keys().credential(KEY, None)
    assert caller is not None
    verified = Verified(caller.caller, kind, signing_key(SECRET, SCOPE), SEED, DATE, str(SCOPE))
    pieces = iter([framed[at : at + step] for at in range(0, len(framed), step)])
    body = ChunkedBody(lambda: next(pieces, b""), verified, length)
    data = b""
    while piece := body.next():
        data += piece
    return data, body.trailers


def test_the_signatures_of_chunks_are_those_of_the_documentation() -> None:
    framed = chunked(b"a" * 66560, 65536)
    assert b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" in framed
    assert b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" in framed
    assert b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n" in framed
    assert read_chunks(framed, 66560) == (b"a" * 66560, {})


@pytest.mark.parametrize("step", [1, 7, 64, 5000, 10**6])
def test_chunks_may_come_in_any_pieces(step: int) -> None:
    data = bytes(range(256)) * 10
    trailer = ("x-amz-checksum-crc32", "AAAAAA==")
    framed = chunked(data, 700, trailer)
    assert read_chunks(framed, len(data), step=step, trailer=True) == (data, dict([trailer]))
    assert read_chunks(chunked(b"", 10), 0, step=step) == (b"", {})


def test_chunks_that_were_changed_are_refused() -> None:
    data = b"x" * 100
    framed = chunked(data, 40, ("x-amz-checksum-crc32", "AAAAAA=="))
    for at in range(0, len(framed), 3):
        other = framed[:at] + bytes([framed[at] ^ 1]) + framed[at + 1 :]
        try:
            assert read_chunks(other, 100, trailer=True) == (data, {"x-amz-checksum-crc32": "AAAAAA=="})
        except (AwsError, Denial):
            continue


@pytest.mark.parametrize(
    "framed",
    [
        b"",
        b"zz\r\n",
        b"5\r\nabcde\r\n0\r\n\r\n",
        b"5;chunk-signature=\r\nabcde\r\n",
        b"-5;chunk-signature=a\r\n",
        b"ffffffffffffffff;chunk-signature=a\r\n",
        b"a" * 10_000,
    ],
)
def test_framing_that_is_none_is_refused(framed: bytes) -> None:
    with pytest.raises(AwsError):
        read_chunks(framed, 5)


def test_a_body_that_ends_inside_a_chunk_is_incomplete() -> None:
    framed = chunked(b"x" * 100, 40)
    for length in (0, 10, 90, 130, len(framed) - 40):
        with pytest.raises((AwsError, Denial)):
            read_chunks(framed[:length], 100)
