"""`celaje vm image verify`: every byte of an image against its hashes."""

from __future__ import annotations

from celaje.cli.arguments import Parser
from celaje.image import recipes
from celaje.image.progress import shown_on


def run(words: list[str]) -> int:
    """Verify each of them. ImageError names the first file that differs."""
    parser = Parser("vm image verify", "Reads every byte of images and compares it with their hashes.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a name (`celaje vm image ls`) or a directory")
    for name in parser.parse_args(words).images:
        with shown_on() as progress:
            image = recipes.verify(name, progress)
        print(f"{image.description.name}: {len(image.description.files)} files are what they must be")
    return 0
