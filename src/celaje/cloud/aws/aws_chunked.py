"""The body framing `aws-chunked`: chunks with or without signatures, and trailers.

    10000;chunk-signature=0a1b…\\r\\n   ← size in hexadecimal; the signature only where chunks are signed
    …65536 bytes…\\r\\n
    0;chunk-signature=…\\r\\n
    x-amz-checksum-crc32:AAAAAA==\\r\\n
    x-amz-trailer-signature:…\\r\\n
    \\r\\n

Every chunk's signature is over the one before it, the first one's over the request's (AWS's "Signature calculations:
transferring payload in multiple chunks"). A chunk is handed on while it arrives and verified at its end, so that memory
stays small however large a client makes its chunks; whoever reads must not believe anything before the last.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from celaje.cloud.aws.denials import Denial, Reason
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.signature import ALGORITHM, EMPTY_SHA256, Verified

_LINE = 4096  # bytes of a chunk's header or of one trailer
_TRAILERS = 20
_PIECE = 1 << 18


class ChunkedBody:
    """Takes the framing off what `source` gives, piece by piece. `trailers` fill at the end."""

    def __init__(self, source: Callable[[], bytes], verified: Verified, length: int) -> None:
        self.trailers: dict[str, str] = {}
        self._source = source
        self._verified = verified
        self._signed = verified.payload.startswith("STREAMING-AWS4-HMAC-SHA256")
        self._length = length
        self._total = 0
        self._buffer = bytearray()
        self._chunk = 0  # bytes of the current chunk that are still to come
        self._inside = False
        self._signature = verified.signature
        self._stated = ""  # the current chunk's signature, as the client has it
        self._hash = hashlib.sha256()
        self._done = False

    def next(self) -> bytes:
        """The next bytes of the content, b"" after the last chunk and its trailers."""
        while not self._done:
            if self._inside and self._chunk == 0:
                self._end_chunk()
            if not self._inside:
                self._begin_chunk()
                continue
            if not self._buffer:
                self._more()
            piece = bytes(self._buffer[: min(self._chunk, _PIECE)])
            del self._buffer[: len(piece)]
            self._chunk -= len(piece)
            self._total += len(piece)
            if self._signed:
                self._hash.update(piece)
            return piece
        return b""

    def _begin_chunk(self) -> None:
        size, _, extension = self._line().partition(";")
        try:
            if not size or len(size) > 16 or not size.isalnum():
                raise ValueError(size)
            self._chunk = int(size, 16)
        except ValueError:
            raise _malformed("a chunk must begin with its size in hexadecimal") from None
        if self._total + self._chunk > self._length:
            raise AwsError("IncompleteBody", f"The chunks have more than the {self._length} bytes that were announced")
        self._inside = True
        self._hash = hashlib.sha256()
        if self._signed:
            name, _, signature = extension.partition("=")
            if name.strip() != "chunk-signature" or not signature:
                raise _malformed("a signed chunk must have a chunk-signature")
            self._stated = signature.strip()
        if self._chunk == 0:
            self._verify_chunk()
            self._read_trailers()
            self._done = True

    def _end_chunk(self) -> None:
        if self._line() != "":
            raise _malformed("a chunk must end with a line break")
        self._verify_chunk()
        self._inside = False

    def _verify_chunk(self) -> None:
        key = self._verified.key
        if not self._signed or key is None:
            return
        verified = self._verified
        text = "\n".join(
            (
                f"{ALGORITHM}-PAYLOAD",
                verified.date,
                verified.scope,
                self._signature,
                EMPTY_SHA256,
                self._hash.hexdigest(),
            )
        )
        self._compare(key, text, self._stated)

    def _read_trailers(self) -> None:
        text = ""
        signature = ""
        for _ in range(_TRAILERS):
            line = self._line()
            if not line:
                break
            name, colon, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if not colon or not name:
                raise _malformed("a trailer must be NAME:VALUE")
            if name == "x-amz-trailer-signature":
                signature = value
                continue
            if name in self.trailers:
                raise _malformed(f"the trailer {name[:100]} is given more than once")
            self.trailers[name] = value
            text += f"{name}:{value}\n"
        else:
            raise _malformed(f"there are more than {_TRAILERS} trailers")
        key = self._verified.key
        if self._signed and self.trailers and key is not None:
            verified = self._verified
            hashed = hashlib.sha256(text.encode("latin-1")).hexdigest()
            stated = "\n".join((f"{ALGORITHM}-TRAILER", verified.date, verified.scope, self._signature, hashed))
            self._compare(key, stated, signature)

    def _compare(self, key: bytes, text: str, stated: str) -> None:
        computed = hmac.digest(key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(computed.encode(), stated.encode()):
            raise Denial(Reason.MISMATCH, string_to_sign=text, signature=stated)
        self._signature = computed

    def _line(self) -> str:
        """Up to the next line break; "" at the end of the body too, where the last line break may be missing."""
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0:
                line = bytes(self._buffer[:end]).rstrip(b"\r")
                del self._buffer[: end + 1]
                return line.decode("latin-1")
            if len(self._buffer) > _LINE:
                raise _malformed(f"a line of the framing is longer than {_LINE} bytes")
            piece = self._source()
            if not piece:
                if self._buffer or self._chunk or not self._inside:
                    raise _incomplete()
                return ""
            self._buffer += piece

    def _more(self) -> None:
        piece = self._source()
        if not piece:
            raise _incomplete()
        self._buffer += piece


def _malformed(what: str) -> AwsError:
    return AwsError("InvalidRequest", f"The body is not aws-chunked: {what}")


def _incomplete() -> AwsError:
    return AwsError("IncompleteBody", "The request body terminated unexpectedly")
