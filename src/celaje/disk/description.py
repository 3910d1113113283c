"""volume.json: what a volume is. Strict: an unknown field, kind or version is refused, not skipped.

{"version": 1, "id": "vol-0123456789abcdef0", "name": "data", "size": 8589934592, "created": 1754000000000000000,
 "base": {"kind": "image", "sha256": "…", "size": 2147483648}, "baseline": "snap-…" or null}
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import msgspec

from celaje.errors import InputError, UsageError
from celaje.typed_data import from_json

FILE_NAME = "volume.json"
VERSION = 1
SECTOR = 512
CLUSTER = 4096
LARGEST = 64 << 40  # EC2's largest volume, too


class NothingBelow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="none"):
    """Zeros."""


class ImageBelow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="image"):
    """An image's raw disk file, by its SHA-256; the volume's directory has it as `base`."""

    sha256: str
    size: int


class SnapshotBelow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="snapshot"):
    """A snapshot; the volume's directory has its manifest as `base`."""

    snapshot: str
    size: int


Lower = NothingBelow | ImageBelow | SnapshotBelow


class SectionBelow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="section"):
    """Clusters in a file of `file_size` bytes, a machine snapshot's, over `lower`; the volume's directory has the file
    as `section`, and if it is `checked` its hashes as `section.hashes`. `extents` are (first cluster, clusters),
    ascending; the clusters lie from `offset` on in that order.
    """

    file_size: int
    offset: int
    extents: list[tuple[int, int]]
    size: int
    lower: Lower
    checked: bool = False


Below = Lower | SectionBelow


def lower_of(below: Below) -> Lower:
    """What is under everything that a volume itself has."""
    return below.lower if isinstance(below, SectionBelow) else below


class VolumeDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sizes in bytes, times in nanoseconds since 1970.

    `baseline` is the snapshot that the clusters marked clean have not changed since, None for the base.
    """

    version: int = VERSION
    id: str
    name: str
    size: int
    created: int
    base: Below
    baseline: str | None = None

    @property
    def serial(self) -> bytes:
        """What names the disk to a guest: the id without its dash, 20 bytes, as EC2 has it."""
        return self.id.replace("-", "").encode()

    def to_json(self) -> bytes:
        """The file's content."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def parse(content: bytes, where: Path) -> VolumeDescription:
    """The description in a file. InputError if it is none, or of another version."""
    try:
        version = from_json(content, _Versioned).version
        described = from_json(content, VolumeDescription) if version == VERSION else None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_description(where, str(error)) from None
    if described is None:
        raise InputError(
            f"the volume {where.parent} is of version {version}, and this celaje reads version {VERSION};"
            " use the celaje that made it, or a newer one"
        )
    if not re.fullmatch(r"vol-[0-9a-f]{17}", described.id):
        raise _no_description(where, f"{described.id!r} is no volume's id")
    if isinstance(described.base, SectionBelow) and not section_is_sound(described.base):
        raise _no_description(where, "the section under it overlaps itself, or lies outside its file")
    try:
        checked_size(described.size)
    except InputError as error:
        raise _no_description(where, str(error)) from None
    return described


def section_is_sound(below: SectionBelow) -> bool:
    """Whether a section's extents ascend inside the disk, and its clusters lie inside the file."""
    end = 0
    for first, count in below.extents:
        if first < end or count <= 0:
            return False
        end = first + count
    clusters = sum(count for _, count in below.extents)
    inside = below.offset >= 0 and below.offset + clusters * CLUSTER <= below.file_size
    return inside and end <= -(-below.size // CLUSTER)


def _no_description(where: Path, why: str) -> InputError:
    return InputError(f"{where} does not describe a volume: {why}; put it back from a copy, or remove {where.parent}")


class _Versioned(msgspec.Struct):
    version: int


def new_id(kind: str) -> str:
    """An id as EC2's: vol-…, snap-…, with 17 hexadecimal digits."""
    return f"{kind}-{secrets.token_hex(9)[:17]}"


def checked_id(identifier: str) -> str:
    """`identifier`, if a volume may have it. UsageError."""
    if not re.fullmatch(r"vol-[0-9a-f]{17}", identifier):
        raise UsageError(f"a volume's id is vol- and 17 hexadecimal digits, not {identifier!r}")
    return identifier


def checked_name(name: str) -> str:
    """`name`, if a volume may have it. UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise UsageError(
            f"a volume's name has up to 63 letters, digits, dots, dashes and underscores, a letter or digit first;"
            f" {name!r} is none"
        )
    return name


def checked_size(size: int) -> int:
    """`size`, if a volume may have it. InputError."""
    if not SECTOR <= size <= LARGEST or size % SECTOR:
        raise InputError(
            f"a volume has a whole number of {SECTOR}-byte sectors, from one to 64 TiB, and not {size} bytes"
        )
    return size
