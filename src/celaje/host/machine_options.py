"""What a person says about a machine; `configuration` beside this makes the machine of it.

`celaje vm run` does so in its own process; `celaje vm start` keeps the options in a record, for the machine's process.
Plain dataclasses: a run need not import what reads and writes records, and who lists machines nothing of a machine.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from celaje.errors import UsageError
from celaje.host.network_options import NetworkOptions

DEFAULT_MEMORY = 512 << 20


@dataclass(frozen=True, slots=True)
class DiskOption:
    """A raw file as a disk. `bus`: virtio or scsi; without it the machine's first disk is on virtio, others on SCSI."""

    path: str
    read_only: bool = False
    bus: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """What was asked for: `memory` in bytes, `timeout` in seconds; None is not said. There is room for `cards` more
    network cards than the first, which can be plugged in later."""

    image: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    append: str | None = None
    firmware: str | None = None
    disks: tuple[DiskOption, ...] = ()
    memory: int = DEFAULT_MEMORY
    cpus: int = 1
    engine: str = "auto"
    no_reboot: bool = False
    timeout: float | None = None
    network: NetworkOptions | None = None
    cards: int = 0

    def __post_init__(self) -> None:
        if not (self.image or self.kernel or self.firmware):
            raise UsageError(
                "nothing to run: give an image's name, --kernel FILE or --firmware FILE; "
                "`celaje image build debian-mini` makes an image"
            )
        for option in ("initrd", "append"):
            if getattr(self, option) is not None and not (self.kernel or self.image):
                raise UsageError(f"--{option} is for a kernel: give --kernel FILE or an image with it")

    def anchored(self) -> MachineOptions:
        """The same with absolute paths, for a process that works in another directory."""
        image = self.image
        return dataclasses.replace(
            self,
            image=os.path.abspath(image) if image and (os.sep in image or image in (".", "..")) else image,
            kernel=self.kernel and os.path.abspath(self.kernel),
            initrd=self.initrd and os.path.abspath(self.initrd),
            firmware=self.firmware and os.path.abspath(self.firmware),
            disks=tuple(dataclasses.replace(disk, path=os.path.abspath(disk.path)) for disk in self.disks),
        )


@dataclass(frozen=True, slots=True)
class Boot:
    """What starts, and with which command line; `disk` is the image's own, which nobody writes."""

    kernel: str | None = None
    initrd: str | None = None
    firmware: str | None = None
    append: str = ""
    disk: str | None = None
    disk_sha256: str | None = None
