"""S3 on the wire: bodies that stream, in every framing that clients use, and the answers."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from celaje.cloud.aws.checksums import ALGORITHMS
from tests.cloud.aws.conftest import MOMENT, Served, serving
from tests.machine_processes import wait_until

DATA = os.urandom(3_000_000)
CHECKSUMS = [name for name in ALGORITHMS if name != "MD5"]


def put(served: Served, data: Any = DATA, **arguments: Any) -> dict[str, Any]:
    return served.client("s3", config=Config(s3={"addressing_style": "path"})).put_object(
        Bucket="here", Key="k", Body=data, **arguments
    )


def get(served: Served, key: str = "k", **arguments: Any) -> dict[str, Any]:
    return served.client("s3", config=Config(s3={"addressing_style": "path"})).get_object(
        Bucket="here", Key=key, **arguments
    )


def test_an_object_goes_and_comes(served: Served) -> None:
    assert put(served)["ETag"] == f'"{hashlib.md5(DATA).hexdigest()}"'
    answer = get(served)
    assert answer["Body"].read() == DATA
    assert answer["ContentLength"] == len(DATA)
    assert answer["LastModified"] == MOMENT.replace(microsecond=0)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-id-2"]


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_checksums_of_every_kind_are_verified(served: Served, algorithm: str) -> None:
    answer = put(served, DATA[:1000], ChecksumAlgorithm=algorithm)
    assert list(served.requests[-1][1]["claimed"]) == [algorithm]
    assert answer[f"Checksum{algorithm}"]
    assert get(served, ChecksumMode="ENABLED")["Body"].read() == DATA[:1000]


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_a_wrong_checksum_is_refused(served: Served, algorithm: str) -> None:
    right = put(served, b"other data", ChecksumAlgorithm=algorithm)[f"Checksum{algorithm}"]
    with pytest.raises(ClientError) as refused:
        put(served, DATA[:1000], **{f"Checksum{algorithm}": right})
    assert refused.value.response["Error"]["Code"] == "BadDigest"


def test_a_wrong_md5_is_refused_and_a_malformed_one_too(served: Served) -> None:
    for md5, code in [("1B2M2Y8AsgTpgAmY7PhCfg==", "BadDigest"), ("abc", "InvalidDigest")]:
        with pytest.raises(ClientError) as refused:
            put(served, DATA[:1000], ContentMD5=md5)
        assert refused.value.response["Error"]["Code"] == code


def test_small_and_empty_objects(served: Served) -> None:
    for data in (b"", b"x", DATA[:65536], DATA[:262144], DATA[:262145]):
        put(served, data)
        assert get(served)["Body"].read() == data


def test_metadata_and_header_members_arrive(served: Served) -> None:
    put(
        served,
        b"x",
        Metadata={"colour": "blue", "Number": "1"},
        ContentType="text/plain",
        ContentEncoding="gzip",
        Tagging="a=1",
        IfNoneMatch="*",
        StorageClass="STANDARD_IA",
    )
    request = served.requests[-1][1]
    assert request["Metadata"] == {"colour": "blue", "number": "1"}
    assert request["ContentType"] == "text/plain"
    assert request["ContentEncoding"] == "gzip"
    assert (request["Tagging"], request["IfNoneMatch"], request["StorageClass"]) == ("a=1", "*", "STANDARD_IA")


@pytest.mark.parametrize(
    "key", ["a/b", "/a", "a//b", "a b+c", "ünï/code", "a%2Fb", "..", "a?b#c", "~-_.!*'()", "x\u0001y"]
)
def test_keys_of_any_characters_are_what_they_were(served: Served, key: str) -> None:
    client = served.client("s3", config=Config(s3={"addressing_style": "path"}))
    client.put_object(Bucket="here", Key=key, Body=key.encode())
    assert served.requests[-1][1]["Key"] == key
    assert client.get_object(Bucket="here", Key=key)["Body"].read() == key.encode()


def test_a_range_is_partial_content(served: Served) -> None:
    put(served, b"abcdef")
    answer = get(served, Range="bytes=1-3")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["ContentRange"] == "bytes 1-3/6"
    assert answer["Body"].read() == b"bcd"


def test_an_answer_of_unknown_length_is_chunked(served: Served) -> None:
    put(served, b"x")
    assert get(served, Range="pieces")["Body"].read() == b"onetwo"


def test_head_has_the_length_and_no_body(served: Served) -> None:
    put(served, DATA)
    client = served.client("s3", config=Config(s3={"addressing_style": "path"}))
    assert client.head_object(Bucket="here", Key="k")["ContentLength"] == len(DATA)
    with pytest.raises(ClientError) as refused:
        client.head_object(Bucket="here", Key="nothing")
    assert refused.value.response["Error"]["Code"] == "404"


def test_an_error_has_its_fields(served: Served) -> None:
    with pytest.raises(ClientError) as refused:
        get(served, "nothing & more")
    error = refused.value.response["Error"]
    assert (error["Code"], error["Key"]) == ("NoSuchKey", "nothing & more")


def test_lists_are_flat_and_locations_bare(served: Served) -> None:
    client = served.client("s3")
    answer = client.list_objects_v2(Bucket="here", Prefix="a", MaxKeys=7, Delimiter="/")
    assert [each["Key"] for each in answer["Contents"]] == ["a&b", "c"]
    assert answer["CommonPrefixes"] == [{"Prefix": "d/"}]
    assert served.requests[-1][1] | {"EncodingType": "url"} == {
        "Bucket": "here", "Prefix": "a", "MaxKeys": 7, "Delimiter": "/", "EncodingType": "url",
    }  # fmt: skip
    assert client.get_bucket_location(Bucket="here")["LocationConstraint"] is None
    assert client.get_bucket_location(Bucket="there")["LocationConstraint"] == "eu-west-1"
    assert client.list_buckets()["Buckets"] == [{"Name": "one", "CreationDate": MOMENT}]


def test_bodies_of_xml_are_read_whole_and_checked(served: Served) -> None:
    client = served.client("s3")
    answer = client.delete_objects(
        Bucket="here", Delete={"Objects": [{"Key": "a"}, {"Key": "b & c", "VersionId": "1"}]}
    )
    assert [each["Key"] for each in answer["Deleted"]] == ["a", "b & c"]
    assert served.requests[-1][1]["Delete"]["Objects"][1] == {"Key": "b & c", "VersionId": "1"}
    client.put_bucket_tagging(Bucket="here", Tagging={"TagSet": [{"Key": "a", "Value": "<1>"}]})
    assert served.requests[-1][1]["Tagging"] == {"TagSet": [{"Key": "a", "Value": "<1>"}]}
    client.create_bucket(Bucket="new", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert served.requests[-1][1]["CreateBucketConfiguration"] == {"LocationConstraint": "eu-west-1"}


@pytest.mark.parametrize("style", ["path", "virtual"])
@pytest.mark.parametrize("host", ["localhost", "s3.localhost"])
def test_a_bucket_is_in_the_path_or_in_the_host(
    served: Served, style: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo  # names under localhost are this host; not every resolver knows (RFC 6761 section 6.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *rest, **named: real("127.0.0.1", *rest, **named))
    client = served.client("s3", endpoint=f"http://{host}:{served.port}", config=Config(s3={"addressing_style": style}))
    client.list_objects_v2(Bucket="here")
    assert served.requests[-1][1]["Bucket"] == "here"
    client.put_object(Bucket="here", Key="a/b c", Body=b"x")
    assert (served.requests[-1][1]["Bucket"], served.requests[-1][1]["Key"]) == ("here", "a/b c")


@pytest.mark.parametrize("method", ["get", "put"])
def test_presigned_urls_work_with_any_client(served: Served, method: str) -> None:
    put(served, b"presigned")
    client = served.client("s3", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))
    url = client.generate_presigned_url(f"{method}_object", Params={"Bucket": "here", "Key": "k"}, ExpiresIn=600)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port)) as connection:
        connection.request(method.upper(), url.partition(str(served.port))[2], body=b"new" if method == "put" else None)
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == 200, body
    if method == "get":
        assert body == b"presigned"
    else:
        assert get(served)["Body"].read() == b"new"


def test_a_refused_upload_is_never_asked_for_its_body(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(
            b"PUT /here/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
            b"Authorization: AWS4-HMAC-SHA256 Credential=NOBODY/20260131/us-east-1/s3/aws4_request, "
            b"SignedHeaders=host, Signature=" + b"0" * 64 + b"\r\nX-Amz-Date: 20260131T120000Z\r\n"
            b"x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n\r\n"
        )
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"InvalidAccessKeyId" in answer


def test_a_client_that_breaks_off_leaves_nothing(served: Served) -> None:
    count = len(served.requests)
    client = served.client("s3", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))
    url = client.generate_presigned_url("put_object", Params={"Bucket": "here", "Key": "gone"}, ExpiresIn=600)
    path = url.partition(str(served.port))[2]
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Length: 1000\r\n\r\nabc".encode())
    with pytest.raises(ClientError, match="NoSuchKey"):
        get(served, "gone")
    assert len(served.requests) == count + 1


@contextlib.contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    """A connection that the server has accepted: it has the usual patience with its first head."""
    for each in served.clients.values():
        each.close()  # with the connections that they keep
    wait_until(lambda: not served.connections())
    with socket.create_connection(("127.0.0.1", served.port), 60) as raw:
        wait_until(served.connections)
        yield raw


def all_of(raw: socket.socket) -> bytes:
    answer = b""
    while piece := raw.recv(65536):
        answer += piece
    return answer


def test_a_client_that_sends_nothing_is_let_go(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        client = served.client("s3", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))
        url = client.generate_presigned_url("put_object", Params={"Bucket": "here", "Key": "k"}, ExpiresIn=600)
        path = url.partition(str(served.port))[2]
        with connected(served) as raw, served.patience(0.2):
            head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Length: 9\r\n\r\nabc"
            raw.sendall(head.encode())
            answer = all_of(raw)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"RequestTimeout" in answer
        with connected(served) as raw, served.patience(0.2):
            raw.sendall(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n\r\nAct"
            )
            answer = all_of(raw)
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("kind", ["file", "pieces", "bytes"])
def test_a_client_that_takes_nothing_is_let_go(tmp_path: Path, kind: str) -> None:
    with serving(tmp_path) as served:
        put(served, bytes(64 << 20))
        client = served.client("s3", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))
        url = client.generate_presigned_url("get_object", Params={"Bucket": "here", "Key": "k"}, ExpiresIn=600)
        path = url.partition(str(served.port))[2]
        received = 0
        with connected(served) as raw, served.patience(0.3, connections=True):
            wanted = {"file": "", "pieces": "Range: endless\r\n", "bytes": "Range: whole\r\n"}[kind]
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{wanted}\r\n".encode())
            assert raw.recv(1)
            wait_until(lambda: not served.connections())
            with contextlib.suppress(ConnectionResetError):
                while piece := raw.recv(1 << 20):
                    received += len(piece)
        assert received < 64 << 20


def test_a_large_body_never_stands_in_memory(served: Served) -> None:
    size = 256 << 20
    zeros = bytes(1 << 20)
    client = served.client("s3", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))
    paths = [
        client.generate_presigned_url(f"{method}_object", Params={"Bucket": "here", "Key": "big"}).partition(
            str(served.port)
        )[2]
        for method in ("put", "get")
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host = f"Host: 127.0.0.1:{served.port}\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(f"PUT {paths[0]} HTTP/1.1\r\n{host}Content-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(zeros)):
            raw.sendall(zeros)
        assert raw.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    received = 0
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(f"GET {paths[1]} HTTP/1.1\r\n{host}\r\n".encode())
        while piece := raw.recv(1 << 20):
            received += len(piece)
    assert size < received < size + 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
