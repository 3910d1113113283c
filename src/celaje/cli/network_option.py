"""`--network`: whether a machine has a network, and what of it is open.

none
user[,network=NAME][,forward=tcp:[ADDRESS:]PORT:GUEST_PORT]…[,host=tcp:PORT[:ROUTER_PORT]]…
    [,allow=tcp:PORT[-PORT]]…[,mac=MAC][,bandwidth=BITS][,public=ADDRESS/PREFIX_LENGTH]
"""

from __future__ import annotations

import re
from collections.abc import Callable

from celaje.cli.arguments import Parser
from celaje.errors import UsageError
from celaje.host.network_options import (
    AllowOption,
    ForwardOption,
    HostPortOption,
    NetworkOptions,
    Transport,
)

HELP = "`none`, or `user` and what is open: user,forward=tcp:127.0.0.1:2222:22,host=tcp:8080,allow=tcp:80"
EPILOG = """\
A network (--network user, the default with an image) gives the guest an address by DHCP, names, and the way out:
  forward=tcp:127.0.0.1:2222:22   the host's 127.0.0.1:2222 is the guest's port 22; udp likewise; may be given again
  host=tcp:8080                   the guest's router has the host's port 8080, which is closed otherwise
  allow=tcp:80, allow=udp:5000-5010   ports of the guest that others may connect to besides 22 and the forwards'
  public=198.51.100.5/28          the machine's public address, of a pool of yours: all ports real, on a network device
                                  that celaje makes (root, or CAP_NET_ADMIN); without it the address is one of 127/8
  network=NAME                    machines of one network see each other (default)
  mac=02:00:00:00:00:01, bandwidth=100M   the card's address; at most so many bits a second each way"""

_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def add_network_option(parser: Parser) -> None:
    """`--network`, whose value stays text until it is known whether there is an image."""
    parser.add_argument("--network", metavar="none|user[,…]", help=HELP)


def network_options(text: str | None, *, with_image: bool) -> NetworkOptions | None:
    """What `--network` says; where it says nothing, a machine with an image has a network. None: it has none.

    UsageError for what is none of this.
    """
    if text is None:
        return NetworkOptions() if with_image else None
    kind, *settings = text.split(",")
    if kind == "none" and not settings:
        return None
    if kind != "user":
        raise UsageError(f"a network is `none` or `user` with settings after commas, not {text!r}; {_see()}")
    lists: dict[str, list[str]] = {"forward": [], "host": [], "allow": []}
    single: dict[str, str] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in lists:
            lists[name].append(value)
        elif name in _SINGLE and name not in single:
            single[name] = value
        else:
            raise UsageError(f"a network has no setting {setting!r}, or has it twice; {_see()}")
    for name, value in single.items():
        if not _SINGLE[name](value):
            raise UsageError(f"{name}={value!r} of the network is not {_EXPECTED[name]}; {_see()}")
    return NetworkOptions(
        network=single.get("network", NetworkOptions().network),
        forwards=tuple(map(_forward, lists["forward"])),
        host_ports=tuple(map(_host_port, lists["host"])),
        allowed=tuple(map(allow_option, lists["allow"])),
        mac=single["mac"].lower() if "mac" in single else None,
        bandwidth=_bytes_a_second(single["bandwidth"]) if "bandwidth" in single else None,
        public=single.get("public"),
    )


def _see() -> str:
    return "`celaje vm run --help` shows what can be said"


def _is_mac(text: str) -> bool:
    whole = re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text, re.IGNORECASE)
    return whole is not None and not int(text[:2], 16) & 1 and int(text.replace(":", ""), 16) != 0


def _is_rate(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,11}[KMG]?", text, re.IGNORECASE | re.ASCII) is not None


def _is_public(text: str) -> bool:
    import ipaddress

    try:
        given = ipaddress.IPv4Interface(text)
    except ValueError:
        return False
    first, last = given.network[0], given.network[-1]
    return "/" in text and given.network.num_addresses >= 4 and given.ip not in (first, first + 1, last)


_SINGLE: dict[str, Callable[[str], bool]] = {
    "network": lambda text: re.fullmatch(r"[a-z0-9][a-z0-9-]{0,27}", text) is not None,
    "mac": _is_mac,
    "bandwidth": _is_rate,
    "public": _is_public,
}
_EXPECTED = {
    "network": "a name of up to 28 lower-case letters, digits and hyphens",
    "mac": "the address of one card, such as 02:00:00:00:00:01",
    "bandwidth": "a number of bits a second, such as 100M",
    "public": "an address with its pool, such as 198.51.100.5/28, behind the pool's first, which is the host's own",
}


def _bytes_a_second(text: str) -> int:
    suffix = text[-1].upper() if text[-1].isalpha() else ""
    return max(1, int(text.rstrip("kmgKMG")) * _DECIMAL[suffix] // 8)


def _transport(text: str, setting: str) -> Transport:
    if text == "tcp":
        return "tcp"
    if text == "udp":
        return "udp"
    raise UsageError(f"{setting} begins with tcp: or udp:, not {text!r}; {_see()}")


def _port(text: str, setting: str, least: int = 1) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) is None or not least <= int(text) <= 65535:
        raise UsageError(f"a port of {setting} is {least} to 65535, not {text!r}; {_see()}")
    return int(text)


def _forward(text: str) -> ForwardOption:
    setting = f"forward={text}"
    protocol, *rest = text.split(":")
    if len(rest) == 2:
        rest.insert(0, "127.0.0.1")
    if len(rest) != 3:
        raise UsageError(f"a forward is tcp:ADDRESS:PORT:GUEST_PORT or tcp:PORT:GUEST_PORT, not {setting!r}; {_see()}")
    import ipaddress

    try:
        address = str(ipaddress.IPv4Address(rest[0]))
    except ValueError:
        raise UsageError(f"the address of {setting} must be one of the host's, such as 127.0.0.1; {_see()}") from None
    return ForwardOption(
        _transport(protocol, setting), address, _port(rest[1], setting, least=0), _port(rest[2], setting)
    )


def _host_port(text: str) -> HostPortOption:
    setting = f"host={text}"
    protocol, *ports = text.split(":")
    if not 1 <= len(ports) <= 2:
        raise UsageError(f"a port of the host is tcp:PORT or tcp:PORT:ROUTER_PORT, not {setting!r}; {_see()}")
    numbers = [_port(port, setting) for port in ports]
    return HostPortOption(_transport(protocol, setting), numbers[0], numbers[-1])


def allow_option(text: str) -> AllowOption:
    """`tcp:80` or `udp:5000-5010`. UsageError for anything else."""
    setting = f"allow={text}"
    protocol, _, ports = text.partition(":")
    first, dash, last = ports.partition("-")
    lowest = _port(first, setting)
    highest = _port(last, setting) if dash else lowest
    if highest < lowest:
        raise UsageError(f"the ports of {setting} go from the lower to the higher; {_see()}")
    return AllowOption(_transport(protocol, setting), lowest, highest)
