"""Timer and software interrupts of machine mode ("RISC-V ACLINT" 1.0-rc4, laid out as SiFive's CLINT was).

    0x0000 + 4 * hart   MSIP: bit 0 is the hart's machine software interrupt    chapter 3 (MSWI)
    0x4000 + 8 * hart   MTIMECMP: the timer interrupt is pending from then on   chapter 2 (MTIMER)
    0xbff8              MTIME: the machine's clock, 10 MHz

The clock and the compare are the engine's own, so that a hart takes its timer interrupt without Python: MTIMECMP
goes to the hart's shared field `mtimecmp`. 64-bit registers may be accessed whole or by halves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from celaje.engine.protocol import Engine
from celaje.machine.bus import AccessRefused, SavedState

SIZE = 0x10000
MTIMECMP = 0x4000
MTIME = 0xBFF8
NEVER = (1 << 64) - 1


class Aclint:
    """For the harts of `engine`; `software_interrupts[i]` drives the machine software interrupt of hart i."""

    size = SIZE

    def __init__(self, engine: Engine, software_interrupts: Sequence[Callable[[bool], None]]) -> None:
        self._engine = engine
        self._harts = engine.harts
        self._software_interrupts = list(software_interrupts)
        self._lock = threading.Lock()
        self._msip = [0] * len(self._harts)
        self._mtimecmp = [NEVER] * len(self._harts)
        self.reset()

    def read(self, offset: int, size: int) -> int:
        if size not in (4, 8) or offset % size:
            raise AccessRefused
        shift = 8 * (offset & 4)
        mask = (1 << 8 * size) - 1
        if offset & ~4 == MTIME:
            return self._engine.time() >> shift & mask
        hart = (offset - MTIMECMP) >> 3
        if 0 <= hart < len(self._harts):
            return self._mtimecmp[hart] >> shift & mask
        if size == 4 and offset >> 2 < len(self._harts):
            return self._msip[offset >> 2]
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if size not in (4, 8) or offset % size:
            raise AccessRefused
        shift = 8 * (offset & 4)
        kept = ~(((1 << 8 * size) - 1) << shift) & NEVER
        hart = (offset - MTIMECMP) >> 3
        with self._lock:
            if offset & ~4 == MTIME:
                self._engine.set_time(self._engine.time() & kept | value << shift)
            elif 0 <= hart < len(self._harts):
                self._mtimecmp[hart] = self._mtimecmp[hart] & kept | value << shift
                self._harts[hart].set("mtimecmp", self._mtimecmp[hart])
            elif size == 4 and offset >> 2 < len(self._harts):
                self._msip[offset >> 2] = value & 1
                self._software_interrupts[offset >> 2](bool(value & 1))

    def reset(self) -> None:
        self._put([0] * len(self._harts), [NEVER] * len(self._harts))

    def _put(self, msip: list[int], mtimecmp: list[int]) -> None:
        with self._lock:
            self._msip, self._mtimecmp = list(msip), list(mtimecmp)
            for hart, interrupt, level, compare in zip(
                self._harts, self._software_interrupts, msip, mtimecmp, strict=True
            ):
                interrupt(bool(level))
                hart.set("mtimecmp", compare)

    def save(self) -> SavedState:
        with self._lock:
            return {"msip": list(self._msip), "mtimecmp": list(self._mtimecmp), "mtime": self._engine.time()}

    def restore(self, state: SavedState) -> None:
        msip, mtimecmp, mtime = state["msip"], state["mtimecmp"], state["mtime"]
        count = len(self._harts)
        if not (isinstance(msip, list) and isinstance(mtimecmp, list) and isinstance(mtime, int)):
            raise ValueError("the ACLINT's state must be two lists and a time")
        if len(msip) != count or len(mtimecmp) != count:
            raise ValueError(f"the ACLINT's state is for {len(msip)} harts, and this machine has {count}")
        self._engine.set_time(mtime)
        self._put(msip, mtimecmp)
