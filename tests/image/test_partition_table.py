from __future__ import annotations

import io
import struct
import uuid
import zlib

import pytest

from celaje.errors import ImageError
from celaje.image import partition_table
from celaje.image.partition_table import ALIGNMENT_BYTES, BOOTABLE, SECTOR_BYTES, Partition

MIB = 1 << 20
DISK = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
ROOT = Partition(MIB, 16 * MIB, uuid.UUID("12345678-1234-5678-9abc-def012345678"), "root", attributes=BOOTABLE)


def written(partitions: list[Partition], size: int) -> bytes:
    file = io.BytesIO(bytes(size))
    partition_table.write(file, size, DISK, partitions)
    assert len(file.getvalue()) == size
    return file.getvalue()


@pytest.mark.parametrize(("at", "other", "entries"), [(1, -1, 2), (-1, 1, -33)])
def test_both_headers_have_their_checksums_and_point_at_each_other(at: int, other: int, entries: int) -> None:
    disk = written([ROOT], 32 * MIB)
    sectors = len(disk) // SECTOR_BYTES
    at, other, entries = at % sectors, other % sectors, entries % sectors
    header = disk[at * SECTOR_BYTES : at * SECTOR_BYTES + 92]
    signature, _, length, checksum, _, here, there, first, last = struct.unpack_from("<8sIIIIQQQQ", header)
    assert (signature, length, here, there) == (b"EFI PART", 92, at, other)
    assert zlib.crc32(header[:16] + bytes(4) + header[20:]) == checksum
    assert (first, last) == (34, sectors - 34)
    entries_at, count, size, entries_checksum = struct.unpack_from("<QIII", header, 72)
    assert (entries_at, count, size) == (entries, 128, 128)
    assert zlib.crc32(disk[entries * SECTOR_BYTES :][: 128 * 128]) == entries_checksum


def test_an_entry_says_where_the_partition_is() -> None:
    entry = written([ROOT], 32 * MIB)[2 * SECTOR_BYTES :][:128]
    first, last, attributes = struct.unpack_from("<QQQ", entry, 32)
    assert (first, last, attributes) == (2048, 2048 + 16 * 2048 - 1, 4)
    assert uuid.UUID(bytes_le=entry[:16]) == partition_table.LINUX_FILE_SYSTEM
    assert uuid.UUID(bytes_le=entry[16:32]) == ROOT.identifier
    assert entry[56:].decode("utf-16-le").rstrip("\0") == "root"


def test_the_first_sector_protects_the_table_from_old_tools() -> None:
    sector = written([ROOT], 32 * MIB)[:SECTOR_BYTES]
    assert sector[446 + 4] == 0xEE
    assert struct.unpack_from("<II", sector, 446 + 8) == (1, 32 * 2048 - 1)
    assert sector[510:] == b"\x55\xaa"


def test_what_lies_between_the_tables_stays_as_it_is() -> None:
    file = io.BytesIO(b"\xa5" * (32 * MIB))
    partition_table.write(file, 32 * MIB, DISK, [ROOT])
    assert set(file.getvalue()[34 * SECTOR_BYTES : -33 * SECTOR_BYTES]) == {0xA5}


def test_the_smallest_disk_is_just_large_enough() -> None:
    size = partition_table.smallest_disk([ROOT])
    assert size % ALIGNMENT_BYTES == 0
    written([ROOT], size)
    with pytest.raises(ImageError, match="room up to"):
        written([ROOT], size - ALIGNMENT_BYTES)


@pytest.mark.parametrize(
    ("partitions", "said"),
    [
        ([ROOT, Partition(8 * MIB, MIB, ROOT.identifier, "b")], "overlaps"),
        ([Partition(0, MIB, ROOT.identifier, "over the table")], "overlaps"),
        ([Partition(MIB + 512, MIB, ROOT.identifier, "askew")], "whole MiB"),
        ([Partition(MIB, 0, ROOT.identifier, "empty")], "whole MiB"),
        ([Partition(MIB, MIB, ROOT.identifier, "x" * 37)], "36 characters"),
        ([Partition(MIB * n, MIB, ROOT.identifier, "many") for n in range(1, 130)], "128 partitions"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(partitions: list[Partition], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        written(partitions, 256 * MIB)


def test_a_disk_of_part_sectors_is_refused() -> None:
    with pytest.raises(ImageError, match="multiple of 512"):
        written([ROOT], 32 * MIB + 1)
