"""`celaje volume snapshot`: keeps what a volume holds now."""

from __future__ import annotations

import contextlib

from celaje.cli.arguments import Parser
from celaje.disk.volumes import VolumeStore
from celaje.image.progress import shown_on


def run(words: list[str]) -> int:
    """Take it. NotFound, InputError where the volume is in use."""
    parser = Parser(
        "volume snapshot",
        "Takes a snapshot of a volume that nothing uses. Only what changed since the last one is read and stored.",
    )
    parser.add_argument("volume", metavar="VOLUME", help="a name or an id (`celaje volume ls`)")
    parser.add_argument("--description", default="", metavar="TEXT", help="what it is for, up to 160 bytes")
    chosen = parser.parse_args(words)
    store = VolumeStore()
    with contextlib.closing(store.open(chosen.volume)) as volume, shown_on() as progress:
        taken = store.snapshot(
            volume, lambda done, total: progress.transfer(chosen.volume, done, total), chosen.description
        )
    print(f"{taken.id} is a snapshot of {chosen.volume}; to make a volume of it:")
    print(f"  celaje volume create NAME --from-snapshot {taken.id}")
    return 0
