"""`celaje vm resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.machine_names import add_names, for_each

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory


def run(words: list[str]) -> int:
    """Each of them. NotFound where one does not run."""
    parser = Parser("vm resume", "Lets paused machines go on.")
    add_names(parser)
    return for_each(parser.parse_args(words).names, _resume)


def _resume(directory: MachineDirectory) -> str:
    from celaje.host import control, messages

    control.ask(directory.name, messages.Resume(), messages.Done)
    return f"{directory.name} runs"
