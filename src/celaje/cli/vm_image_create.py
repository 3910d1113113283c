"""`celaje vm image create`: makes an image of a disk that a machine has worked on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.errors import HostError
from celaje.image import store
from celaje.image.disk_image import image_from_disk
from celaje.image.disk_source import DiskSource
from celaje.image.progress import shown_on


@contextlib.contextmanager
def _raw_file(path: Path) -> Iterator[DiskSource]:
    from celaje.machine.virtio.block_backend import RawFile

    disk = RawFile(path, read_only=True)
    try:
        yield disk
    finally:
        disk.close()


@contextlib.contextmanager
def _volume(name: str) -> Iterator[DiskSource]:
    from celaje.disk.volumes import VolumeStore

    volume = VolumeStore().open(name, read_only=True)
    try:
        yield volume
    finally:
        volume.close()


def run(words: list[str]) -> int:
    """Make it. NotFound, InputError, ImageError, HostError; nothing half-made is left then."""
    parser = Parser(
        "vm image create",
        "Makes an image of a disk. Its kernel and initrd are read from the disk's own /boot, so that a guest that has\n"
        "upgraded its kernel boots the new one. No machine may be using the disk.",
    )
    parser.add_argument("name", metavar="NAME", help="what to call the image")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--disk", type=Path, metavar="FILE", help="a raw disk")
    source.add_argument("--volume", metavar="VOLUME", help="a volume (`celaje vm volume ls`)")
    parser.add_argument("--base", metavar="IMAGE", help="the image that it was made from: its command line is taken")
    parser.add_argument("--append", metavar="TEXT", help="the kernel's command line, instead of these two's")
    chosen = parser.parse_args(words)
    base = store.described(chosen.base) if chosen.base else None
    try:
        with (
            shown_on() as progress,
            _raw_file(chosen.disk) if chosen.disk else _volume(chosen.volume) as disk,
        ):
            image = image_from_disk(chosen.name, disk, base, chosen.append, progress)
    except OSError as error:
        raise HostError(f"cannot read {chosen.disk or chosen.volume}: {error.strerror or error}") from error
    print(f"{image.description.name} is made ({image.size / 1e6:.0f} MB); now: celaje vm run {image.description.name}")
    return 0
