"""`celaje vm plug`: one more network card for a machine, running or not."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.network_option import EPILOG as NETWORK_EPILOG
from celaje.cli.network_option import add_network_option, network_options
from celaje.errors import UsageError

if TYPE_CHECKING:
    from celaje.host.control import Control

PATIENCE = 30.0  # seconds: a guest that has just lost a card lets go of its slot in a moment, on a busy host in a few
_PAUSE = 0.1
_TOLD_AFTER = 1.0  # seconds in which somebody need not be told what is waited for

EPILOG = f"""\
A guest that looks at its slots when a device comes has the card at once; another one finds it with its next boot
(celaje vm reset NAME).

{NETWORK_EPILOG}

  celaje vm plug web --network user,network=back"""


def run(words: list[str]) -> int:
    """Plug it in. NotFound where there is no such machine; UsageError where it has no room."""
    parser = Parser("vm plug", "Gives a machine one more network card, while it runs or for its next start.", EPILOG)
    parser.add_argument("name", metavar="NAME", help="of the machine (`celaje vm ls`)")
    add_network_option(parser)
    chosen = parser.parse_args(words)

    from celaje.host import control, messages
    from celaje.host.interface_file import further_interfaces, remove_interface, write_interface
    from celaje.host.network_card import attach_request
    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(chosen.name)
    if not directory.exists():
        raise directory.not_found()
    options = network_options(chosen.network, with_image=True)
    if options is None:
        raise UsageError("a card is plugged into a network; leave --network out, or name one: --network user,network=X")
    taken, room = further_interfaces(directory), directory.record().options.cards
    number = next((one for one in range(1, room + 1) if one not in taken), None)
    if number is None:
        raise UsageError(
            f"{chosen.name} has room for {room} network cards beside its first, and all are there; "
            f"first: celaje vm unplug {chosen.name} {room or 'N'}"
        )
    write_interface(directory, attach_request(f"{chosen.name}-{number}", options), number)
    connection = control.connected(directory)
    if connection is None:
        print(f"card {number} is plugged into {chosen.name} from its next start on: celaje vm start {chosen.name}")
        return 0
    try:
        with connection:
            _attach(connection, number)
            described = connection.ask(messages.Describe(), messages.Description)
    except BaseException:
        remove_interface(directory, number)
        raise
    card = described.further_networks[number]
    print(f"card {number} of {chosen.name} is plugged into {card.network}: {card.mac}, {card.address}")
    return 0


def _attach(connection: Control, number: int) -> None:
    """Have the machine take the card in, once its slot is free and no snapshot is taken. What it is refused with."""
    from celaje.host import messages

    began = time.monotonic()
    told = False
    while True:
        try:
            connection.ask(messages.AttachInterface(number=number), messages.Done)
            return
        except UsageError as error:
            waited = time.monotonic() - began
            if waited > PATIENCE:
                raise
            if waited > _TOLD_AFTER and not told:
                print(f"waiting for {PATIENCE:.0f} seconds at most: {error}", file=sys.stderr)
                told = True
        time.sleep(_PAUSE)
