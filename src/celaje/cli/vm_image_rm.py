"""`celaje vm image rm`: takes images away."""

from __future__ import annotations

from celaje.cli.arguments import Parser
from celaje.image import store


def run(words: list[str]) -> int:
    """Remove each of them. NotFound where there is none of that name."""
    parser = Parser("vm image rm", "Removes images. A machine that runs from one keeps its files until it ends.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a name (`celaje vm image ls`)")
    for name in parser.parse_args(words).images:
        store.remove(name)
        print(f"{name} is removed")
    return 0
