"""GUID partition tables (UEFI 2.10, 5.3), written to a disk's two ends, and read from either.

    LBA 0          protective MBR: one partition of type 0xEE over the whole disk
    LBA 1          header: "EFI PART", revision, CRC-32s, this and the other header's place, usable range, disk's GUID
    LBA 2..33      128 entries of 128 bytes: type, GUID, first and last LBA, attributes, name in UTF-16
    last 33 LBAs   the entries again, then the header again

Numbers are little-endian, sectors 512 bytes.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from celaje.errors import ImageError
from celaje.image.disk_source import DiskSource
from celaje.image.disk_source import read as read_bytes

SECTOR_BYTES = 512
ALIGNMENT_BYTES = 1 << 20
LINUX_FILE_SYSTEM = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
BOOTABLE = 1 << 2

_ENTRIES = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
_ENTRY_SECTORS = _ENTRIES * _ENTRY.size // SECTOR_BYTES
_FIRST_USABLE = 2 + _ENTRY_SECTORS
_NAME_CHARACTERS = 36


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: `start` and `size` in bytes, both whole MiB; `attributes` as UEFI numbers them (bit 2: BOOTABLE)."""

    start: int
    size: int
    identifier: uuid.UUID
    name: str
    kind: uuid.UUID = LINUX_FILE_SYSTEM
    attributes: int = 0


def smallest_disk(partitions: Sequence[Partition]) -> int:
    """Bytes of the smallest disk, in whole MiB, that holds `partitions` and both tables."""
    end = max((partition.start + partition.size for partition in partitions), default=ALIGNMENT_BYTES)
    return -(-(end + (_ENTRY_SECTORS + 1) * SECTOR_BYTES) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _checked(partitions: Sequence[Partition], disk_bytes: int) -> None:
    if disk_bytes % SECTOR_BYTES:
        raise ImageError(f"a disk is a multiple of {SECTOR_BYTES} bytes, not {disk_bytes}")
    if len(partitions) > _ENTRIES:
        raise ImageError(f"a partition table has room for {_ENTRIES} partitions, not for {len(partitions)}")
    last_usable = disk_bytes - (_ENTRY_SECTORS + 1) * SECTOR_BYTES
    end = 0
    for number, partition in enumerate(sorted(partitions, key=lambda one: one.start), start=1):
        if partition.size <= 0 or partition.start % ALIGNMENT_BYTES or partition.size % ALIGNMENT_BYTES:
            raise ImageError(
                f"partition {partition.name!r} must start at, and have, whole MiB, not start at {partition.start} "
                f"and have {partition.size} bytes"
            )
        if partition.start < max(end, _FIRST_USABLE * SECTOR_BYTES):
            raise ImageError(f"partition {number} ({partition.name!r}) overlaps what is before it")
        if len(partition.name.encode("utf-16-le")) > 2 * _NAME_CHARACTERS:
            raise ImageError(f"a partition's name has at most {_NAME_CHARACTERS} characters: {partition.name!r}")
        end = partition.start + partition.size
    if end > last_usable:
        raise ImageError(
            f"the partitions end at byte {end}, but a disk of {disk_bytes} bytes has room up to {last_usable}"
        )


def _protective_mbr(sectors: int) -> bytes:
    partition = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    return bytes(446) + partition + bytes(48) + b"\x55\xaa"


def _header(disk: uuid.UUID, sectors: int, here: int, other: int, entries_at: int, entries: bytes) -> bytes:
    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            *(b"EFI PART", b"\x00\x00\x01\x00", _HEADER.size, checksum, 0, here, other),
            *(_FIRST_USABLE, sectors - _FIRST_USABLE, disk.bytes_le),
            *(entries_at, _ENTRIES, _ENTRY.size, zlib.crc32(entries)),
        )

    return packed(zlib.crc32(packed(0))).ljust(SECTOR_BYTES, b"\0")


def write(file: IO[bytes], disk_bytes: int, disk: uuid.UUID, partitions: Sequence[Partition]) -> None:
    """Write the table of `partitions` to both ends of `file`, a disk of `disk_bytes`. What is between stays as it is.

    ImageError where the partitions overlap, are not aligned, or do not fit.
    """
    _checked(partitions, disk_bytes)
    sectors = disk_bytes // SECTOR_BYTES
    entries = b"".join(
        _ENTRY.pack(
            *(one.kind.bytes_le, one.identifier.bytes_le),
            *(one.start // SECTOR_BYTES, (one.start + one.size) // SECTOR_BYTES - 1),
            *(one.attributes, one.name.encode("utf-16-le")),
        )
        for one in partitions
    ).ljust(_ENTRIES * _ENTRY.size, b"\0")
    last = sectors - 1
    file.seek(0)
    file.write(_protective_mbr(sectors) + _header(disk, sectors, 1, last, 2, entries) + entries)
    file.seek((last - _ENTRY_SECTORS) * SECTOR_BYTES)
    file.write(entries + _header(disk, sectors, last, 1, last - _ENTRY_SECTORS, entries))


def read(disk: DiskSource) -> list[Partition] | None:
    """The partitions of `disk`, by number; None where neither of its ends has a table that is whole.

    ImageError where the disk is cut short, or a partition is not on it.
    """
    sectors = disk.size // SECTOR_BYTES
    if sectors < 2 * _FIRST_USABLE:
        return None
    for place in (1, sectors - 1):
        entries = _entries_at(disk, place)
        if entries is not None:
            return [_partition(entry, sectors) for entry in _ENTRY.iter_unpack(entries) if entry[0] != bytes(16)]
    return None


def _entries_at(disk: DiskSource, place: int) -> bytes | None:
    """The entries of the table whose header is in sector `place`, where that is one and its checksums are right."""
    raw = read_bytes(disk, place * SECTOR_BYTES, SECTOR_BYTES)
    fields = _HEADER.unpack_from(raw)
    signature, size, checksum, here = fields[0], fields[2], fields[3], fields[5]
    entries_at, count, entry_size, entries_checksum = fields[10:]
    if signature != b"EFI PART" or size != _HEADER.size or here != place:
        return None
    if zlib.crc32(raw[:16] + bytes(4) + raw[20 : _HEADER.size]) != checksum:
        return None
    if entry_size != _ENTRY.size or not 0 < count <= 1024:
        return None
    length = count * _ENTRY.size
    entries = read_bytes(disk, entries_at * SECTOR_BYTES, -(-length // SECTOR_BYTES) * SECTOR_BYTES)[:length]
    return entries if zlib.crc32(entries) == entries_checksum else None


def _partition(entry: tuple[bytes, bytes, int, int, int, bytes], sectors: int) -> Partition:
    kind, identifier, first, last, attributes, name = entry
    if not _FIRST_USABLE <= first <= last < sectors:
        raise ImageError(f"the disk has {sectors} sectors, and a partition has the sectors {first} to {last}")
    text = name.decode("utf-16-le", "replace").split("\0", 1)[0]
    size = (last - first + 1) * SECTOR_BYTES
    return Partition(
        first * SECTOR_BYTES,
        size,
        uuid.UUID(bytes_le=identifier),
        text,
        uuid.UUID(bytes_le=kind),
        attributes,
    )
