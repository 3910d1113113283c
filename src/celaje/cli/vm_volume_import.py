"""`celaje vm volume import`: a volume with what a disk image's file holds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from celaje.cli import arguments
from celaje.cli.arguments import Parser
from celaje.cli.byte_size import byte_size
from celaje.disk.description import VolumeDescription
from celaje.disk.files import Files
from celaje.disk.qcow2 import is_qcow2, qcow2_disk
from celaje.disk.transfer import Disk, import_disk, raw_disk
from celaje.disk.volumes import VolumeStore
from celaje.image.progress import shown_on


@contextlib.contextmanager
def disk_image(path: Path, format: str | None, files: Files) -> Iterator[Disk]:
    """The disk in `path`, of the format that is named, or that its first bytes tell. NotFound, InputError."""
    if format == "qcow2" or (format is None and path.is_file() and is_qcow2(path, files)):
        with qcow2_disk(path, files) as image:
            for note in image.notes:
                print(f"celaje: {path}: {note}", file=sys.stderr)
            yield image
    else:
        with raw_disk(path, files) as raw:
            yield raw


def import_file(name: str, file: str, size: int | None, format: str | None = None) -> VolumeDescription:
    """A volume with what `file` holds. NotFound, InputError."""
    store, path = VolumeStore(), Path(file)
    with disk_image(path, format, store.files) as disk, shown_on() as progress:
        return import_disk(store, name, disk, size, lambda done, total: progress.transfer(path.name, done, total))


def run(words: list[str]) -> int:
    """Import it. InputError where there is a volume of that name, or the file is no disk image."""
    parser = Parser("vm volume import", "Makes a volume with what a disk image's file holds; the file stays as it is.")
    parser.add_argument("name", metavar="NAME", help="of the new volume")
    parser.add_argument("file", metavar="FILE", help="a raw or qcow2 disk image, or a block device")
    parser.add_argument("--size", type=arguments.size, metavar="SIZE", help="of the volume (default: the disk's)")
    parser.add_argument("--format", choices=("raw", "qcow2"), help="of the file (default: what its first bytes tell)")
    chosen = parser.parse_args(words)
    described = import_file(chosen.name, chosen.file, chosen.size, chosen.format)
    print(f"{described.name} is a volume of {byte_size(described.size)}, {described.id}")
    return 0
