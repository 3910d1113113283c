"""The map of a volume: what each 4 KiB cluster of its head is.

    offset  bytes
         0     16  "celaje map\\n" filled up with zeros
        16      4  version, 1
        20      4  bytes of a cluster, 4096
        24     24  the volume's id, filled up with zeros
        48      4  CRC-32 of the bytes 0 to 47
        52      4  in use: 1 from before a clean cluster is written for the first time until the volume is closed
        56         zeros
      4096      n  a byte for each cluster, in order; clusters beyond the file's end, and holes, are absent

    0  absent  the cluster reads as the base's, whatever the head has there
    1  clean   the head has it, unchanged since the baseline (the last snapshot; before the first, the base)
    2  dirty   the head has it, and it may have changed since the baseline
    3  dirty   likewise. Which of both a write gives alternates with each snapshot: while one is being taken, what was
               dirty at its instant can be told from what was written since

Numbers are little-endian. A byte a cluster costs 256 KiB for each GiB of volume (of a volume of 256 GiB or more: for
each GiB that anything was written to), and is worth it twice. To look up a run is one `find`. And every byte stands for
itself: the data of a cluster is durable before its byte is written, so a map of which a loss of power has left any
mixture of old and new bytes is a true map, which lacks only writes that were not acknowledged. That takes the place of
a two-phase write with checksums.

One state is not so innocent. A clean cluster that was overwritten in place, with its byte still saying clean, would be
taken from the baseline by the next snapshot. To make the byte dirty before every such write would cost a sync each.
Instead the first one sets `in use`, durably, and a volume that is opened with that set takes every clean cluster for a
dirty one: after a crash the next snapshot reads more, and that is all.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from celaje.disk.files import CREATE, Files, opened, read_fully, write_fully
from celaje.disk.sparse_bytes import SparseBytes
from celaje.errors import InputError

CLUSTER = 4096
ABSENT, CLEAN, DIRTY, DIRTY_TOO = range(4)

MAGIC = b"celaje map\n"
VERSION = 1
HEADER = 4096
PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT
"""Bytes of the map that are written together: those of 16 MiB of volume."""

_identity = struct.Struct("<16s II 24s")
_crc = struct.Struct("<I")
_in_use = struct.Struct("<I")
_CRC_OFFSET = 48
_IN_USE_OFFSET = 52
LARGE = 1 << 26
"""Clusters from which on their states are SparseBytes, where each look costs a little more."""
_LOAD = 1 << 20

_known = bytes((ABSENT, CLEAN, DIRTY, DIRTY_TOO))
_opened = bytes.maketrans(bytes((DIRTY_TOO,)), bytes((DIRTY,)))
_opened_after_crash = bytes.maketrans(bytes((CLEAN, DIRTY_TOO)), bytes((DIRTY, DIRTY)))


def create_map(files: Files, path: Path, volume: str) -> None:
    """Make a map with every cluster absent."""
    identity = _identity.pack(MAGIC, VERSION, CLUSTER, volume.encode())
    header = (identity + _crc.pack(zlib.crc32(identity))).ljust(HEADER, b"\0")
    with opened(files, path, CREATE) as fd:
        write_fully(files, fd, [header], 0)
        files.fdatasync(fd)


States = bytearray | SparseBytes


class ClusterMap:
    """The map in the file `fd`, which it takes over. InputError if it is none, or another volume's.

    `states` is a byte a cluster, for its owner to look at and to change, with `note` after changes that the next flush
    must make durable and `note_lazily` after those that can be lost. The owner's lock guards everything but `write`.
    """

    def __init__(self, files: Files, fd: int, where: Path, volume: str, clusters: int) -> None:
        self._files = files
        self._fd = fd
        self._where = where
        self.changed: set[int] = set()
        self.lazy: set[int] = set()
        self.states: States = bytearray(clusters) if clusters < LARGE else SparseBytes(clusters)
        self.in_use = self._read_header(volume)
        self._load()
        self.begun = self.in_use

    def _damaged(self, how: str) -> InputError:
        return InputError(
            f"the map {self._where} is damaged: {how}; what its volume holds can no longer be told apart from its base;"
            " make the volume again from its last snapshot (celaje vm volume create --from-snapshot)"
        )

    def _read_header(self, volume: str) -> bool:
        size = self._files.size(self._fd)
        if size < HEADER:
            raise self._damaged(f"it has {size} bytes, less than its header's {HEADER}")
        header = bytearray(HEADER)
        read_fully(self._files, self._fd, [memoryview(header)], 0)
        magic, version, cluster, owner = _identity.unpack_from(header)
        if magic != MAGIC.ljust(16, b"\0"):
            raise self._damaged("it does not begin as a map does")
        if (version, cluster) != (VERSION, CLUSTER):
            raise InputError(
                f"the map {self._where} is of version {version} with clusters of {cluster} bytes, and this celaje reads"
                f" version {VERSION} with {CLUSTER}; use the celaje that wrote it, or a newer one"
            )
        if _crc.unpack_from(header, _CRC_OFFSET)[0] != zlib.crc32(header[:_CRC_OFFSET]):
            raise self._damaged("its header fails its checksum")
        if owner.rstrip(b"\0") != volume.encode():
            raise self._damaged(f"it is the map of {owner.rstrip(bytes(1)).decode(errors='replace')}, not of {volume}")
        return bool(_in_use.unpack_from(header, _IN_USE_OFFSET)[0])

    def _load(self) -> None:
        """Read what the file has; untouched parts of a large map cost neither time nor memory."""
        end = HEADER + len(self.states)
        table = _opened_after_crash if self.in_use else _opened
        for start, stop in self._files.data(self._fd, HEADER, min(end, self._files.size(self._fd))):
            for at in range(start, stop, _LOAD):
                block = bytearray(min(_LOAD, stop - at))
                read_fully(self._files, self._fd, [memoryview(block)], at)
                if unknown := block.translate(None, _known):
                    raise self._damaged(f"a cluster near {(at - HEADER) * CLUSTER} has state {unknown[0]}")
                first = at - HEADER
                opened_as = block.translate(table)
                if self.in_use and opened_as != block:
                    self.changed.update(range(first >> PAGE_SHIFT, (first + len(block) - 1 >> PAGE_SHIFT) + 1))
                self.states[first : first + len(block)] = opened_as

    def note(self, first: int, end: int) -> None:
        """The states of the clusters from `first` to before `end` have changed, and the next flush must keep that."""
        if first >> PAGE_SHIFT == end - 1 >> PAGE_SHIFT:
            self.changed.add(first >> PAGE_SHIFT)
        else:
            self.changed.update(range(first >> PAGE_SHIFT, (end - 1 >> PAGE_SHIFT) + 1))

    def note_lazily(self, first: int, end: int) -> None:
        """They have changed, and it does no harm if that is lost."""
        self.lazy.update(range(first >> PAGE_SHIFT, (end - 1 >> PAGE_SHIFT) + 1))

    def take(self, everything: bool) -> dict[int, bytes]:
        """The pages that have changed, by number, as they are now; with `everything` also the lazily changed ones."""
        numbers = self.changed | self.lazy if everything else self.changed
        self.changed = set()
        self.lazy -= numbers
        return {number: bytes(self.states[number << PAGE_SHIFT : (number + 1) << PAGE_SHIFT]) for number in numbers}

    def put_back(self, pages: dict[int, bytes]) -> None:
        """Writing them has failed: the next flush tries again."""
        self.changed.update(pages)

    def write(self, pages: dict[int, bytes]) -> None:
        """Write pages that `take` gave and make them durable. The data that they tell of must be durable already."""
        run: list[bytes] = []
        start = 0
        for number in sorted(pages):
            if number != start + len(run) or len(run) == 256:
                if run:
                    write_fully(self._files, self._fd, run, HEADER + (start << PAGE_SHIFT))
                run, start = [], number
            run.append(pages[number])
        if run:
            write_fully(self._files, self._fd, run, HEADER + (start << PAGE_SHIFT))
        self._files.fdatasync(self._fd)

    def begin(self) -> None:
        """Set `in use`, durably, once: from now on clean clusters may be overwritten."""
        if not self.begun:
            write_fully(self._files, self._fd, [_in_use.pack(1)], _IN_USE_OFFSET)
            self._files.fdatasync(self._fd)
            self.begun = True

    def finish(self) -> None:
        """Take `in use` back. Everything else must be durable already; this need not be."""
        if self.begun:
            write_fully(self._files, self._fd, [_in_use.pack(0)], _IN_USE_OFFSET)
            self.begun = False

    def grow(self, clusters: int) -> None:
        """Add absent clusters at the end. `states` may be another object then."""
        known, more = self.states, clusters - len(self.states)
        if isinstance(known, SparseBytes):
            known.extend(more)
        elif clusters < LARGE:
            known.extend(bytes(more))
        else:
            self.states = SparseBytes(clusters)
            self.states[: len(known)] = known

    def close(self) -> None:
        """Close the file."""
        self._files.close(self._fd)
