"""What a volume's absent clusters read as: nothing, an image's raw disk file, a snapshot's manifest, or a section of a
machine snapshot's file over one of these.

A base never changes. Whoever adds a kind writes a `Base` and a description of it in `description.py`, and opens it in
`volumes.py`.
"""

from __future__ import annotations

import errno
import logging
import threading
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from celaje.disk.chunk_store import CHUNK, ChunkError, ChunkStore, fetch
from celaje.disk.description import CLUSTER, SectionBelow
from celaje.disk.files import Buffers, Files, fill, read_at_once, read_fully, section, total
from celaje.disk.manifest import Manifest

log = logging.getLogger(__name__)

BLOCK = 64 << 10  # bytes of a section that have a hash
HASH = 32
_KEPT = 4  # chunks that stay decompressed for the next read: 2 MiB


class Base(Protocol):
    """The contents under a volume. Threads may read at the same time. Reading raises OSError."""

    @property
    def size(self) -> int:
        """Bytes; everything from there on reads as zeros."""

    @property
    def hydrates(self) -> bool:
        """Whether reading costs so much more than a file that a volume keeps what it has read, in whole chunks."""

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with what is there from `offset`."""

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """`readinto` if it need not wait for a storage device: True. Otherwise False, and `buffers` hold anything."""

    def close(self) -> None:
        """Let go of files."""


class NoBase:
    """Zeros."""

    size = 0
    hydrates = False

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with zeros."""
        fill(buffers)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """Zeros, at once."""
        fill(buffers)
        return True

    def close(self) -> None:
        """Nothing to let go of."""


