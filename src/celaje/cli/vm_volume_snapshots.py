"""`celaje vm volume snapshots`: the snapshots of volumes."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

from celaje.cli.arguments import Parser
from celaje.cli.byte_size import byte_size
from celaje.cli.table import table
from celaje.disk.volumes import VolumeStore
from celaje.errors import CelajeError

HEADINGS = ("ID", "VOLUME", "SIZE", "CREATED", "DESCRIPTION")


def run(words: list[str]) -> int:
    """List them, the oldest first. A snapshot that cannot be read is a line on stderr, and exit status 2."""
    parser = Parser("vm volume snapshots", "Lists the snapshots of volumes on this host, the oldest first.")
    parser.add_argument("--json", action="store_true", help="for programs: sizes in bytes, times in seconds since 1970")
    chosen = parser.parse_args(words)
    store, found, status = VolumeStore(), [], 0
    names = {}
    for name in store.names():
        try:
            names[store.describe(name).id] = name
        except CelajeError as error:
            print(f"celaje: {error}", file=sys.stderr)
    for snapshot in store.snapshots.ids():
        try:
            found.append(store.snapshots.describe(snapshot))
        except CelajeError as error:
            print(f"celaje: {error}", file=sys.stderr)
            status = CelajeError.exit_status
    found.sort(key=lambda one: one.created)
    if chosen.json:
        print(json.dumps([{**dataclasses.asdict(one), "created": one.created / 1e9} for one in found], indent=2))
    elif found:
        print(
            table(
                HEADINGS,
                (
                    (
                        one.id, names.get(one.volume, one.volume), byte_size(one.size),
                        time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.created / 1e9)), one.description,
                    )
                    for one in found
                ),
            )
        )  # fmt: skip
    elif status == 0:
        print("There are no snapshots yet; this takes one: celaje vm volume snapshot VOLUME (celaje vm volume ls)")
    return status
