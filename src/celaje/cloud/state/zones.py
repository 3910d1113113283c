"""Regions and availability zones: names for sets of hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable

_REGION = re.compile(r"(?P<part>[a-z]{2}(?:-(?:gov|iso|isob))?)-(?P<direction>[a-z]+)-(?P<number>[0-9]+)")
_DIRECTIONS = {
    "central": "c",
    "north": "n",
    "northeast": "ne",
    "east": "e",
    "southeast": "se",
    "south": "s",
    "southwest": "sw",
    "west": "w",
    "northwest": "nw",
}


def zone_id(region: str, zone: str) -> str:
    """The id of a zone, as AWS makes it: use1-az2 of us-east-1b. A region of another form keeps its name."""
    number = ord(zone[-1]) - ord("a") + 1
    match = _REGION.fullmatch(region)
    if match is None or match["direction"] not in _DIRECTIONS:
        return f"{region}-az{number}"
    return f"{match['part'].replace('-', '')}{_DIRECTIONS[match['direction']]}{match['number']}-az{number}"


def zone_of_id(region: str, letters: Iterable[str], identifier: str) -> str | None:
    """The name of the zone of that id, of the region's zones `letters`."""
    return next((region + one for one in letters if zone_id(region, region + one) == identifier), None)


def private_domain(region: str) -> str:
    """The domain of a region's private names."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def private_name(region: str, address: str) -> str:
    """The DNS name that a private address has inside its VPC, such as ip-172-31-0-4.ec2.internal."""
    return f"ip-{address.replace('.', '-')}.{private_domain(region)}"


def public_name_inside(region: str, address: str) -> str:
    """AWS's DNS name of a public address, such as ec2-198-51-100-4.compute-1.amazonaws.com. A VPC's name server alone
    knows it here, and answers the private address, as AWS's does inside the VPC."""
    domain = "compute-1.amazonaws.com" if region == "us-east-1" else f"{region}.compute.amazonaws.com"
    return f"ec2-{address.replace('.', '-')}.{domain}"


def public_name(address: str) -> str:
    """What resolves to a public address: the address. Nobody publishes names of these to the host's resolver."""
    return address
