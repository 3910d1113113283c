"""The virtio-mmio transport, version 2 (virtio 1.2, 4.2).

Control registers are 32 bits wide and accessed whole; any other access to them, and any to an offset without a
register, reads zero or does nothing. Configuration space, from 0x100, takes accesses of 1, 2, 4 and 8 bytes anywhere;
what lies beyond the device's configuration reads zero.

    0x000 MagicValue       R   | 0x030 QueueSel         W  | 0x090 QueueDriverLow   W | 0x0b0 SHMLenLow         R
    0x004 Version          R   | 0x034 QueueNumMax      R  | 0x094 QueueDriverHigh  W | 0x0b4 SHMLenHigh        R
    0x008 DeviceID         R   | 0x038 QueueNum         W  | 0x0a0 QueueDeviceLow   W | 0x0b8 SHMBaseLow        R
    0x00c VendorID         R   | 0x044 QueueReady       RW | 0x0a4 QueueDeviceHigh  W | 0x0bc SHMBaseHigh       R
    0x010 DeviceFeatures   R   | 0x050 QueueNotify      W  | 0x0ac SHMSel           W | 0x0c0 QueueReset        RW
    0x014 DeviceFeaturesSel W  | 0x060 InterruptStatus  R  |                          | 0x0fc ConfigGeneration  R
    0x020 DriverFeatures   W   | 0x064 InterruptACK     W  | 0x080 QueueDescLow     W | 0x100 configuration     RW
    0x024 DriverFeaturesSel W  | 0x070 Status           RW | 0x084 QueueDescHigh    W |

Two choices of ours:

- The device offers VERSION_1 and does not insist on it (6.1 leaves that to the device): teaching kernels read and
  write only the low 32 feature bits, over this very transport, which already implies what version 1 changed.
- VendorID is QEMU's number. Those same kernels compare it.

The driver's status writes can only set bits: clearing single ones is forbidden to it (2.1.1), and zero is the reset.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from celaje.machine.bus import SavedState
from celaje.machine.memory_map import Memory
from celaje.machine.offers import Work
from celaje.machine.virtio.device import (
    FEATURE_RING_EVENT_INDEX,
    FEATURE_RING_INDIRECT,
    FEATURE_RING_RESET,
    FEATURE_VERSION_1,
    VirtioDevice,
    refuse_unknown,
    saved_number,
    saved_numbers,
)
from celaje.machine.virtio.queue import Areas, MalformedQueue, Queue

log = logging.getLogger(__name__)

MAGIC = 0x74726976  # "virt"
VERSION = 2
VENDOR = 0x554D4551

STATUS_ACKNOWLEDGE = 1
STATUS_DRIVER = 2
STATUS_DRIVER_OK = 4
STATUS_FEATURES_OK = 8
STATUS_NEEDS_RESET = 64
STATUS_FAILED = 128
STATUS_BY_DRIVER = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK | STATUS_FEATURES_OK | STATUS_FAILED

INTERRUPT_USED_BUFFER = 1
INTERRUPT_CONFIGURATION = 2

TRANSPORT_FEATURES = FEATURE_RING_INDIRECT | FEATURE_RING_EVENT_INDEX | FEATURE_VERSION_1 | FEATURE_RING_RESET

NOBODY_OFFERS = 1 << 63  # a reserved bit (6)

QUEUE_NOTIFY = 0x50
STATUS = 0x70
CONFIGURATION = 0x100
WORD = 0xFFFF_FFFF

SAVED_VERSION = 1
DEVICE_PREFIX = "own_"
QUEUE_FIELDS = {
    "size": 1 << 32,
    "ready": 2,
    "descriptors": 1 << 64,
    "available": 1 << 64,
    "used": 1 << 64,
    "taken": 1 << 16,
    "given": 1 << 16,
}
SAVED_FIELDS = {
    "version",
    "device_id",
    "status",
    "interrupt_status",
    "generation",
    "device_features_select",
    "driver_features_select",
    "driver_features",
    "queue_select",
    *(f"queue_{field}" for field in QUEUE_FIELDS),
}


@dataclass(slots=True)
class QueueRegisters:
    """What the driver has written about one queue."""

    size: int
    ready: bool = False
    descriptors: int = 0
    available: int = 0
    used: int = 0


class VirtioMmio:
    """A register window of `size` bytes through which one driver speaks to `device`.

    `set_interrupt(level)` drives the device's interrupt line; it is called from any thread, one call at a time, and
    must not come back to this window. `read` and `write` are called by harts' threads. Guest input never raises here.
    """

    size = 0x1000

    def __init__(
        self,
        device: VirtioDevice,
        memory: Memory,
        set_interrupt: Callable[[bool], None],
        offer: Callable[[Work], bool] = lambda work: False,
    ) -> None:
        self.device = device
        self.memory = memory
        self.failure: str | None = None
        """Why the device needs a reset, for a person; None if it does not."""
        self._set_interrupt = set_interrupt
        self.offer = offer
        self._registers = threading.Lock()
        self._interrupts = threading.Lock()
        self._status = 0
        self._interrupt_status = 0
        self._generation = 0
        self._device_features_select = 0
        self._driver_features_select = 0
        self._driver_features = 0
        self._queue_select = 0
        self._queues = [QueueRegisters(size) for size in device.queue_sizes]
        self._readers: dict[int, Callable[[], int]] = {
            0x000: lambda: MAGIC,
            0x004: lambda: VERSION,
            0x008: lambda: device.device_id,
            0x00C: lambda: VENDOR,
            0x010: self._read_device_features,
            0x034: self._read_queue_size_max,
            0x044: lambda: int(self._selected is not None and self._selected.ready),
            0x060: lambda: self._interrupt_status,
            STATUS: lambda: self._status,
            # No device here has shared memory: every region's length and base read as all ones (4.2.2).
            0x0B0: lambda: WORD,
            0x0B4: lambda: WORD,
            0x0B8: lambda: WORD,
            0x0BC: lambda: WORD,
            0x0C0: lambda: 0,  # a queue's reset is over when the write that asked for it is
            0x0FC: lambda: self._generation,
        }
        self._writers: dict[int, Callable[[int], None]] = {
            0x014: self._write_device_features_select,
            0x020: self._write_driver_features,
            0x024: self._write_driver_features_select,
            0x030: self._write_queue_select,
            0x038: self._write_queue_size,
            0x044: self._write_queue_ready,
            0x064: self._acknowledge,
            STATUS: self._write_status,
            0x080: lambda value: self._write_address("descriptors", value, 0),
            0x084: lambda value: self._write_address("descriptors", value, 32),
            0x090: lambda value: self._write_address("available", value, 0),
            0x094: lambda value: self._write_address("available", value, 32),
            0x0A0: lambda value: self._write_address("used", value, 0),
            0x0A4: lambda value: self._write_address("used", value, 32),
            0x0C0: self._write_queue_reset,
        }
        device.transport = self

    # --- the window ---

    def read(self, offset: int, size: int) -> int:
        """The guest loads `size` bytes (1, 2, 4, 8) from `offset`."""
        if offset >= CONFIGURATION:
            window = self.device.configuration()[offset - CONFIGURATION : offset - CONFIGURATION + size]
            return int.from_bytes(window, "little")
        reader = self._readers.get(offset)
        return reader() if reader is not None and size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest stores `value`, `size` bytes (1, 2, 4, 8) wide, to `offset`."""
        if offset == QUEUE_NOTIFY:
            if size == 4 and value < len(self._queues):
                self.device.notify(value)
            return
        if offset >= CONFIGURATION:
            with self._registers:
                self.device.write_configuration(offset - CONFIGURATION, value.to_bytes(size, "little"))
            return
        writer = self._writers.get(offset)
        if writer is not None and size == 4:
            with self._registers:
                writer(value)

    @property
    def status(self) -> int:
        """What the driver has written to Status, or 0: no driver has the device."""
        return self._status

    # --- features ---

    @property
    def offered(self) -> int:
        """Every feature bit that the device offers."""
        return self.device.features | TRANSPORT_FEATURES

    def _read_device_features(self) -> int:
        return self.offered >> (32 * self._device_features_select) & WORD if self._device_features_select < 2 else 0

    def _write_device_features_select(self, value: int) -> None:
        self._device_features_select = value

    def _write_driver_features_select(self, value: int) -> None:
        self._driver_features_select = value

    def _write_driver_features(self, value: int) -> None:
        if self._status & STATUS_FEATURES_OK:
            return
        if self._driver_features_select < 2:
            shift = 32 * self._driver_features_select
            self._driver_features = self._driver_features & ~(WORD << shift) | value << shift
        elif value:
            # A feature past bit 63. Remembered as a bit that nobody offers, so that FEATURES_OK is refused.
            self._driver_features |= NOBODY_OFFERS

    # --- status ---

    def _write_status(self, value: int) -> None:
        if value == 0:
            self._reset()
            return
        raised = value & STATUS_BY_DRIVER & ~self._status
        if raised & STATUS_FEATURES_OK and self._driver_features & ~self.offered:
            raised &= ~STATUS_FEATURES_OK
        if not (self._status | raised) & STATUS_FEATURES_OK:
            raised &= ~STATUS_DRIVER_OK
        with self._interrupts:
            self._status |= raised
        if raised & STATUS_DRIVER_OK:
            self._start()

    def _start(self) -> None:
        try:
            queues = [self._make_queue(index) if queue.ready else None for index, queue in enumerate(self._queues)]
        except MalformedQueue as error:
            self.needs_reset(str(error))
            return
        self.device.start(queues, self._driver_features)

    def _make_queue(self, index: int, taken: int = 0, given: int = 0) -> Queue:
        registers = self._queues[index]
        return Queue(
            self.memory,
            Areas(registers.size, registers.descriptors, registers.available, registers.used),
            chain_limit=self.device.queue_sizes[index],
            event_index=bool(self._driver_features & FEATURE_RING_EVENT_INDEX),
            indirect=bool(self._driver_features & FEATURE_RING_INDIRECT),
            taken=taken,
            given=given,
        )

    def reset(self) -> None:
        """As at power-on. When this returns the device touches guest memory no more."""
        with self._registers:
            self._reset()

    def _reset(self) -> None:
        self.device.stop()
        self._queues = [QueueRegisters(size) for size in self.device.queue_sizes]
        self._queue_select = self._device_features_select = self._driver_features_select = 0
        self._driver_features = 0
        self.failure = None
        with self._interrupts:
            self._status = 0
            self._change_interrupts(0)

    # --- queues ---

    @property
    def _selected(self) -> QueueRegisters | None:
        return self._queues[self._queue_select] if self._queue_select < len(self._queues) else None

    def _write_queue_select(self, value: int) -> None:
        self._queue_select = value

    def _read_queue_size_max(self) -> int:
        return self.device.queue_sizes[self._queue_select] if self._queue_select < len(self._queues) else 0

    def _write_queue_size(self, value: int) -> None:
        queue = self._selected
        if queue is not None and not queue.ready:
            queue.size = value

    def _write_address(self, area: str, value: int, shift: int) -> None:
        queue = self._selected
        if queue is not None and not queue.ready:
            setattr(queue, area, getattr(queue, area) & ~(WORD << shift) | value << shift)

    def _write_queue_ready(self, value: int) -> None:
        queue, index = self._selected, self._queue_select
        if queue is None or queue.ready == bool(value & 1):
            return
        if not value & 1:
            queue.ready = False
            self.device.stop_queue(index)
            return
        queue.ready = True
        if self._running:
            try:
                self.device.start_queue(index, self._make_queue(index))
            except MalformedQueue as error:
                self.needs_reset(str(error))

    def _write_queue_reset(self, value: int) -> None:
        if value & 1 and self._selected is not None and self._driver_features & FEATURE_RING_RESET and self._running:
            self.device.stop_queue(self._queue_select)
            self._queues[self._queue_select] = QueueRegisters(self.device.queue_sizes[self._queue_select])

    @property
    def _running(self) -> bool:
        return self._status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK

    # --- interrupts, and what the device says ---

    def _acknowledge(self, value: int) -> None:
        with self._interrupts:
            self._change_interrupts(self._interrupt_status & ~value)

    def _change_interrupts(self, status: int) -> None:
        """With the interrupt lock held, so that the line's last level is that of the last status."""
        before, self._interrupt_status = self._interrupt_status, status
        if bool(before) != bool(status):
            self._set_interrupt(bool(status))

    def interrupt(self) -> None:
        """Buffers were given back and the driver wants to know (4.2.2, InterruptStatus bit 0)."""
        with self._interrupts:
            self._change_interrupts(self._interrupt_status | INTERRUPT_USED_BUFFER)

    def configuration_changed(self) -> None:
        """What the configuration space says is not what it was (2.5; InterruptStatus bit 1)."""
        with self._interrupts:
            self._generation = (self._generation + 1) & WORD
            if self._status & STATUS_DRIVER_OK:
                self._change_interrupts(self._interrupt_status | INTERRUPT_CONFIGURATION)

    def needs_reset(self, reason: str) -> None:
        """The driver broke a rule: the device stands still until it is reset, and says so (2.1.2)."""
        with self._interrupts:
            self.failure = reason
            self._status |= STATUS_NEEDS_RESET
            if self._status & STATUS_DRIVER_OK:
                self._change_interrupts(self._interrupt_status | INTERRUPT_CONFIGURATION)
        log.info("virtio device %d needs a reset: %s", self.device.device_id, reason)

    # --- lifecycle ---

    def pause(self) -> None:
        """When this returns neither memory nor backend is touched until `resume`. Notifications are kept. May nest."""
        self.device.pause()

    def resume(self) -> None:
        """Undo one `pause`."""
        self.device.resume()

    def close(self) -> None:
        """End the device's threads, close its backend, let go of guest memory. No hart may be running."""
        self.device.stop()
        self.device.close()

    def save(self) -> SavedState:
        """Registers, queue positions and the device's own state. What the driver has queued and the device has not yet
        done is in guest memory, so this goes with it: pause, save both, resume.
        """
        self.pause()
        try:
            positions = [(0, 0) if queue is None else (queue.taken, queue.given) for queue in self.device.queues]
            return {
                "version": SAVED_VERSION,
                "device_id": self.device.device_id,
                "status": self._status,
                "interrupt_status": self._interrupt_status,
                "generation": self._generation,
                "device_features_select": self._device_features_select,
                "driver_features_select": self._driver_features_select,
                "driver_features": self._driver_features,
                "queue_select": self._queue_select,
                "queue_size": [queue.size for queue in self._queues],
                "queue_ready": [int(queue.ready) for queue in self._queues],
                "queue_descriptors": [queue.descriptors for queue in self._queues],
                "queue_available": [queue.available for queue in self._queues],
                "queue_used": [queue.used for queue in self._queues],
                "queue_taken": [taken for taken, _ in positions],
                "queue_given": [given for _, given in positions],
                **{DEVICE_PREFIX + name: value for name, value in self.device.save().items()},
            }
        finally:
            self.resume()

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave, into the same kind of device. Guest memory and backend are restored before.

        ValueError names what does not fit; the device is then as after `reset`.
        """
        own = {name: value for name, value in state.items() if not name.startswith(DEVICE_PREFIX)}
        rest = {name.removeprefix(DEVICE_PREFIX): value for name, value in state.items() if name not in own}
        refuse_unknown(own, SAVED_FIELDS)
        if own["version"] != SAVED_VERSION or own["device_id"] != self.device.device_id:
            raise ValueError(
                f"saved state is of version {own['version']!r}, device {own['device_id']!r};"
                f" this is version {SAVED_VERSION}, device {self.device.device_id}"
            )
        with self._registers:
            self._reset()
            try:
                self._restore_registers(own)
                self.device.restore(rest)
                queues = self._restored_queues(own)
            except ValueError:
                self._reset()
                raise
            if queues is not None:
                self.device.start(queues, self._driver_features)

    def _restore_registers(self, state: SavedState) -> None:
        count = len(self._queues)
        columns = [saved_numbers(state, f"queue_{field}", count, limit) for field, limit in QUEUE_FIELDS.items()]
        self._queues = [
            QueueRegisters(size, bool(ready), descriptors, available, used)
            for size, ready, descriptors, available, used, _, _ in zip(*columns, strict=True)
        ]
        self._device_features_select = saved_number(state, "device_features_select", 1 << 32)
        self._driver_features_select = saved_number(state, "driver_features_select", 1 << 32)
        self._driver_features = saved_number(state, "driver_features", 1 << 64)
        self._queue_select = saved_number(state, "queue_select", 1 << 32)
        status = saved_number(state, "status", 1 << 8)
        if status & STATUS_FEATURES_OK and self._driver_features & ~self.offered:
            raise ValueError(f"saved features {self._driver_features:#x} are more than this device's {self.offered:#x}")
        with self._interrupts:
            self._generation = saved_number(state, "generation", 1 << 32)
            self._status = status
            self._change_interrupts(saved_number(state, "interrupt_status", 4))

    def _restored_queues(self, state: SavedState) -> list[Queue | None] | None:
        if not self._running:
            return None
        taken = saved_numbers(state, "queue_taken", len(self._queues), 1 << 16)
        given = saved_numbers(state, "queue_given", len(self._queues), 1 << 16)
        queues: list[Queue | None] = []
        for index, registers in enumerate(self._queues):
            try:
                queues.append(self._make_queue(index, taken[index], given[index]) if registers.ready else None)
            except MalformedQueue as error:
                raise ValueError(f"saved queue {index} does not fit this machine: {error}") from error
        return queues
