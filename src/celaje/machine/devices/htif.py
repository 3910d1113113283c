"""HTIF: the two doublewords `tohost` and `fromhost` by which a bare-metal program speaks to what runs it.

The program finds them by its own symbols, in its own memory. Nobody polls that memory: the engine watches the one
doubleword, and a hart that has stored to it comes back for `look`.

    63      56 55      48 47                       0
    +---------+---------+--------------------------+
    | device  | command | payload                  |   a store to tohost of something that is not 0 is a request
    +---------+---------+--------------------------+
      0         0         bit 0 set: the program ends; payload >> 1 is its code, 0 for a pass
      0         0         bit 0 clear: the address of four doublewords, number and three arguments of a system call:
                          64 is write(file, address, length), 93 is exit(code); the first doubleword is the result
      1         1         one character to the console
      1         0         a character from the console is asked for: the answer comes when there is one

An answer in `fromhost` has device and command of the request. Requests that are none of these are ignored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from celaje.engine.memory import GuestMemory, OutOfGuestMemory
from celaje.machine.console import Console
from celaje.machine.verdict import Verdict, VerdictKind

SYSTEM_CALL = 0x0000
CONSOLE_READ = 0x0100
CONSOLE_WRITE = 0x0101
WRITE = 64
EXIT = 93
NO_SUCH_CALL = -38 & (1 << 64) - 1
LONGEST_WRITE = 1 << 16


class Htif:
    """Serves requests at `tohost`, a guest-physical address in `memory`; `fromhost` is another, or None where the
    program has none. Asking for a character makes it the console's listener."""

    def __init__(
        self,
        tohost: int,
        fromhost: int | None,
        memory: GuestMemory,
        console: Console,
        end: Callable[[Verdict], None],
    ) -> None:
        self.tohost = tohost
        self.fromhost = fromhost
        self._memory = memory
        self._console = console
        self._end = end
        self._lock = threading.Lock()
        self.wants_input = False
        """Whether the program has asked for a character and has not got it."""

    def look(self) -> None:
        """Serve what stands in tohost. From any thread."""
        with self._lock:
            request = int.from_bytes(self._memory.read(self.tohost, 8), "little")
            if request:
                self._serve(request)

    def _serve(self, request: int) -> None:
        kind, payload = request >> 48, request & (1 << 48) - 1
        if kind == CONSOLE_WRITE:
            self._console.put(payload & 0xFF)
            self._answer(kind << 48)
        elif kind == CONSOLE_READ:
            self.wants_input = True
            self._answer(0)
            self._console.listen(self._input_came, _nothing)
            self._answer_with_input()
        elif kind == SYSTEM_CALL and payload & 1:
            self._exit(payload >> 1)
        elif kind == SYSTEM_CALL:
            self._system_call(payload)

    def resume(self, wants_input: bool) -> None:
        """Go on where a saved machine was."""
        with self._lock:
            self.wants_input = wants_input
            if wants_input:
                self._console.listen(self._input_came, _nothing)
                self._answer_with_input()

    def close(self) -> None:
        """From here on input is for whoever has the console next, and memory is not touched."""
        with self._lock:
            self.wants_input = False

    def _answer(self, value: int) -> None:
        self._memory.write(self.tohost, bytes(8))
        if self.fromhost is not None and self._memory.contains(self.fromhost, 8):
            self._memory.write(self.fromhost, value.to_bytes(8, "little"))

    def _input_came(self) -> None:
        with self._lock:
            self._answer_with_input()

    def _answer_with_input(self) -> None:
        data = self._console.take(1) if self.wants_input else b""
        if data:
            self.wants_input = False
            self._answer(CONSOLE_READ << 48 | 0x100 | data[0])

    def _exit(self, code: int) -> None:
        if code:
            self._end(Verdict(VerdictKind.FAIL, number=code, reason=f"tohost was given failure {code}"))
        else:
            self._end(Verdict(VerdictKind.PASS))

    def _system_call(self, address: int) -> None:
        try:
            block = self._memory.read(address, 32)
            number, file, start, length = (int.from_bytes(block[i : i + 8], "little") for i in range(0, 32, 8))
            if number == EXIT:
                self._exit(file)
                return
            result = NO_SUCH_CALL
            if number == WRITE and file in (1, 2):
                data = self._memory.read(start, min(length, LONGEST_WRITE))
                for byte in data:
                    self._console.put(byte)
                result = len(data)
            self._memory.write(address, result.to_bytes(8, "little"))
        except OutOfGuestMemory:
            return
        self._answer(1)


def _nothing() -> None:
    pass
