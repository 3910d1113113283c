"""Checksums that S3 keeps of objects, besides the MD5 that an ETag is.

CRC32 (ISO 3309), CRC32C (RFC 3720), CRC64NVME (NVM Express, polynomial 0xad93d23594c93659 reflected), SHA1, SHA256 and
others; CRCs in network byte order, all in base64 ("Checking object integrity in Amazon S3"). Of an object put together
from parts there are two kinds: *composite*, the checksum of the parts' checksums with `-N` after it, and *full object*,
the checksum of all bytes, which for CRCs follows from the parts' own.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from celaje.cloud.aws import checksums as wire
from celaje.cloud.s3.store.records import Checksum


class Hasher(Protocol):
    """What is fed bytes and has a digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take bytes in."""

    def digest(self) -> bytes:
        """Of all bytes that it took in."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`size` in bytes. `combines`: the checksum of a whole follows from its parts' (those are CRCs, and cheap);
    `composes`: it may be of the parts' checksums."""

    name: str
    size: int
    combines: bool = False
    composes: bool = True

    def hasher(self) -> Hasher:
        """One that has taken nothing in."""
        return wire.Checksum(self.name)

    @property
    def member(self) -> str:
        """The member of S3's shapes."""
        return f"Checksum{self.name}"


ALGORITHMS = {
    each.name: each
    for each in (
        Algorithm("CRC32", 4, combines=True),
        Algorithm("CRC32C", 4, combines=True),
        Algorithm("CRC64NVME", 8, combines=True, composes=False),
        Algorithm("SHA1", 20),
        Algorithm("SHA256", 32),
        Algorithm("SHA512", 64),
        Algorithm("MD5", 16),
        Algorithm("XXHASH64", 8),
        Algorithm("XXHASH3", 8),
        Algorithm("XXHASH128", 16),
    )
}
DEFAULT = "CRC64NVME"
"""Of objects whose client names none."""


def encoded(digest: bytes) -> str:
    """A digest as S3 writes it."""
    return base64.b64encode(digest).decode()


def composite(algorithm: Algorithm, values: Sequence[str]) -> Checksum:
    """Of an object whose parts have `values`."""
    hasher = algorithm.hasher()
    for value in values:
        hasher.update(base64.b64decode(value))
    return Checksum(algorithm.name, f"{encoded(hasher.digest())}-{len(values)}", True)


def full_object(algorithm: Algorithm, parts: Sequence[tuple[str, int]]) -> Checksum:
    """Of an object whose parts have these checksums and sizes. Only for CRCs."""
    assert algorithm.combines
    runtime = importlib.import_module("awscrt.checksums")
    combine = cast(Callable[[int, int, int], int], getattr(runtime, f"combine_{algorithm.name.lower()}"))
    whole = 0
    for value, size in parts:
        whole = combine(whole, int.from_bytes(base64.b64decode(value), "big"), size)
    return Checksum(algorithm.name, encoded(whole.to_bytes(algorithm.size, "big")))
