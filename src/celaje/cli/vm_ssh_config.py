"""`celaje vm ssh-config`: what ~/.ssh/config needs."""

from __future__ import annotations

import sys

from celaje.cli.arguments import Parser
from celaje.errors import CelajeError

EPILOG = """\
  celaje vm ssh-config >> ~/.ssh/config
  ssh web.celaje"""


def run(words: list[str]) -> int:
    """Print it for one machine, or for all that have a network. NotFound."""
    parser = Parser("vm ssh-config", "Prints what ~/.ssh/config needs for `ssh NAME.celaje`.", EPILOG)
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a machine (all that have a network)")
    chosen = parser.parse_args(words)

    from celaje.host import reach, record

    if chosen.name is not None:
        print(reach.ssh_config(record.MachineDirectory.of(chosen.name).record()))
        return 0
    for name in record.names():
        try:
            found = record.MachineDirectory.of(name).record()
        except CelajeError as error:
            print(f"celaje: {error}", file=sys.stderr)
            continue
        if found.options.network is not None:
            print(reach.ssh_config(found))
    return 0
