"""Receiving a body: its bytes go to a file, to MD5 and to a checksum at the same time, at constant memory.

A small body stays in memory and becomes a row. A larger one is a file: the caller's thread writes, a second hashes, a
third has the disk begin with what is written, so that the sync at the end finds little left to do. Each holds the
interpreter only for a moment per block; what the hashing thread has not yet taken is bounded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from celaje.cloud.s3.store.checksums import Algorithm, Hasher, encoded
from celaje.cloud.s3.store.contents import Contents
from celaje.cloud.s3.store.encryption import BodyCipher
from celaje.cloud.s3.store.records import Checksum
from celaje.disk.files import Files, write_fully

Block = bytes | bytearray | memoryview

LARGEST_ROW = 64 << 10
"""Bytes of a body up to which it is a row of the database, which shares its sync with others. At this size rows are
still twice as fast as files, each of which needs two syncs; of larger ones the log's second copy would cost more."""

_BACKLOG = 8 << 20  # bytes that may wait for the hashing thread
_THREADS_FROM = 512 << 10  # below, hashing costs less than handing over
_SYNC_STEP = 8 << 20
ROOM = 2 << 20  # bytes of a buffer that a long body is received into: each change between threads costs
_ROOMS = 4  # of one body: what hashing has not taken waits in them; more are slower, since the caches hold few
_SPARE_ROOMS = 12  # that are kept for the next bodies: new memory is cleared by the kernel first


@dataclass(frozen=True, slots=True)
class Received:
    """A body that is durable in a file (`content`), or small and in memory (`body`). MD5 as 16 bytes. `encryption` and
    `check`: of what is in the file or in memory, as an object's attributes have them; all else is of the plain text.
    """

    size: int
    md5: bytes
    checksum: Checksum
    content: bytes | None = None
    body: bytes | None = None
    encryption: str = ""
    check: bytes = b""


def _nothing() -> None:
    """Nobody waits for it."""


class _Room:
    """A buffer, and how many have still to look at what is in it."""

    __slots__ = ("lock", "memory", "readers")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(ROOM))
        self.lock = threading.Lock()
        self.readers = 0


class _Rooms:
    """The buffers of one body, which are filled again and again."""

    _spare: ClassVar[list[_Room]] = []

    def __init__(self) -> None:
        self._free: queue.SimpleQueue[_Room] = queue.SimpleQueue()
        self._all: list[_Room] = []
        self.current: _Room | None = None

    def take(self) -> _Room:
        """One that nobody looks at any more; waits for it."""
        if self.current is None:
            if self._free.empty() and len(self._all) < _ROOMS:
                try:
                    room = self._spare.pop()
                except IndexError:
                    room = _Room()
                self._all.append(room)
            else:
                room = self._free.get()
            self.current = room
        return self.current

    def read(self, room: _Room) -> None:
        """One of those who look at it has done."""
        with room.lock:
            room.readers -= 1
            if room.readers:
                return
        self._free.put(room)

    def close(self) -> None:
        """Nobody looks at any: keep some for other bodies."""
        kept, self._all, self.current = self._all, [], None
        if len(self._spare) < _SPARE_ROOMS:
            self._spare.extend(kept)


