"""A cut: what a volume held at one instant, while its guest goes on writing.

The instant itself costs an allocation and an append under the volume's lock. From then on, the first write to a chunk
that still has to be copied copies it first, to a nameless file beside the head; a chunk that nobody writes is read from
the volume when its turn comes. Who copies never makes the guest wait, however slow it is. If the nameless file cannot
take a chunk, the cut fails, and the guest's write goes on.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from celaje.disk.chunk_store import CHUNK
from celaje.disk.cluster_map import CLUSTER, States
from celaje.disk.files import CREATE, Files, aside, read_fully, write_fully

if TYPE_CHECKING:
    from celaje.disk.volume import Volume

_CLUSTERS = CHUNK // CLUSTER
_RUN = 1 << 14  # chunks, 8 GiB: the volume's lock is held for so many at once, some 0.1 ms
_PENDING, _UNCHANGED, _CHANGED = range(3)


class Cut:
    """Made by `Volume.cut`. `before_write` is the volume's to call, the rest is for who copies:
    one thread that goes through `changed`, and any number that `read`.

    A chunk counts as changed if a cluster of it had one of the states `counted` at the instant.
    """

    def __init__(
        self,
        volume: Volume,
        files: Files,
        lock: threading.Lock,
        states: States,
        counted: bytes,
        for_snapshot: bool,
    ) -> None:
        self.size = volume.size
        self.chunks = -(-volume.size // CHUNK)
        self.for_snapshot = for_snapshot
        self._volume = volume
        self._files = files
        self._lock = lock
        self._states = states
        self._counted = counted
        self._progress = bytearray(self.chunks)
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._saved: int | None = None
        self._slot_count = 0
        self._failure: str | None = None
        self._ended = False

    def _counts(self, number: int) -> bool:
        first = number * _CLUSTERS
        return any(self._states.find(state, first, first + _CLUSTERS) >= 0 for state in self._counted)

    def before_write(self, offset: int, length: int) -> None:
        """Save the changed chunks of a range that is about to be written. Only with the volume's lock held."""
        if self._failure or self._ended:
            return
        end = min(self.chunks, -(-(offset + length) // CHUNK))
        number = offset // CHUNK
        while (number := self._progress.find(_PENDING, number, end)) >= 0:
            changed = self._counts(number)
            if changed:
                try:
                    self._save(number)
                except OSError as error:
                    self.fail(f"chunk {number} could not be saved from the guest's next write: {error}")
                    return
            self._progress[number] = _CHANGED if changed else _UNCHANGED

    def _save(self, number: int) -> None:
        if self._saved is None:
            path = aside(self._volume.directory / "cut")
            self._saved = self._files.open(path, CREATE)
            self._files.unlink(path)
        if not self._free:
            self._free.append(self._slot_count)
            self._slot_count += 1
        write_fully(self._files, self._saved, [self._read_now(number)], self._free[-1] * CHUNK)
        self._slots[number] = self._free.pop()

    def _read_now(self, number: int) -> bytearray:
        """A chunk as the volume has it, filled up with zeros beyond the volume's end at the instant."""
        block = bytearray(CHUNK)
        with memoryview(block) as whole, whole[: self.size - number * CHUNK] as window:
            self._volume.read_at([window], number * CHUNK)
        return block

    def runs(self) -> Iterator[tuple[int, int, bool]]:
        """(first chunk, how many, whether they count as changed), in order and all of them. One that does is a run of
        its own: those, and only those, can be read."""
        number = 0
        while number < self.chunks:
            with self._lock:
                count = self._unchanged(number)
                self._progress[number : number + count] = bytes((_UNCHANGED,)) * count  # a write need not look any more
            yield number, count or 1, not count
            number += count or 1

    def _unchanged(self, number: int) -> int:
        """How many chunks from this one on do not count, as far as that is looked for at once."""
        end = min(self.chunks, number + _RUN)
        if (at := self._progress.find(_CHANGED, number, end)) >= 0:
            end = at
        for state in self._counted:
            first = number
            while first < end and (at := self._states.find(state, first * _CLUSTERS, end * _CLUSTERS)) >= 0:
                first = at // _CLUSTERS
                if self._progress[first] == _PENDING:
                    end = first
                first += 1  # one that was found unchanged stays so, whatever was written since
        return end - number

    def changed(self) -> Iterator[tuple[int, bool]]:
        """As `runs`, chunk by chunk."""
        for first, count, changed in self.runs():
            for number in range(first, first + count):
                yield number, changed

    def read(self, number: int) -> bytearray:
        """The CHUNK bytes of a changed chunk at the instant. Once each. OSError, also if the cut has failed."""
        if self._progress[number] == _PENDING:
            block = self._read_now(number)
            with self._lock:
                self._refuse_after_failure()
                if self._progress[number] == _PENDING:  # nobody has begun to write it, so this is what it was
                    self._progress[number] = _CHANGED
                    return block
        with self._lock:
            self._refuse_after_failure()
            slot = self._slots.pop(number)
        if self._saved is None:
            raise ValueError(f"chunk {number} was not saved")
        block = bytearray(CHUNK)
        read_fully(self._files, self._saved, [memoryview(block)], slot * CHUNK)
        with self._lock:
            self._free.append(slot)
        return block

    def _refuse_after_failure(self) -> None:
        if self._failure:
            raise OSError(errno.EIO, self._failure)

    def fail(self, why: str) -> None:
        """Nothing more can be read."""
        self._failure = self._failure or why

    def close(self, adopted: bool = False) -> None:
        """The end: whether it has become the volume's baseline (`Volume.adopt`)."""
        if self._ended:
            return
        self._ended = True
        self._volume.end_cut(self, adopted)
        with self._lock:
            saved, self._saved = self._saved, None
        if saved is not None:
            with contextlib.suppress(OSError):
                self._files.close(saved)
