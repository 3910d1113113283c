"""`celaje vm restore`: a machine that goes on where a snapshot was taken."""

from __future__ import annotations

from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.cli.network_option import HELP as NETWORK_HELP
from celaje.cli.network_option import network_options

EPILOG = """\
The machine is a new one, with disks of its own. Memory and disks are read from FILE as the guest touches them, so what
FILE holds must stay as it is as long as there is the machine or one of its disks; FILE may be renamed or removed. The
guest keeps the addresses that it had, so in the same network the machine that it was taken of must have ended; or plug
the new one into another network.

  celaje vm restore web web.snap
  celaje vm restore web2 web.snap --network user,network=copies"""


def run(words: list[str]) -> int:
    """Make and start it. UsageError where the name is taken; NotFound, InputError for a file that is not whole."""
    parser = Parser("vm restore", "Makes a machine that goes on where a snapshot was taken.", EPILOG)
    parser.add_argument("name", metavar="NAME", help="of the new machine")
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that `celaje vm snapshot` wrote")
    parser.add_argument("--network", metavar="user[,…]", help=f"instead of the network that it had: {NETWORK_HELP}")
    chosen = parser.parse_args(words)
    network = None if chosen.network is None else network_options(chosen.network, with_image=True)

    from celaje.cli.patience import say
    from celaje.host import inventory, starting
    from celaje.host.machine_snapshot import make_machine

    made = make_machine(chosen.name, chosen.file, network)
    try:
        starting.start(made.directory, say)
        seen = inventory.look_until_begun(made.directory)
    except BaseException:
        made.unmake()
        raise
    where = ""
    if seen.description is not None and seen.description.network is not None:
        where = f", with the address {seen.description.network.address}"
    print(f"{chosen.name} goes on from {chosen.file}{where}")
    for port in made.closed:
        print(f"  the host's port {port}, which it could reach, is closed to it now: --network user,host=tcp:{port}")
    print(f"  celaje vm console {chosen.name}")
    return 0
