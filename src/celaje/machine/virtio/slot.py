"""A place for a virtio-mmio device that may come and go while the guest runs.

virtio-mmio itself knows no coming and going (virtio 1.2, 4.2): a driver looks at a window once, finds device number 0
or a device, and looks again only when somebody in the guest has it do so (Linux: `bind` and `unbind` of the driver
virtio-mmio in sysfs). So a device that comes is there from then on for whoever looks, at the latest for the next boot;
and one that leaves stays until its driver has let go of it, by the reset that every driver ends with, or until the
machine is reset. Taken away under a driver, it would come back as another device in that driver's hands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from celaje.machine.bus import SavedState
from celaje.machine.devices.empty_slot import EmptySlot
from celaje.machine.memory_map import Memory
from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.mmio import STATUS, VirtioMmio


class VirtioSlot:
    """A window of `size` bytes. `set_interrupt` as VirtioMmio has it; `left` is called with a device that has left, on
    the thread that let go of it, and must not wait."""

    size = VirtioMmio.size

    def __init__(
        self, memory: Memory, set_interrupt: Callable[[bool], None], left: Callable[[VirtioDevice], None]
    ) -> None:
        self._memory = memory
        self._set_interrupt = set_interrupt
        self._left = left
        self._empty = EmptySlot()
        self._changing = threading.Lock()
        self._leaving = False
        self.window: VirtioMmio | None = None
        """Where its device is; None: it is empty."""

    def plug(self, device: VirtioDevice) -> None:
        """The device is here from now on. ValueError where there is one. From any thread."""
        with self._changing:
            if self.window is not None:
                raise ValueError("there is a device in the slot already")
            self.window = VirtioMmio(device, self._memory, self._set_interrupt)

    def unplug(self) -> None:
        """Its device leaves, now if no driver has it, otherwise when that has let go. From any thread."""
        with self._changing:
            window = self.window
            if window is None:
                return
            self._leaving = True
            driven = window.status != 0
        if not driven:
            self._let_go()

    def _let_go(self) -> None:
        with self._changing:
            window = self.window
            if window is None or not self._leaving:
                return
            self.window, self._leaving = None, False
        window.reset()
        self._left(window.device)

    def read(self, offset: int, size: int) -> int:
        window = self.window
        return self._empty.read(offset, size) if window is None else window.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        window = self.window
        if window is not None:
            window.write(offset, size, value)
            if self._leaving and offset == STATUS and size == 4 and value == 0:
                self._let_go()

    def reset(self) -> None:
        if self.window is not None:
            self.window.reset()
        self._let_go()

    def save(self) -> SavedState:
        state: SavedState = {"plugged": int(self.window is not None)}
        return state if self.window is None else state | self.window.save()

    def restore(self, state: SavedState) -> None:
        """The device that was here must be here. ValueError where it is not, or does not fit."""
        rest = {name: value for name, value in state.items() if name != "plugged"}
        if state.get("plugged") != int(self.window is not None):
            raise ValueError(f"a slot is {'empty' if self.window is None else 'taken'}, and was not when it was saved")
        if self.window is not None:
            self.window.restore(rest)
        elif rest:
            raise ValueError(f"an empty slot has no state, and was given {sorted(rest)}")
