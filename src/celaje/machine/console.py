"""The other end of the guest's serial line: a terminal, a pipe, or a buffer in memory.

Hart threads call `put`, `take` and `has_room`, and none of these does I/O or waits for a lock that is held during it:
bytes go through two queues, and two threads that block in system calls move them. The writer lets a millisecond
pass before it takes what has gathered, so that a boot's 100,000 single bytes do not become 100,000 writes.

Input is never dropped and not taken early: from a pipe or a file no more is read than the guest has asked for, so what
the guest leaves unread is still there for whoever reads next. A terminal is read as it comes, since Ctrl-A x must
work when the guest does not listen.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

ROOM = 1 << 16  # bytes of output that may wait before a polite guest is told to
LIMIT = 1 << 20  # bytes at which a guest that does not look is slowed down to a hundred bytes a second
SLOWED_SECONDS = 0.01
TYPED_AHEAD = 1 << 16  # bytes read from a terminal for a guest that does not listen
CHUNK = 4096  # bytes moved at once, which bounds how long a device thread keeps a hart from the interpreter
GATHER_SECONDS = 0.001


class Console(Protocol):
    """A character device's backend. Everything may be called from any thread."""

    @property
    def has_room(self) -> bool:
        """Whether a guest that asks should send."""

    def put(self, byte: int) -> None:
        """Send one byte. Takes time only where a guest goes on sending in spite of `has_room`."""

    def take(self, limit: int) -> bytes:
        """Up to `limit` bytes of input; less than that is also the wish to be told when there is more."""

    def give_back(self, data: bytes) -> None:
        """`data` was taken and has not reached the guest: the next `take` gives it again."""

    def listen(self, on_input: Callable[[], None], on_room: Callable[[], None]) -> None:
        """Call `on_input` when a `take` that came back short would now give something, `on_room` when there is
        room again after there was none. Whoever listens last is called."""


def _nobody() -> None:
    pass


class BufferConsole:
    """A console in memory: `output` is what the guest sent, `type` is somebody's typing."""

    has_room = True

    def __init__(self) -> None:
        self.output = bytearray()
        self._typed: deque[int] = deque()
        self._on_input: Callable[[], None] = _nobody

    def put(self, byte: int) -> None:
        self.output.append(byte)

    def take(self, limit: int) -> bytes:
        return bytes(self._typed.popleft() for _ in range(min(limit, len(self._typed))))

    def give_back(self, data: bytes) -> None:
        self._typed.extendleft(reversed(data))

    def listen(self, on_input: Callable[[], None], on_room: Callable[[], None]) -> None:
        self._on_input = on_input

    def type(self, data: bytes) -> None:
        """Let `data` arrive as input."""
        self._typed.extend(data)
        self._on_input()


class EscapeReader:
    """Takes Ctrl-A out of what is typed: Ctrl-A x leaves, Ctrl-A Ctrl-A is a Ctrl-A, Ctrl-A y is just y."""

    ESCAPE = 0x01

    def __init__(self) -> None:
        self._escaped = False
        self.left = False

    def feed(self, data: bytes) -> bytes:
        """What of `data` the guest gets. Sets `left`; what was typed after that is nobody's."""
        kept = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte in b"xX":
                    self.left = True
                    break
                kept.append(byte)
            elif byte == self.ESCAPE:
                self._escaped = True
            else:
                kept.append(byte)
        return bytes(kept)


