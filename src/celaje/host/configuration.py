"""The machine that a person's options describe."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from celaje.host.machine_options import Boot, MachineOptions
from celaje.image.store import Image, open_image
from celaje.machine.boot.smbios import Identity
from celaje.machine.config import Disk, MachineConfig
from celaje.machine.virtio.block_backend import BlockBackend
from celaje.machine.virtio.device import VirtioDevice

PRODUCT = "virt"  # the board
_INSTANCES = uuid.UUID("5e1d3ab4-0c3c-4b0e-9b5c-5a1f0e2f7c11")


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
    plugged: Mapping[int, VirtioDevice] = MappingProxyType({}),
    identity: Identity | None = None,
) -> MachineConfig:
    """The machine. Its root disk is `root`; without one it is the image's under an overlay that is thrown away.

    It has a SCSI controller if a disk is there, or if more are to come (`hot_plug`), and room for the network cards
    that may come, of which `plugged` are there.
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
        slots=options.cards,
        plugged=plugged,
        no_reboot=options.no_reboot,
        timeout=options.timeout,
        identity=identity,
    )


def identity(instance: str, product: str = PRODUCT) -> Identity:
    """What the machine with this instance id says that it is, and of which type.

    A UUID that begins with `ec2` tells software for clouds (cloud-init) that 169.254.169.254 answers as EC2's does.
    """
    named = uuid.uuid5(_INSTANCES, instance)
    return Identity("celaje", product, uuid.UUID(f"ec2{named.hex[3:]}"), instance)
