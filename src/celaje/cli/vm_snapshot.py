"""`celaje vm snapshot`: a running machine, memory and disks, in a file."""

from __future__ import annotations

from pathlib import Path

from celaje.cli.arguments import Parser

EPILOG = """\
The machine goes on while its snapshot is taken, and stands still for a moment only. The file has all of it: memory,
devices, and what its volumes hold that their images do not. It is readable by you alone, since it has whatever was
secret in the guest's memory.

  celaje vm snapshot web web.snap
  celaje vm restore web2 web.snap --network user,network=copies"""


def run(words: list[str]) -> int:
    """Take it. NotFound where the machine does not run, InputError where the file is there already."""
    parser = Parser("vm snapshot", "Writes a running machine, memory and disks, to a file.", EPILOG)
    parser.add_argument("name", metavar="NAME", help="a machine (`celaje vm ls`)")
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write; it must not be there yet")
    chosen = parser.parse_args(words)

    from celaje.host import control, messages
    from celaje.image.progress import shown_on

    with shown_on() as progress:
        taken = control.ask(
            chosen.name,
            messages.Snapshot(path=str(chosen.file.absolute())),
            messages.SnapshotTaken,
            lambda told: progress.transfer(told.what, told.done, told.total),
            seconds=None,
        )
    size = chosen.file.stat().st_blocks * 512
    print(
        f"{chosen.file} has {chosen.name} ({size >> 20} MiB on the disk); it stood still for "
        f"{1000 * taken.pause_seconds:.0f} ms. To go on from it: celaje vm restore NEW-NAME {chosen.file}"
    )
    return 0
