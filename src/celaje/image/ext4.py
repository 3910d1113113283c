"""ext4, read (Linux, Documentation/filesystems/ext4): the files of a guest's file system without mounting it.

    byte 1024      superblock: sizes, features
    block 1 ..     descriptors, one a block group: where its inodes are
    inode          mode, size, and the root of an extent tree: which blocks hold which part of the file
    directory      a file of records: inode, record's length, name; what an index of it looks like is skipped as empty

A file system that was in use when its disk was copied has a journal to be replayed first; `ext4_journal.py` beside this
gives the blocks that it holds instead of those on the disk. Everything comes from a guest: every number is checked
before it is used, and whatever is wrong is an ImageError. Checksums of metadata are not looked at.
"""

from __future__ import annotations

import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from posixpath import join, normpath

from celaje.errors import ImageError
from celaje.image.disk_source import DiskSource, read
from celaje.image.ext4_journal import replayed

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_ROOT_INODE = 2
_EXTENT_MAGIC = 0xF30A
_EXTENT_DEPTH = 5
_EXTENTS = 1 << 16  # in one file; a boot file of 256 MiB with 4 KiB blocks has no more
_LINKS = 40  # as many symbolic links as Linux follows
_PATH_BYTES = 4096  # as many as Linux takes
DIRECTORY_BYTES = 16 << 20
LOOKED_AT_BYTES = 64 << 20
"""Of directories, all that are gone through together: a path may go up and down again as often as it likes."""
FILE_BYTES = 256 << 20

_SPARSE_SUPER = 0x1
_NEEDS_RECOVERY, _META_BLOCK_GROUPS, _BITS_64 = 0x4, 0x10, 0x80
# What changes nothing for a reader: file types, recovery, meta groups, extents, 64 bits, mount protection, flexible
# groups, attributes in inodes, checksum seed, large directories.
_KNOWN_FEATURES = 0x2 | _NEEDS_RECOVERY | _META_BLOCK_GROUPS | 0x40 | _BITS_64 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000
_USES_EXTENTS, _ENCRYPTED = 0x80000, 0x800


@dataclass(frozen=True, slots=True)
class Inode:
    """A file: `mode` is st_mode, `size` bytes, `blocks` the 60 bytes that say where they are."""

    number: int
    mode: int
    size: int
    flags: int
    blocks: bytes

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)


@dataclass(frozen=True, slots=True)
class _Layout:
    block_bytes: int
    blocks: int
    first_data_block: int
    inodes: int
    inodes_per_group: int
    blocks_per_group: int
    inode_bytes: int
    descriptor_bytes: int
    features: int
    read_only_features: int
    first_meta_group: int
    journal: int

    @classmethod
    def parse(cls, superblock: bytes, room: int) -> _Layout:
        def u32(offset: int) -> int:
            return int(struct.unpack_from("<I", superblock, offset)[0])

        def u16(offset: int) -> int:
            return int(struct.unpack_from("<H", superblock, offset)[0])

        if u16(0x38) != _MAGIC:
            raise ImageError("there is no ext4 file system")
        features = u32(0x60)
        unknown = features & ~_KNOWN_FEATURES
        if unknown:
            raise ImageError(f"the ext4 file system has features that celaje does not know: {unknown:#x}")
        wide = bool(features & _BITS_64)
        found = cls(
            block_bytes=1024 << min(u32(0x18), 16),
            blocks=u32(0x4) | (u32(0x150) << 32 if wide else 0),
            first_data_block=u32(0x14),
            inodes=u32(0x0),
            inodes_per_group=u32(0x28),
            blocks_per_group=u32(0x20),
            inode_bytes=u16(0x58) if u32(0x4C) else 128,
            descriptor_bytes=u16(0xFE) if wide else 32,
            features=features,
            read_only_features=u32(0x64),
            first_meta_group=u32(0x104),
            journal=u32(0xE0),
        )
        found._check(room)
        return found

    def _check(self, room: int) -> None:
        sound = (
            self.block_bytes <= 65536
            and self.inode_bytes in (128, 256, 512, 1024, 2048, 4096)
            and self.inode_bytes <= self.block_bytes
            and self.descriptor_bytes in (32, 64, 128, 256, 512, 1024)
            and 0 < self.inodes_per_group <= 8 * self.block_bytes
            and 0 < self.blocks_per_group <= 8 * self.block_bytes
            and self.first_data_block <= 1
        )
        if not sound:
            raise ImageError("the superblock of the ext4 file system has sizes that no such file system has")
        if self.blocks * self.block_bytes > room:
            raise ImageError(
                f"the ext4 file system claims {self.blocks} blocks of {self.block_bytes} bytes, and its partition has "
                f"{room} bytes"
            )

    def has_superblock(self, group: int) -> bool:
        """Whether the block group begins with a copy of the superblock."""
        if not self.read_only_features & _SPARSE_SUPER or group <= 1:
            return True
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False


