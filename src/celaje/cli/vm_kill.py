"""`celaje vm kill`: switches machines off without asking their guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.machine_names import add_names, for_each

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory


def run(words: list[str]) -> int:
    """Each of them. NotFound where one does not run."""
    parser = Parser(
        "vm kill",
        "Switches machines off at once, as pulling the plug does: what guests have not flushed to their disks is lost.",
    )
    add_names(parser)
    return for_each(parser.parse_args(words).names, _kill)


def _kill(directory: MachineDirectory) -> str:
    from celaje.host import control

    control.kill(directory)
    return f"{directory.name} is off"
