"""Checksums that S3 keeps of objects, besides the MD5 that an ETag is.

CRC32 (ISO 3309), CRC32C (RFC 3720), CRC64NVME (NVM Express, polynomial 0xad93d23594c93659 reflected), SHA1 and SHA256;
CRCs in network byte order, all in base64 ("Checking object integrity in Amazon S3"). Of an object put together from
parts there are two kinds: *composite*, the checksum of the parts' checksums with `-N` after it, and *full object*, the
checksum of all bytes, which for CRCs follows from the parts' own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from awscrt import checksums as crt

from celaje.cloud.s3.store.records import Checksum


class Hasher(Protocol):
    """What is fed bytes and has a digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take bytes in."""

    def digest(self) -> bytes:
        """Of all bytes so far."""


class _Crc:
    __slots__ = ("_function", "_size", "_value")

    def __init__(self, function: Callable[[bytes | bytearray | memoryview, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`combine(first, second, length of second)` for those whose checksum of a whole follows from its parts'."""

    name: str
    size: int
    hasher: Callable[[], Hasher]
    combine: Callable[[int, int, int], int] | None = None
    composite_allowed: bool = True

    @property
    def header(self) -> str:
        """The HTTP header of a value."""
        return f"x-amz-checksum-{self.name.lower()}"

    @property
    def member(self) -> str:
        """The member of S3's shapes."""
        return f"Checksum{self.name}"


ALGORITHMS = {
    each.name: each
    for each in (
        Algorithm("CRC32", 4, lambda: _Crc(crt.crc32, 4), crt.combine_crc32),
        Algorithm("CRC32C", 4, lambda: _Crc(crt.crc32c, 4), crt.combine_crc32c),
        Algorithm("CRC64NVME", 8, lambda: _Crc(crt.crc64nvme, 8), crt.combine_crc64nvme, composite_allowed=False),
        Algorithm("SHA1", 20, hashlib.sha1),
        Algorithm("SHA256", 32, hashlib.sha256),
    )
}
DEFAULT = "CRC64NVME"
"""Of objects whose client names none."""


def encoded(digest: bytes) -> str:
    """A digest as S3 writes it."""
    return base64.b64encode(digest).decode()


def is_valid(algorithm: Algorithm, value: str) -> bool:
    """Whether a client's text can be a checksum."""
    try:
        return len(base64.b64decode(value, validate=True)) == algorithm.size
    except ValueError:
        return False


def composite(algorithm: Algorithm, values: Sequence[str]) -> Checksum:
    """Of an object whose parts have `values`."""
    hasher = algorithm.hasher()
    for value in values:
        hasher.update(base64.b64decode(value))
    return Checksum(algorithm.name, f"{encoded(hasher.digest())}-{len(values)}", True)


def full_object(algorithm: Algorithm, parts: Sequence[tuple[str, int]]) -> Checksum:
    """Of an object whose parts have these checksums and sizes. Only for CRCs."""
    assert algorithm.combine is not None
    whole = 0
    for value, size in parts:
        whole = algorithm.combine(whole, int.from_bytes(base64.b64decode(value), "big"), size)
    return Checksum(algorithm.name, encoded(whole.to_bytes(algorithm.size, "big")))
