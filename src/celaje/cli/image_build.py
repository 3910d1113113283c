"""`celaje image build`: makes an image from signed Debian packages."""

from __future__ import annotations

import sys

from celaje.cli.arguments import Parser
from celaje.cli.builder import builder
from celaje.host.engines import ENGINES, factory
from celaje.image import recipes
from celaje.image.progress import shown_on


def run(words: list[str]) -> int:
    """Build it. HostError, ImageError and GuestError as the recipe's parts do; nothing half-made is left then."""
    known = "\n".join(f"  {name:22}{recipe.about}" for name, recipe in recipes.RECIPES.items())
    epilog = (
        f"Images:\n{known}\n\n"
        "Packages come from CELAJE_DEBIAN_MIRROR, or from the mirror in the host's own apt configuration. Their\n"
        "signatures and hashes are verified; downloads are kept in celaje's cache and go on where they stopped."
    )
    parser = Parser("image build", "Makes an image that `celaje vm run` boots. Needs no root.", epilog)
    parser.add_argument("recipe", metavar="IMAGE", help="one of the images below")
    parser.add_argument("--name", default="", help="what to call it (as the recipe)")
    parser.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help="what runs the machine inside")
    parser.add_argument("--unless-current", action="store_true", help="not if it is there and these recipes made it")
    chosen = parser.parse_args(words)
    if chosen.unless_current and recipes.is_current(chosen.name or chosen.recipe):
        print(f"{chosen.name or chosen.recipe} is there, and what these recipes make")
        return 0
    with shown_on() as progress:
        built = recipes.build(chosen.recipe, builder(factory(chosen.engine)), progress, chosen.name)
    for note in built.notes:
        print(f"celaje: {note}", file=sys.stderr)
    name = built.image.description.name
    print(f"{name} is built ({built.image.size / 1e6:.0f} MB); now: celaje vm run {name}")
    return 0
