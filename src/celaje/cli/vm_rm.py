"""`celaje vm rm`: takes machines away, with the disks that are their own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.machine_names import add_names, for_each
from celaje.errors import HostError, NotFound, UsageError

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory

ATTEMPTS = 3  # a machine may be started while it is removed
EPILOG = """\
A machine's own are its root disk and, if it was restored from a snapshot, the disks that were made for it then. What
was attached to it (`celaje vm attach`) stays, and so does a disk of its own that was detached."""


def run(words: list[str]) -> int:
    """Remove each of them. UsageError where one runs."""
    parser = Parser("vm rm", "Removes machines that are off, with the disks that are their own.", EPILOG)
    add_names(parser)
    parser.add_argument("--force", action="store_true", help="switch off those that run")
    chosen = parser.parse_args(words)

    def remove(directory: MachineDirectory) -> str:
        return _remove(directory, chosen.force)

    return for_each(chosen.names, remove)


def _remove(directory: MachineDirectory, force: bool) -> str:
    from celaje.host import control, removal

    name = directory.name
    for attempt in range(ATTEMPTS):
        if directory.holder() is not None:
            if not force:
                raise UsageError(f"the machine {name} runs; stop it first: celaje vm stop {name}")
            with contextlib.suppress(NotFound):
                control.kill(directory)
        try:
            removal.remove(directory)
            break
        except HostError:
            if not force or directory.holder() is None or attempt == ATTEMPTS - 1:
                raise  # else it has been started in this very moment
    return f"{name} is removed"
