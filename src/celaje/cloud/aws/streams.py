"""Bodies that are not held in memory: what an action gets of an object that is put, and gives of one that is got.

In. The member of a request that streams (PutObject's `Body`, PutSnapshotBlock's `BlockData`) is a `RequestBody`. The
action reads it on its own thread while the client still sends; nobody is ever more than a few hundred KiB ahead of
it. AWS's chunk framing is off, and everything that the client promised is checked along the way (length, SHA-256 of
the signature, signatures of chunks, Content-MD5, x-amz-checksum-* in headers and trailers): `read` returns b"" only
after all of it was found right, and raises AwsError otherwise. So: read to the end into a temporary file, and only
then make the object visible.

    body = request["Body"]
    md5 = body.checksum("MD5")             # before the first read; for the ETag
    for piece in body:
        file.write(piece)
    etag = md5.digest().hex()
    with call.writing() as session:        # such an action has no call.session: see action.py
        …

Out. The member of an answer that streams (GetObject's `Body`) is `bytes`, a `FileRange` or `FileRanges`, which are the
fast path, or `Pieces`. They are sent after the action returned, and closed when they were sent or the client went away.

    return {"Body": FileRange(os.open(path, os.O_RDONLY), offset=0, length=size), "ContentLength": size, …}
"""

from __future__ import annotations

import contextlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from celaje.cloud.aws.checksums import Checksum
from celaje.cloud.aws.errors import AwsError

Into = Callable[[memoryview], "int | None"]
PIECE = 1 << 20  # bytes that are read from a file at once


class Claim(NamedTuple):
    """A checksum that a client sent with its body: `value` is base64, or empty where it comes in the trailer
    `header`.
    """

    algorithm: str
    header: str
    value: str


class RequestBody:
    """The body of one request; see above. `length` is the bytes of the content, None if the client did not say.

    `pieces` waits for and returns the next bytes, b"" at the end; `trailers` are those that came after it. `into`
    receives into a buffer, None where the next bytes are to be had of `pieces`. `enclosed`: the body's end is told by
    what is around it, so that it needs no length.
    """

    def __init__(
        self,
        pieces: Callable[[], bytes],
        length: int | None,
        *,
        sha256: str | None = None,
        claims: tuple[Claim, ...] = (),
        trailers: Mapping[str, str] | None = None,
        into: Into | None = None,
        enclosed: bool = False,
    ) -> None:
        self.length = length
        self.enclosed = enclosed
        self.received = 0
        self._pieces = pieces
        self._into = into
        self._sha256 = sha256
        self._claims = claims
        self._trailers = trailers if trailers is not None else {}
        self._left = b""
        self._done = False
        self._sums: dict[str, Checksum] = {}
        for claim in claims:
            self.checksum(claim.algorithm)
        if sha256 is not None:
            self.checksum("SHA256")

    def checksum(self, algorithm: str) -> Checksum:
        """The checksum of the content, computed as it is read. Ask before the first read; its digest is there after the
        last. One that is verified anyway is not computed twice."""
        known = self._sums.get(algorithm)
        if known is None:
            if self.received:
                raise RuntimeError(f"{algorithm} was asked for after {self.received} bytes were read")
            known = self._sums[algorithm] = Checksum(algorithm)
        return known

    @property
    def promised(self) -> tuple[str, ...]:
        """The algorithms of the checksums that the client sends, those in trailers too: known before the first read."""
        return tuple(claim.algorithm for claim in self._claims)

    @property
    def claimed(self) -> dict[str, str]:
        """The checksums that the client sent (algorithm → base64), each found right once the end was read. Those in
        trailers are here after the end only. Content-MD5 is "MD5".
        """
        return {
            claim.algorithm: claim.value or self._trailers.get(claim.header, "")
            for claim in self._claims
            if claim.value or claim.header in self._trailers
        }

    def read(self, size: int = PIECE) -> bytes:
        """The next bytes, at least one and at most `size`; b"" at the end, when all is verified. Waits for the client.

        AwsError: IncompleteBody, RequestTimeout, XAmzContentSHA256Mismatch, BadDigest, SignatureDoesNotMatch, …
        """
        if not self._left:
            if self._done:
                return b""
            piece = self._pieces()
            self._count(piece)
            if not piece:
                return b""
            self._left = piece
        if len(self._left) <= size:
            piece, self._left = self._left, b""
        else:
            piece, self._left = self._left[:size], self._left[size:]
        return piece

    def read_into(self, room: memoryview) -> int:
        """As `read`, into a buffer of the caller's, which is filled where that is no copy: how many bytes, 0 at the
        end."""
        if not self._left and not self._done and self._into is not None:
            count = self._into(room)
            if count is not None:
                self._count(room[:count])
                return count
        piece = self.read(len(room))
        room[: len(piece)] = piece
        return len(piece)

    def _count(self, piece: bytes | memoryview) -> None:
        """These are the next bytes; none are the end."""
        if not piece:
            self._verify()
            self._done = True
            return
        self.received += len(piece)
        if self.length is not None and self.received > self.length:
            raise AwsError("IncompleteBody", f"The body has more than the {self.length} bytes that were announced")
        for checksum in self._sums.values():
            checksum.update(piece)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    def all(self, most: int) -> bytes:
        """The whole content, where it is known to be small. AwsError EntityTooLarge beyond `most` bytes."""
        pieces = []
        for piece in self:
            pieces.append(piece)
            if self.received > most:
                raise AwsError("EntityTooLarge", f"Your proposed upload exceeds the maximum allowed size of {most}")
        return b"".join(pieces)

    def _verify(self) -> None:
        if self.length is not None and self.received < self.length:
            raise AwsError(
                "IncompleteBody",
                "You did not provide the number of bytes specified by the Content-Length HTTP header: "
                f"{self.received} of {self.length}",
            )
        if self._sha256 is not None:
            computed = self._sums["SHA256"].digest().hex()
            if not hmac.compare_digest(computed, self._sha256):
                raise AwsError(
                    "XAmzContentSHA256Mismatch",
                    "The provided 'x-amz-content-sha256' header does not match what was computed.",
                    fields={"ClientComputedContentSHA256": self._sha256, "S3ComputedContentSHA256": computed},
                )
        for claim in self._claims:
            value = claim.value or self._trailers.get(claim.header)
            if value is None:
                raise AwsError(
                    "MalformedTrailerError", f"The request announced the trailer {claim.header} and has none"
                )
            if not hmac.compare_digest(self._sums[claim.algorithm].base64.encode(), value.encode()):
                name = "Content-MD5" if claim.header == "content-md5" else claim.algorithm
                raise AwsError("BadDigest", f"The {name} you specified did not match the calculated checksum.")


