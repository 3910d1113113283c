"""`celaje version`: which celaje this is."""

from __future__ import annotations

from celaje import __version__
from celaje.cli.arguments import Parser


def run(words: list[str]) -> int:
    """Print the version."""
    Parser("version", "Shows which celaje this is.").parse_args(words)
    print(f"celaje {__version__}")
    return 0
