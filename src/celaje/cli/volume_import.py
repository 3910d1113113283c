"""`celaje volume import`: a volume with what a disk image's file holds."""

from __future__ import annotations

from pathlib import Path

from celaje.cli import arguments
from celaje.cli.arguments import Parser
from celaje.cli.byte_size import byte_size
from celaje.disk.description import VolumeDescription
from celaje.disk.transfer import import_disk, raw_disk
from celaje.disk.volumes import VolumeStore
from celaje.image.progress import shown_on


def import_file(name: str, file: str, size: int | None) -> VolumeDescription:
    """A volume with what `file` holds. NotFound, InputError."""
    store, path = VolumeStore(), Path(file)
    with raw_disk(path, store.files) as disk, shown_on() as progress:
        return import_disk(store, name, disk, size, lambda done, total: progress.transfer(path.name, done, total))


def run(words: list[str]) -> int:
    """Import it. InputError where there is a volume of that name, or the file is no disk image."""
    parser = Parser("volume import", "Makes a volume with what a disk image's file holds; the file stays as it is.")
    parser.add_argument("name", metavar="NAME", help="of the new volume")
    parser.add_argument("file", metavar="FILE", help="a raw disk image, or a block device")
    parser.add_argument("--size", type=arguments.size, metavar="SIZE", help="of the volume (default: the disk's)")
    chosen = parser.parse_args(words)
    described = import_file(chosen.name, chosen.file, chosen.size)
    print(f"{described.name} is a volume of {byte_size(described.size)}, {described.id}")
    return 0
