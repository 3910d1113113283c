"""`celaje volume export`: a raw disk image with what a volume holds."""

from __future__ import annotations

import contextlib
from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.disk.transfer import export_raw
from celaje.disk.volumes import VolumeStore
from celaje.image.progress import shown_on


def run(words: list[str]) -> int:
    """Export it. NotFound, InputError where the volume is in use or the file is there already."""
    parser = Parser("volume export", "Writes what a volume holds to a new raw disk image; zeros take no space in it.")
    parser.add_argument("volume", metavar="VOLUME", help="a name or an id (`celaje volume ls`)")
    parser.add_argument("file", metavar="FILE", help="which nothing has that name yet")
    chosen = parser.parse_args(words)
    store, path = VolumeStore(), Path(chosen.file).absolute()
    with contextlib.closing(store.open(chosen.volume, read_only=True)) as volume, shown_on() as progress:
        export_raw(volume, path, store.files, lambda done, total: progress.transfer(path.name, done, total))
    print(f"{chosen.file} is what {chosen.volume} holds")
    return 0