class _Worker:
    """A thread that takes blocks in, one after the other; at most `_BACKLOG` bytes wait for it."""

    def __init__(self, name: str, consume: Callable[[Block], None]) -> None:
        self._consume = consume
        self._queue: queue.SimpleQueue[tuple[Block, Callable[[], None]] | None] = queue.SimpleQueue()
        self._room = threading.Condition(threading.Lock())
        self._backlog = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, block: Block, done: Callable[[], None] = _nothing) -> None:
        """Hand a block over, which nobody may change until `done` is called; waits while there is no room."""
        with self._room:
            while self._backlog > _BACKLOG:
                self._room.wait()
            self._backlog += len(block)
        self._queue.put((block, done))

    def finish(self) -> None:
        """Wait until all is taken in. Raises what taking it in raised."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            block, done = item
            if self._error is None:
                try:
                    self._consume(block)
                except BaseException as error:
                    self._error = error
            done()
            with self._room:
                self._backlog -= len(block)
                self._room.notify()


class Receiver:
    """Takes one body in, from one thread at a time: `take` blocks in order, then `finish`; or else `abandon`.

    `fed`: a hasher of the algorithm that somebody else feeds with the same bytes. `cipher`: what is kept is encrypted.
    """

    def __init__(
        self,
        contents: Contents,
        files: Files,
        algorithm: Algorithm,
        *,
        always_file: bool = False,
        row: int = LARGEST_ROW,
        fed: Hasher | None = None,
        cipher: BodyCipher | None = None,
    ) -> None:
        self._cipher = cipher
        self._contents = contents
        self._files = files
        self._algorithm = algorithm
        self._row = -1 if always_file else row
        self._md5: Hasher = hashlib.md5(usedforsecurity=False)
        self._hasher = fed or algorithm.hasher()
        self._feed = fed is None
        # A CRC costs a fraction of writing; other hashes cost as much as MD5, and have a thread beside it.
        self._hash_beside = self._feed and not algorithm.combines
        self._small: list[Block] = []
        self._content: bytes | None = None
        self._fd = -1
        self._hashing: list[_Worker] = []
        self._syncing: _Worker | None = None
        self._named = False
        self._written = 0
        self._sync_at = _SYNC_STEP
        self._rooms: _Rooms | None = None
        self.size = 0

    def take(self, *blocks: Block) -> None:
        """The next bytes; nobody changes them afterwards. OSError if they cannot be written."""
        for block in blocks:
            if not len(block):
                continue
            self.size += len(block)
            if self._content is None and self.size <= self._row:
                self._small.append(block)
                continue
            if self._content is None:
                self._create()
                held, self._small = self._small, []
                for each in held:
                    self._store(each)
            self._store(block)

    def _create(self) -> None:
        self._content, self._fd = self._contents.create()
        if self._cipher is not None:
            write_fully(self._files, self._fd, [self._cipher.head], 0)
            self._written = len(self._cipher.head)

    def room(self) -> memoryview:
        """Where the next bytes of a long body may be received, instead of giving them to `take`; say then how many are
        `filled`. Waits while all that was received is still to be hashed."""
        if self._rooms is None:
            self._rooms = _Rooms()
        return self._rooms.take().memory

    def filled(self, count: int) -> None:
        """So many bytes are at the beginning of `room`. OSError if they cannot be written."""
        assert self._rooms is not None
        room, self._rooms.current = self._rooms.take(), None
        block = room.memory[:count]
        if self._content is None:
            self.take(bytes(block))
            self._rooms.read(room)
            return
        self.size += count
        self._store(block, room)

    def _store(self, block: Block, room: _Room | None = None) -> None:
        if not self._hashing and self.size >= _THREADS_FROM:
            self._hashing.append(_Worker("s3-md5", self._md5.update))
            if self._hash_beside:
                self._hashing.append(_Worker("s3-checksum", self._hasher.update))
        done = _nothing
        if room is not None and self._rooms is not None:
            room.readers = max(len(self._hashing), 1)
            done = functools.partial(self._rooms.read, room)
        for worker in self._hashing:
            worker.put(block, done)
        if not self._hashing:
            self._md5.update(block)
            done()
        if self._feed and not (self._hashing and self._hash_beside):
            self._hasher.update(block)
        kept = block if self._cipher is None else self._cipher.next(block)
        write_fully(self._files, self._fd, [kept], self._written)
        self._written += len(block)
        if self._written >= self._sync_at:
            self._sync_at = self._written + _SYNC_STEP
            if self._syncing is None:
                self._syncing = _Worker("s3-sync", self._sync)
            self._syncing.put(b"")

    def _sync(self, _: Block) -> None:
        if not self._named:
            assert self._content is not None
            self._contents.name(self._content)
            self._named = True
        self._files.fdatasync(self._fd)

    def finish(self) -> Received:
        """The body is all here: make it durable. OSError."""
        content = self._content
        if content is None and self._row < 0:
            self._create()
            content = self._content
        if content is None:
            body = self._small[0] if len(self._small) == 1 else b"".join(self._small)
            self._md5.update(body)
            if self._feed:
                self._hasher.update(body)
            if self._cipher is not None:
                body = self._cipher.head + self._cipher.next(body)
            return self._received(body=bytes(body))
        try:
            # The disk first: hashing goes on meanwhile.
            syncing, self._syncing = self._syncing, None
            if syncing is not None:
                syncing.finish()
            fd, self._fd = self._fd, -1
            self._contents.seal(content, fd, named=self._named)
            self._end_workers()
        except BaseException:
            self.abandon()
            raise
        return self._received(content=content)

    def _received(self, content: bytes | None = None, body: bytes | None = None) -> Received:
        checksum = Checksum(self._algorithm.name, encoded(self._hasher.digest()))
        encryption, check = ("", b"") if self._cipher is None else (self._cipher.name, self._cipher.check)
        return Received(self.size, self._md5.digest(), checksum, content, body, encryption, check)

    def _end_workers(self) -> None:
        """End every thread; then raise what one of them raised."""
        workers = [*self._hashing, *([self._syncing] if self._syncing else [])]
        self._hashing, self._syncing = [], None
        rooms, self._rooms = self._rooms, None
        error: BaseException | None = None
        for worker in workers:
            try:
                worker.finish()
            except BaseException as raised:
                error = raised
        if rooms is not None:
            rooms.close()
        if error is not None:
            raise error

    def abandon(self) -> None:
        """The body will not be: take away what there is of it. Harmless after `finish`, whose file it takes away."""
        self._small = []
        with contextlib.suppress(BaseException):
            self._end_workers()
        if self._fd >= 0:
            self._files.close(self._fd)
            self._fd = -1
        if self._content is not None:
            self._contents.abandon(self._content)
            self._content = None
