"""`celaje console`: what an instance has said on its serial console."""

from __future__ import annotations

import sys
import time

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import ec2
from celaje.cli.instances import found
from celaje.cli.terminal_text import console_text

LOOK_SECONDS = 0.5


def run(words: list[str]) -> int:
    """Print it; with --follow, until the instance is gone or Ctrl-C."""
    parser = Parser("console", "Prints what an instance has said on its console.")
    parser.add_argument("name", metavar="INSTANCE", help="a name or an identifier (`celaje ls`)")
    parser.add_argument("--follow", action="store_true", help="go on printing what comes, until Ctrl-C")
    chosen = parser.parse_args(words)
    client = ec2()
    identifier = found(client, [chosen.name])[0]["InstanceId"]
    shown = ""
    while True:
        said = str(client("get_console_output", InstanceId=identifier, Latest=True).get("Output", ""))
        # What is kept is the end of what was said: where that has moved on, the part that is new follows the old end.
        if said != shown:
            at = said.find(shown[-1024:])
            new = said if not shown or at < 0 else said[at + len(shown[-1024:]) :]
            sys.stdout.write(console_text(new) if sys.stdout.isatty() else new)
            sys.stdout.flush()
            shown = said
        if not chosen.follow:
            return 0
        time.sleep(LOOK_SECONDS)
