"""A tree as a tar archive (GNU format), for a guest to unpack from a disk."""

from __future__ import annotations

import io
import stat
import tarfile
from typing import IO

from celaje.image.tree import Entry, Tree

_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def _info(path: str, entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = _TYPES[stat.S_IFMT(entry.mode)]
    info.mode = stat.S_IMODE(entry.mode)
    info.uid, info.gid, info.mtime = entry.uid, entry.gid, entry.mtime
    info.devmajor, info.devminor = entry.device
    if entry.is_symlink:
        info.linkname = entry.data.decode("utf-8", "surrogateescape")
    elif entry.is_regular:
        info.size = len(entry.data)
    return info


def write(tree: Tree, file: IO[bytes]) -> None:
    """Write `tree` to `file`, without its root directory's own entry; the length is a multiple of 10,240 bytes."""
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for path, entry in tree:
            if path:
                archive.addfile(_info(path, entry), io.BytesIO(entry.data) if entry.is_regular else None)
