"""`celaje vm unplug`: takes a network card from a machine, running or not."""

from __future__ import annotations

from celaje.cli.arguments import Parser
from celaje.errors import NotFound


def run(words: list[str]) -> int:
    """Unplug it. NotFound where there is none."""
    parser = Parser("vm unplug", "Takes a network card beyond the first from a machine.")
    parser.add_argument("name", metavar="NAME", help="of the machine (`celaje vm ls`)")
    parser.add_argument("card", metavar="N", type=int, help="as `celaje vm plug` called it")
    chosen = parser.parse_args(words)

    from celaje.host import control, messages
    from celaje.host.interface_file import further_interfaces, remove_interface
    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(chosen.name)
    if not directory.exists():
        raise directory.not_found()
    there = further_interfaces(directory)
    if chosen.card not in there:
        listed = ", ".join(map(str, there)) or "none"
        raise NotFound(f"{chosen.name} has no network card {chosen.card} beyond its first; there are: {listed}")
    remove_interface(directory, chosen.card)
    connection = control.connected(directory)
    if connection is not None:
        with connection:
            connection.ask(messages.DetachInterface(number=chosen.card), messages.Done)
    print(f"card {chosen.card} is unplugged from {chosen.name}")
    return 0
