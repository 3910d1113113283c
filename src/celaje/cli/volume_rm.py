"""`celaje volume rm`: takes volumes away."""

from __future__ import annotations

from celaje.cli.arguments import Parser
from celaje.cli.sweeping import sweep
from celaje.disk.volumes import VolumeStore


def run(words: list[str]) -> int:
    """Remove each of them. NotFound where there is none of that name, InputError where it is in use."""
    parser = Parser("volume rm", "Removes volumes that nothing uses. Their snapshots stay.")
    parser.add_argument("volumes", nargs="+", metavar="VOLUME", help="a name or an id (`celaje volume ls`)")
    store = VolumeStore()
    for name in parser.parse_args(words).volumes:
        store.remove(name)
        print(f"{name} is removed")
    sweep(store)
    return 0
