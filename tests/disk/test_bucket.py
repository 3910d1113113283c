"""The chunk store in a bucket, against an object store of the test's own that checks signatures and can be unwell."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from celaje.disk import bucket as bucket_module
from celaje.disk.bucket import BucketChunkStore, Keys, signed
from celaje.disk.check import check
from celaje.disk.chunk_store import CHUNK, ChunkError, ChunkStore, fetch, keep
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.errors import InputError

KEYS = Keys("AKIDEXAMPLE", "secret/with+signs")
CONTENT = random.Random(4).randbytes(CHUNK)


class Store(ThreadingHTTPServer):
    """Objects by path. `unwell`: how many requests to answer with 503 first. `chunked`: no length is told first.
    `together`: that many requests are answered at the same time, and then their connections are closed without a word.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.unwell = 0
        self.chunked = False
        self.requests = 0
        self.together: threading.Barrier | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # whoever has been told too large a length goes
                self.wfile.write(body)

    def handle_one(self) -> None:
        store = self.server
        store.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if store.together is not None:
            store.together.wait(60)
            self.close_connection = True
        if store.unwell:
            store.unwell -= 1
            return self.answer(503)
        parts = urlsplit(self.path)
        names = re.findall(r"SignedHeaders=([^,]*)", self.headers["authorization"])[0].split(";")
        digest = hashlib.sha256(body).hexdigest()
        expected = signed(
            KEYS, "us-east-1", self.command, parts.path, parts.query, {n: self.headers[n] for n in names}, digest
        )
        if self.headers["authorization"] != expected or self.headers["x-amz-content-sha256"] != digest:
            return self.answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if not parts.path.startswith("/my-bucket"):
            return self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if parts.query:
            return self.list(parse_qs(parts.query))
        if self.command == "PUT":
            store.objects[parts.path] = body
            return self.answer(200)
        if parts.path not in store.objects:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        if self.command == "DELETE":
            del store.objects[parts.path]
            return self.answer(204)
        return self.answer(200, store.objects[parts.path])

    do_GET = do_PUT = do_HEAD = do_DELETE = handle_one

    def list(self, query: dict[str, list[str]]) -> None:
        keys = sorted(key.removeprefix("/my-bucket/") for key in self.server.objects)
        keys = [key for key in keys if key.startswith(query["prefix"][0])]
        start = int(query.get("continuation-token", ["0+"])[0].rstrip("+"))
        page = keys[start : start + 2]
        more = f"<NextContinuationToken>{start + 2}+</NextContinuationToken>" if keys[start + 2 :] else ""
        listed = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in page)
        self.answer(200, f"<ListBucketResult>{listed}{more}</ListBucketResult>".encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(bucket_module, "_PAUSE", 0)
    with Store() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def bucket(server: Store) -> Iterator[BucketChunkStore]:
    found = BucketChunkStore(server.endpoint, "my-bucket", KEYS, prefix="one/chunks")
    yield found
    found.close()


def test_a_signature_is_that_of_the_documents_example() -> None:
    """Amazon S3 API Reference, "Examples: Signature Calculations", GET Object."""
    empty = hashlib.sha256(b"").hexdigest()
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": empty,
        "x-amz-date": "20130524T000000Z",
    }
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    assert signed(keys, "us-east-1", "GET", "/test.txt", "", headers, empty).endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert "wJalr" not in repr(keys)


def test_chunks_go_in_come_back_are_listed_and_deleted(bucket: BucketChunkStore, server: Store) -> None:
    _: ChunkStore = bucket
    names = [keep(bucket, bytes([number]) * CHUNK) for number in range(1, 6)]
    server.objects["/my-bucket/two/chunks/ab/" + "ab" * 32] = b"another's"
    server.objects["/my-bucket/one/chunks/ab/README"] = b"nobody's"
    assert sorted(bucket.list()) == sorted(names)
    assert fetch(bucket, names[2]) == b"\3" * CHUNK
    assert bucket.where(names[0]) == server.endpoint + next(iter(server.objects))
    bucket.delete(names[0])
    bucket.delete(names[0])
    assert not bucket.has(names[0])
    assert bucket.has(names[1])
    bucket.settle()
    with pytest.raises(ChunkError, match="is missing"):
        fetch(bucket, names[0])


def test_a_store_that_is_busy_for_a_while_is_asked_again(bucket: BucketChunkStore, server: Store) -> None:
    server.unwell = 3
    name = keep(bucket, CONTENT)
    assert fetch(bucket, name) == CONTENT
    server.unwell = 100
    with pytest.raises(OSError, match="cannot be used: it answers 503"):
        bucket.has(name)


def test_connections_that_were_all_closed_since_are_no_failure(bucket: BucketChunkStore, server: Store) -> None:
    server.together = threading.Barrier(2 * bucket_module.TRIES)
    with ThreadPoolExecutor(server.together.parties) as callers:
        assert not any(callers.map(bucket.has, [b"n" * 32] * server.together.parties))
    server.together = None
    assert not bucket.has(b"n" * 32)


def test_what_the_store_refuses_says_why(server: Store) -> None:
    wrong_keys = BucketChunkStore(server.endpoint, "my-bucket", Keys("AKIDEXAMPLE", "wrong"))
    no_bucket = BucketChunkStore(server.endpoint, "nothing", KEYS)
    with pytest.raises(OSError, match=r"403 \(SignatureDoesNotMatch\); check the bucket's name and the keys"):
        wrong_keys.put(b"n" * 32, b"frame")
    with pytest.raises(OSError, match="NoSuchBucket"):
        no_bucket.get(b"n" * 32)
    with pytest.raises(OSError, match="refuses to list"):
        list(no_bucket.list())
    for store in (wrong_keys, no_bucket):
        store.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_that_is_larger_than_any_can_be_is_not_taken_in(
    bucket: BucketChunkStore, server: Store, chunked: bool
) -> None:
    name = bytes(range(32))
    server.chunked = chunked
    path = urlsplit(bucket.where(name)).path
    server.objects[path] = bytes(bucket_module.LARGEST_ANSWER)
    assert bucket.get(name) == bytes(bucket_module.LARGEST_ANSWER)
    server.objects[path] += b"!"
    with pytest.raises(OSError, match=f"more than {bucket_module.LARGEST_ANSWER}"):
        bucket.get(name)


def test_a_store_that_is_not_there_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "_PAUSE", 0)
    with Store() as gone:
        endpoint = gone.endpoint
    with pytest.raises(OSError, match="127.0.0.1:[0-9]+ cannot be used"):
        BucketChunkStore(endpoint, "my-bucket", KEYS).has(b"n" * 32)
    with pytest.raises(InputError, match="http://127.0.0.1:4566"):
        BucketChunkStore("127.0.0.1:4566", "my-bucket", KEYS)


def test_volumes_live_over_a_bucket_as_over_a_folder(bucket: BucketChunkStore, server: Store, tmp_path: Path) -> None:
    store = VolumeStore(tmp_path, chunks=bucket)
    store.create("data", size=3 * CHUNK)
    with closing(store.open("data")) as volume:
        volume.write([memoryview(CONTENT)], 4096)
        taken = store.snapshot(volume)
    store.create("copy", source=SnapshotSource(taken.id))
    with closing(store.open("copy")) as volume:
        found = bytearray(CHUNK)
        volume.readinto([memoryview(found)], 4096)
        assert found == CONTENT
        store.sweep()
        assert volume.hydrate()
    assert not check(store, deep=True).damage
    for name in ("data", "copy"):
        store.remove(name)
    store.snapshots.remove(taken.id)
    assert store.sweep() is not None
    assert not server.objects
