"""An initramfs: a tree with /init, as Linux takes it (Documentation/filesystems/ramfs-rootfs-initramfs.rst).

Not compressed by default: an emulated processor takes longer to decompress an archive than the host to copy it.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable

from celaje import zstandard
from celaje.errors import ImageError
from celaje.image import cpio
from celaje.image.tree import Tree

_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda archive: archive,
    "gzip": lambda archive: gzip.compress(archive, 6, mtime=0),
    "zstd": lambda archive: zstandard.compress(archive, 12),
}


def initramfs(tree: Tree, init: bytes, compression: str = "none") -> bytes:
    """`tree` with the program `init` as /init. `compression`: none, gzip or zstd. ImageError for another."""
    if compression not in _COMPRESSIONS:
        raise ImageError(f"an initramfs is compressed by {', '.join(_COMPRESSIONS)}, not by {compression!r}")
    whole = Tree()
    whole.update(tree)
    whole.file("init", init, 0o755)
    return _COMPRESSIONS[compression](cpio.pack(whole))
