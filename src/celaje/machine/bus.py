"""The bus: which device answers at which guest-physical address.

Addresses are found page by page (4 KiB) in one dictionary, so that an access costs one look-up however many devices
there are. Devices therefore start on a page and share none.
"""

from __future__ import annotations

from typing import Protocol

from celaje.engine.protocol import Hart, MmioRead, MmioWrite

PAGE_SHIFT = 12

SavedState = dict[str, int | list[int] | bytes]
"""What a device's `save` returns: plain values by name."""


class AccessRefused(Exception):
    """A device raises it for an access that its registers do not allow; the guest takes an access fault for it."""


class MmioDevice(Protocol):
    """A window of registers. `read` and `write` are called by hart threads, any number of them at the same time.

    Neither may wait for input or output. What a guest does wrong is answered in the device's own terms or with
    `AccessRefused`, with nothing else ever raised.
    """

    @property
    def size(self) -> int:
        """Bytes of the window."""

    def read(self, offset: int, size: int) -> int:
        """The unsigned value of `size` bytes (1, 2, 4, 8) at `offset`. The bus keeps the access inside the window."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Store the unsigned `value` of `size` bytes at `offset`. The bus keeps the access inside the window."""

    def reset(self) -> None:
        """Back to the state at power-on."""

    def save(self) -> SavedState:
        """Everything that `restore` needs to go on from here."""

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave. ValueError or KeyError where the state is not one of this device's."""


class Bus:
    """The address map of one machine's devices."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[int, int, MmioDevice]] = {}
        self.devices: list[tuple[int, MmioDevice]] = []

    def add(self, base: int, device: MmioDevice) -> None:
        """Let `device` answer from `base`, a multiple of 4096. ValueError where something is there already."""
        if base % (1 << PAGE_SHIFT):
            raise ValueError(f"a device must start on a page of 4096 bytes, not at {base:#x}")
        pages = range(base >> PAGE_SHIFT, (base + device.size - 1 >> PAGE_SHIFT) + 1)
        for page in pages:
            if page in self._pages:
                raise ValueError(f"two devices at {page << PAGE_SHIFT:#x}")
        for page in pages:
            self._pages[page] = (base, device.size, device)
        self.devices.append((base, device))

    def read(self, hart: Hart, access: MmioRead) -> None:
        """Answer a load: with the device's value, or with an access fault where nothing (or not so) can be read."""
        address, size = access.address, access.size
        entry = self._pages.get(address >> PAGE_SHIFT)
        if entry is not None:
            base, window, device = entry
            offset = address - base
            if offset + size <= window:
                try:
                    hart.complete_read(device.read(offset, size))
                except AccessRefused:
                    hart.fail_access()
                return
        hart.fail_access()

    def write(self, hart: Hart, access: MmioWrite) -> None:
        """Do a store, or give the guest an access fault where nothing (or not so) can be written."""
        address, size = access.address, access.size
        entry = self._pages.get(address >> PAGE_SHIFT)
        if entry is not None:
            base, window, device = entry
            offset = address - base
            if offset + size <= window:
                try:
                    device.write(offset, size, access.value)
                except AccessRefused:
                    hart.fail_access()
                return
        hart.fail_access()

    def reset(self) -> None:
        """Every device back to its state at power-on."""
        for _, device in self.devices:
            device.reset()
