"""`celaje vm stats`: what a machine has done so far."""

from __future__ import annotations

import json

from celaje.cli.arguments import Parser
from celaje.cli.table import table


def run(words: list[str]) -> int:
    """Show the counters of one machine. NotFound where it does not run."""
    parser = Parser("vm stats", "Shows a running machine's counters.")
    parser.add_argument("name", metavar="NAME", help="of a machine (`celaje vm ls`)")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(words)

    from celaje.host import control, messages

    counters = control.ask(chosen.name, messages.Measure(), messages.Statistics).counters
    if chosen.json:
        print(json.dumps(counters, indent=2))
        return 0
    rows = [
        (part, name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:,.3f}")
        for part, values in counters.items()
        for name, value in values.items()
    ]
    print(table(("OF", "WHAT", "VALUE"), rows))
    return 0
