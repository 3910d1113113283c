"""Disk images of QEMU's format qcow2 (QEMU, docs/interop/qcow2.rst), versions 2 and 3. `qcow2_writer` writes them.

    header, big-endian
      0  | "QFI" 0xfb | version 32 | backing file's name: offset 64, length 32 | cluster bits 32 | size 64 |
     32  | encryption 32 | L1 entries 32 | L1 offset 64 | refcount table: offset 64, clusters 32 |
     60  | snapshots: count 32, offset 64 |
     72  | incompatible features 64 | compatible 64 | autoclear 64 | refcount order 32 | header length 32 |   version 3
    104  | compression: 0 zlib, 1 zstd | 0 ...

    The size is cut into clusters. An L1 entry is the offset of an L2 table, which has one cluster; an L2 entry is

     63  | copied | 0 | 0 ... | offset 55:9 | 0 ... | all zeros |    0: the cluster is in the backing file, or nowhere
     63  | copied | 1 | further sectors | offset in bytes |          compressed; 62 - (cluster bits - 8) bits of offset

An image is hostile input. Every offset and length is checked against the file before it is used; reference counts are
not looked at; and since an image could otherwise hold more than any disk by naming the same bytes again and again, an
L2 table or a cluster that is named twice is refused, and so are compressed clusters that have more bytes together than
the file: which of them share bytes is not looked for, since that would take many times the memory that they take in the
file. A backing file is never opened: who wants one gives it.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from celaje import zstandard
from celaje.disk.description import checked_size
from celaje.disk.files import READ, Buffers, Files, fill, opened, read_fully, section, total
from celaje.disk.transfer import Disk
from celaje.errors import InputError, NotFound

MAGIC = b"QFI\xfb"
HEADER_2 = struct.Struct(">4sIQIIQIIQQIIQ")
HEADER_3 = struct.Struct(">QQQII")
HEADER_3_LENGTH = HEADER_2.size + HEADER_3.size

INCOMPATIBLE_DIRTY = 1 << 0
INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_EXTERNAL = 1 << 2
INCOMPATIBLE_COMPRESSION = 1 << 3
INCOMPATIBLE_EXTENDED_L2 = 1 << 4

OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COMPRESSED = 1 << 62
ALL_ZEROS = 1
SECTOR = 512
L1_BYTES = 32 << 20
"""The largest L1 table taken, as QEMU's own limit: 2 TiB with the smallest clusters that are in use."""
TABLES = 8
"""L2 tables kept in memory."""
NAME_BYTES = 1023


