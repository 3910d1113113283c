"""Contents: bodies that are too large for a row, each a file of its own under a random id that is used once.

    contents/ab/abcd…ef    32 hexadecimal digits, mode 0600; never changed once a row names it

The order that makes it safe: the file is written and synced, its directory is synced, then a row that names it is
committed. Until then it is nobody's ("pending"), and what a crash leaves so is swept away. A row goes first, its file
after the commit, so a row never names what is not there. A file that is being read when its row goes stays until the
last reader has done ("pinned").

A path is made of an id's digits, never of a key.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from celaje.cloud.s3.store.records import CONTENT_ID_SIZE
from celaje.disk.files import CREATE, READ, Files, opened, read_fully

_BLOCK = 1 << 20


class Contents:
    """The files below `directory`, whose parent must exist. One process has them; its threads may all use this.

    `digits`: how many of an id's name the directory that it is in.
    """

    def __init__(self, directory: Path, files: Files, digits: int = 2) -> None:
        self._directory = directory
        self._digits = digits
        self._shelves = tuple(f"{number:0{digits}x}" for number in range(16**digits))
        self._files = files
        self._lock = threading.Lock()
        self._pending: set[bytes] = set()
        self._pinned: Counter[bytes] = Counter()
        self._doomed: set[bytes] = set()
        self._make()

    def _make(self) -> None:
        """Have the directories, durably; whoever puts something then syncs only the one that it is in."""
        there = set(self._files.names(self._directory))
        if there.issuperset(self._shelves):
            return
        with contextlib.suppress(FileExistsError):
            self._files.mkdir(self._directory)
        self._files.sync_directory(self._directory.parent)
        for shelf in self._shelves:
            if shelf not in there:
                self._files.mkdir(self._directory / shelf)
        self._files.sync_directory(self._directory)

    def path(self, content: bytes) -> Path:
        """Where the file of that id is."""
        digits = content.hex()
        return self._directory / digits[: self._digits] / digits

    # --- writing ---

    def create(self) -> tuple[bytes, int]:
        """A new, empty file: its id, and a descriptor. It is pending."""
        content = self._new()
        try:
            return content, self._files.open(self.path(content), CREATE)
        except BaseException:
            self._forget(content)
            raise

    def _new(self) -> bytes:
        content = os.urandom(CONTENT_ID_SIZE)
        with self._lock:
            self._pending.add(content)
        return content

    def _forget(self, content: bytes) -> None:
        with self._lock:
            self._pending.discard(content)

    def name(self, content: bytes) -> None:
        """Make the name durable. It may be before the content is: nothing refers to it yet."""
        self._files.sync_directory(self.path(content).parent)

    def seal(self, content: bytes, fd: int, *, named: bool = False) -> None:
        """Make what was written durable, with its name (unless it is `named`), and close the descriptor."""
        try:
            self._files.fdatasync(fd)
        finally:
            self._files.close(fd)
        if not named:
            self.name(content)

    def share(self, content: bytes) -> bytes | None:
        """A new id, pending and durable, for the same bytes, which are not copied. None where the host cannot."""
        fresh = self._new()
        try:
            self._files.link(self.path(content), self.path(fresh))
        except FileNotFoundError:
            self._forget(fresh)
            raise
        except OSError:
            self._forget(fresh)
            return None
        self.name(fresh)
        return fresh

    def kept(self, contents: Iterable[bytes]) -> None:
        """A row that names them is committed: they are pending no more."""
        with self._lock:
            self._pending.difference_update(contents)

    def abandon(self, content: bytes) -> None:
        """Take away what no row will name."""
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(self.path(content))
        self._forget(content)

    # --- reading ---

    @contextlib.contextmanager
    def open(self, content: bytes) -> Iterator[int]:
        """A descriptor for reading, for as long as the block runs."""
        with opened(self._files, self.path(content), READ) as fd:
            yield fd

    def blocks(self, content: bytes, offset: int, length: int) -> Iterator[bytearray]:
        """The bytes of a range of a file, a mebibyte at a time. OSError, also if it ends before."""
        with self.open(content) as fd:
            while length:
                block = bytearray(min(length, _BLOCK))
                read_fully(self._files, fd, [memoryview(block)], offset)
                yield block
                offset, length = offset + len(block), length - len(block)

    def pin(self, find: Callable[[], Sequence[bytes]]) -> None:
        """Keep the files that `find` returns until they are unpinned. No file goes between its look at the rows and
        the pin, since files go under the same lock and after their rows."""
        with self._lock:
            self._pinned.update(find())

    def unpin(self, contents: Sequence[bytes]) -> None:
        """Let go of them; those whose rows went meanwhile are taken away."""
        going = []
        with self._lock:
            for content in contents:
                self._pinned[content] -= 1
                if not self._pinned[content]:
                    del self._pinned[content]
                    if content in self._doomed:
                        self._doomed.discard(content)
                        going.append(content)
        for content in going:
            self._unlink(content)

    def remove(self, contents: Iterable[bytes]) -> None:
        """Take files away whose rows are gone, durably, or note it where somebody still reads one."""
        for content in contents:
            with self._lock:
                if self._pinned[content]:
                    self._doomed.add(content)
                    continue
            self._unlink(content)

    def _unlink(self, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(self.path(content))

    # --- sweeping ---

    def sweep(self, known: Callable[[Sequence[bytes]], set[bytes]]) -> int:
        """Take away what no row names (`known` says which of some ids rows name); how many there were. Others may put
        and remove meanwhile."""
        swept = 0
        for shelf in self._shelves:
            found = [
                bytes.fromhex(name)
                for name in self._files.names(self._directory / shelf)
                if len(name) == 2 * CONTENT_ID_SIZE and name.startswith(shelf) and _is_hexadecimal(name)
            ]
            # First who is pending, then what rows say: what is committed in between has its row by then.
            with self._lock:
                candidates = [content for content in found if content not in self._pending]
                candidates = [content for content in candidates if not self._pinned.get(content)]
            for content in set(candidates) - known(candidates):
                self._unlink(content)
                swept += 1
        return swept


def _is_hexadecimal(name: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in name)


class Reaper:
    """A thread that takes files away: giving back a large file's blocks takes milliseconds that no caller waits for."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._queue: queue.SimpleQueue[Sequence[bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="s3-reaper", daemon=True)
        self._thread.start()

    def remove(self, contents: Sequence[bytes]) -> None:
        """Have them removed; their rows are gone."""
        if contents:
            self._queue.put(contents)

    def close(self) -> None:
        """Remove what is still to be removed, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (contents := self._queue.get()) is not None:
            # What cannot be removed now is swept at the next start.
            with contextlib.suppress(OSError):
                self._contents.remove(contents)
