"""`celaje vm image ls`: the images that there are."""

from __future__ import annotations

import json
import sys
import time

from celaje.cli.arguments import Parser
from celaje.errors import ImageError
from celaje.image import store
from celaje.image.store import Image

HEADINGS = ("NAME", "ARCHITECTURE", "BOOT", "SIZE", "CREATED")


def _row(image: Image) -> tuple[str, ...]:
    described = image.description
    created = time.strftime("%Y-%m-%d", time.gmtime(described.created))
    return described.name, described.architecture, described.boot, f"{image.size / 1e6:.0f} MB", created


def _record(image: Image) -> dict[str, object]:
    described = image.description
    return {
        "name": described.name,
        "architecture": described.architecture,
        "boot": described.boot,
        "size": image.size,
        "created": described.created,
        "directory": str(image.directory),
    }


def run(words: list[str]) -> int:
    """List them. An image that cannot be read is a line on stderr, and exit status 2."""
    parser = Parser("vm image ls", "Lists the images on this host.")
    parser.add_argument("--json", action="store_true", help="for programs: sizes in bytes, times in seconds since 1970")
    chosen = parser.parse_args(words)
    images, status = [], 0
    for name in store.names():
        try:
            images.append(store.described(name))
        except ImageError as error:
            print(f"celaje: {error}", file=sys.stderr)
            status = ImageError.exit_status
    if chosen.json:
        print(json.dumps([_record(image) for image in images], indent=2))
    elif images:
        rows = [HEADINGS, *map(_row, images)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    elif status == 0:
        print("There are no images yet; this makes the first: celaje image build debian-mini")
    return status
