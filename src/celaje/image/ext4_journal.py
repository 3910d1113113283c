"""ext4's journal (jbd2; Linux, Documentation/filesystems/ext4/journal.rst): what a crash left to be replayed.

    block 0       superblock: block size, length, where the log begins (0: it is empty) and with which transaction
    descriptor    tags, one a data block that follows: its place in the file system
    revoke        blocks that earlier transactions wrote and that must not be replayed
    commit        the transaction is whole

Numbers are big-endian. A transaction without its commit block never happened. Checksums are not looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from celaje.errors import ImageError

_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _REVOKE = 1, 2, 5
_WIDE, _FAST_COMMIT, _CHECKSUM_2, _CHECKSUM_3 = 0x2, 0x20, 0x8, 0x10
_KNOWN = 0x1 | _WIDE | 0x4 | _CHECKSUM_2 | _CHECKSUM_3
_ESCAPED, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_HEADER = struct.Struct(">III")


def replayed(journal: Sequence[int], read: Callable[[int], bytes], block_bytes: int) -> dict[int, bytes]:
    """The blocks as a replay would leave them, by number. `journal`: the blocks of the journal's file, in order.

    ImageError where the journal is no such thing.
    """
    if not journal:
        raise ImageError("the ext4 file system was not unmounted and has no journal")
    superblock = read(journal[0])
    magic, kind, _ = _HEADER.unpack_from(superblock)
    size, length, first, sequence, start = struct.unpack_from(">IIIII", superblock, 12)
    features = struct.unpack_from(">I", superblock, 0x28)[0] if kind == 4 else 0
    if magic != _MAGIC or kind not in (3, 4) or size != block_bytes or not 0 < first < length <= len(journal):
        raise ImageError("the ext4 file system was not unmounted and its journal is damaged")
    if features & ~_KNOWN:
        raise ImageError(f"the ext4 journal has features that celaje does not know: {features & ~_KNOWN:#x}")
    if start == 0:
        return {}
    if not first <= start < length:
        raise ImageError("the ext4 file system was not unmounted and its journal is damaged")
    return _Log(journal, read, first, length, features).replay(start, sequence)


class _Log:
    def __init__(
        self, journal: Sequence[int], read: Callable[[int], bytes], first: int, length: int, features: int
    ) -> None:
        self._journal, self._read = journal, read
        self._first, self._length = first, length
        self._wide = bool(features & _WIDE)
        self._third = bool(features & _CHECKSUM_3)
        checked = bool(features & _CHECKSUM_2)
        self._tag_bytes = 16 if self._third else 8 + 4 * self._wide + 2 * checked
        self._tail_bytes = 4 if self._third or checked else 0

    def _next(self, position: int) -> int:
        position += 1
        return position if position < self._length else self._first

    def replay(self, position: int, sequence: int) -> dict[int, bytes]:
        """From the log's first transaction to the last that is whole."""
        transactions: list[tuple[int, list[tuple[int, int, bool]]]] = []
        revoked: dict[int, int] = {}
        writes: list[tuple[int, int, bool]] = []
        revokes: list[int] = []
        for _ in range(self._length):
            block = self._read(self._journal[position])
            magic, kind, found = _HEADER.unpack_from(block)
            if magic != _MAGIC or found != sequence:
                break
            position = self._next(position)
            if kind == _DESCRIPTOR:
                for place, escaped in self._tags(block):
                    writes.append((place, position, escaped))
                    position = self._next(position)
            elif kind == _REVOKE:
                revokes += self._revoked(block)
            elif kind == _COMMIT:
                transactions.append((sequence, writes))
                revoked.update(dict.fromkeys(revokes, sequence))
                writes, revokes = [], []
                sequence = (sequence + 1) & 0xFFFFFFFF
            else:
                break
        held: dict[int, bytes] = {}
        for number, changes in transactions:
            for place, at, escaped in changes:
                if place not in revoked or revoked[place] < number:
                    data = self._read(self._journal[at])
                    held[place] = struct.pack(">I", _MAGIC) + data[4:] if escaped else data
        return held

    def _tags(self, block: bytes) -> list[tuple[int, bool]]:
        tags = []
        position, end = _HEADER.size, len(block) - self._tail_bytes
        while position + self._tag_bytes <= end:
            if self._third:
                place, flags, high = struct.unpack_from(">III", block, position)
            else:
                place, flags = struct.unpack_from(">I2xH", block, position)
                high = struct.unpack_from(">I", block, position + 8)[0] if self._wide else 0
            tags.append((place | (high << 32 if self._wide else 0), bool(flags & _ESCAPED)))
            position += self._tag_bytes + (0 if flags & _SAME_UUID else 16)
            if flags & _LAST:
                break
        return tags

    def _revoked(self, block: bytes) -> list[int]:
        used = min(struct.unpack_from(">I", block, _HEADER.size)[0], len(block))
        size = 8 if self._wide else 4
        start = _HEADER.size + 4
        return [place for (place,) in struct.iter_unpack(">Q" if self._wide else ">I", _whole(block[start:used], size))]


def _whole(data: bytes, size: int) -> bytes:
    return data[: len(data) // size * size]
