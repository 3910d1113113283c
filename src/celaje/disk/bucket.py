"""Chunks in a bucket of an S3-compatible object store, over plain HTTP requests of this module's own.

    PREFIX/ab/abcd…ef    the object of the chunk of that name: the frame that `chunk_store` describes
    PREFIX/home          the id of the home that has the prefix (`claim`)

Five operations of S3's REST interface (Amazon S3 API Reference 2006-03-01), path-style addresses, signed with AWS
Signature Version 4 in the Authorization header ("Authenticating Requests: Using the Authorization Header"). An SDK
would bring a hundred times this in dependencies; the store needs nothing else of it.

An answered PUT is durable and whole, so `settle` and `unfinished` have nothing to do. A prefix belongs to one home:
its sweep would take another home's chunks for garbage.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

from celaje.disk.chunk_store import NAME_SIZE, ChunkError
from celaje.errors import InputError

TIMEOUT = 60.0  # seconds without a byte
LARGEST_ANSWER = 4 << 20  # bytes: a chunk's frame and a list of a thousand names have less
TRIES = 4
_PAUSE = 0.2  # seconds before the third try; twice that before the fourth
_BUSY = (500, 502, 503, 504, 429)


@dataclass(frozen=True, slots=True)
class Keys:
    """Who signs. The secret is in no message."""

    access: str
    secret: str = field(repr=False)


def signed(
    keys: Keys, region: str, method: str, path: str, query: str, headers: Mapping[str, str], payload_hash: str
) -> str:
    """The value of the Authorization header. `headers` are all that are signed, names in lower case, with host and
    x-amz-date; `path` and `query` as they are sent, the query's parts sorted."""
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        (method, path, query, *(f"{name}:{headers[name].strip()}" for name in sorted(headers)), "", names, payload_hash)
    )
    date = headers["x-amz-date"]
    scope = f"{date[:8]}/{region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{keys.secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope},SignedHeaders={names},Signature={key.hex()}"


