"""`celaje vm volume check`: whether volumes, snapshots and chunks are what they must be."""

from __future__ import annotations

import dataclasses
import json

from celaje.cli.arguments import Parser
from celaje.disk.check import check
from celaje.disk.volumes import VolumeStore
from celaje.image.progress import shown_on

DAMAGED = 1

EPILOG = """\
Damage is something that was promised and is not there, or not what it was; each line says what helps. Garbage is what
nothing refers to and nobody is making: processes that were killed leave it. It does no harm.

Exit status: 0 nothing is damaged; 1 something is."""


def run(words: list[str]) -> int:
    """Check, and print what was found."""
    parser = Parser("vm volume check", "Checks the volumes, snapshots and chunks on this host.", EPILOG)
    parser.add_argument("--deep", action="store_true", help="read every chunk and base, and compare it with its hash")
    parser.add_argument("--repair", action="store_true", help="remove the garbage, if there is no damage")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(words)
    with shown_on() as progress:
        report = check(
            VolumeStore(),
            deep=chosen.deep,
            repair=chosen.repair,
            progress=lambda done, total: progress.transfer("chunks", done, total),
        )
    if chosen.json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        for kind, lines in (("damage", report.damage), ("garbage", report.garbage), ("note", report.notes)):
            for line in lines:
                print(f"{kind}: {line}")
        if report.removed:
            print(f"the garbage is removed: {report.removed} files")
        elif report.garbage and not report.damage:
            print("this removes the garbage: celaje vm volume check --repair")
        if not report.damage:
            print("nothing is damaged" + ("" if chosen.deep else "; to compare every byte with its hash: --deep"))
    return DAMAGED if report.damage else 0