class FileBase:
    """A raw file whose byte n is the base's byte n. It takes over the descriptor."""

    hydrates = False

    def __init__(self, files: Files, fd: int, size: int) -> None:
        self._files = files
        self._fd = fd
        self.size = size

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` from the file."""
        length = total(buffers)
        inside = max(0, min(length, self.size - offset))
        if inside < length:
            fill(section(buffers, inside, length - inside))
            buffers = section(buffers, 0, inside) if inside else []
        if inside:
            read_fully(self._files, self._fd, buffers, offset)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """Fill `buffers` if the host has it all in its page cache."""
        if offset + total(buffers) > self.size:
            return False
        return read_at_once(self._files, self._fd, buffers, offset)

    def close(self) -> None:
        """Close the file."""
        self._files.close(self._fd)


class SectionBase:
    """Clusters that lie in a file, one extent after the other, over another base. It takes over descriptor and `lower`.

    The file is somebody's, and may be cut short or altered. `hashes` has 32 bytes for each BLOCK of the section: its
    BLAKE3, or zeros for a block of zeros. A block is compared with its hash when it is first read; one that is not what
    it must be is an I/O error, and a line in the log. None: the volume was made by a celaje that kept no hashes.
    """

    def __init__(
        self, files: Files, fd: int, below: SectionBelow, lower: Base, path: Path, hashes: bytes | None = None
    ) -> None:
        self.path = path
        self.size = below.size
        self.lower = lower
        self.hydrates = lower.hydrates
        self._files = files
        self._fd = fd
        self._starts = [first * CLUSTER for first, _ in below.extents]
        self._ends = [(first + count) * CLUSTER for first, count in below.extents]
        self._places = []
        place = below.offset
        for _, count in below.extents:
            self._places.append(place)
            place += count * CLUSTER
        self._offset = below.offset
        self._length = place - below.offset
        self._hashes = hashes
        blocks = -(-self._length // BLOCK)
        # A byte each, 1 once it has been found to be what it must be. Without hashes there is nothing to look for.
        self._sound = bytearray(blocks) if hashes is not None else bytearray(b"\1") * blocks
        self._reported: set[int] = set()

    def _is_sound(self, place: int, length: int) -> bool:
        """Whether all blocks of a range of the file have been compared."""
        start = place - self._offset
        return self._sound.find(0, start // BLOCK, -(-(start + length) // BLOCK)) < 0

    def _compare(self, place: int, length: int) -> None:
        """Compare those that have not been. OSError (EIO) for one that is altered."""
        start = place - self._offset
        end = -(-(start + length) // BLOCK)
        number = start // BLOCK
        while (number := self._sound.find(0, number, end)) >= 0:
            wrong = self._wrong(number)
            if wrong:
                if number not in self._reported:
                    log.error("%s", wrong)
                self._reported.add(number)
                raise OSError(errno.EIO, wrong)
            self._sound[number] = 1

    def _wrong(self, number: int) -> str | None:
        """What is wrong with a block, if anything is."""
        assert self._hashes is not None
        at = number * BLOCK
        block = bytearray(min(BLOCK, self._length - at))
        try:
            read_fully(self._files, self._fd, [memoryview(block)], self._offset + at)
            wanted = self._hashes[number * HASH : (number + 1) * HASH]
            if (not any(block)) if wanted == bytes(HASH) else blake3(block).digest() == wanted:
                return None
            how = "were altered"
        except OSError as error:
            how = f"cannot be read ({error.strerror or error})"
        return (
            f"{len(block)} bytes from {self._offset + at} of the machine snapshot {self.path} {how}; nothing that"
            " stands on them can be read: compare the file that the machine was restored from (celaje vm verify FILE),"
            " and restore a machine from a whole copy of it"
        )

    def damage(self) -> Iterator[str]:
        """What is wrong with each block that is not what it must be, as far as there are hashes."""
        if self._hashes is not None:
            for number in range(len(self._sound)):
                wrong = self._wrong(number)
                if wrong:
                    yield wrong

    def _parts(self, buffers: Buffers, offset: int) -> Iterator[tuple[int | None, Buffers, int]]:
        """(place in the file, or None for the base below; buffers; offset) of the stretches that fill `buffers`."""
        length = total(buffers)
        at, end = offset, offset + length
        number = bisect_right(self._ends, at)
        while at < end:
            start = self._starts[number] if number < len(self._starts) else end
            if at < start:
                stop = min(end, start)
                place = None
            else:
                stop = min(end, self._ends[number])
                place = self._places[number] + at - start
                number += 1
            yield place, buffers if stop - at == length else section(buffers, at - offset, stop - at), at
            at = stop

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` from the file and from what is below."""
        for place, part, at in self._parts(buffers, offset):
            if place is None:
                self.lower.readinto(part, at)
                continue
            length = total(part)
            if not self._is_sound(place, length):
                self._compare(place, length)
            read_fully(self._files, self._fd, part, place)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """Fill `buffers` if the host has it all in its page cache, and it need not be compared first."""
        return all(
            self.lower.readinto_at_once(part, at)
            if place is None
            else self._is_sound(place, total(part)) and read_at_once(self._files, self._fd, part, place)
            for place, part, at in self._parts(buffers, offset)
        )

    def close(self) -> None:
        """Close the file and the base below."""
        self._files.close(self._fd)
        self.lower.close()


class ManifestBase:
    """The chunks of a manifest, fetched as they are read. The last few stay decompressed."""

    hydrates = True

    def __init__(self, manifest: Manifest, chunks: ChunkStore) -> None:
        self.manifest = manifest
        self.size = manifest.size
        self._chunks = chunks
        self._kept: dict[int, bytes] = {}
        self._reported: set[int] = set()
        self._silent = False  # the chunk store does not answer
        self._lock = threading.Lock()

    def chunk(self, number: int) -> bytes:
        """The CHUNK bytes of a chunk. OSError (EIO) if it is missing or altered; the log says what to do."""
        with self._lock:
            content = self._kept.get(number)
        if content is None:
            content = self._fetch(number)
            with self._lock:
                self._kept[number] = content
                while len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
        return content

    def _fetch(self, number: int) -> bytes:
        try:
            content = fetch(self._chunks, self.manifest.name(number))
        except OSError as error:
            if not self._silent:  # one line for all that is asked for until it answers again
                log.error("snapshot %s, chunk %d: %s", self.manifest.snapshot, number, error)
            self._silent = True
            raise
        except ChunkError as error:
            with self._lock:
                told = number in self._reported
                self._reported.add(number)
            if not told:
                log.error("snapshot %s, chunk %d: %s", self.manifest.snapshot, number, error)
            raise OSError(errno.EIO, f"chunk {number} of {self.manifest.snapshot} cannot be read") from error
        self._silent = False
        return content

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` from the chunks."""
        done, length = 0, total(buffers)
        while done < length:
            number, start = divmod(offset + done, CHUNK)
            count = min(CHUNK - start, length - done)
            fill(section(buffers, done, count), memoryview(self.chunk(number))[start : start + count])
            done += count

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """False: what is absent is fetched, and kept, by a read that may wait."""
        return False

    def close(self) -> None:
        """Forget what was kept."""
        self._kept.clear()
