"""After something was removed: its chunks are garbage, unless something else has them."""

from __future__ import annotations

import sys

from celaje.disk.volumes import VolumeStore
from celaje.errors import CelajeError


def sweep(store: VolumeStore) -> None:
    """Give the space back. Where that cannot be now it is said, and is no failure: what was to be removed is."""
    try:
        if store.sweep() is None:
            print(
                "celaje: its space is not given back while a volume or snapshot is being made; the next removal does"
                " it, or: celaje vm volume check --repair",
                file=sys.stderr,
            )
    except CelajeError as error:
        print(f"celaje: its space is not given back: {error}", file=sys.stderr)