class StreamConsole:
    """A console on two file descriptors, either of which may be None (no input; output thrown away).

    With `on_leave` the input is a terminal's: read as it comes, with Ctrl-A as the escape. `close` writes out what is
    left. After that `output_error` says why output was lost, if it was; a reader who has gone away is no error.
    """

    def __init__(self, source: int | None, sink: int | None, on_leave: Callable[[], None] | None = None) -> None:
        self._source = source
        self._sink = sink
        self._on_leave = on_leave
        self._output: deque[int] = deque()
        self._input: deque[int] = deque()
        self._on_input: Callable[[], None] = _nobody
        self._on_room: Callable[[], None] = _nobody
        self._was_full = False
        self._wanted = 0
        self._closing = False
        self._writer_sleeps = threading.Lock()  # a semaphore of one: held while there is nothing to write
        self._reader_sleeps = threading.Lock()  # the same, while nobody wants input
        self._writer_sleeps.acquire()
        self._reader_sleeps.acquire()
        self._gone, self._end = os.pipe2(os.O_CLOEXEC)  # closing _end wakes a reader out of poll
        self._threads: list[threading.Thread] = []
        self.output_error: OSError | None = None

    def start(self) -> None:
        """From here on bytes move."""
        if self._sink is not None:
            self._threads.append(threading.Thread(target=self._write, name="console output", daemon=True))
        if self._source is not None:
            self._threads.append(threading.Thread(target=self._read, name="console input", daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Write out everything that was put, then stop. Input that nobody took is gone with the terminal."""
        self._closing = True
        self._wake(self._writer_sleeps)
        self._wake(self._reader_sleeps)
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads.clear()
        if self._gone >= 0:
            os.close(self._gone)
            self._gone = -1

    def listen(self, on_input: Callable[[], None], on_room: Callable[[], None]) -> None:
        self._on_input, self._on_room = on_input, on_room

    @staticmethod
    def _wake(sleeper: threading.Lock) -> None:
        if sleeper.locked():
            try:
                sleeper.release()
            except RuntimeError:  # somebody else woke it in between
                return

    # Output.

    @property
    def has_room(self) -> bool:
        if len(self._output) < ROOM:
            return True
        self._was_full = True
        return len(self._output) < ROOM

    def put(self, byte: int) -> None:
        if self._sink is None:
            return
        self._output.append(byte)
        if self._writer_sleeps.locked():
            self._wake(self._writer_sleeps)
        if len(self._output) > LIMIT and not self._closing:
            # Not until there is room: the machine must be able to end while nobody reads its output.
            time.sleep(SLOWED_SECONDS)

    def _write(self) -> None:
        while True:
            self._writer_sleeps.acquire()
            closing = self._closing  # before looking for what was put: whatever comes later is not close's to write
            if not closing:
                time.sleep(GATHER_SECONDS)
            while count := len(self._output):
                data = bytes(self._output.popleft() for _ in range(min(count, CHUNK)))
                if self._sink is not None and not self._write_whole(self._sink, data):
                    self._sink = None
                if self._sink is None:
                    self._output.clear()
                if self._was_full and len(self._output) < ROOM:
                    self._was_full = False
                    self._on_room()
            if closing:
                return

    def _write_whole(self, sink: int, data: bytes) -> bool:
        """Whether there was somebody to write it to."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(sink, view) :]
            except BlockingIOError:
                # Somebody who shares this terminal or pipe made it non-blocking.
                waiter = select.poll()
                waiter.register(sink, select.POLLOUT)
                waiter.poll()
            except BrokenPipeError:
                return False
            except OSError as error:
                self.output_error = error
                return False
        return True

    # Input.

    def take(self, limit: int) -> bytes:
        data = bytearray()
        while len(data) < limit:
            try:
                data.append(self._input.popleft())
            except IndexError:
                break
        if len(data) < limit and self._source is not None:
            self._wanted = limit - len(data)
            if self._reader_sleeps.locked():
                self._wake(self._reader_sleeps)
        return bytes(data)

    def give_back(self, data: bytes) -> None:
        self._input.extendleft(reversed(data))

    def _read(self) -> None:
        source = self._source
        assert source is not None
        escapes = EscapeReader() if self._on_leave is not None else None
        waiter = select.poll()
        waiter.register(source, select.POLLIN)
        waiter.register(self._gone, select.POLLIN)
        while not self._closing:
            limit = TYPED_AHEAD - len(self._input) if escapes else self._wanted
            if limit <= 0 or (escapes is None and self._input):
                self._reader_sleeps.acquire()
                continue
            if any(descriptor == self._gone for descriptor, _ in waiter.poll()):
                return
            try:
                data = os.read(source, min(limit, CHUNK))
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EBADF):  # a terminal that is gone, or is another job's now
                    raise
                data = b""
            if not data:
                return  # the end of the input is not the machine's
            if escapes is not None and self._on_leave is not None:
                data = escapes.feed(data)
                if escapes.left:
                    self._on_leave()
            self._wanted = 0
            if data:
                self._input.extend(data)
                self._on_input()
            if escapes is not None and escapes.left:
                return
