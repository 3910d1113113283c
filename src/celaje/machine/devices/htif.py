"""HTIF: the two doublewords `tohost` and `fromhost` by which a bare-metal program speaks to what runs it.

The program finds them by its own symbols, in its own memory. Nobody polls that memory: the 4 KiB page that holds
`tohost` is taken out of the machine's RAM and this device answers there, with the page's bytes, so that everything
else on it works as before. (Code is not executed from it, and it has no atomics.)

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

from celaje.engine.memory import PAGE_SIZE, OutOfGuestMemory
from celaje.machine.bus import SavedState
from celaje.machine.console import Console
from celaje.machine.ram import Ram
from celaje.machine.verdict import Verdict, VerdictKind

SYSTEM_CALL = 0x0000
CONSOLE_READ = 0x0100
CONSOLE_WRITE = 0x0101
WRITE = 64
EXIT = 93
NO_SUCH_CALL = -38 & (1 << 64) - 1
LONGEST_WRITE = 1 << 16


class Htif:
    """The page of `tohost`, a guest-physical address; `fromhost` is another, or None where the program has none.

    `memory` is RAM with that page taken out.
    """

    size = PAGE_SIZE

    def __init__(
        self,
        tohost: int,
        fromhost: int | None,
        memory: Ram,
        console: Console,
        end: Callable[[Verdict], None],
    ) -> None:
        self.base = tohost & -PAGE_SIZE
        self.bytes = memory.page
        self._tohost = tohost - self.base
        self._fromhost = fromhost
        self._memory = memory
        self._console = console
        self._end = end
        self._lock = threading.Lock()
        self._wants_input = False

    def read(self, offset: int, size: int) -> int:
        if self._wants_input and self._fromhost is not None and self.base + offset == self._fromhost:
            self._answer_with_input()
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        with self._lock:
            self.bytes[offset : offset + size] = value.to_bytes(size, "little")
            tohost = self._tohost
            if offset >= tohost + 8 or offset + size <= tohost:
                return
            request = int.from_bytes(self.bytes[tohost : tohost + 8], "little")
        if request:
            self._serve(request)

    def _serve(self, request: int) -> None:
        kind, payload = request >> 48, request & (1 << 48) - 1
        if kind == CONSOLE_WRITE:
            self._console.put(payload & 0xFF)
            self._answer(kind << 48)
        elif kind == CONSOLE_READ:
            self._wants_input = True
            self._answer(0)
        elif kind == SYSTEM_CALL and payload & 1:
            self._exit(payload >> 1)
        elif kind == SYSTEM_CALL:
            self._system_call(payload)

    def _answer(self, value: int) -> None:
        with self._lock:
            self.bytes[self._tohost : self._tohost + 8] = bytes(8)
        if self._fromhost is not None:
            self._memory.write(self._fromhost, value.to_bytes(8, "little"))

    def _answer_with_input(self) -> None:
        # The program looks at fromhost until something is there; so this is where to look for a character.
        data = self._console.take(1)
        if data:
            self._wants_input = False
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

    def reset(self) -> None:
        """The page is memory: its bytes stay."""
        self._wants_input = False

    def save(self) -> SavedState:
        with self._lock:
            return {"bytes": bytes(self.bytes), "wants_input": int(self._wants_input)}

    def restore(self, state: SavedState) -> None:
        page = state["bytes"]
        if not isinstance(page, bytes) or len(page) != PAGE_SIZE:
            raise ValueError(f"the tohost page must be {PAGE_SIZE} bytes")
        with self._lock:
            self.bytes[:] = page
            self._wants_input = bool(state["wants_input"])
