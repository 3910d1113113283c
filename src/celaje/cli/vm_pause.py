"""`celaje vm pause`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.machine_names import add_names, for_each

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory


def run(words: list[str]) -> int:
    """Each of them. NotFound where one does not run."""
    parser = Parser("vm pause", "Stops machines where they are; they keep their memory, and go on with vm resume.")
    add_names(parser)
    return for_each(parser.parse_args(words).names, _pause)


def _pause(directory: MachineDirectory) -> str:
    from celaje.host import control, messages

    control.ask(directory.name, messages.Pause(), messages.Done)
    return f"{directory.name} is paused; it goes on with: celaje vm resume {directory.name}"
