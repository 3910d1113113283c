"""`celaje vm volume create`: makes a volume, empty or over something."""

from __future__ import annotations

from celaje.cli import arguments
from celaje.cli.arguments import Parser
from celaje.cli.byte_size import byte_size
from celaje.errors import ImageError

EPILOG = """\
A volume over an image or a snapshot is there at once and takes no space for what it has in common with that; the image
and the snapshot may be removed. A file is copied (as `celaje vm volume import` does).

  celaje vm volume create data --size 8G
  celaje vm volume create root --image debian-mini --size 4G
  celaje vm volume create again --from-snapshot snap-0123456789abcdef0"""


def run(words: list[str]) -> int:
    """Make it. InputError where there is one of that name; NotFound where there is no such image or snapshot."""
    parser = Parser("vm volume create", "Makes a volume: a disk that outlives the machines that use it.", EPILOG)
    parser.add_argument("name", metavar="NAME", help="up to 63 letters, digits, dots, dashes and underscores")
    parser.add_argument("--size", type=arguments.size, metavar="SIZE", help="such as 8G (default: that of its source)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--image", metavar="IMAGE", help="over the disk of an image (`celaje vm image ls`)")
    source.add_argument("--from-snapshot", metavar="SNAPSHOT", help="over a snapshot (`celaje vm volume snapshots`)")
    source.add_argument("--file", metavar="FILE", help="with what a disk image's file holds")
    chosen = parser.parse_args(words)

    if chosen.file:
        from celaje.cli.vm_volume_import import import_file

        described = import_file(chosen.name, chosen.file, chosen.size)
    else:
        from celaje.disk.volumes import ImageSource, SnapshotSource, Source, VolumeStore

        source_of: Source | None = None
        if chosen.image:
            from celaje.image.store import open_image

            image = open_image(chosen.image)
            disk = image.file("disk")
            if disk is None:
                raise ImageError(f"the image {chosen.image} has no disk; choose one that has (celaje vm image ls)")
            source_of = ImageSource(disk, image.description.files["disk"].sha256)
        elif chosen.from_snapshot:
            source_of = SnapshotSource(chosen.from_snapshot)
        described = VolumeStore().create(chosen.name, size=chosen.size, source=source_of)
    print(f"{described.name} is a volume of {byte_size(described.size)}, {described.id}")
    return 0