class Qcow2Disk:
    """The disk in the image that is open as `fd`; `name` stands for it in messages. InputError if it cannot be read.

    `backing` is what reads through where the image has nothing; it must be given if the image names one.
    """

    def __init__(self, files: Files, fd: int, name: str, backing: Disk | None = None) -> None:
        self._files = files
        self._fd = fd
        self._name = name
        self._backing = backing
        self._file_size = files.size(fd)
        self.notes: list[str] = []
        """What of the image is left out, for a person."""
        header = self._read(0, min(self._file_size, HEADER_3_LENGTH + 8), "header").ljust(HEADER_3_LENGTH + 8, b"\0")
        (magic, version, self._backing_at, self._backing_length, self._bits, self.size, encryption,
         l1_entries, l1_offset, _, _, snapshots, _) = HEADER_2.unpack_from(header)  # fmt: skip
        if magic != MAGIC:
            raise InputError(f"{name} is no qcow2 image; a raw disk image is imported as it is")
        if version not in (2, 3):
            raise self._bad(f"is of version {version}", f"version 3 is made by qemu-img convert -O qcow2 {name} OTHER")
        incompatible, length = 0, HEADER_2.size
        if version == 3:
            incompatible, _, _, _, length = HEADER_3.unpack_from(header, HEADER_2.size)
        self._check_features(incompatible, encryption)
        has_compression = length > HEADER_3_LENGTH and incompatible & INCOMPATIBLE_COMPRESSION
        self._zstd = bool(has_compression) and self._compression(header)
        if not 9 <= self._bits <= 21:
            raise self._bad(f"has clusters of 2 to the {self._bits} bytes", "2 to the 9 up to 21 are read")
        self._cluster = 1 << self._bits
        checked_size(self.size)
        if snapshots:
            self.notes.append(f"{snapshots} internal snapshots are left out; the disk is as it is now")
        self._check_backing()
        self._l1 = self._read_l1(l1_entries, l1_offset)
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._unpacked: tuple[int, bytes] = (-1, b"")  # the compressed cluster that was read last
        # Which compressed clusters were read, a bit each by L1 entry, and how many bytes these have together.
        self._counted: dict[int, bytearray] = {}
        self._packed_bytes = 0

    # --- the header ---

    def _bad(self, what: str, remedy: str) -> InputError:
        return InputError(f"the qcow2 image {self._name} {what}; {remedy}")

    def _check_features(self, incompatible: int, encryption: int) -> None:
        other = f"decode it first: qemu-img convert -O qcow2 {self._name} OTHER"
        if encryption:
            raise self._bad("is encrypted", other)
        if incompatible & INCOMPATIBLE_CORRUPT:
            raise self._bad("is marked as corrupt", f"qemu-img check -r all {self._name} repairs what can be repaired")
        if incompatible & INCOMPATIBLE_EXTERNAL:
            raise self._bad("keeps its data in another file", other)
        if incompatible & INCOMPATIBLE_EXTENDED_L2:
            raise self._bad("has extended L2 entries", other)
        known = INCOMPATIBLE_DIRTY | INCOMPATIBLE_COMPRESSION
        if incompatible & ~known:
            raise self._bad(f"has unknown features ({incompatible & ~known:#x})", other)

    def _compression(self, header: bytes) -> bool:
        kind = header[HEADER_3_LENGTH]
        if kind > 1:
            raise self._bad(f"has compression of kind {kind}", "zlib and zstd are read")
        return kind == 1

    def _check_backing(self) -> None:
        if not self._backing_at or self._backing is not None:
            return
        if not 0 < self._backing_length <= NAME_BYTES:
            raise self._bad(f"names a backing file in {self._backing_length} bytes", "1 to 1023 are possible")
        backing = self._read(self._backing_at, self._backing_length, "backing file's name").decode(errors="replace")
        raise self._bad(
            f"is only what differs from its backing file {backing!r}",
            f"make one image of both: qemu-img convert -O qcow2 {self._name} OTHER",
        )

    def _read_l1(self, entries: int, offset: int) -> array[int]:
        needed = -(-self.size // (self._cluster * self._cluster // 8))
        if entries < needed or entries * 8 > L1_BYTES:
            raise self._bad(f"has an L1 table of {entries} entries", f"it needs {needed}, at most {L1_BYTES // 8}")
        self._check_place(offset, "L1 table")
        places = _numbers(self._read(offset, needed * 8, "L1 table"))
        seen = bytearray(-(-self._file_size // self._cluster))
        for index, entry in enumerate(places):
            place = places[index] = entry & OFFSET_MASK
            number = place >> self._bits
            if not place or number >= len(seen):
                continue  # none, or one that is refused when it is read
            if seen[number]:
                raise self._bad("names an L2 table twice", "it is damaged or made up")
            seen[number] = 1
        return places

    # --- clusters ---

    def _check_place(self, offset: int, what: str) -> None:
        if not 0 < offset < self._file_size or offset % self._cluster:
            raise self._bad(
                f"has its {what} at {offset:#x}", f"places are multiples of {self._cluster} in {self._file_size} bytes"
            )

    def _read(self, offset: int, length: int, what: str) -> bytes:
        if offset < 0 or offset + length > self._file_size:
            raise self._bad(
                f"ends before its {what} does ({self._file_size} bytes, {offset + length} needed)", "copy it whole"
            )
        data = bytearray(length)
        with memoryview(data) as window:
            read_fully(self._files, self._fd, [window], offset)
        return bytes(data)

    def _table(self, index: int) -> array[int] | None:
        """The L2 table of L1 entry `index`; None if there is none."""
        place = self._l1[index]
        if not place:
            return None
        table = self._tables.get(index)
        if table is None:
            self._check_place(place, "L2 table")
            table = _numbers(self._read(place, self._cluster, "L2 table"))
            self._tables[index] = table
            if len(self._tables) > TABLES:
                self._tables.popitem(last=False)
        return table

    def _entry(self, cluster: int) -> int:
        table = self._table(cluster // (self._cluster // 8))
        return 0 if table is None else table[cluster % (self._cluster // 8)]

    def _packed(self, entry: int) -> tuple[int, int]:
        """(offset, length) of a compressed cluster: up to the end of the last sector, or of the file."""
        shift = 62 - (self._bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry & (COMPRESSED - 1)) >> shift
        length = (sectors + 1) * SECTOR - offset % SECTOR
        if offset >= self._file_size:
            raise self._bad(f"has a compressed cluster at {offset:#x}", "its file ends before")
        return offset, min(length, self._file_size - offset)

    def _unpack(self, cluster: int, entry: int) -> bytes:
        known, content = self._unpacked
        if known == cluster:
            return content
        offset, length = self._packed(entry)
        packed = self._read(offset, length, "compressed cluster")
        try:
            content, used = (self._of_zstd if self._zstd else self._of_zlib)(packed)
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._bad(f"has a damaged compressed cluster at {offset:#x} ({error})", "copy it anew") from None
        if len(content) != self._cluster:
            raise self._bad(f"has a compressed cluster at {offset:#x} that is not whole", "copy it anew")
        self._count(cluster, used)
        self._unpacked = cluster, content
        return content

    def _of_zlib(self, packed: bytes) -> tuple[bytes, int]:
        """A cluster, and how many bytes it was made of."""
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        content = stream.decompress(packed, self._cluster)
        return content, len(packed) - len(stream.unconsumed_tail) - len(stream.unused_data)

    def _of_zstd(self, packed: bytes) -> tuple[bytes, int]:
        stream = zstandard.ZstdDecompressor()
        content = stream.decompress(packed, self._cluster)
        if not stream.eof and stream.decompress(b"", 1):
            return b"", 0  # the frame has more than the cluster
        return content if stream.eof else b"", len(packed) - len(stream.unused_data)

    def _count(self, cluster: int, used: int) -> None:
        """A compressed cluster has so many bytes: a few could be any number of clusters otherwise."""
        table, number = divmod(cluster, self._cluster // 8)
        counted = self._counted.get(table)
        if counted is None:
            counted = self._counted[table] = bytearray(self._cluster // 64)
        if counted[number >> 3] >> (number & 7) & 1:
            return
        counted[number >> 3] |= 1 << (number & 7)
        self._packed_bytes += used
        if self._packed_bytes > self._file_size:
            raise self._bad("has compressed clusters that share bytes", "it is damaged or made up")

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with what the disk has from `offset`. InputError where the image is damaged there."""
        end, start = offset + total(buffers), offset
        while offset < end:
            cluster, inside = offset >> self._bits, offset & (self._cluster - 1)
            length = min(self._cluster - inside, end - offset)
            self._read_cluster(cluster, inside, section(buffers, offset - start, length))
            offset += length

    def _read_cluster(self, cluster: int, inside: int, buffers: Buffers) -> None:
        entry = self._entry(cluster)
        if entry & COMPRESSED:
            fill(buffers, self._unpack(cluster, entry)[inside:])
        elif entry & ALL_ZEROS:
            fill(buffers)
        elif place := entry & OFFSET_MASK:
            self._check_place(place, "cluster")
            # The last cluster of a file may be cut off where the disk ends.
            have = max(0, min(total(buffers), self._file_size - place - inside))
            fill(section(buffers, have, total(buffers) - have))
            if have:
                read_fully(self._files, self._fd, section(buffers, 0, have), place + inside)
        else:
            self._read_backing(buffers, (cluster << self._bits) + inside)

    def _read_backing(self, buffers: Buffers, offset: int) -> None:
        have = 0 if self._backing is None else max(0, min(total(buffers), self._backing.size - offset))
        fill(section(buffers, have, total(buffers) - have))
        if have and self._backing is not None:
            self._backing.readinto(section(buffers, 0, have), offset)

    def data(self) -> Iterator[tuple[int, int]]:
        """(start, end) of stretches, ascending, outside which the disk reads as zeros. InputError as `readinto`."""
        own = _joined(self._own_data())
        stretches = own if self._backing is None else _merged(own, self._backing.data(), self.size)
        yield from stretches

    def _own_data(self) -> Iterator[tuple[int, int]]:
        """The clusters that the image has, one by one; checks that none is named twice, of compressed ones apart."""
        seen = bytearray(-(-self._file_size // self._cluster))
        per_table = self._cluster // 8
        for index in range(len(self._l1)):
            table = self._table(index)
            if table is None:
                continue
            for number, entry in enumerate(table):
                start = (index * per_table + number) << self._bits
                if not entry or start >= self.size:
                    continue
                if entry & COMPRESSED:
                    self._packed(entry)
                elif entry & ALL_ZEROS or not entry & OFFSET_MASK:
                    continue
                else:
                    place = entry & OFFSET_MASK
                    self._check_place(place, "cluster")
                    if seen[place >> self._bits]:
                        raise self._bad(f"names the cluster at {place:#x} twice", "it is damaged or made up")
                    seen[place >> self._bits] = 1
                yield start, min(start + self._cluster, self.size)


def _numbers(data: bytes) -> array[int]:
    """The 64-bit numbers of a table."""
    found = array("Q", data)
    if sys.byteorder == "little":
        found.byteswap()
    return found


def _joined(stretches: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same with stretches that touch or overlap made one."""
    current: tuple[int, int] | None = None
    for start, end in stretches:
        if current is not None and start <= current[1]:
            current = current[0], max(current[1], end)
            continue
        if current is not None:
            yield current
        current = start, end
    if current is not None:
        yield current


def _merged(first: Iterator[tuple[int, int]], second: Iterator[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    inside = [(start, min(end, size)) for start, end in second if start < size]
    return list(_joined(iter(sorted([*first, *inside]))))


@contextlib.contextmanager
def qcow2_disk(path: Path, files: Files, backing: Disk | None = None) -> Iterator[Qcow2Disk]:
    """An image, open for as long as the block runs. NotFound; InputError as Qcow2Disk."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; give the path of a disk image")
    try:
        with opened(files, path, READ) as fd:
            yield Qcow2Disk(files, fd, str(path), backing)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}; give the path of a disk image") from None


def is_qcow2(path: Path, files: Files) -> bool:
    """Whether the file begins as such an image does. OSError where it cannot be read."""
    with opened(files, path, READ) as fd:
        if files.size(fd) < len(MAGIC):
            return False
        start = bytearray(len(MAGIC))
        with memoryview(start) as window:
            read_fully(files, fd, [window], 0)
        return bytes(start) == MAGIC
