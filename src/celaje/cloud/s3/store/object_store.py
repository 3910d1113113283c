"""The object store of one host: everything that `store` has, in one directory, for one process."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from celaje import paths
from celaje.cloud.s3.store.buckets import Buckets
from celaje.cloud.s3.store.checksums import ALGORITHMS, DEFAULT, Algorithm, Hasher
from celaje.cloud.s3.store.chunk_bucket import ChunkBucket
from celaje.cloud.s3.store.contents import Contents, Reaper
from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.encryption import CUSTOMER, NONE, Encryption, MasterKey
from celaje.cloud.s3.store.group_commit import GroupCommit
from celaje.cloud.s3.store.objects import Objects, Opened
from celaje.cloud.s3.store.receive import Received, Receiver
from celaje.cloud.s3.store.uploads import Uploads
from celaje.disk.chunk_store import FolderChunkStore
from celaje.disk.files import CREATE, HOST, WRITE, Files
from celaje.disk.layout import Layout
from celaje.errors import HostError

_ASKED_AT_ONCE = 500  # ids in one query: a database has a limit


def home_store(home: Path) -> ObjectStore:
    """The store of a cloud in `home` (CELAJE_HOME), with the chunks of its snapshots."""
    chunks = ChunkBucket(FolderChunkStore(Layout(home).chunks, HOST), HOST)
    return ObjectStore(home / "cloud" / "s3", HOST, chunks)


@dataclass(frozen=True, slots=True)
class Usage:
    """Objects (each version is one) and the bytes that they have, parts of unfinished uploads among the bytes; those
    uploads, and the bytes of theirs; chunks of snapshots, and the bytes that they take; and what is still free where
    they are. One accounting, since they share a disk."""

    objects: int
    size: int
    uploads: int
    upload_size: int
    chunks: int
    chunk_size: int
    free: int


class ObjectStore:
    """The store in `directory`, made where there is none. HostError if another process has it.

    `chunks`: the system bucket of snapshots' chunks, None where they are kept elsewhere.
    """

    def __init__(self, directory: Path, files: Files = HOST, chunks: ChunkBucket | None = None) -> None:
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
        self._master_key = MasterKey(directory, files, self._database, self._commit)
        self.objects = Objects(
            self._database, self._commit, self.contents, self._reaper, self.buckets, self._master_key
        )
        self.uploads = Uploads(self._database, self._commit, self.contents, self.objects)
        self._directory = directory
        self._sweeper: threading.Thread | None = None
        self.chunks = chunks

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
        self,
        algorithm: Algorithm = ALGORITHMS[DEFAULT],
        *,
        part: bool = False,
        fed: Hasher | None = None,
        encryption: Encryption = NONE,
    ) -> Receiver:
        """What takes an object's (or a part's) body in. KeyUnusable."""
        cipher = self._master_key.cipher(encryption) if encryption.name else None
        return Receiver(self.contents, self._files, algorithm, always_file=part, fed=fed, cipher=cipher)

    def again(
        self, opened: Opened, algorithm: Algorithm, *, part: bool = False, encryption: Encryption = NONE
    ) -> Received:
        """The body of an object once more, to put it under another key.

        A single file whose ETag is its MD5 is shared, not copied, if its checksum is of that algorithm and it is
        encrypted as it is to be; everything else is read and hashed. KeyUnusable.
        """
        found = opened.object
        known = found.attributes.checksum
        as_it_is = found.attributes.encryption == encryption.name != CUSTOMER and not found.attributes.parts
        if len(found.segments) == 1 and as_it_is and known and known.algorithm == algorithm.name:
            shared = self.contents.share(found.segments[0].content)
            if shared is not None:
                return Received(found.size, bytes.fromhex(found.etag), known, shared, encryption=encryption.name)
        return self.range_again(opened, 0, found.size, algorithm, part=part, encryption=encryption)

    def range_again(
        self,
        opened: Opened,
        start: int,
        length: int,
        algorithm: Algorithm,
        *,
        part: bool = False,
        encryption: Encryption = NONE,
    ) -> Received:
        """The same of a range within it, read and hashed."""
        receiver = self.receiver(algorithm, part=part, encryption=encryption)
        try:
            for block in opened.blocks(start, length):
                receiver.take(block)
            return receiver.finish()
        except BaseException:
            receiver.abandon()
            raise

    # --- space ---

    def usage(self) -> Usage:
        """What the store has; counting chunks looks at each file."""
        reader = self._database.reader
        (objects, small) = reader.execute(
            "SELECT count(*), coalesce(sum(CASE WHEN segments IS NULL THEN size ELSE 0 END), 0) FROM"
            " (SELECT size, segments FROM objects UNION ALL SELECT size, segments FROM versions WHERE NOT marker)"
        ).fetchone()
        (large,) = reader.execute("SELECT coalesce(sum(size), 0) FROM contents").fetchone()
        (uploads,) = reader.execute("SELECT count(*) FROM uploads").fetchone()
        (parts,) = reader.execute("SELECT coalesce(sum(size), 0) FROM parts").fetchone()
        sizes = [chunk.size for chunk in self.chunks or ()]
        free = shutil.disk_usage(self._directory).free
        return Usage(objects, small + large, uploads, parts, len(sizes), sum(sizes), free)

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
        named: set[bytes] = set()
        for at in range(0, len(contents), _ASKED_AT_ONCE):
            asked = contents[at : at + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(asked))
            rows = reader.execute(f"SELECT id FROM contents WHERE id IN ({marks})", asked)
            named.update(content for (content,) in rows)
        return named

    def close(self) -> None:
        """Finish what was submitted, and let go of the directory. Nobody may be using the store any more."""
        if self._sweeper is not None:
            self._sweeper.join()
        self._commit.close()
        self._reaper.close()
        self._database.close()
        self._files.close(self._lock)
