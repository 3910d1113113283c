"""`celaje vm volume rm-snapshot`: takes snapshots of volumes away."""

from __future__ import annotations

from celaje.cli.arguments import Parser
from celaje.cli.sweeping import sweep
from celaje.disk.volumes import VolumeStore


def run(words: list[str]) -> int:
    """Remove each of them. NotFound where there is none of that id."""
    parser = Parser("vm volume rm-snapshot", "Removes snapshots. Others, and volumes made from them, stay whole.")
    parser.add_argument("snapshots", nargs="+", metavar="SNAPSHOT", help="an id (`celaje vm volume snapshots`)")
    store = VolumeStore()
    for snapshot in parser.parse_args(words).snapshots:
        store.snapshots.remove(snapshot)
        print(f"{snapshot} is removed")
    sweep(store)
    return 0
