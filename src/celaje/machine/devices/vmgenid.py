"""The generation identifier: tells a guest that it goes on from a snapshot, perhaps a second time.

    0x00  16 bytes, another number each time the machine is started or restored

(Microsoft, "Virtual Machine Generation ID"; Linux, Documentation/devicetree/bindings/rng/microsoft,vmgenid.yaml, since
6.10.) Linux reads it at boot and at each interrupt, and reseeds its random numbers when it has changed. Whoever
restores a machine calls `renew` after every other state is back: the interrupt that it makes is part of what the
interrupt controller then holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from celaje.machine.bus import AccessRefused, SavedState

IDENTIFIER_SIZE = 16


class GenerationIdentifier:
    """`set_interrupt` drives its line; `entropy(n)` returns n unpredictable bytes."""

    size = 0x1000

    def __init__(self, set_interrupt: Callable[[bool], None], entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._set_interrupt = set_interrupt
        self._entropy = entropy
        self.identifier = entropy(IDENTIFIER_SIZE)

    def renew(self) -> None:
        """Take another identifier and tell the guest. From any thread, also while the machine is paused."""
        self.identifier = self._entropy(IDENTIFIER_SIZE)
        # A pulse: the driver has nothing to acknowledge with, and the interrupt controller remembers it.
        self._set_interrupt(True)
        self._set_interrupt(False)

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.identifier[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        raise AccessRefused

    def reset(self) -> None:
        """A machine that starts anew has an identifier of its own, as one that was never saved has."""
        self.identifier = self._entropy(IDENTIFIER_SIZE)

    def save(self) -> SavedState:
        return {"identifier": self.identifier}

    def restore(self, state: SavedState) -> None:
        """The identifier as it was; `renew` makes the next one."""
        identifier = state["identifier"]
        if not isinstance(identifier, bytes) or len(identifier) != IDENTIFIER_SIZE:
            raise ValueError(f"a generation identifier has {IDENTIFIER_SIZE} bytes, not {identifier!r}")
        self.identifier = identifier
