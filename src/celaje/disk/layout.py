"""Where a store's things are, and the lock that lets chunks be swept.

    CELAJE_HOME/
      volumes/NAME/…             volume.py
      volumes/.NAME.0123…        a volume that is being made or removed, or that a kill has left so
      store/snapshots/snap-….manifest
      store/chunks/ab/…          chunk_store.py
      store/bucket.json          chunk_place.py
      store/lock                 flock: shared by whoever makes something that refers to chunks, exclusive for a sweep

The lock is what makes deduplication safe. A snapshot that finds a chunk already there relies on it from that moment,
long before the manifest that says so is published. So whoever counts on chunks holds the lock shared from before the
first look until the manifest has its name, and a sweep holds it exclusively. A process that is killed gives it up. (One
host; a bucket that several hosts sweep needs a lock that they share.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from celaje.disk.files import CREATE, WRITE, Files

MANIFEST_SUFFIX = ".manifest"


class Layout:
    """The paths under one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.volumes = home / "volumes"
        self.store = home / "store"
        self.snapshots = self.store / "snapshots"
        self.chunks = self.store / "chunks"
        self.lock = self.store / "lock"

    def manifest(self, snapshot: str) -> Path:
        """The path of a snapshot's manifest."""
        return self.snapshots / f"{snapshot}{MANIFEST_SUFFIX}"

    def is_made(self, files: Files) -> bool:
        """Whether the directories are there. They are once there has been a volume; without them there is nothing."""
        return files.identity(self.lock) is not None

    def make(self, files: Files) -> None:
        """Have all directories, durably, whoever made them and however far they came."""
        missing = []
        above = self.home
        while files.identity(above) is None:
            missing.append(above)
            above = above.parent
        for directory in (*reversed(missing), self.volumes, self.store, self.snapshots):
            with contextlib.suppress(FileExistsError):
                files.mkdir(directory)
            if directory in missing:
                files.sync_directory(directory.parent)
        with contextlib.suppress(FileExistsError):
            files.close(files.open(self.lock, CREATE))
        files.sync_directory(self.home)
        files.sync_directory(self.store)


@contextlib.contextmanager
def store_lock(files: Files, layout: Layout, *, exclusive: bool, wait: bool = True) -> Iterator[bool]:
    """Hold the store's lock. False, and it is not held, if that would wait and is not to. The layout must be made."""
    fd = files.open(layout.lock, WRITE)
    try:
        yield files.lock(fd, exclusive, wait)
    finally:
        files.close(fd)
