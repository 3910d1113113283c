"""A manifest: the names of a volume's chunks at one instant. A published one is a snapshot.

    offset  bytes
         0     16  "celaje manifest\\n"
        16      4  version, 1
        20      4  bytes of a chunk, 524288
        24      8  bytes of the volume
        32      8  number of names: the volume's chunks, the last one counted whole
        40      8  when, in nanoseconds since 1970
        48     24  the snapshot's id (snap-…), filled up with zeros; empty in the manifest of an image
        72     24  the volume's id (vol-…), filled up with zeros
        96    160  a description in UTF-8, filled up with zeros
       256   32 n  the names, in order; 32 zero bytes for a chunk of zeros
         …     32  BLAKE3 of everything before

Numbers are little-endian. A manifest is never changed; whoever reads one checks its hash.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from celaje.disk.chunk_store import CHUNK, NAME_SIZE, ZERO_NAME
from celaje.disk.files import READ, Files, contents, opened, read_fully
from celaje.errors import InputError

MAGIC = b"celaje manifest\n"
VERSION = 1
_header = struct.Struct("<16s II QQQ 24s 24s 160s")
DESCRIPTION_BYTES = 160
STRETCH = 4096  # names that are compared at once


@dataclass(frozen=True, slots=True)
class Manifest:
    """`names` is all names in a row. Times are nanoseconds since 1970, sizes bytes."""

    snapshot: str
    volume: str
    size: int
    created: int
    description: str
    names: bytes

    def name(self, chunk: int) -> bytes:
        """The name of a chunk, that of zeros beyond the end."""
        return self.names[chunk * NAME_SIZE : (chunk + 1) * NAME_SIZE] or ZERO_NAME

    def differing(self, other: Manifest | None, first: int = 0, stretch: int = STRETCH) -> Iterator[int]:
        """The chunks from `first` on whose names are not those of `other`, None: not zeros. Where a stretch of so many
        has the same names, that costs one comparison."""
        names, others, step = self.names, b"" if other is None else other.names, stretch * NAME_SIZE
        for start in range(first * NAME_SIZE, max(len(names), len(others)), step):
            own, theirs = names[start : start + step], others[start : start + step]
            length = max(len(own), len(theirs))
            own, theirs = own.ljust(length, b"\0"), theirs.ljust(length, b"\0")
            if own == theirs:
                continue
            for at in range(0, length, NAME_SIZE):
                if own[at : at + NAME_SIZE] != theirs[at : at + NAME_SIZE]:
                    yield (start + at) // NAME_SIZE

    @property
    def chunks(self) -> int:
        return len(self.names) // NAME_SIZE

    def distinct(self) -> set[bytes]:
        """The names of the chunks that a store must have for it."""
        names = self.names
        return {names[at : at + NAME_SIZE] for at in range(0, len(names), NAME_SIZE)} - {ZERO_NAME}

    def parts(self) -> list[bytes]:
        """The file's content."""
        header = _header.pack(
            MAGIC, VERSION, CHUNK, self.size, self.chunks, self.created,
            self.snapshot.encode(), self.volume.encode(), shortened(self.description).encode(),
        )  # fmt: skip
        return [header, self.names, blake3(header).update(self.names).digest()]


def shortened(description: str) -> str:
    """As much of a description as a manifest has room for, on one line."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", description).encode()[:DESCRIPTION_BYTES].decode(errors="ignore")


def read_manifest(files: Files, path: Path) -> Manifest:
    """The manifest in a file, checked. InputError if it is none or altered; FileNotFoundError."""
    content = contents(files, path)
    manifest, end = _parse(content[: _header.size], len(content), path)
    if blake3(memoryview(content)[:end]).digest() != content[end:]:
        raise InputError(f"the manifest {path} is altered: its hash differs; {_advice}")
    return Manifest(*manifest, content[_header.size : end])


def read_summary(files: Files, path: Path) -> Manifest:
    """The manifest in a file without its names and unchecked, for lists. InputError; FileNotFoundError."""
    with opened(files, path, READ) as fd:
        size = files.size(fd)
        header = bytearray(min(size, _header.size))
        if header:
            read_fully(files, fd, [memoryview(header)], 0)
    return Manifest(*_parse(bytes(header), size, path)[0], b"")


_advice = "put it back from a copy, or remove what it belongs to (celaje vm volume rm-snapshot, celaje vm volume rm)"


def _parse(header: bytes, length: int, path: Path) -> tuple[tuple[str, str, int, int, str], int]:
    """The fields of a header, and where the names end."""
    if len(header) < _header.size or header[:16] != MAGIC:
        raise InputError(f"{path} is no manifest: it begins otherwise; {_advice}")
    _, version, chunk, size, count, created, snapshot, volume, description = _header.unpack(header)
    if (version, chunk) != (VERSION, CHUNK):
        raise InputError(
            f"the manifest {path} is of version {version} with chunks of {chunk} bytes, and this celaje reads version"
            f" {VERSION} with {CHUNK}; use the celaje that wrote it, or a newer one"
        )
    end = _header.size + count * NAME_SIZE
    if count != -(-size // CHUNK) or length != end + 32:
        raise InputError(f"the manifest {path} is altered: it has {length} bytes, not {end + 32}; {_advice}")
    try:
        texts = [field.rstrip(b"\0").decode() for field in (snapshot, volume, description)]
    except UnicodeDecodeError:
        raise InputError(f"the manifest {path} is altered: its names are no text; {_advice}") from None
    return (texts[0], texts[1], size, created, texts[2]), end
