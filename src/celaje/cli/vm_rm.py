"""`celaje vm rm`: takes machines away, with their root disks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.machine_names import add_names, for_each
from celaje.errors import InputError, NotFound, UsageError

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory


def run(words: list[str]) -> int:
    """Remove each of them. UsageError where one runs."""
    parser = Parser(
        "vm rm", "Removes machines that are off, with their root disks. Volumes that were attached stay."
    )
    add_names(parser)
    parser.add_argument("--force", action="store_true", help="switch off those that run")
    chosen = parser.parse_args(words)

    def remove(directory: MachineDirectory) -> str:
        return _remove(directory, chosen.force)

    return for_each(chosen.names, remove)


def _remove(directory: MachineDirectory, force: bool) -> str:
    from celaje.host import control, disks

    name = directory.name
    if directory.holder() is not None:
        if not force:
            raise UsageError(f"the machine {name} runs; stop it first: celaje vm stop {name}")
        with contextlib.suppress(NotFound):
            control.kill(directory)
    root = None
    with contextlib.suppress(InputError):  # a record that cannot be read is removed like any other
        root = directory.record().root
    directory.remove()
    if root is not None:
        disks.remove_volume(root)
    return f"{name} is removed"
