"""A disk written as a qcow2 image of version 3 (the format is drawn in `qcow2`).

The file is written from front to end, once, and the header last, so that what is cut short is no image:

    | header | clusters of data ... an L2 table behind those that it names ... | L1 table | refcount table | blocks |

Clusters have 64 KiB; those of zeros are left out. Every cluster of the file has a reference count of 16 bits: one, or
as many as there are compressed clusters of the disk whose sectors touch it.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

from celaje import zstandard
from celaje.disk.files import ZEROES, Files, write_fully
from celaje.disk.qcow2 import COMPRESSED, HEADER_2, HEADER_3, HEADER_3_LENGTH, INCOMPATIBLE_COMPRESSION, MAGIC
from celaje.disk.transfer import Disk, exported
from celaje.disk.volume import Progress, no_progress
from celaje.errors import InputError

BITS = 16
CLUSTER = 1 << BITS
TABLE = CLUSTER // 8
COUNTS = CLUSTER // 2
COPIED = 1 << 63
PACKED_SHIFT = 62 - (BITS - 8)
SECTOR = 512
COMPRESSIONS = ("none", "zlib", "zstd")
HEADER_LENGTH = HEADER_3_LENGTH + 8
ZLIB_LEVEL = 6
ZLIB_WINDOW = -12  # 4 KiB, without a header: all that readers promise to take
ZSTD_LEVEL = 3


def _refcounts(clusters: int) -> tuple[int, int]:
    """(blocks, clusters of the table) that count the references to so many clusters."""
    blocks = -(-clusters // COUNTS)
    return blocks, -(-blocks // TABLE)


class _Writer:
    def __init__(self, files: Files, fd: int, size: int, compression: str) -> None:
        self._files = files
        self._fd = fd
        self._size = size
        self._compression = compression
        self._end = CLUSTER  # the header's
        self._counts = array("H", [1])
        self._l1 = [0] * -(-size // (TABLE * CLUSTER))

    def _append(self, data: bytes | memoryview) -> int:
        """Put whole clusters at the end; their offset."""
        self._align()
        offset = self._end
        write_fully(self._files, self._fd, [data], offset)
        self._end += len(data)
        self._count(offset, len(data))
        return offset

    def _align(self) -> None:
        self._end = -(-self._end // CLUSTER) * CLUSTER

    def _count(self, offset: int, length: int) -> None:
        """One reference more to each cluster of the file that a range touches."""
        last = (offset + length - 1) >> BITS
        while len(self._counts) <= last:
            self._counts.append(0)
        for cluster in range(offset >> BITS, last + 1):
            self._counts[cluster] += 1

    def entry(self, cluster: memoryview) -> int:
        """Write a cluster; its L2 entry."""
        packed = None
        if self._compression == "zlib":
            compressor = zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, ZLIB_WINDOW)
            packed = compressor.compress(cluster) + compressor.flush()
        elif self._compression == "zstd":
            packed = zstandard.compress(cluster, ZSTD_LEVEL)
        if packed is None or len(packed) > CLUSTER - SECTOR:
            return self._append(cluster) | COPIED
        offset = self._end
        write_fully(self._files, self._fd, [packed], offset)
        self._end += len(packed)
        further = (offset % SECTOR + len(packed) - 1) // SECTOR
        self._count(offset, (further + 1) * SECTOR - offset % SECTOR)
        return COMPRESSED | further << PACKED_SHIFT | offset

    def table(self, index: int, entries: list[int]) -> None:
        """Write an L2 table, behind its clusters."""
        self._l1[index] = self._append(struct.pack(f">{TABLE}Q", *entries)) | COPIED

    def finish(self) -> None:
        """Write what names everything."""
        l1 = struct.pack(f">{len(self._l1)}Q", *self._l1)
        l1_offset = self._append(l1 + bytes(-len(l1) % CLUSTER))
        # The refcount table and blocks count themselves, too.
        used = self._end >> BITS
        blocks = tables = 0
        while (blocks, tables) != (enough := _refcounts(used + blocks + tables)):
            blocks, tables = enough
        table_offset = self._end
        self._counts.extend([1] * (blocks + tables))
        self._counts.extend([0] * (blocks * COUNTS - len(self._counts)))
        first = table_offset + tables * CLUSTER
        table = struct.pack(f">{blocks}Q", *(first + number * CLUSTER for number in range(blocks)))
        self._counts.byteswap()
        write_fully(self._files, self._fd, [table.ljust(tables * CLUSTER, b"\0"), self._counts.tobytes()], table_offset)
        features = INCOMPATIBLE_COMPRESSION if self._compression == "zstd" else 0
        header = HEADER_2.pack(
            MAGIC, 3, 0, 0, BITS, self._size, 0, len(self._l1), l1_offset, table_offset, tables, 0, 0
        ) + HEADER_3.pack(features, 0, 0, 4, HEADER_LENGTH)
        header += bytes([features != 0])
        write_fully(self._files, self._fd, [header.ljust(CLUSTER, b"\0")], 0)


def _clusters(source: Disk, progress: Progress) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of each cluster that is not all zeros, ascending; a content is good until the next one."""
    whole = memoryview(bytearray(CLUSTER))
    following = 0
    for start, end in source.data():
        for number in range(max(start >> BITS, following), -(-end // CLUSTER)):
            length = min(CLUSTER, source.size - (number << BITS))
            source.readinto([whole[:length]], number << BITS)
            whole[length:] = bytes(CLUSTER - length)
            if whole.tobytes() != ZEROES[:CLUSTER]:
                yield number, whole
            following = number + 1
            progress(min(following << BITS, source.size), source.size)


def write_qcow2(
    files: Files, fd: int, source: Disk, compression: str = "none", progress: Progress = no_progress
) -> None:
    """Write `source` to the empty file `fd`. `compression`: none, zlib or zstd. InputError for another; OSError."""
    if compression not in COMPRESSIONS:
        raise InputError(f"a qcow2 image is compressed by {', '.join(COMPRESSIONS)}, not by {compression!r}")
    writer = _Writer(files, fd, source.size, compression)
    for index, clusters in itertools.groupby(_clusters(source, progress), key=lambda cluster: cluster[0] // TABLE):
        entries = [0] * TABLE
        for number, content in clusters:
            entries[number % TABLE] = writer.entry(content)
        writer.table(index, entries)
    writer.finish()
    progress(source.size, source.size)


def export_qcow2(
    source: Disk, path: Path, files: Files, compression: str = "none", progress: Progress = no_progress
) -> None:
    """An image with what `source` holds, under a name that nothing has. InputError if something has it; OSError."""
    with exported(files, path) as fd:
        write_qcow2(files, fd, source, compression, progress)
