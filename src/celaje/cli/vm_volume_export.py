"""`celaje vm volume export`: a disk image with what a volume holds."""

from __future__ import annotations

import contextlib
from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.disk.qcow2_writer import COMPRESSIONS, export_qcow2
from celaje.disk.transfer import VolumeDisk, export_raw
from celaje.disk.volumes import VolumeStore
from celaje.errors import UsageError
from celaje.image.progress import shown_on


def run(words: list[str]) -> int:
    """Export it. NotFound, InputError where the volume is in use or the file is there already."""
    parser = Parser("vm volume export", "Writes what a volume holds to a new disk image; zeros take no space in it.")
    parser.add_argument("volume", metavar="VOLUME", help="a name or an id (`celaje vm volume ls`)")
    parser.add_argument("file", metavar="FILE", help="which nothing has that name yet")
    parser.add_argument("--format", choices=("raw", "qcow2"), help="of the file (qcow2 if its name ends so, else raw)")
    parser.add_argument("--compress", choices=COMPRESSIONS[1:], help="what a qcow2 image is compressed with")
    chosen = parser.parse_args(words)
    qcow2 = (chosen.format or Path(chosen.file).suffix) in ("qcow2", ".qcow2")
    if chosen.compress and not qcow2:
        raise UsageError("a raw disk image is not compressed; give --format qcow2 with --compress")
    store, path = VolumeStore(), Path(chosen.file).absolute()
    with contextlib.closing(store.open(chosen.volume, read_only=True)) as volume, shown_on() as progress:


        def heard(done: int, total: int) -> None:
            progress.transfer(path.name, done, total)

        if qcow2:
            export_qcow2(VolumeDisk(volume), path, store.files, chosen.compress or "none", heard)
        else:
            export_raw(volume, path, store.files, heard)
    print(f"{chosen.file} is what {chosen.volume} holds")
    return 0
