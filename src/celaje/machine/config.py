"""What a machine is made of, as its owner says it, and what of it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from celaje.engine.memory import PAGE_SIZE
from celaje.errors import UsageError
from celaje.machine.board import VIRTIO_SLOTS
from celaje.machine.boot.smbios import Identity
from celaje.machine.processor import ProcessorDescription
from celaje.machine.virtio.block import VirtioBlock
from celaje.machine.virtio.block_backend import BlockBackend, RawFile
from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.overlay import Overlay

MEMORY_LEAST = 1 << 20
CPUS_MOST = 64


@dataclass(frozen=True, slots=True)
class Disk:
    """A raw file as a disk. `throwaway`: what the guest writes is kept apart and forgotten at the end."""

    path: Path
    read_only: bool = False
    throwaway: bool = False


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """What a machine is made of. `memory` is in bytes, `timeout` in seconds over all its resets.

    With `kernel` alone it starts in supervisor mode under celaje's own SBI, with `firmware` in machine mode, with both
    the firmware is told where the kernel is. A disk may be a backend of the caller's making, which the machine closes.
    `disks` are virtio block devices, the root first; `scsi_disks` those of a SCSI controller, to which more can be
    attached later (None: the machine has no such controller). `devices` come behind all of them and a random number
    generator. There is room for `slots` devices that come and go; those in `plugged` are there from the start.
    A `kernel` alone is told the `identity`, if there is one, in the way of firmware (efi.py).
    """

    memory: int = 512 << 20
    cpus: int = 1
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    firmware: Path | None = None
    disks: Sequence[Disk | BlockBackend] = ()
    scsi_disks: Sequence[Disk | BlockBackend] | None = None
    devices: Sequence[VirtioDevice] = ()
    slots: int = 0
    plugged: Mapping[int, VirtioDevice] = field(default_factory=dict)
    no_reboot: bool = False
    timeout: float | None = None
    processor: ProcessorDescription = field(default_factory=ProcessorDescription)
    identity: Identity | None = None


def check(config: MachineConfig) -> None:
    """Raises UsageError for what no machine can be."""
    if config.memory % PAGE_SIZE or config.memory < MEMORY_LEAST:
        raise UsageError(
            f"memory must be at least {MEMORY_LEAST >> 20} MiB and whole pages of {PAGE_SIZE} bytes, "
            f"not {config.memory} bytes; give for example --memory 512M"
        )
    if not 1 <= config.cpus <= CPUS_MOST:
        raise UsageError(f"a machine has 1 to {CPUS_MOST} cpus, not {config.cpus}; give for example --cpus 2")
    if config.kernel is None and config.firmware is None:
        raise UsageError("a machine needs something to start; give --kernel FILE or --firmware FILE")
    if config.initrd is not None and config.kernel is None:
        raise UsageError("an initrd is a kernel's; give --kernel FILE with it")
    others = 1 + len(config.devices) + (config.scsi_disks is not None)
    if len(config.disks) + others > VIRTIO_SLOTS:
        raise UsageError(
            f"the board has room for {VIRTIO_SLOTS - others} disks of bus=virtio beside its other devices, "
            f"not {len(config.disks)}; give more of them as --disk FILE,bus=scsi"
        )


def backend_of(disk: Disk | BlockBackend) -> BlockBackend:
    """What serves `disk`: a file of it is opened. Raises NotFound, InputError."""
    if not isinstance(disk, Disk):
        return disk
    file = RawFile(disk.path, read_only=disk.read_only or disk.throwaway)
    return Overlay(file) if disk.throwaway else file


def open_disks(disks: Sequence[Disk | BlockBackend]) -> list[VirtioBlock]:
    """A device for each, all or none. Raises as `backend_of`."""
    opened: list[VirtioBlock] = []
    try:
        for disk in disks:
            opened.append(VirtioBlock(backend_of(disk)))
    except BaseException:
        for block in opened:
            block.close()
        raise
    return opened
