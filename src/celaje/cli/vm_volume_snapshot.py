"""`celaje vm volume snapshot`: keeps what a volume holds now."""

from __future__ import annotations

import contextlib

from celaje.cli.arguments import Parser
from celaje.disk.volumes import VolumeStore
from celaje.host.volume_users import snapshot, user_of
from celaje.image.progress import shown_on


def run(words: list[str]) -> int:
    """Take it. NotFound, InputError where the volume is in use by something else than a machine."""
    parser = Parser(
        "vm volume snapshot",
        "Takes a snapshot of a volume, also while a machine uses it: crash-consistent, as after a loss of power. Only\n"
        "what changed since the last one is read and stored.",
    )
    parser.add_argument("volume", metavar="VOLUME", help="a name or an id (`celaje vm volume ls`)")
    parser.add_argument("--description", default="", metavar="TEXT", help="what it is for, up to 160 bytes")
    chosen = parser.parse_args(words)
    store = VolumeStore()
    described = store.describe(chosen.volume)
    user = user_of(described)
    with shown_on() as progress:

        def told(done: int, total: int) -> None:
            progress.transfer(chosen.volume, done, total)

        if user is not None and user.running:
            taken = snapshot(user, described, lambda one: told(one.done, one.total), chosen.description)
        else:
            with contextlib.closing(store.open(chosen.volume)) as volume:
                taken = store.snapshot(volume, told, chosen.description).id
    print(f"{taken} is a snapshot of {chosen.volume}; to make a volume of it:")
    print(f"  celaje vm volume create NAME --from-snapshot {taken}")
    return 0
