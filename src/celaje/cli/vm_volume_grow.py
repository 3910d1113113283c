"""`celaje vm volume grow`: makes a volume larger."""

from __future__ import annotations

from celaje.cli import arguments
from celaje.cli.arguments import Parser
from celaje.cli.byte_size import byte_size
from celaje.disk.volumes import VolumeStore
from celaje.host.volume_users import grow, user_of


def run(words: list[str]) -> int:
    """Grow it. NotFound, InputError where it would shrink."""
    parser = Parser("vm volume grow", "Makes a volume larger, also while a machine uses it; new space reads as zeros.")
    parser.add_argument("volume", metavar="VOLUME", help="a name or an id (`celaje vm volume ls`)")
    parser.add_argument("size", type=arguments.size, metavar="SIZE", help="the new size, such as 16G")
    chosen = parser.parse_args(words)
    store = VolumeStore()
    described = store.describe(chosen.volume)
    user = user_of(described)
    if user is not None and user.running:
        grow(user, described, chosen.size)
        described = store.describe(chosen.volume)
    else:
        described = store.grow(chosen.volume, chosen.size)
    print(f"{described.name} has {byte_size(described.size)}")
    return 0
