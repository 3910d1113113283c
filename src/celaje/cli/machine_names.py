"""Commands that do one thing to each of several machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory


def add_names(parser: Parser) -> None:
    """The names of machines, one at least."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a machine (`celaje vm ls`)")


def for_each(names: list[str], do: Callable[[MachineDirectory], str]) -> int:
    """Do it to each, and print the line that it gives. NotFound before anything is done where there is no such one."""
    from celaje.host.record import MachineDirectory

    directories = [MachineDirectory.of(name) for name in names]
    for directory in directories:
        if not directory.exists():
            raise directory.not_found()
    for directory in directories:
        print(do(directory))
    return 0
