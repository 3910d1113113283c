"""Networks in requests: `a.b.c.d/n`."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from celaje.cloud.aws.errors import AwsError

SHORTEST_PREFIX, LONGEST_PREFIX = 16, 28
_PRIVATE = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
_TESTS = ipaddress.IPv4Network("198.19.0.0/16")
_NOBODYS = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))


def checked_cidr(text: str, parameter: str = "cidrBlock") -> ipaddress.IPv4Network:
    """The network, from its first address on whatever address of it was said, as AWS does. AwsError
    InvalidParameterValue for what is none."""
    try:
        address, slash, length = text.partition("/")
        if not slash or not (length.isascii() and length.isdigit()):
            raise ValueError(text)
        return ipaddress.IPv4Network((address, int(length)), strict=False)
    except ValueError as error:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({text[:64]}) for parameter {parameter} is invalid. This is not a valid CIDR block.",
        ) from error


def vpc_cidr(text: str) -> ipaddress.IPv4Network:
    """A network that a VPC can have. AwsError InvalidVpc.Range."""
    return _sized(text, "InvalidVpc.Range")


def refuse_beside(network: ipaddress.IPv4Network, there: Sequence[ipaddress.IPv4Network]) -> None:
    """AwsError InvalidVpc.Range for a network that AWS does not take into a VPC that has those, the first one first:
    another private range than the first one's, 198.19.0.0/16, 10.0.0.0/16 beside what is of 10.0.0.0/15, and
    172.31.0.0/16 beside what is of 172.16.0.0/12."""
    home = next((one for one in _PRIVATE if there[0].subnet_of(one)), None)
    restricted = [_TESTS, *(one for one in _PRIVATE if one != home)]
    if any(one.subnet_of(ipaddress.IPv4Network("10.0.0.0/15")) for one in there):
        restricted.append(ipaddress.IPv4Network("10.0.0.0/16"))
    if home == _PRIVATE[1]:
        restricted.append(ipaddress.IPv4Network("172.31.0.0/16"))
    if any(network.overlaps(one) for one in restricted):
        raise AwsError(
            "InvalidVpc.Range",
            f"The CIDR '{network}' is restricted. Use a CIDR from the same private address range as the current VPC "
            "CIDR, or use a publicly-routable CIDR. For additional restrictions, see "
            "https://docs.aws.amazon.com/vpc/latest/userguide/vpc-cidr-blocks.html",
        )


def subnet_cidr(text: str) -> ipaddress.IPv4Network:
    """A network that a subnet can have. AwsError InvalidSubnet.Range."""
    return _sized(text, "InvalidSubnet.Range")


def _sized(text: str, code: str) -> ipaddress.IPv4Network:
    network = checked_cidr(text)
    if not SHORTEST_PREFIX <= network.prefixlen <= LONGEST_PREFIX or any(network.overlaps(one) for one in _NOBODYS):
        raise AwsError(code, f"The CIDR '{network}' is invalid.")
    return network
