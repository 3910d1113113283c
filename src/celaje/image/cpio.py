"""The archive format of Linux's initramfs: cpio "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format).

    070701 ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    name NUL, padded to 4 bytes | data, padded to 4 bytes | ... | an entry named TRAILER!!!

Every number is 8 hexadecimal digits, so the header is 110 bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from celaje.errors import ImageError
from celaje.image.tree import Entry, Tree

_MAGIC = b"070701"
_HEADER_BYTES = 110
_TRAILER = "TRAILER!!!"


def _padding(length: int) -> bytes:
    return bytes(-length % 4)


def _record(inode: int, name: str, entry: Entry, links: int) -> bytes:
    path = name.encode("utf-8", "surrogateescape") + b"\0"
    numbers = (
        *(inode, entry.mode, entry.uid, entry.gid, links, entry.mtime, len(entry.data)),
        *(0, 0, entry.device[0], entry.device[1], len(path), 0),
    )
    header = _MAGIC + b"".join(b"%08X" % number for number in numbers) + path
    return header + _padding(len(header)) + entry.data + _padding(len(entry.data))


def pack(tree: Tree) -> bytes:
    """`tree` as one archive, padded to 512 bytes so that another may follow it. ImageError for a file past 4 GiB."""
    records = []
    for inode, (path, entry) in enumerate(tree, start=1):
        if len(entry.data) >> 32 or entry.mtime >> 32:
            raise ImageError(f"{path!r} has {len(entry.data)} bytes: a cpio archive's files are smaller than 4 GiB")
        records.append(_record(inode, path or ".", entry, 2 if entry.is_directory else 1))
    records.append(_record(0, _TRAILER, Entry(0), 1))
    archive = b"".join(records)
    return archive + bytes(-len(archive) % 512)


def _entries(archive: bytes) -> Iterator[tuple[str, Entry]]:
    position = 0
    while True:
        header = archive[position : position + _HEADER_BYTES]
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            raise ImageError(f"no cpio header (newc, {_MAGIC.decode()}) at byte {position} of the archive")
        try:
            fields = [int(header[start : start + 8], 16) for start in range(6, _HEADER_BYTES, 8)]
        except ValueError as error:
            raise ImageError(f"the cpio header at byte {position} holds something else than numbers") from error
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, _ = fields
        name_start = position + _HEADER_BYTES
        data_start = name_start + name_size + (-(_HEADER_BYTES + name_size) % 4)
        if name_size < 1 or data_start + size > len(archive):
            raise ImageError(f"the cpio archive ends inside the entry at byte {position}")
        name = archive[name_start : name_start + name_size - 1].decode("utf-8", "surrogateescape")
        if name == _TRAILER:
            return
        yield name, Entry(mode, archive[data_start : data_start + size], uid, gid, mtime, (major, minor))
        position = data_start + size + (-size % 4)


def unpack(archive: bytes) -> Tree:
    """The tree in an uncompressed archive. ImageError where it is malformed or names a path outside itself."""
    tree = Tree()
    for name, entry in _entries(archive):
        if not stat.S_IFMT(entry.mode):
            raise ImageError(f"the cpio entry {name!r} has no file type (mode {entry.mode:o})")
        tree.add(name, entry, "the cpio archive")
    return tree
