"""`celaje vm volume ls`: the volumes that there are."""

from __future__ import annotations

import json
import sys
import time

from celaje.cli.arguments import Parser
from celaje.cli.byte_size import byte_size
from celaje.cli.table import table
from celaje.disk.description import Below, ImageBelow, SectionBelow, SnapshotBelow, VolumeDescription
from celaje.disk.volumes import VolumeStore
from celaje.errors import CelajeError

EPILOG = """\
A volume over a snapshot that is not all here yet says how much is: the rest is fetched as it is read, and in the
background while a machine that uses the volume leaves it alone."""

HEADINGS = ("NAME", "ID", "SIZE", "TAKES", "OVER", "CREATED")


def _over(base: Below) -> str:
    match base:
        case ImageBelow(sha256):
            return f"image {sha256[:12]}"
        case SnapshotBelow(snapshot):
            return snapshot
        case SectionBelow():
            return "machine snapshot"
    return "-"


def _shown(base: Below, hydrated: float | None) -> str:
    """What a volume is over, and how much of that it has itself by now."""
    return _over(base) if hydrated is None or hydrated == 1 else f"{_over(base)} ({int(hydrated * 100)}% here)"


def _record(volume: VolumeDescription, allocated: int, hydrated: float | None) -> dict[str, object]:
    return {
        "name": volume.name,
        "id": volume.id,
        "size": volume.size,
        "allocated": allocated,
        "over": _over(volume.base),
        "hydrated": hydrated,
        "last_snapshot": volume.baseline,
        "created": volume.created / 1e9,
    }


def run(words: list[str]) -> int:
    """List them. A volume that cannot be read is a line on stderr, and exit status 2."""
    parser = Parser("vm volume ls", "Lists the volumes on this host: how large, and what they take themselves.", EPILOG)
    parser.add_argument("--json", action="store_true", help="for programs: sizes in bytes, times in seconds since 1970")
    chosen = parser.parse_args(words)
    store, found, status = VolumeStore(), [], 0
    for name in store.names():
        try:
            volume = store.describe(name)
            allocated = store.files.allocated(store.layout.volumes / name / "head")
            found.append((volume, allocated, store.hydrated(name)))
        except (CelajeError, FileNotFoundError) as error:
            print(f"celaje: {error}", file=sys.stderr)
            status = CelajeError.exit_status
    if chosen.json:
        print(json.dumps([_record(*each) for each in found], indent=2))
    elif found:
        print(
            table(
                HEADINGS,
                (
                    (
                        volume.name, volume.id, byte_size(volume.size), byte_size(allocated),
                        _shown(volume.base, hydrated),
                        time.strftime("%Y-%m-%d", time.gmtime(volume.created / 1e9)),
                    )
                    for volume, allocated, hydrated in found
                ),
            )
        )  # fmt: skip
    elif status == 0:
        print("There are no volumes yet; this makes the first: celaje vm volume create NAME --size 8G")
    return status
