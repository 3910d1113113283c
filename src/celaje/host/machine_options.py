"""What a person says about a machine, and the machine that this describes.

`celaje vm run` makes the machine in its own process; `celaje vm start` keeps the options in a record, from which the
machine's process makes it. Plain dataclasses, so that a run need not import what reads and writes records.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from celaje.errors import UsageError
from celaje.host.network_options import NetworkOptions
from celaje.image.store import Image, open_image
from celaje.machine.machine import Disk, MachineConfig
from celaje.machine.virtio.block_backend import BlockBackend
from celaje.machine.virtio.device import VirtioDevice

DEFAULT_MEMORY = 512 << 20


@dataclass(frozen=True, slots=True)
class DiskOption:
    """A raw file as a disk. `bus`: virtio or scsi; without it the machine's first disk is on virtio, others on SCSI."""

    path: str
    read_only: bool = False
    bus: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """What was asked for: `memory` in bytes, `timeout` in seconds; None is not said."""

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


def resolved(options: MachineOptions) -> Boot:
    """What the options say that is to boot; the image's files where there is one. NotFound, ImageError."""
    boot = Boot(options.kernel, options.initrd, options.firmware, options.append or "")
    if options.image is None:
        return boot
    image = open_image(options.image)
    kernel, initrd = boot.kernel, boot.initrd
    if kernel is None:
        kernel, initrd = _path(image, "kernel"), initrd or _path(image, "initrd")
    return dataclasses.replace(
        boot,
        kernel=kernel,
        initrd=initrd,
        firmware=boot.firmware or _path(image, "firmware"),
        append=f"{image.description.command_line} {boot.append}".strip(),
        disk=_path(image, "disk"),
        disk_sha256=image.description.files["disk"].sha256 if "disk" in image.description.files else None,
    )


def _path(image: Image, role: str) -> str | None:
    found = image.file(role)
    return None if found is None else str(found)


def configuration(
    options: MachineOptions,
    boot: Boot,
    *,
    root: BlockBackend | None = None,
    devices: Sequence[VirtioDevice] = (),
    hot_plug: bool = False,
) -> MachineConfig:
    """The machine. Its root disk is `root`; without one it is the image's under an overlay that is thrown away.

    It has a SCSI controller if a disk is there, or if more are to come (`hot_plug`).
    """
    disks: list[Disk | BlockBackend] = []
    if root is not None:
        disks.append(root)
    elif boot.disk is not None:
        disks.append(Disk(Path(boot.disk), throwaway=True))
    scsi_disks: list[Disk] = []
    for one in options.disks:
        bus = one.bus or ("scsi" if disks or scsi_disks else "virtio")
        (disks if bus == "virtio" else scsi_disks).append(Disk(Path(one.path), read_only=one.read_only))
    return MachineConfig(
        memory=options.memory,
        cpus=options.cpus,
        kernel=Path(boot.kernel) if boot.kernel else None,
        initrd=Path(boot.initrd) if boot.initrd else None,
        append=boot.append,
        firmware=Path(boot.firmware) if boot.firmware else None,
        disks=disks,
        scsi_disks=scsi_disks if scsi_disks or hot_plug else None,
        devices=devices,
        no_reboot=options.no_reboot,
        timeout=options.timeout,
    )
