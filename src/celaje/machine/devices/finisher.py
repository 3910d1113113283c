"""SiFive's test finisher: a store ends the machine, and says how.

    0x0, 16 or 32 bits:  0x5555          power off: passed
                         0x3333 | code << 16   power off: failed with that code
                         0x7777          reset

Reads give 0; other values are ignored.
"""

from __future__ import annotations

from collections.abc import Callable

from celaje.machine.bus import AccessRefused, SavedState
from celaje.machine.verdict import Verdict, VerdictKind

PASS = 0x5555
FAIL = 0x3333
RESET = 0x7777


class Finisher:
    """Gives its verdict to `end`."""

    size = 0x1000

    def __init__(self, end: Callable[[Verdict], None]) -> None:
        self._end = end

    def read(self, offset: int, size: int) -> int:
        if size not in (2, 4) or offset % size:
            raise AccessRefused
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if size not in (2, 4) or offset % size:
            raise AccessRefused
        if offset:
            return
        command, code = value & 0xFFFF, value >> 16
        if command == PASS:
            self._end(Verdict(VerdictKind.POWER_OFF))
        elif command == FAIL:
            self._end(Verdict(VerdictKind.FAIL, number=code, reason=f"the test finisher was given code {code}"))
        elif command == RESET:
            self._end(Verdict(VerdictKind.REBOOT))

    def reset(self) -> None:
        """Nothing is kept between accesses."""

    def save(self) -> SavedState:
        return {}

    def restore(self, state: SavedState) -> None:
        if state:
            raise ValueError(f"the test finisher has no state, and was given {sorted(state)}")