@dataclass
class Ext4:
    """The file system in the `length` bytes of `disk` from `start`. Paths begin with `/`; links are followed."""

    disk: DiskSource
    start: int
    length: int
    identifier: uuid.UUID = field(init=False)
    _layout: _Layout = field(init=False)
    _replayed: dict[int, bytes] = field(init=False, default_factory=dict)
    _looked_at: int = field(init=False, default=0)  # bytes of directories

    def __post_init__(self) -> None:
        superblock = read(self.disk, self.start + _SUPERBLOCK, 1024)
        self.identifier = uuid.UUID(bytes=superblock[0x68:0x78])
        self._layout = _Layout.parse(superblock, self.length)
        if self._layout.features & _NEEDS_RECOVERY:
            journal = self._inode(self._layout.journal)
            blocks = [block for first, count, block in self._extents(journal) for block in range(block, block + count)]
            self._replayed = replayed(blocks, self._block, self._layout.block_bytes)

    def _block(self, number: int) -> bytes:
        held = self._replayed.get(number)
        if held is not None:
            return held
        size = self._layout.block_bytes
        if number >= self._layout.blocks:
            raise ImageError(f"the ext4 file system has {self._layout.blocks} blocks; a file names block {number}")
        return read(self.disk, self.start + number * size, size)

    def _descriptor(self, group: int) -> bytes:
        layout = self._layout
        per_block = layout.block_bytes // layout.descriptor_bytes
        index = group // per_block
        block = layout.first_data_block + 1 + index
        if layout.features & _META_BLOCK_GROUPS and index >= layout.first_meta_group:
            first = index * per_block
            block = layout.first_data_block + first * layout.blocks_per_group + int(layout.has_superblock(first))
        offset = (group % per_block) * layout.descriptor_bytes
        return self._block(block)[offset : offset + layout.descriptor_bytes]

    def _inode(self, number: int) -> Inode:
        layout = self._layout
        if not 1 <= number <= layout.inodes:
            raise ImageError(f"the ext4 file system has inodes 1 to {layout.inodes}; something names inode {number}")
        group, index = divmod(number - 1, layout.inodes_per_group)
        descriptor = self._descriptor(group)
        table = struct.unpack_from("<I", descriptor, 0x8)[0]
        if layout.descriptor_bytes >= 64:
            table |= struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        per_block = layout.block_bytes // layout.inode_bytes
        offset = (index % per_block) * layout.inode_bytes
        raw = self._block(table + index // per_block)[offset : offset + layout.inode_bytes]
        mode, size_low = struct.unpack_from("<H2xI", raw, 0)
        flags = struct.unpack_from("<I", raw, 0x20)[0]
        size = size_low | struct.unpack_from("<I", raw, 0x6C)[0] << 32
        return Inode(number, mode, size, flags, raw[0x28:0x64])

    def _extents(self, inode: Inode) -> list[tuple[int, int, int]]:
        """Where the file is: first block of the file, how many, first block of the disk. Holes are left out."""
        if inode.flags & _ENCRYPTED or not inode.flags & _USES_EXTENTS:
            raise ImageError(f"inode {inode.number} is encrypted, or has no extents: celaje cannot read such files")
        found = list(self._walk(inode.blocks, None, inode.number, [0]))
        end = 0
        for first, count, _ in found:
            if first < end:
                raise ImageError(f"the extents of inode {inode.number} overlap")
            end = first + count
        return found

    def _walk(
        self, node: bytes, depth: int | None, inode: int, budget: list[int]
    ) -> Iterator[tuple[int, int, int]]:
        magic, entries, _, found_depth = struct.unpack_from("<HHHH", node, 0)
        wrong = magic != _EXTENT_MAGIC or found_depth > _EXTENT_DEPTH or 12 + entries * 12 > len(node)
        if wrong or (depth is not None and found_depth != depth):
            raise ImageError(f"the extent tree of inode {inode} is damaged")
        for position in range(12, 12 + entries * 12, 12):
            budget[0] += 1
            if budget[0] > _EXTENTS:
                raise ImageError(f"the extent tree of inode {inode} has more than {_EXTENTS} entries")
            if found_depth:
                low, high = struct.unpack_from("<4xIH", node, position)
                yield from self._walk(self._block(low | high << 32), found_depth - 1, inode, budget)
                continue
            first, count, high, low = struct.unpack_from("<IHHI", node, position)
            if count <= 32768:  # a larger number is space that is reserved, not written: it reads as zeros
                yield first, count, low | high << 32

    def content(self, inode: Inode, limit: int = FILE_BYTES) -> bytes:
        """What the file holds. ImageError past `limit` bytes."""
        if inode.size > limit:
            raise ImageError(f"inode {inode.number} has {inode.size} bytes; celaje reads such files up to {limit}")
        if inode.is_symlink and inode.size < len(inode.blocks) and not inode.flags & _USES_EXTENTS:
            return inode.blocks[: inode.size]
        size = self._layout.block_bytes
        buffer = bytearray(inode.size)
        for first, count, block in self._extents(inode):
            start, end = first * size, min((first + count) * size, inode.size)
            if start >= end:
                continue
            if block + count > self._layout.blocks:
                raise ImageError(f"inode {inode.number} names blocks past the end of its file system")
            if self._replayed:
                whole = b"".join(self._block(block + index) for index in range(-(-(end - start) // size)))
            else:
                whole = read(self.disk, self.start + block * size, -(-(end - start) // size) * size)
            buffer[start:end] = whole[: end - start]
        return bytes(buffer)

    def directory(self, inode: Inode) -> dict[str, int]:
        """The names in a directory, with their inodes."""
        if not inode.is_directory:
            raise ImageError(f"inode {inode.number} is no directory")
        size = self._layout.block_bytes
        self._looked_at += max(inode.size, size)
        if self._looked_at > LOOKED_AT_BYTES:
            raise ImageError(f"what boots is found only through more than {LOOKED_AT_BYTES} bytes of directories")
        content, names = self.content(inode, DIRECTORY_BYTES), {}
        for start in range(0, len(content), size):
            block, position = content[start : start + size], 0
            while position + 8 <= len(block):
                number, length, name_length = struct.unpack_from("<IHB", block, position)
                length = size if length in (0, 0xFFFF) and size == 65536 else length
                if length < 8 or length % 4 or position + length > len(block) or name_length > length - 8:
                    raise ImageError(f"the directory in inode {inode.number} is damaged")
                if number and name_length:
                    name = block[position + 8 : position + 8 + name_length]
                    names[name.decode("utf-8", "surrogateescape")] = number
                position += length
        return names

    def find(self, path: str) -> tuple[str, Inode] | None:
        """The file at `path` and its path without links; None where there is none. ImageError past 40 links, for a
        path that no system would take, and where it leads through too many directories."""
        if len(path) > _PATH_BYTES:
            raise ImageError(f"the path {path[:100]}... is longer than {_PATH_BYTES} bytes")
        parts = [part for part in path.split("/") if part]
        place, inode, links = "/", self._inode(_ROOT_INODE), 0
        while parts:
            part = parts.pop(0)
            if part == ".":
                continue
            if part == "..":
                parts = [*normpath(join(place, "..")).split("/"), *parts]
                parts = [one for one in parts if one]
                place, inode = "/", self._inode(_ROOT_INODE)
                continue
            number = self.directory(inode).get(part) if inode.is_directory else None
            if number is None:
                return None
            entered = self._inode(number)
            if not entered.is_symlink:
                place, inode = join(place, part), entered
                continue
            links += 1
            if links > _LINKS:
                raise ImageError(f"{path} goes through more than {_LINKS} symbolic links")
            target = self.content(entered, 4096).decode("utf-8", "surrogateescape")
            rest = [*target.split("/"), *parts]
            if not target.startswith("/"):
                rest = [*place.split("/"), *rest]
            parts = [one for one in rest if one]
            place, inode = "/", self._inode(_ROOT_INODE)
        return place, inode

    def names(self, path: str) -> list[str]:
        """The names in the directory at `path`, sorted; none where there is no such directory."""
        found = self.find(path)
        return sorted(self.directory(found[1])) if found and found[1].is_directory else []

    def read(self, path: str, limit: int = FILE_BYTES) -> bytes | None:
        """What the file at `path` holds; None where there is no regular file."""
        found = self.find(path)
        return self.content(found[1], limit) if found and found[1].is_regular else None
