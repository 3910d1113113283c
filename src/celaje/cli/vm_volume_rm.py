"""`celaje vm volume rm`: takes volumes away."""

from __future__ import annotations

import contextlib

from celaje.cli.arguments import Parser
from celaje.cli.sweeping import sweep
from celaje.disk.volumes import VolumeStore
from celaje.errors import InputError
from celaje.host.volume_users import refuse_used


def run(words: list[str]) -> int:
    """Remove each of them. NotFound where there is none, InputError where it is in use, UsageError for a machine's."""
    parser = Parser("vm volume rm", "Removes volumes that nothing uses. Their snapshots stay.")
    parser.add_argument("volumes", nargs="+", metavar="VOLUME", help="a name or an id (`celaje vm volume ls`)")
    store = VolumeStore()
    for name in parser.parse_args(words).volumes:
        with contextlib.suppress(InputError):  # a damaged one is removed like any other
            refuse_used(store.describe(name))
        store.remove(name)
        print(f"{name} is removed")
    sweep(store)
    return 0
