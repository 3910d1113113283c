"""Cross-origin requests: rules set by boto3, asked for as browsers do."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from celaje.cloud.aws.action import Caller, Registry
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.gateway import Gateway
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.s3.actions import s3_actions
from celaje.cloud.s3.cross_origin import BucketCors
from celaje.cloud.settings import Settings
from celaje.cloud.state.database import Database
from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import ACCOUNTS, SECRET, Keys, Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PAGE = "https://pages.example"


def set_rules(client: S3Client, bucket: str, *rules: dict[str, Any]) -> None:
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": list(rules)})  # type: ignore[typeddict-item]


def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers (in lower case) and body of a request as a browser makes it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, method=method, headers=named)
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        told = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, told, answer.read().decode()


def preflight(served: Served, bucket: str, origin: str, method: str, **more: str) -> tuple[int, dict[str, str], str]:
    return asked(
        f"{served.endpoint}/{bucket}/key", "OPTIONS", Origin=origin, Access_Control_Request_Method=method, **more
    )


def test_a_page_that_may_is_told_so_before_and_with_the_answer(client: S3Client, bucket: str, served: Served) -> None:
    rule = {
        "AllowedOrigins": [PAGE, "http://*.local"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["x-amz-*", "Content-Type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    }
    set_rules(client, bucket, rule)
    assert client.get_bucket_cors(Bucket=bucket)["CORSRules"] == [rule]
    wanted = "content-type, X-Amz-Meta-Name"
    status, headers, _ = preflight(served, bucket, PAGE, "PUT", Access_Control_Request_Headers=wanted)
    assert status == 200
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-methods"] == "GET, PUT"
    assert headers["access-control-allow-headers"] == "content-type, x-amz-meta-name"
    assert headers["access-control-max-age"] == "60"
    assert headers["access-control-allow-credentials"] == "true"
    client.put_object(Bucket=bucket, Key="key", Body=b"body")
    link = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})
    for origin in (PAGE, "http://a.b.local"):
        status, headers, body = asked(link, Origin=origin)
        assert (status, body) == (200, "body")
        assert headers["access-control-allow-origin"] == origin
        assert headers["access-control-expose-headers"] == "ETag"
        assert headers["vary"] == "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"
    # So is one whose request is refused: otherwise it could not read why.
    status, headers, body = asked(f"{served.endpoint}/{bucket}/key", Origin=PAGE)
    assert (status, headers["access-control-allow-origin"]) == (403, PAGE)
    assert "AccessDenied" in body


@pytest.mark.parametrize(
    ("origin", "method", "wanted"),
    [
        ("https://others.example", "GET", ""),
        (PAGE, "DELETE", ""),
        (PAGE, "GET", "x-other"),
        (f"{PAGE}.evil.example", "GET", ""),
    ],
)
def test_a_page_that_may_not_is_refused_and_told_nothing(
    client: S3Client, bucket: str, served: Served, origin: str, method: str, wanted: str
) -> None:
    set_rules(client, bucket, {"AllowedOrigins": [PAGE], "AllowedMethods": ["GET"], "AllowedHeaders": ["x-amz-*"]})
    more = {"Access_Control_Request_Headers": wanted} if wanted else {}
    status, headers, body = preflight(served, bucket, origin, method, **more)
    assert status == 403
    assert "<Code>AccessForbidden</Code><Message>CORSResponse: This CORS request is not allowed." in body
    assert not [name for name in headers if name.startswith("access-control")]
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    operation = "delete_object" if method == "DELETE" else "get_object"
    link = client.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": "key"})
    if not wanted:
        _, headers, _ = asked(link, method, Origin=origin)
        assert not [name for name in headers if name.startswith("access-control")]


def test_any_origin_is_told_as_such(client: S3Client, bucket: str, served: Served) -> None:
    set_rules(client, bucket, {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]})
    status, headers, _ = preflight(served, bucket, PAGE, "GET")
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in headers
    # The bucket in the host's name, as browsers mostly have it.
    status, headers, _ = asked(
        f"{served.endpoint}/key",
        "OPTIONS",
        Host=f"{bucket}.s3.localhost:{served.port}",
        Origin=PAGE,
        Access_Control_Request_Method="GET",
    )
    assert (status, headers["access-control-allow-origin"]) == (200, "*")


def test_preflights_that_say_too_little_or_find_no_rules_are_refused(
    client: S3Client, bucket: str, served: Served
) -> None:
    url = f"{served.endpoint}/{bucket}/key"
    status, _, body = asked(url, "OPTIONS")
    assert (status, "Origin request header needed" in body) == (400, True)
    status, _, body = asked(url, "OPTIONS", Origin=PAGE)
    assert (status, "Invalid Access-Control-Request-Method: null" in body) == (400, True)
    status, _, body = preflight(served, bucket, PAGE, "GET")
    assert (status, "CORSResponse: CORS is not enabled for this bucket." in body) == (403, True)
    status, _, body = preflight(served, "there-is-none", PAGE, "GET")
    assert (status, "CORSResponse: Bucket not found" in body) == (403, True)
    set_rules(client, bucket, {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]})
    client.delete_bucket_cors(Bucket=bucket)
    assert preflight(served, bucket, PAGE, "GET")[0] == 403
    with refused("NoSuchCORSConfiguration", 404):
        client.get_bucket_cors(Bucket=bucket)


@pytest.mark.parametrize(
    "wrong",
    [
        {"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]},
        {"AllowedOrigins": ["http://*.*"], "AllowedMethods": ["GET"]},
        {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "AllowedHeaders": ["*-*"]},
        {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "ExposeHeaders": ["*"]},
    ],
)
def test_rules_that_cannot_be_are_refused(client: S3Client, bucket: str, wrong: dict[str, Any]) -> None:
    with refused("InvalidRequest"):
        set_rules(client, bucket, wrong)


def test_rules_are_their_owners_and_outlast_the_client(served: Served, client: S3Client, stranger: S3Client) -> None:
    name = "rules-of-one"
    client.create_bucket(Bucket=name)
    set_rules(client, name, {"ID": "only", "AllowedOrigins": ["*"], "AllowedMethods": ["GET"]})
    with refused("AccessDenied", 403):
        stranger.put_bucket_cors(
            Bucket=name, CORSConfiguration={"CORSRules": [{"AllowedOrigins": ["*"], "AllowedMethods": ["PUT"]}]}
        )
    again = client_of(served.endpoint)
    assert [rule["ID"] for rule in again.get_bucket_cors(Bucket=name)["CORSRules"]] == ["only"]


class MadeUpKeys(Keys):
    """Takes any key for the first account's, as `celaje up --auth open` does."""

    def stand_in(self, access_key: str) -> Caller | None:
        return Caller(ACCOUNTS[0], f"arn:aws:iam::{ACCOUNTS[0]}:root", ACCOUNTS[0], access_key)


def test_no_rule_lets_a_page_use_keys_that_prove_nothing(
    client: S3Client, bucket: str, served: Served, tmp_path: Path
) -> None:
    set_rules(client, bucket, {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]})
    client.put_object(Bucket=bucket, Key="key", Body=b"body")
    gateway = Gateway(
        Registry([s3_actions(served.store)]),
        Dispatcher(Database(tmp_path / "state.sqlite3"), lambda controller: None),
        MadeUpKeys(),
        Settings(),
        any_key=True,
        cross_origin=BucketCors(served.store),
    )

    def answered(key: str, secret: str, **headers: str) -> int:
        signed = AWSRequest("GET", f"http://localhost:4566/{bucket}/key", {"Host": "localhost:4566", **headers})
        S3SigV4Auth(Credentials(key, secret), "s3", "us-east-1").add_auth(signed)
        named = [(name.lower(), value) for name, value in signed.headers.items()]
        return gateway.answer(HttpRequest("GET", f"/{bucket}/key", "", named)).status

    assert answered("made-up", "made-up") == 200
    assert answered("made-up", "made-up", Origin=PAGE) == 403
    assert answered(ACCOUNTS[0], SECRET, Origin=PAGE) == 200