class FileRange:
    """`length` bytes of the open file `descriptor` from `offset`. It owns the descriptor."""

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.length = length

    def read(self, at: int, size: int) -> bytes:
        """At most `size` bytes from `at` (0 is the first of the range), b"" at the end of the range. OSError if the
        file is shorter than was said: an answer that was begun can only be broken off."""
        size = min(size, self.length - at)
        if size <= 0:
            return b""
        data = os.pread(self.descriptor, size, self.offset + at)
        if not data:
            raise OSError(f"a file of an answer ends at {self.offset + at}, {self.length - at} bytes too soon")
        return data

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Pieces:
    """Bytes that come from an iterator, asked for on a thread as the client takes them. `length` is how many there will
    be, None if nobody knows (the answer is then chunked)."""

    def __init__(self, pieces: Iterator[bytes], length: int | None) -> None:
        self._pieces = pieces
        self.length = length

    def next(self) -> bytes:
        for piece in self._pieces:
            if piece:
                return piece
        return b""

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            with contextlib.suppress(Exception):  # a generator that fails as it is told that nobody reads it
                close()


class FileRanges(Pieces):
    """Ranges of several files, one after the other, which are opened as they are asked for; `length` in all. `done` is
    called once, when nobody reads them any more."""

    def __init__(self, ranges: Iterator[FileRange], length: int, done: Callable[[], None]) -> None:
        super().__init__(iter(()), length)
        self._ranges = ranges
        self._done: Callable[[], None] | None = done
        self._current: FileRange | None = None
        self._at = 0

    def next_range(self) -> FileRange | None:
        """The next file's range, None at the end. It is closed when the one after it is asked for."""
        if self._current is not None:
            self._current.close()
        self._current, self._at = next(self._ranges, None), 0
        return self._current

    def next(self) -> bytes:
        while self._current is not None or self.next_range() is not None:
            assert self._current is not None
            piece = self._current.read(self._at, PIECE)
            if piece:
                self._at += len(piece)
                return piece
            if self.next_range() is None:
                break
        return b""

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None
        if self._done is not None:
            done, self._done = self._done, None
            done()


ResponseBody = bytes | FileRange | Pieces
