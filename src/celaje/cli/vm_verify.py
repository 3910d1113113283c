"""`celaje vm verify`: every byte of a machine snapshot against its hashes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.image.progress import shown_on


def run(words: list[str]) -> int:
    """Verify each of them. NotFound, InputError names the first file and block that was altered."""
    parser = Parser("vm verify", "Reads every byte of machine snapshots and compares it with their hashes.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file that `celaje vm snapshot` wrote")
    for name in parser.parse_args(words).files:
        from celaje.machine.snapshot.restore import Restored

        found = Restored(Path(name))
        try:
            with shown_on() as progress:
                found.file.verify(partial(progress.transfer, name))
        finally:
            found.close()
        print(f"{name}: a machine of {found.memory_size >> 20} MiB, {found.cpus} cpus; every byte is as it was written")
    return 0
