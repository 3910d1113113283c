"""Long bodies over plain connections: kept, broken off, held at constant memory."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cloud.s3 import server
from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.server import Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SIZE = 12 << 20


@pytest.fixture
def signer(served: Served) -> Iterator[S3Client]:
    made = client_of(served.endpoint, signature_version="s3v4")
    yield made
    made.close()


def path_of(signer: S3Client, operation: str, bucket: str, key: str) -> str:
    url = signer.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key})
    return "/" + url.split("/", 3)[3]


def test_one_connection_carries_long_and_short_bodies_in_turn(served: Served, signer: S3Client, bucket: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    bodies = {"long": os.urandom(SIZE), "short": b"short", "longer": os.urandom(SIZE + 1), "empty": b""}
    first = None
    for _ in range(2):
        for key, body in bodies.items():
            connection.request("PUT", path_of(signer, "put_object", bucket, key), body)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
            assert answer.headers["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        for key, body in bodies.items():
            connection.request("GET", path_of(signer, "get_object", bucket, key))
            answer = connection.getresponse()
            assert answer.read() == body
        first = first or connection.sock
        assert connection.sock is first
    connection.close()


def test_a_body_that_ends_too_soon_leaves_what_was_there(tmp_path: Path) -> None:
    with Served(tmp_path) as served:  # whose files are nobody else's, who may still be taking some away
        client = client_of(served.endpoint, signature_version="s3v4")
        client.create_bucket(Bucket="a-bucket")
        client.put_object(Bucket="a-bucket", Key="key", Body=b"old")
        for sent in (0, 100, SIZE // 2, SIZE - 1):
            path = path_of(client, "put_object", "a-bucket", "key")
            with socket.create_connection(("127.0.0.1", served.port)) as raw:
                head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Length: {SIZE}\r\n\r\n"
                raw.sendall(head.encode() + bytes(sent))
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(65536):
                    pass
        assert client.get_object(Bucket="a-bucket", Key="key")["Body"].read() == b"old"
        assert served.store.sweep() == 0  # what had come of each was taken away again
        client.close()


def test_a_client_that_leaves_in_the_middle_of_an_answer_harms_nobody(
    served: Served, client: S3Client, signer: S3Client, bucket: str
) -> None:
    body = os.urandom(SIZE)
    client.put_object(Bucket=bucket, Key="key", Body=body)
    for _ in range(5):
        path = path_of(signer, "get_object", bucket, "key")
        with socket.create_connection(("127.0.0.1", served.port)) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode())
            raw.recv(1000)
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == body


def peak_memory(pid: int) -> int:
    """The most memory in bytes that the process has had of its own at once."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def test_an_object_takes_no_more_memory_for_being_large(tmp_path: Path) -> None:
    command = [sys.executable, server.__file__, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        client = client_of(f"http://127.0.0.1:{port}", signature_version="s3v4")
        client.create_bucket(Bucket="a-bucket")

        def there_and_back(size: int) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            blocks = (bytes(1 << 20) for _ in range(size >> 20))
            headers = {"Content-Length": str(size)}
            connection.request("PUT", path_of(client, "put_object", "a-bucket", "key"), blocks, headers)
            assert connection.getresponse().read() == b""
            connection.request("GET", path_of(client, "get_object", "a-bucket", "key"))
            answer, count = connection.getresponse(), 0
            while piece := answer.read(1 << 20):
                count += len(piece)
            assert count == size
            connection.close()
            return peak_memory(process.pid)

        small = there_and_back(24 << 20)
        assert there_and_back(256 << 20) < small + (24 << 20)
        client.close()
        process.kill()
