"""File systems, made inside a machine by Debian's own mke2fs.

The host gives the guest two disks: an empty one (a sparse file, serial `target`) and a tar archive (serial `source`).
The guest's only program unpacks the one, runs mke2fs on the other, says how it went, and switches off. So owners and
modes are right without root, nothing foreign runs on the host, and the same packages make the same bytes.
"""

from __future__ import annotations

import os
import struct
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from celaje.errors import GuestError, ImageError
from celaje.image import tar, userland
from celaje.image.initramfs import initramfs
from celaje.image.tree import Tree

VERDICT_MADE = "celaje: file system made"
_VERDICT_FAILED = "celaje: file system failed:"
_GUEST_MEMORY_MIB = 256
_SUPERBLOCK = 1024
_EXT4_MAGIC = 0xEF53
_CLEAN = 1


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtio disk for a machine: a raw file, and the serial (VIRTIO_BLK_T_GET_ID) that the guest knows it by."""

    path: Path
    serial: str
    read_only: bool = False


def _nobody(line: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class MachineRun:
    """One run of a machine: a Linux kernel with initrd and disks, until the guest switches itself off.

    `timeout` in seconds; `told` hears every line of the console as it is finished.
    """

    kernel: Path
    initrd: Path
    command_line: str
    disks: Sequence[Disk]
    memory_mib: int
    harts: int = 1
    timeout: float = 1200.0  # the slowest engine needs a few minutes for a small file system
    told: Callable[[str], None] = _nobody


RunMachine = Callable[[MachineRun], str]
"""Runs a machine and returns what its console said. GuestError where the guest did not switch itself off in order."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What makes file systems: a kernel, and a tree with busybox, mke2fs, its libraries and the virtio modules."""

    kernel: Path
    tree: Tree


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file system goes: partition `partition` (0: the whole disk) of the disk at `path`, from byte `start`."""

    path: Path
    partition: int
    start: int
    identifier: uuid.UUID
    label: str


def build_ext4(tree: Tree, target: Target, toolbox: Toolbox, run_machine: RunMachine, time: int) -> None:
    """Make an ext4 file system with the files of `tree` at `target`, every time stamp `time` (seconds since 1970).

    GuestError where the guest fails, ImageError where what it leaves is no clean file system.
    """
    with tempfile.TemporaryDirectory(dir=target.path.parent, prefix=".filesystem-") as place:
        source = Path(place) / "source.tar"
        with open(source, "wb") as file:
            tar.write(tree.with_time(time), file)
        initrd = Path(place) / "initrd"
        initrd.write_bytes(initramfs(toolbox.tree, userland.script("make-filesystem")))
        words = [
            "console=ttyS0 quiet panic=-1",
            f"celaje.uuid={target.identifier} celaje.label={target.label} celaje.time={time}",
            f"celaje.partition={target.partition}" if target.partition else "",
        ]
        console = run_machine(
            MachineRun(
                toolbox.kernel,
                initrd,
                " ".join(filter(None, words)),
                (Disk(target.path, "target"), Disk(source, "source", read_only=True)),
                _GUEST_MEMORY_MIB + 2 * (os.path.getsize(source) >> 20),
            )
        )
    _judge(console)
    check(target)


def _judge(console: str) -> None:
    lines = [line.strip() for line in console.splitlines()]
    if VERDICT_MADE in lines:
        return
    said = next((line for line in lines if line.startswith(_VERDICT_FAILED)), "")
    last = " | ".join(line for line in lines[-5:] if line)
    raise GuestError(
        f"the machine that makes the file system did not make it: {said or 'no verdict'}; "
        f"its console ended with: {last}"
    )


def check(target: Target) -> None:
    """ImageError where there is no clean ext4 file system with the right identifier at `target`."""
    with open(target.path, "rb") as file:
        file.seek(target.start + _SUPERBLOCK)
        superblock = file.read(1024)
    magic, state = struct.unpack_from("<HH", superblock, 0x38)
    if magic != _EXT4_MAGIC or state != _CLEAN or superblock[0x68:0x78] != target.identifier.bytes:
        raise ImageError(
            f"{target.path} has no clean ext4 file system {target.identifier} at byte {target.start}, "
            "although its maker said so"
        )
