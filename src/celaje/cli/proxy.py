"""`celaje proxy`: a TCP connection to a machine on standard input and output, for ssh's ProxyCommand."""

from __future__ import annotations

from celaje.cli.arguments import Parser
from celaje.errors import UsageError


def run(words: list[str]) -> int:
    """Relay until both ends have closed; a guest that is starting is waited for. NotFound where nobody has the name,
    HostError where the port is refused."""
    parser = Parser("proxy", "Connects standard input and output to a port of a machine.")
    parser.add_argument("host", metavar="HOST", help="a machine's name, its address or its public address")
    parser.add_argument("port", metavar="PORT", help="a TCP port that its rules admit")
    chosen = parser.parse_args(words)
    if not chosen.port.isascii() or not chosen.port.isdigit() or not 1 <= int(chosen.port) <= 65535:
        raise UsageError(f"a port is a number from 1 to 65535, not {chosen.port!r}; `celaje proxy --help` shows more")

    from celaje.cli.patience import patience
    from celaje.host import reach

    with patience(f"waiting until {chosen.host} answers on tcp port {chosen.port} …"):
        connection = reach.connect(chosen.host, int(chosen.port))
    with connection:
        reach.relay(connection)
    return 0
