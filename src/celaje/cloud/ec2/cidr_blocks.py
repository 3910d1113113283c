"""Networks in requests: `a.b.c.d/n`."""

from __future__ import annotations

import ipaddress

from celaje.cloud.aws.errors import AwsError

SHORTEST_PREFIX, LONGEST_PREFIX = 16, 28
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


def subnet_cidr(text: str) -> ipaddress.IPv4Network:
    """A network that a subnet can have. AwsError InvalidSubnet.Range."""
    return _sized(text, "InvalidSubnet.Range")


def _sized(text: str, code: str) -> ipaddress.IPv4Network:
    network = checked_cidr(text)
    if not SHORTEST_PREFIX <= network.prefixlen <= LONGEST_PREFIX or any(network.overlaps(one) for one in _NOBODYS):
        raise AwsError(code, f"The CIDR '{network}' is invalid.")
    return network
