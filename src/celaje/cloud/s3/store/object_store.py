"""The object store of one host: everything that `store` has, in one directory, for one process."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from celaje import paths
from celaje.cloud.s3.store.buckets import Buckets
from celaje.cloud.s3.store.checksums import ALGORITHMS, DEFAULT, Algorithm, Hasher
from celaje.cloud.s3.store.contents import Contents, Reaper
from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.group_commit import GroupCommit
from celaje.cloud.s3.store.objects import Objects, Opened
from celaje.cloud.s3.store.receive import Received, Receiver
from celaje.cloud.s3.store.records import CONTENT_ID_SIZE
from celaje.cloud.s3.store.uploads import Uploads
from celaje.disk.files import CREATE, HOST, READ, WRITE, Files, read_fully
from celaje.errors import HostError

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """Objects and the bytes that they have, parts of unfinished uploads among the bytes."""

    objects: int
    size: int


class ObjectStore:
    """The store in `directory`, made where there is none. HostError if another process has it."""

    def __init__(self, directory: Path, files: Files = HOST) -> None:
        paths.made(directory)
        self._files = files
        self._lock = self._locked(directory)
        try:
            self.contents = Contents(directory / "contents", files)
            self._database = Database(directory / "objects.sqlite3")
            # The names of what was made just now, and of the directories that it is in.
            for made in (directory, *list(directory.parents)[:3]):
                files.sync_directory(made)
        except BaseException:
            files.close(self._lock)
            raise
        self._commit = GroupCommit(self._database.writer)
        self._reaper = Reaper(self.contents)
        self.buckets = Buckets(self._database, self._commit, self._reaper)
        self.objects = Objects(self._database, self._commit, self.contents, self._reaper)
        self.uploads = Uploads(self._database, self._commit, self.contents, self.objects)
        self._sweeper: threading.Thread | None = None

    def _locked(self, directory: Path) -> int:
        path = directory / "lock"
        with contextlib.suppress(FileExistsError):
            self._files.close(self._files.open(path, CREATE))
        lock = self._files.open(path, WRITE)
        if not self._files.lock(lock, exclusive=True, wait=False):
            self._files.close(lock)
            raise HostError(f"another process has the object store in {directory}; stop it first: celaje down")
        return lock

    # --- bodies ---

    def receiver(
        self, algorithm: Algorithm = ALGORITHMS[DEFAULT], *, part: bool = False, fed: Hasher | None = None
    ) -> Receiver:
        """What takes an object's (or a part's) body in."""
        return Receiver(self.contents, self._files, algorithm, always_file=part, fed=fed)

    def again(self, opened: Opened, algorithm: Algorithm, *, part: bool = False) -> Received:
        """The body of an object once more, to put it under another key.

        A single file whose ETag is its MD5 is shared, not copied, if its checksum is of that algorithm; everything else
        is read and hashed.
        """
        found = opened.object
        known = found.attributes.checksum
        if len(found.segments) == 1 and not found.attributes.parts and known and known.algorithm == algorithm.name:
            shared = self.contents.share(found.segments[0].content)
            if shared is not None:
                return Received(found.size, bytes.fromhex(found.etag), known, content=shared)
        return self.range_again(opened, 0, found.size, algorithm, part=part)

    def range_again(
        self, opened: Opened, start: int, length: int, algorithm: Algorithm, *, part: bool = False
    ) -> Received:
        """The same of a range within it, read and hashed."""
        receiver = self.receiver(algorithm, part=part)
        try:
            if opened.body is not None:
                receiver.take(opened.body[start : start + length])
            else:
                for path, offset, count in opened.pieces(start, length):
                    self._take(receiver, path, offset, count)
            return receiver.finish()
        except BaseException:
            receiver.abandon()
            raise

    def _take(self, receiver: Receiver, path: Path, offset: int, length: int) -> None:
        fd = self._files.open(path, READ)
        try:
            while length:
                block = bytearray(min(length, _BLOCK))
                read_fully(self._files, fd, [memoryview(block)], offset)
                receiver.take(block)
                offset, length = offset + len(block), length - len(block)
        finally:
            self._files.close(fd)

    # --- space ---

    def usage(self) -> Usage:
        """What the store has."""
        reader = self._database.reader
        (objects, small) = reader.execute(
            "SELECT count(*), coalesce(sum(CASE WHEN segments IS NULL THEN size ELSE 0 END), 0) FROM objects"
        ).fetchone()
        (large,) = reader.execute("SELECT coalesce(sum(size), 0) FROM contents").fetchone()
        return Usage(objects, small + large)

    def sweep(self) -> int:
        """Take away the files that a crash has left and no row names; how many there were."""
        return self.contents.sweep(self._named)

    def sweep_beside(self) -> None:
        """The same in a thread: a start does not wait for it."""
        self._sweeper = threading.Thread(target=self._sweep_quietly, name="s3-sweep", daemon=True)
        self._sweeper.start()

    def _sweep_quietly(self) -> None:
        # Leftovers cost space and nothing else: what cannot be swept now is swept at the next start.
        with contextlib.suppress(OSError, sqlite3.Error):
            self.sweep()

    def _named(self, contents: Sequence[bytes]) -> set[bytes]:
        reader = self._database.reader
        if not contents:
            return set()
        # All of one shelf: ids that begin with the same byte.
        first = contents[0][:1]
        rows = reader.execute(
            "SELECT id FROM contents WHERE id >= ? AND id <= ?", (first, first + b"\xff" * CONTENT_ID_SIZE)
        )
        return {content for (content,) in rows}

    def close(self) -> None:
        """Finish what was submitted, and let go of the directory. Nobody may be using the store any more."""
        if self._sweeper is not None:
            self._sweeper.join()
        self._commit.close()
        self._reaper.close()
        self._database.close()
        self._files.close(self._lock)

