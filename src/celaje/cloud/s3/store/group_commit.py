"""Group commit: many callers' changes in one transaction, and one sync for all of them.

A sync takes the disk some 200 µs however much it covers. So there is one thread that writes: it takes everything that
waits, carries each piece out inside a savepoint of its own, commits, and only then tells each caller. While it waits
for the disk the next group gathers. One caller alone pays one commit, a thousand at once pay a few.

A piece of work that raises undoes itself and nobody else. A commit that fails fails for all of its group. Unless the
reason was a full disk, nothing is acknowledged from then on until the store is opened again: the host may have dropped
what it could not write, and the next sync would succeed (what Linux does after a failed fsync).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

T = TypeVar("T")

After = Callable[[BaseException | None], None]

_LARGEST_GROUP = 512


class StoreFailed(OSError):
    """The object store's database could not be written."""


class Pending(Generic[T]):
    """What a piece of work will have returned when it is durable: `result()` waits in a thread, `await` in a loop."""

    __slots__ = ("_after", "_error", "_lock", "_wakes", "_work", "done", "value")

    def __init__(self, work: Callable[[sqlite3.Connection], T], after: After | None) -> None:
        self._work = work
        self._after = after
        self._lock = threading.Lock()
        self._wakes: Callable[[], None] | tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._error: BaseException | None = None
        self.done = False
        self.value: T | None = None

    def result(self) -> T:
        """Wait, and return it or raise what it raised."""
        event = threading.Event()
        with self._lock:
            if not self.done:
                self._wakes = event.set
        if not self.done:
            event.wait()
        return self._outcome()

    def __await__(self) -> Generator[object, None, T]:
        with self._lock:
            if not self.done:
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._wakes = (loop, future)
        if not self.done:
            yield from future
        return self._outcome()

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self.value  # type: ignore[return-value]  # done and no error: it is what the work returned

    def _carry_out(self, connection: sqlite3.Connection) -> None:
        try:
            self.value = self._work(connection)
        except BaseException as error:
            self._error = error

    def _settle(self, wakes: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]]) -> None:
        if self._after is not None:
            self._after(self._error)
        with self._lock:
            self.done = True
            waiting = self._wakes
        if callable(waiting):
            waiting()
        elif waiting is not None:
            wakes.setdefault(waiting[0], []).append(waiting[1])


class GroupCommit:
    """The thread that writes through `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: deque[Pending[object]] = deque()
        self._awake = threading.Condition(threading.Lock())
        self._closing = False
        self._failure: StoreFailed | None = None
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="s3-commit", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], T], after: After | None = None) -> Pending[T]:
        """Have `work` carried out in the next group, and `after` be told when it is durable (None), or why it is not.
        Both run in the writing thread: statements in the one, in the other nothing slow and nothing that raises."""
        pending = Pending(work, after)
        with self._awake:
            if self._closing:
                raise StoreFailed(errno.ESHUTDOWN, "the object store is being closed")
            self._waiting.append(pending)  # type: ignore[arg-type]  # who waits for it knows what it returns
            if len(self._waiting) == 1:
                self._awake.notify()
        return pending

    def close(self) -> None:
        """Finish what was submitted, and end the thread."""
        with self._awake:
            self._closing = True
            self._awake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._awake:
                while not self._waiting and not self._closing:
                    self._awake.wait()
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LARGEST_GROUP))]
            if not group:
                return
            try:
                self._commit(group)
            except BaseException as error:
                failure = self._failed(error)
                for each in group:
                    each._error = each._error or failure
            wakes: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
            for each in group:
                each._settle(wakes)
            for loop, futures in wakes.items():
                _wake(loop, futures)

    def _commit(self, group: list[Pending[object]]) -> None:
        if self._failure:
            raise self._failure
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for each in group:
                execute("SAVEPOINT piece")
                each._carry_out(self._connection)
                if each._error is not None:
                    execute("ROLLBACK TO piece")
                execute("RELEASE piece")
            execute("COMMIT")
            self.commits += 1
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _failed(self, error: BaseException) -> StoreFailed:
        if isinstance(error, StoreFailed):
            return error
        text = f"the object store's database cannot be written: {error}"
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return StoreFailed(errno.ENOSPC, text)
        reopen = "nothing is taken until it is opened again: celaje down; celaje up"
        self._failure = StoreFailed(errno.EIO, f"{text}; {reopen}")
        return StoreFailed(errno.EIO, text)


def _wake(loop: asyncio.AbstractEventLoop, futures: list[asyncio.Future[None]]) -> None:
    def wake() -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        loop.call_soon_threadsafe(wake)
