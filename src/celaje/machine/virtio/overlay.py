"""A disk that is thrown away: what is written goes to a nameless sparse file, the base is only read.

The overlay keeps, for each cluster of 4 KiB, whether it has a copy of its own. A guest's file systems write whole
blocks of 4 KiB, so a cluster is seldom half written; where it is, the rest of it is copied from the base first. The map
has one byte a cluster: searching for the end of a run is then one `find`, and a page of the map that is still all zero
costs the host nothing.

The file is created without a name, so that nothing stays behind however the process ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from celaje.errors import HostError
from celaje.fallocate import FALLOCATE_KEEP_SIZE, FALLOCATE_PUNCH_HOLE, fallocate
from celaje.machine.virtio.block_backend import (
    BlockBackend,
    Buffers,
    read_at_once,
    read_fully,
    section,
    total,
    write_fully,
    write_zeroes_by_hand,
)

CLUSTER = 4096


class Overlay:
    """Copy on write over `base`, whose owner it becomes.

    HostError if `directory` (default: the host's temporary one) takes no file; `base` is the caller's still then.
    """

    read_only = False

    def __init__(self, base: BlockBackend, directory: Path | None = None) -> None:
        self._base = base
        self.size = base.size
        self.serial = base.serial
        where = directory if directory is not None else Path(tempfile.gettempdir())
        try:
            self._file = tempfile.TemporaryFile(dir=where, buffering=0)  # noqa: SIM115 (closed by `close`)
            os.ftruncate(self._file.fileno(), self.size)
        except OSError as error:
            raise HostError(
                f"no file for a disk's changes can be made in {where} ({error.strerror});"
                " set TMPDIR to a directory with room"
            ) from error
        self._fd = self._file.fileno()
        self._own = bytearray(-(-self.size // CLUSTER))

    def _runs(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """(own, offset, length) of the stretches of a range that come from the overlay or from the base."""
        end = offset + length
        while offset < end:
            cluster = offset // CLUSTER
            own = self._own[cluster]
            other = self._own.find(1 - own, cluster, -(-end // CLUSTER))
            stop = end if other < 0 else other * CLUSTER
            yield bool(own), offset, stop - offset
            offset = stop

    def _parts(self, buffers: Buffers, offset: int) -> Iterator[tuple[bool, Buffers, int]]:
        """(own, buffers, offset) of the stretches that fill `buffers`."""
        length = total(buffers)
        for own, at, count in self._runs(offset, length):
            yield own, buffers if count == length else section(buffers, at - offset, count), at

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with what is stored from `offset`."""
        for own, part, at in self._parts(buffers, offset):
            if own:
                read_fully(self._fd, part, at)
            else:
                self._base.readinto(part, at)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """`readinto` if the host has all of it in its page cache: True."""
        if self._own.find(1, offset // CLUSTER, -(-(offset + total(buffers)) // CLUSTER)) < 0:
            return self._base.readinto_at_once(buffers, offset)  # most of a boot: short, since a hart waits for it
        return all(
            read_at_once(self._fd, part, at) if own else self._base.readinto_at_once(part, at)
            for own, part, at in self._parts(buffers, offset)
        )

    def write(self, buffers: Buffers, offset: int) -> None:
        """Store what `buffers` hold from `offset`."""
        length = total(buffers)
        self._fill_edges(offset, length)
        write_fully(self._fd, buffers, offset)
        self._mark_own(offset, length)

    def writes_at_once(self, offset: int, length: int) -> bool:
        """Where the base does: what is copied from it is at hand as it is."""
        return self._base.writes_at_once(offset, length)

    def _fill_edges(self, offset: int, length: int) -> None:
        """Copy what the base has of the two edge clusters around a range that is about to be written."""
        end = offset + length
        if offset % CLUSTER:
            self._copy_up(offset // CLUSTER)
        if end % CLUSTER and end < self.size:
            self._copy_up(end // CLUSTER)

    def _copy_up(self, cluster: int) -> None:
        if self._own[cluster]:
            return
        start = cluster * CLUSTER
        block = memoryview(bytearray(min(CLUSTER, self.size - start)))
        self._base.readinto([block], start)
        write_fully(self._fd, [block], start)
        self._own[cluster] = 1

    def _mark_own(self, offset: int, length: int) -> None:
        first, end = offset // CLUSTER, -(-(offset + length) // CLUSTER)
        self._own[first:end] = b"\x01" * (end - first)

    def flush(self) -> None:
        """Nothing: a loss of power takes the overlay with it in any case."""

    def discard(self, offset: int, length: int) -> None:
        """Let the whole clusters of the range read as zeros, and give the host their space back."""
        first, end = -(-offset // CLUSTER) * CLUSTER, (offset + length) // CLUSTER * CLUSTER
        if first < end:
            self.write_zeroes(first, end - first, True)

    def write_zeroes(self, offset: int, length: int, may_unmap: bool) -> None:
        """Let the range read as zeros: by a hole, or by writing zeros where the host has no holes."""
        self._fill_edges(offset, length)
        if not fallocate(self._fd, FALLOCATE_PUNCH_HOLE | FALLOCATE_KEEP_SIZE, offset, length):
            write_zeroes_by_hand(self._fd, offset, length)
        self._mark_own(offset, length)

    def close(self) -> None:
        """Throw the changes away, and close the base."""
        self._file.close()
        self._base.close()
