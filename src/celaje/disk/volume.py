"""A volume in use: a head that it writes, over a base that never changes.

    CELAJE_HOME/volumes/NAME/
      volume.json   what it is                       description.py
      head          cluster n at its own offset; sparse
      map           what each cluster of the head is  cluster_map.py
      base          the image's file or the snapshot's manifest, if there is one: a hard link, or a copy

What a guest waits for is kept to one look at the map and one system call. Reads take no lock: a cluster never leaves
the head once it is there, and what brings one there (a write, which comes from the same caller, or hydration, which
changes no content) says so only afterwards. Writes, hydration and the cut of a snapshot take the volume's lock.

Flush. The head's data is made durable, then the map's bytes that tell of it, then flush answers. Nothing is synced that
has not changed. If a sync fails, what the host still had to write may be gone although the next sync succeeds; so the
volume refuses all writes and flushes from then on, until it is opened again.

A full disk. A write that fails has written some of its clusters. Those that the head had already are noted as dirty;
the others stay absent, so they read as before. A guest's I/O error is all that comes of it, and a line in the log that
says where room is needed; when there is, writes work again.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, overload

import msgspec

from celaje.disk.base import Base, ManifestBase
from celaje.disk.chunk_store import CHUNK, ZERO_NAME
from celaje.disk.cluster_map import ABSENT, CLEAN, CLUSTER, DIRTY, DIRTY_TOO, PAGE, PAGE_SHIFT, ClusterMap, States
from celaje.disk.cut import Cut
from celaje.disk.description import FILE_NAME, VolumeDescription, checked_size
from celaje.disk.files import (
    NOWAIT,
    ZEROES,
    Buffers,
    Files,
    fill,
    publish,
    read_at_once,
    read_fully,
    section,
    total,
    write_fully,
    write_zeroes,
)
from celaje.errors import InputError

log = logging.getLogger(__name__)

_SHIFT = CLUSTER.bit_length() - 1
_CHUNK_CLUSTERS = CHUNK // CLUSTER
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PIECE = 64 << 10  # bytes that are hydrated while a write waits

Progress = Callable[[int, int], None]
"""Hears how many bytes of how many are done."""


def no_progress(done: int, of: int) -> None:
    """Nobody listens."""


class Volume:
    """An open volume (`VolumeStore.open`); it takes over `head`, `states` and `base`.

    A BlockBackend of the machine's: those calls come one at a time, and raise OSError. `grow`, `hydrate` and `cut` may
    be called by other threads meanwhile.
    """

    def __init__(
        self,
        files: Files,
        directory: Path,
        description: VolumeDescription,
        head: int,
        states: ClusterMap,
        base: Base,
        read_only: bool,
    ) -> None:
        self.directory = directory
        self.description = description
        self.read_only = read_only
        self.size = description.size
        self.serial = description.serial
        self.base = base
        self._files = files
        self._head = head
        self._map = states
        self._states: States = states.states
        self._preadv = files.preadv
        self._pwritev = files.pwritev
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._dirty = DIRTY
        self._unsynced = False  # the head has what no sync has covered: a guest's writes
        self._hydrated = False  # likewise: copies of the base, which can be lost
        self._cuts: list[Cut] = []
        self._failure: OSError | None = None
        self._whole = ABSENT not in self._states
        self._told_full = False
        self.asked = False
        """Whether the guest has asked for anything since somebody set this to False: for who does things at idle."""
        self._closed = False
        self._users = 1  # who opened it, and each cut and hydration under way

    # --- reading ---

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with what is stored from `offset`."""
        self.asked = True
        length = len(buffers[0]) if len(buffers) == 1 else total(buffers)
        end = offset + length + CLUSTER - 1 >> _SHIFT
        if not self._whole and self._states.find(ABSENT, offset >> _SHIFT, end) >= 0:
            self._read_mixed(buffers, offset, length)
        elif self._preadv(self._head, buffers, offset) != length:
            read_fully(self._files, self._head, buffers, offset)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """`readinto` if it need not wait for a storage device or a chunk store: True."""
        self.asked = True
        length = len(buffers[0]) if len(buffers) == 1 else total(buffers)
        if self._whole or self._states.find(ABSENT, offset >> _SHIFT, offset + length + CLUSTER - 1 >> _SHIFT) < 0:
            try:
                return NOWAIT != 0 and self._preadv(self._head, buffers, offset, NOWAIT) == length
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                    return False
                raise
        return all(
            read_at_once(self._files, self._head, part, at) if own else self.base.readinto_at_once(part, at)
            for own, part, at in self._parts(buffers, offset, length)
        )

    def _runs(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """(own, offset, length) of the stretches of a range that come from the head or from the base."""
        end = offset + length
        stop_cluster = end + CLUSTER - 1 >> _SHIFT
        states = self._states
        while offset < end:
            cluster = offset >> _SHIFT
            own = states[cluster] != ABSENT
            if own:
                other = states.find(ABSENT, cluster, stop_cluster)
            else:
                run = states[cluster:stop_cluster]
                other = cluster + len(run) - len(run.lstrip(b"\0"))
            stop = end if other < 0 else min(end, other << _SHIFT)
            yield own, offset, stop - offset
            offset = stop

    def _parts(self, buffers: Buffers, offset: int, length: int) -> Iterator[tuple[bool, Buffers, int]]:
        """(own, buffers, offset) of the stretches that fill `buffers`."""
        for own, at, count in self._runs(offset, length):
            yield own, buffers if count == length else section(buffers, at - offset, count), at

    def _read_mixed(self, buffers: Buffers, offset: int, length: int) -> None:
        for own, part, at in self._parts(buffers, offset, length):
            if own:
                read_fully(self._files, self._head, part, at)
            elif self.base.hydrates:
                self._read_hydrating(part, at)
            else:
                self.base.readinto(part, at)

    def _read_hydrating(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` from whole chunks of the base, and keep those in the head."""
        done, length = 0, total(buffers)
        while done < length:
            number, start = divmod(offset + done, CHUNK)
            count = min(CHUNK - start, length - done)
            block = self._base_chunk(number)
            fill(section(buffers, done, count), block[start : start + count])
            if not self.read_only:
                with self._lock:
                    self._keep(number * CHUNK, block)
            done += count

    def _base_chunk(self, number: int) -> memoryview:
        if isinstance(self.base, ManifestBase):
            return memoryview(self.base.chunk(number))
        block = memoryview(bytearray(CHUNK))
        self.base.readinto([block], number * CHUNK)
        return block

    def _keep(self, start: int, block: memoryview) -> None:
        """Put the absent clusters of `block`, of the base from `start`, into the head. Only with the lock held."""
        try:
            for own, at, count in list(self._runs(start, min(len(block), self.size - start))):
                if not own:
                    self._store(block[at - start : at - start + count], at)
                    first, end = at >> _SHIFT, at + count + CLUSTER - 1 >> _SHIFT
                    self._states[first:end] = bytes((CLEAN,)) * (end - first)
                    self._map.note_lazily(first, end)
                    self._hydrated = True
        except OSError as error:
            if error.errno not in _FULL:
                raise
            if not self._told_full:  # reading goes on, only slower
                log.warning("volume %s keeps nothing more of its base: the disk is full", self.description.name)
                self._told_full = True

    def _store(self, content: memoryview, offset: int) -> None:
        """Put content into the head, zeros as a hole: an absent cluster's place may have the rest of a failed write."""
        length = len(content)
        if bytes(content) != ZEROES[:length] or not self._files.erase(self._head, offset, length, False):
            write_fully(self._files, self._head, [content], offset)

    # --- writing ---

    def write(self, buffers: Buffers, offset: int) -> None:
        """Store what `buffers` hold from `offset`."""
        self.asked = True
        length = len(buffers[0]) if len(buffers) == 1 else total(buffers)
        first, end = offset >> _SHIFT, offset + length + CLUSTER - 1 >> _SHIFT
        with self._lock:
            if self._cuts or self._failure or self._states.count(self._dirty, first, end) != end - first:
                self._write_first(buffers, offset, length, first, end)
                return
            self._unsynced = True
            try:
                if self._pwritev(self._head, buffers, offset) != length:
                    write_fully(self._files, self._head, buffers, offset)
            except OSError as error:
                raise self._explained(error) from None

    def writes_at_once(self, offset: int, length: int) -> bool:
        """Whether `write` there waits for no chunk store, no sync, and no copying of a cut's."""
        first, end = offset >> _SHIFT, offset + length + CLUSTER - 1 >> _SHIFT
        states = self._states
        if self._cuts or self._failure:
            return False
        if states.count(self._dirty, first, end) == end - first:
            return True
        whole = not offset % CLUSTER and (not length % CLUSTER or offset + length == self.size)
        if not whole and self.base.hydrates and states.find(ABSENT, first, end) >= 0:
            return False
        return self._map.begun or states.find(CLEAN, first, end) < 0

    def _write_first(self, buffers: Buffers, offset: int, length: int, first: int, end: int) -> None:
        """Write to clusters that are not all dirty, or while somebody copies the volume."""
        self._prepare(offset, length)
        try:
            write_fully(self._files, self._head, buffers, offset)
        except OSError as error:
            for cluster in range(first, end):
                if self._states[cluster] != ABSENT:
                    self._mark(cluster, cluster + 1)
            raise self._explained(error) from None
        self._mark(first, end)

    def _explained(self, error: OSError) -> OSError:
        """An error of the host's, with the same number, that says what to do where the host's disk is full."""
        if error.errno not in _FULL:
            return error
        return OSError(
            error.errno, f"{error.strerror}: the guest's write is refused; make room for {self.directory / 'head'}"
        )

    def _prepare(self, offset: int, length: int) -> None:
        """Make a range ready to be changed: copied for cuts, clean clusters announced, half clusters filled up."""
        self._refuse_after_failure()
        for cut in self._cuts:
            cut.before_write(offset, length)
        end = offset + length
        if offset % CLUSTER:
            self._copy_up(offset >> _SHIFT)
        if end % CLUSTER and end < self.size:
            self._copy_up(end >> _SHIFT)
        if self._states.find(CLEAN, offset >> _SHIFT, end + CLUSTER - 1 >> _SHIFT) >= 0:
            self._map.begin()
        self._unsynced = True

    def _refuse_after_failure(self) -> None:
        if self._failure:
            raise OSError(errno.EIO, f"an earlier sync failed ({self._failure.strerror}); the volume must be reopened")

    def _copy_up(self, cluster: int) -> None:
        """Have the base's content of a cluster in the head, of which a part is about to change."""
        if self._states[cluster] == ABSENT:
            start = cluster * CLUSTER
            block = memoryview(bytearray(min(CLUSTER, self.size - start)))
            self.base.readinto([block], start)
            write_fully(self._files, self._head, [block], start)
            self._mark(cluster, cluster + 1)

    def _mark(self, first: int, end: int) -> None:
        self._states[first:end] = bytes((self._dirty,)) * (end - first)
        self._map.note(first, end)

    def discard(self, offset: int, length: int) -> None:
        """Let the whole clusters of the range read as zeros, and give the host their space back."""
        first, end = -(-offset // CLUSTER) * CLUSTER, (offset + length) // CLUSTER * CLUSTER
        if first < end:
            self._zero(first, end - first, keep_space=False, needed=False)

    def write_zeroes(self, offset: int, length: int, may_unmap: bool) -> None:
        """Let the range read as zeros: by a hole, by the file system's zeroed extents, or by writing zeros."""
        self._zero(offset, length, keep_space=not may_unmap, needed=True)

    def _zero(self, offset: int, length: int, keep_space: bool, needed: bool) -> None:
        self.asked = True
        first, end = offset >> _SHIFT, offset + length + CLUSTER - 1 >> _SHIFT
        with self._lock:
            if not self.base.size and not keep_space and self._states.count(ABSENT, first, end) == end - first:
                return  # zeros already
            self._prepare(offset, length)
            try:
                if not self._files.erase(self._head, offset, length, keep_space):
                    if not needed:
                        return
                    write_zeroes(self._files, self._head, offset, length)
            except OSError:
                for cluster in range(first, end):
                    if self._states[cluster] != ABSENT:
                        self._mark(cluster, cluster + 1)
                raise
            self._mark(first, end)

    # --- durability ---

    def flush(self) -> None:
        """When this returns, everything written before survives a loss of power."""
        self.asked = True
        if not self.read_only:
            self._flush(everything=False)

    def _flush(self, everything: bool) -> None:
        with self._flushing:
            with self._lock:
                self._refuse_after_failure()
                unsynced = self._unsynced or (everything and self._hydrated)
                self._unsynced = False
                if everything:
                    self._hydrated = False
                pages = self._map.take(everything)
            try:
                if unsynced:
                    self._files.fdatasync(self._head)
            except OSError as error:
                self._fail(error)
                raise
            if pages:
                self._write_map(pages)

    def _write_map(self, pages: dict[int, bytes]) -> None:
        try:
            self._map.write(pages)
        except OSError:
            # What is in memory stays true, and goes there at the next flush, which writes all of it anew.
            with self._lock:
                self._map.put_back(pages)
            raise

    def _fail(self, error: OSError) -> None:
        log.error(
            "volume %s: %s could not be made durable: %s; it takes no more writes until it is opened again",
            self.description.name, self.directory / "head", error,
        )  # fmt: skip
        with self._lock:
            self._failure = error

    def close(self) -> None:
        """Make everything durable and let go of files and the lock. Cuts that somebody still copies from fail.

        Where another thread is reading just now, files and lock go when it notices.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for cut in self._cuts:
                cut.fail("the volume was closed before all of it was copied")
        try:
            if not self.read_only and not self._failure:
                self._flush(everything=True)
                self._map.finish()
        except OSError as error:  # no flush was answered, so nothing is lost that was acknowledged
            log.error("volume %s: what was written last is not durable: %s", self.description.name, error)
        finally:
            self._leave()

    def _leave(self) -> None:
        """One user less; the last one closes the files."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self._map.close()
            self._files.close(self._head)
            self.base.close()

    # --- what others do with it ---

    def grow(self, size: int) -> None:
        """Make the volume `size` bytes; what is new reads as zeros. Durable when this returns. InputError; OSError."""
        if self.read_only:
            raise InputError(f"the volume {self.description.name} is open for reading only, and cannot grow")
        if checked_size(size) < self.size:
            raise InputError(
                f"the volume {self.description.name} has {self.size} bytes and cannot shrink to {size};"
                " make a smaller one and copy what is in it"
            )
        with self._lock:
            self._refuse_after_failure()
            self._files.truncate(self._head, size)
            self._files.fdatasync(self._head)
            self._describe(msgspec.structs.replace(self.description, size=size))
            self._map.grow(-(-size // CLUSTER))
            self._states = self._map.states
            self._whole = self._whole and len(self._states) == -(-self.size // CLUSTER)
            self.size = size

    def _describe(self, description: VolumeDescription) -> None:
        publish(self._files, self.directory / FILE_NAME, [description.to_json()])
        self.description = description

    @property
    def whole(self) -> bool:
        """Whether the base will not be needed any more, or need not be brought here to be read fast."""
        return self._whole or not self.base.hydrates

    def hydrate(self, progress: Progress = no_progress, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Bring everything that is absent into the head, chunk by chunk, until the volume is closed or `stopped`, asked
        before each that is to be fetched, says True: False then. OSError if the disk is full, the chunk store does not
        answer, or, once all else is here, for a chunk that is missing or altered. InputError for one that is open for
        reading only.
        """
        if self.read_only:
            raise InputError(f"the volume {self.description.name} is open for reading only, and takes no chunk")
        with self._lock:
            if self._closed:
                return False
            self._users += 1
        try:
            return not self.base.size or self._hydrate(progress, stopped)
        finally:
            self._leave()

    def _hydrate(self, progress: Progress, stopped: Callable[[], bool]) -> bool:
        damage: OSError | None = None
        for number in range(-(-self.size // CHUNK)):
            first = number * _CHUNK_CLUSTERS
            if self._states.find(ABSENT, first, first + _CHUNK_CLUSTERS) >= 0:
                # A chunk of zeros costs next to nothing, and an empty volume has many.
                zeros = isinstance(self.base, ManifestBase) and self.base.manifest.name(number) == ZERO_NAME
                if not (zeros and number % 256) and stopped():
                    return False
                try:
                    block = self._base_chunk(number)
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    damage = damage or error
                    continue
                for at in range(0, CHUNK, _PIECE):
                    with self._lock:
                        if self._closed:
                            return False
                        if number * CHUNK + at < self.size:
                            self._keep(number * CHUNK + at, block[at : at + _PIECE])
                if self._states.find(ABSENT, first, first + _CHUNK_CLUSTERS) >= 0:
                    raise OSError(errno.ENOSPC, f"the disk is full; {self.directory} cannot take all of its base")
            progress(min(self.size, (number + 1) * CHUNK), self.size)
        if damage:
            raise damage
        with self._lock:
            self._whole = ABSENT not in self._states
        return True

    def keep_hydrated(self) -> None:
        """Let what was hydrated stay after a crash, too; a guest's flush waits for it as little as can be. OSError."""
        if self.read_only or self._failure or not self._hydrated:
            return
        with self._lock:
            if self._closed:
                return
            self._users += 1
        try:
            try:
                self._files.fdatasync(self._head)  # most of it, while flushes may go on
            except OSError as error:
                self._fail(error)
                raise
            self._flush(everything=True)
        finally:
            self._leave()

    def cut(self) -> Cut:
        """The contents at this instant, to be copied elsewhere while the guest goes on writing: for a machine snapshot.
        Chunks with anything that the base does not give count as changed. Close it."""
        return self._cut(bytes((CLEAN, DIRTY, DIRTY_TOO)), for_snapshot=False)

    def cut_for_snapshot(self, since: str | None) -> Cut | None:
        """A cut that can become the baseline. Chunks count as changed if they have since the baseline, which is `since`
        as the caller knows it, or, if that is None, if the head has anything of them. None if another snapshot has
        become the baseline meanwhile. InputError while there is another such cut."""
        return self._cut(b"" if since is not None else bytes((CLEAN,)), for_snapshot=True, since=since)

    @overload
    def _cut(self, counted: bytes, for_snapshot: Literal[False]) -> Cut: ...

    @overload
    def _cut(self, counted: bytes, for_snapshot: Literal[True], since: str | None) -> Cut | None: ...

    def _cut(self, counted: bytes, for_snapshot: bool, since: str | None = None) -> Cut | None:
        with self._lock:
            if self._closed:
                raise InputError(f"the volume {self.description.name} is closed")
            if for_snapshot:
                if any(other.for_snapshot for other in self._cuts):
                    raise InputError(
                        f"a snapshot of the volume {self.description.name} is being taken already; take the next one"
                        " when that is complete (celaje vm volume snapshots)"
                    )
                if since is not None and since != self.description.baseline:
                    return None
                counted += bytes((self._dirty,))
                self._dirty = DIRTY + DIRTY_TOO - self._dirty
            cut = Cut(self, self._files, self._lock, self._states, counted, for_snapshot)
            self._cuts.append(cut)
            self._users += 1
            return cut

    def adopt(self, snapshot: str) -> None:
        """The cut for a snapshot has become `snapshot`, durably: the baseline from here on. OSError.

        Two orders matter. What the guest had not flushed at the instant is in the snapshot; it must be here too before
        the snapshot is what absent clusters have not changed since. And both must be durable before a byte of the map
        says clean.
        """
        if not self._closed:
            self._flush(everything=False)
        with self._lock:
            if not self._closed:
                self._describe(msgspec.structs.replace(self.description, baseline=snapshot))

    def end_cut(self, cut: Cut, adopted: bool) -> None:
        """A cut has ended. What was dirty at its instant is clean if it is the baseline now, and still dirty if not."""
        if cut.for_snapshot and not self._closed:
            before = DIRTY + DIRTY_TOO - self._dirty
            self._turn(before, CLEAN if adopted else self._dirty)
        with self._lock:
            self._cuts.remove(cut)
        self._leave()

    def _turn(self, old: int, new: int) -> None:
        """Let every cluster of one state have another, a page of the map at a time so that no write waits for long."""
        table = bytes.maketrans(bytes((old,)), bytes((new,)))
        at = 0
        while (at := self._states.find(old, at)) >= 0:
            first = at >> PAGE_SHIFT << PAGE_SHIFT
            with self._lock:
                states = self._states  # another one, perhaps, since the volume has grown
                end = min(first + PAGE, len(states))
                states[first:end] = states[first:end].translate(table)
                self._map.note_lazily(first, end)
            at = end

    def is_empty(self, number: int) -> bool:
        """Whether a chunk reads as zeros for certain: nothing is below, and nothing has been written."""
        states = self._states[number * _CHUNK_CLUSTERS : (number + 1) * _CHUNK_CLUSTERS]
        if states.count(ABSENT) != len(states):
            return False
        if isinstance(self.base, ManifestBase):
            return self.base.manifest.name(number) == ZERO_NAME
        return number * CHUNK >= self.base.size

    def states(self, first: int, end: int) -> bytes:
        """The states of some clusters (`cluster_map.py`), fewer at the volume's end."""
        return bytes(self._states[first:end])

    def read_at(self, buffers: Buffers, offset: int) -> None:
        """`readinto` for another thread: nothing is kept of what is fetched."""
        for own, part, at in self._parts(buffers, offset, total(buffers)):
            if own:
                read_fully(self._files, self._head, part, at)
            else:
                self.base.readinto(part, at)
