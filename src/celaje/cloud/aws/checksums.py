"""The checksums that S3's clients send, compute and ask for, by the names that the API has for them.

    checksum = Checksum("CRC64NVME")
    checksum.update(data)
    checksum.base64       # as in the header x-amz-checksum-crc64nvme

SHA and MD5 are the standard library's, CRC32 is zlib's, the others come from AWS's own runtime, whose import takes a
tenth of a second and is made when the first of them is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import zlib
from collections.abc import Callable
from typing import Protocol, cast

Buffer = bytes | bytearray | memoryview


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...


class _Runtime(Protocol):
    def crc32c(self, data: Buffer, previous: int = 0) -> int: ...
    def crc64nvme(self, data: Buffer, previous: int = 0) -> int: ...


class _Rolling:
    """A checksum that is a function of the data and the checksum so far."""

    def __init__(self, step: Callable[[Buffer, int], int], size: int) -> None:
        self._step = step
        self._size = size
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class _Once:
    """A hash of AWS's runtime, which tells its digest once only."""

    def __init__(self, make: str) -> None:
        kind = importlib.import_module("awscrt.checksums").XXHash
        self._hash = getattr(kind, make)()
        self._digest: bytes | None = None

    def update(self, data: Buffer, /) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        if self._digest is None:
            self._digest = cast(bytes, self._hash.finalize())
        return self._digest


def _runtime() -> _Runtime:
    return cast(_Runtime, importlib.import_module("awscrt.checksums"))


# Name → digest's bytes and how to begin.
_KINDS: dict[str, tuple[int, Callable[[], _Rolling | _Once | hashlib._Hash]]] = {
    "CRC32": (4, lambda: _Rolling(zlib.crc32, 4)),
    "CRC32C": (4, lambda: _Rolling(_runtime().crc32c, 4)),
    "CRC64NVME": (8, lambda: _Rolling(_runtime().crc64nvme, 8)),
    "SHA1": (20, lambda: hashlib.sha1(usedforsecurity=False)),
    "SHA256": (32, hashlib.sha256),
    "SHA512": (64, hashlib.sha512),
    "MD5": (16, lambda: hashlib.md5(usedforsecurity=False)),
    "XXHASH64": (8, lambda: _Once("new_xxhash64")),
    "XXHASH3": (8, lambda: _Once("new_xxhash3_64")),
    "XXHASH128": (16, lambda: _Once("new_xxhash3_128")),
}
ALGORITHMS = tuple(_KINDS)
# Header (and trailer) → algorithm.
HEADERS = {f"x-amz-checksum-{name.lower()}": name for name in ALGORITHMS}


class Checksum:
    """A checksum under way. ValueError for a name that is not among ALGORITHMS."""

    def __init__(self, algorithm: str) -> None:
        kind = _KINDS.get(algorithm.upper())
        if kind is None:
            raise ValueError(f"{algorithm} is no checksum algorithm; expected one of {', '.join(ALGORITHMS)}")
        self.algorithm = algorithm.upper()
        self._hash = kind[1]()

    def update(self, data: Buffer) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        """Of all data so far. The last call: of some algorithms nothing can be added after it."""
        return self._hash.digest()

    @property
    def base64(self) -> str:
        return base64.b64encode(self.digest()).decode("ascii")


def is_digest(algorithm: str, text: str) -> bool:
    """Whether `text` has the form of such a checksum: base64 of the right length."""
    try:
        return len(base64.b64decode(text, validate=True)) == _KINDS[algorithm][0]
    except ValueError:
        return False
