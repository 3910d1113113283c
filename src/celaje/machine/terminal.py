"""The person's terminal, raw while a machine has it and as it was before at every way out.

Raw: what is typed reaches the guest byte by byte, without echo, and Ctrl-C is the guest's. Only output processing stays
on, so that a guest that ends its lines with a bare line feed can be read.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from celaje.errors import InputError
from celaje.machine.console import StreamConsole

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6


class RawTerminal:
    """A context in which the terminal at `descriptor` is raw. InputError where this process may not have it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[int | list[bytes | int]] | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> RawTerminal:
        name = f"the terminal on file descriptor {self._descriptor}"
        way_out = "bring celaje to the foreground with fg, or give the machine other input: celaje vm run … < /dev/null"
        try:
            if os.tcgetpgrp(self._descriptor) != os.getpgrp():
                raise InputError(f"{name} is occupied: another job of its shell has it; {way_out}")
            self._before = termios.tcgetattr(self._descriptor)
            self._make_raw()
        except (OSError, termios.error) as error:
            self._before = None
            raise InputError(f"{name} cannot be made raw ({error}); {way_out}") from error
        atexit.register(self.restore)
        if threading.current_thread() is threading.main_thread():
            for number in ENDING_SIGNALS:
                self._handlers[number] = signal.signal(number, self._end)
            self._handlers[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._continue)
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()
        atexit.unregister(self.restore)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _make_raw(self) -> None:
        mode = termios.tcgetattr(self._descriptor)
        mode[IFLAG] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[CFLAG] = mode[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[CC][termios.VMIN] = 1
        mode[CC][termios.VTIME] = 0
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)

    def restore(self) -> None:
        """The terminal as it was. May be called again."""
        before, self._before = self._before, None
        if before is not None:
            # A terminal that is gone needs no restoring.
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.restore()
        raise SystemExit(128 + number)

    def _continue(self, number: int, frame: FrameType | None) -> None:
        # Stopped and continued: the shell has put its own modes back meanwhile.
        with contextlib.suppress(OSError, termios.error):
            if self._before is not None and os.tcgetpgrp(self._descriptor) == os.getpgrp():
                self._make_raw()


@contextlib.contextmanager
def standard_streams(on_leave: Callable[[], None]) -> Iterator[StreamConsole]:
    """A started console on this process's standard input and output; a terminal is raw meanwhile.

    `on_leave` is called when the person at the terminal types Ctrl-A x. Raises InputError for a terminal that another
    job has.
    """
    sys.stdout.flush()
    source, sink = _open_descriptor(0), _open_descriptor(1)
    with contextlib.ExitStack() as stack:
        terminal = source is not None and os.isatty(source)
        if terminal:
            assert source is not None
            stack.enter_context(RawTerminal(source))
        console = StreamConsole(source, sink, on_leave if terminal else None)
        stack.callback(console.close)
        console.start()
        yield console


def _open_descriptor(number: int) -> int | None:
    try:
        os.fstat(number)
    except OSError:
        return None
    return number
