"""`celaje vm allow`: which of a machine's ports anybody may connect to."""

from __future__ import annotations

import dataclasses
import os

from celaje.cli.arguments import Parser
from celaje.cli.network_option import allow_option
from celaje.errors import UsageError
from celaje.host.network_options import AllowOption

EPILOG = """\
Beside these, a machine can be reached on port 22, on its forwards' ports and by ping, and by the machines of its
network on every port. Connections that are not allowed any more end at once. The machine's next starts remember it.

  celaje vm allow web tcp:80 udp:5000-5010
  celaje vm allow web --remove tcp:80
  celaje vm allow web                    # shows what is allowed"""


def shown(allowed: tuple[AllowOption, ...]) -> str:
    """As it is typed."""
    ports = [
        f"{one.protocol}:{one.first_port}" + (f"-{one.last_port}" if one.last_port != one.first_port else "")
        for one in allowed
    ]
    return " ".join(ports) or "nothing beside ssh, ping and its forwards"


def run(words: list[str]) -> int:
    """Change it. NotFound where there is no such machine; UsageError for what is no port, or was not allowed."""
    parser = Parser("vm allow", "Opens ports of a machine to everybody, or closes them, while it runs or not.", EPILOG)
    parser.add_argument("name", metavar="NAME", help="of the machine (`celaje vm ls`)")
    parser.add_argument("ports", nargs="*", metavar="tcp:PORT[-PORT]", help="tcp or udp, a port or a range of them")
    parser.add_argument("--remove", nargs="+", default=[], metavar="tcp:PORT[-PORT]", help="close these again")
    chosen = parser.parse_args(words)
    opened, closed = tuple(map(allow_option, chosen.ports)), tuple(map(allow_option, chosen.remove))

    import msgspec

    from celaje.host import control, messages
    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(chosen.name)
    options = directory.record().options
    if options.network is None:
        raise UsageError(f"{chosen.name} has no network; make it anew without --network none")
    before = options.network.allowed
    if unknown := [port for port in closed if port not in before]:
        raise UsageError(f"{shown(tuple(unknown))} of {chosen.name} was not allowed; allowed is: {shown(before)}")
    allowed = tuple(dict.fromkeys((*(port for port in before if port not in closed), *opened)))
    cut = 0
    if allowed != before:
        connection = control.connected(directory)
        if connection is not None:
            with connection:
                cut = connection.ask(messages.SetAllowed(allowed=allowed), messages.RulesChanged).cut
        else:
            lock = directory.lock()
            try:
                record = directory.record()
                network = dataclasses.replace(options.network, allowed=allowed)
                changed = dataclasses.replace(record.options, network=network)
                directory.write_record(msgspec.structs.replace(record, options=changed))
            finally:
                os.close(lock)
    print(f"{chosen.name} allows {shown(allowed)}" + (f"; {cut} connections were ended" if cut else ""))
    return 0
