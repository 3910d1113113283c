"""A virtio-mmio slot with nothing in it (virtio 1.2, 4.2.2.2): it can be recognised, and its device number is 0."""

from __future__ import annotations

from celaje.machine.bus import SavedState

MAGIC = int.from_bytes(b"virt", "little")
REGISTERS = {0x000: MAGIC, 0x004: 2}


class EmptySlot:
    """Everything but the magic number and the version reads as zero; stores do nothing."""

    size = 0x1000

    def read(self, offset: int, size: int) -> int:
        return REGISTERS.get(offset, 0) if size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A driver that has seen device number 0 writes nothing."""

    def reset(self) -> None:
        """There is nothing to reset."""

    def save(self) -> SavedState:
        return {}

    def restore(self, state: SavedState) -> None:
        if state:
            raise ValueError(f"an empty slot has no state, and was given {sorted(state)}")