class BucketChunkStore:
    """A chunk store in `bucket` at `endpoint` (http://… or https://…), all objects under `prefix`.

    Threads may use it at the same time. What fails on the way, and what the store says that it is too busy for, is
    tried again a few times; then it is an OSError.
    """

    def __init__(self, endpoint: str, bucket: str, keys: Keys, *, prefix: str = "chunks", region: str = "us-east-1"):
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or "@" in parts.netloc:
            raise InputError(f"the endpoint of an object store is such as http://127.0.0.1:4566, and not {endpoint!r}")
        self._secure = parts.scheme == "https"
        self._address = parts.netloc
        self._root = f"/{quote(bucket)}"
        self._prefix = prefix.strip("/")
        self._keys = keys
        self._region = region
        self._idle: list[http.client.HTTPConnection] = []

    def where(self, name: bytes) -> str:
        """The object's address."""
        return f"{'https' if self._secure else 'http'}://{self._address}{self._path(name)}"

    def _path(self, name: bytes) -> str:
        digits = name.hex()
        return f"{self._root}/{quote(self._prefix)}/{digits[:2]}/{digits}"

    # --- requests ---

    def _ask(
        self, method: str, path: str, query: str = "", body: bytes = b"", condition: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status and body of an answer below 500. OSError."""
        for attempt in range(TRIES):
            if attempt > 1:  # the first may only have found that its connection was closed since
                time.sleep(_PAUSE * 2 ** (attempt - 2))
            try:
                status, answer = self._ask_once(method, path, query, body, condition or {})
            except (OSError, http.client.HTTPException) as error:
                failure = str(error) or type(error).__name__
                self.close()  # what has become of one connection has perhaps become of all that were idle as long
                continue
            if status not in _BUSY:
                return status, answer
            failure = f"it answers {status}"
        raise OSError(f"the object store at {self._address} cannot be used: {failure} ({TRIES} times: {method} {path})")

    def _ask_once(
        self, method: str, path: str, query: str, body: bytes, condition: Mapping[str, str]
    ) -> tuple[int, bytes]:
        digest = hashlib.sha256(body).hexdigest()
        headers = {
            **condition,
            "host": self._address,
            "x-amz-content-sha256": digest,
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        }
        authorization = signed(self._keys, self._region, method, path, query, headers, digest)
        connection = self._connection()
        try:
            connection.request(
                method, f"{path}?{query}" if query else path, body or None, {**headers, "authorization": authorization}
            )
            response = connection.getresponse()
            if response.length is not None and response.length > LARGEST_ANSWER:
                raise OSError(f"it answers with {response.length} bytes, more than {LARGEST_ANSWER}")
            # read() of a length that is known notices a body that ends early; read(n) does not.
            answer = response.read(None if response.length is not None else LARGEST_ANSWER + 1)
            if len(answer) > LARGEST_ANSWER:
                raise OSError(f"it answers with more than {LARGEST_ANSWER} bytes")
            status = response.status
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return status, answer

    def _connection(self) -> http.client.HTTPConnection:
        """One that nobody uses just now, or a new one."""
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._address, timeout=TIMEOUT)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _refused(self, what: str, status: int, answer: bytes) -> OSError:
        code = re.search(rb"<Code>([^<]{1,80})</Code>", answer)
        reason = code[1].decode(errors="replace") if code else "no reason given"
        return OSError(
            f"the object store at {self._address} refuses to {what} with {status} ({reason}); check the bucket's name"
            " and the keys"
        )

    def claim(self, home: str) -> None:
        """Have the prefix for the home of this id. InputError if it is another one's; OSError.

        Of two homes that claim at the same moment one gets it where the store knows conditional writes, as S3 does.
        """
        path = f"{self._root}/{quote(self._prefix)}/home"
        status, answer = self._ask("GET", path)
        if status == 404 and b"NoSuchBucket" not in answer:
            status, answer = self._ask("PUT", path, body=home.encode(), condition={"if-none-match": "*"})
            if status not in (200, 412):
                raise self._refused("take an object", status, answer)
            status, answer = self._ask("GET", path)
        if status != 200:
            raise self._refused("give an object", status, answer)
        if answer != home.encode():
            raise InputError(
                f"the prefix {self._prefix} of this bucket belongs to another celaje home"
                f" ({answer[:40].decode(errors='replace')}); choose another prefix"
            )

    # --- a chunk store ---

    def put(self, name: bytes, frame: bytes) -> None:
        """Keep a compressed chunk."""
        status, answer = self._ask("PUT", self._path(name), body=frame)
        if status != 200:
            raise self._refused("take a chunk", status, answer)

    def get(self, name: bytes) -> bytes:
        """A compressed chunk. ChunkError if it is not there."""
        status, answer = self._ask("GET", self._path(name))
        if status == 404 and b"NoSuchBucket" not in answer:
            raise ChunkError(
                f"the chunk {self.where(name)} is missing; put it back from a copy of this store, and then run:"
                " celaje vm volume check"
            )
        if status != 200:
            raise self._refused("give a chunk", status, answer)
        return answer

    def has(self, name: bytes) -> bool:
        """Whether it is there."""
        status, answer = self._ask("HEAD", self._path(name))
        if status not in (200, 404):
            raise self._refused("say whether it has a chunk", status, answer)
        return status == 200

    def settle(self) -> None:
        """Nothing: what was answered is durable."""

    def delete(self, name: bytes) -> None:
        """Forget a chunk."""
        status, answer = self._ask("DELETE", self._path(name))
        if status not in (200, 204, 404):
            raise self._refused("delete a chunk", status, answer)

    def list(self) -> Iterator[bytes]:
        """The names of all chunks (ListObjectsV2, a thousand an answer)."""
        token = ""
        while True:
            query = f"list-type=2&prefix={quote(self._prefix, safe='')}%2F"
            if token:
                query = f"continuation-token={quote(token, safe='')}&{query}"
            status, answer = self._ask("GET", self._root, query)
            if status != 200:
                raise self._refused("list its chunks", status, answer)
            text = answer.decode(errors="replace")
            for digits in re.findall(r"<Key>[^<]*/([0-9a-f]+)</Key>", text):
                if len(digits) == 2 * NAME_SIZE:
                    yield bytes.fromhex(digits)
            following = re.search(r"<NextContinuationToken>([^<]+)</NextContinuationToken>", text)
            if not following:
                return
            token = unescape(following[1])

    def unfinished(self) -> Iterator[Path]:
        """Nothing: an object is there wholly or not at all."""
        return iter(())
