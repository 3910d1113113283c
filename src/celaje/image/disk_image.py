"""An image made of a disk that a machine has worked on: its content now, and what it would boot now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO

from celaje.errors import ImageError
from celaje.image import store
from celaje.image.boot_files import BootFiles, boot_files
from celaje.image.bundle import Bundle
from celaje.image.disk_source import DiskSource
from celaje.image.ingredients import ARCHITECTURE
from celaje.image.progress import BuildProgress, Silence
from celaje.image.store import Image

_PIECE_BYTES = 1 << 20
_ZEROS = bytes(_PIECE_BYTES)


def image_from_disk(
    name: str,
    disk: DiskSource,
    base: Image | None = None,
    command_line: str | None = None,
    progress: BuildProgress | None = None,
    *,
    with_disk: bool = True,
) -> Image:
    """Publish an image `name` with the content of `disk`, which nobody may write meanwhile. Without `with_disk` it is
    only what the disk boots: its content is kept elsewhere, in a snapshot.

    Kernel and initrd are those that its own /boot names. The kernel's command line is `command_line`; else what the
    disk's boot loader would give it, else that of `base`, else one that names its root file system. ImageError where
    the disk has nothing to boot, HostError where there is no room.
    """
    progress = progress or Silence()
    if disk.size % 512:
        raise ImageError(f"a disk is a multiple of 512 bytes, and this one has {disk.size}")
    progress.stage("Reading what the disk boots")
    found = boot_files(disk)

    def make(directory: Path) -> Bundle:
        files = {"kernel": directory / "kernel"}
        files["kernel"].write_bytes(found.kernel)
        if found.initrd:
            files["initrd"] = directory / "initrd"
            files["initrd"].write_bytes(found.initrd)
        if with_disk:
            files["disk"] = directory / "disk.raw"
            progress.stage("Copying the disk")
            with open(files["disk"], "wb") as file:
                _copy(disk, file, progress)
        words = command_line if command_line is not None else _command_line(found, base)
        packages = dict(base.description.packages) if base else {}
        return Bundle("kernel", ARCHITECTURE, words, files, packages, int(time.time()))

    return store.publish(name, make)


def _command_line(found: BootFiles, base: Image | None) -> str:
    if found.command_line:
        return found.command_line
    if base is not None and base.description.command_line:
        return base.description.command_line
    return f"console=ttyS0 root=UUID={found.file_system} rw"


def _copy(disk: DiskSource, file: IO[bytes], progress: BuildProgress) -> None:
    """Everything but zeros, which stay holes."""
    buffer = bytearray(_PIECE_BYTES)
    file.truncate(disk.size)
    for offset in range(0, disk.size, _PIECE_BYTES):
        piece = memoryview(buffer)[: min(_PIECE_BYTES, disk.size - offset)]
        disk.readinto([piece], offset)
        if piece != memoryview(_ZEROS)[: len(piece)]:
            file.seek(offset)
            file.write(piece)
        progress.transfer("the disk", offset + len(piece), disk.size)
