"""The private addresses of interfaces: which a subnet can give, and the secondary ones of an interface."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.state.networks import NetworkInterface, SecondaryAddress, Subnet
from celaje.cloud.state.prepared import IDENTIFIERS, values_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

MOST_AT_ONCE = 49
RESERVED_AT_START = 4  # the network's address, its router's, the DNS server's, and one that AWS keeps
RESERVED_AT_END = 1
_GUESSES = 8
_USED = (
    select(NetworkInterface.subnet, func.count())
    .where(NetworkInterface.subnet.in_(IDENTIFIERS))
    .group_by(NetworkInterface.subnet)
)
_USED_TOO = (
    select(SecondaryAddress.subnet, func.count())
    .where(SecondaryAddress.subnet.in_(IDENTIFIERS))
    .group_by(SecondaryAddress.subnet)
)
_SECONDARY = (
    select(SecondaryAddress.interface, SecondaryAddress.address)
    .where(SecondaryAddress.interface.in_(IDENTIFIERS))
    .order_by(SecondaryAddress.interface, SecondaryAddress.position)
)


def free_addresses(session: Session, subnets: Sequence[Subnet]) -> dict[str, int]:
    """How many addresses each subnet could still give, by its id."""
    used: dict[str, int] = {subnet.id: 0 for subnet in subnets}
    for statement in (_USED, _USED_TOO):
        for subnet_id, count in values_of(session, statement, list(used)):
            used[subnet_id] += count
    return {
        subnet.id: ipaddress.IPv4Network(subnet.cidr).num_addresses
        - RESERVED_AT_START
        - RESERVED_AT_END
        - used[subnet.id]
        for subnet in subnets
    }


def chosen_address(session: Session, subnet: Subnet, address: str) -> str:
    """The address that a request says, if the subnet gives it and nobody has it. AwsError."""
    network = ipaddress.IPv4Network(subnet.cidr)
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError as error:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({address}) for parameter privateIpAddress is invalid. Invalid IPv4 address: {error}",
        ) from error
    offset = int(wanted) - int(network[0])
    if wanted not in network:
        raise AwsError("InvalidParameterValue", f"Address {wanted} does not fall within the subnet's address range")
    if offset < RESERVED_AT_START or offset >= network.num_addresses - RESERVED_AT_END:
        raise AwsError("InvalidParameterValue", f"Address {wanted} is in subnet's reserved address range")
    if _in_use(session, subnet, str(wanted)):
        raise AwsError("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    return str(wanted)


def _in_use(session: Session, subnet: Subnet, address: str) -> bool:
    found = select(NetworkInterface.id).where(
        NetworkInterface.subnet == subnet.id, NetworkInterface.private_address == address
    )
    if session.scalars(found).first() is not None:
        return True
    return session.get(SecondaryAddress, (subnet.id, address)) is not None


@dataclass(frozen=True, slots=True)
class SaidAddresses:
    """What a request says of an interface's addresses: the first, others, and so many more that are free."""

    primary: str | None
    secondary: tuple[str, ...]
    count: int


def said_addresses(
    address: str | None,
    addresses: Sequence[ec2.PrivateIpAddressSpecificationTypeDef],
    request: Mapping[str, object],
) -> SaidAddresses:
    """Those of a request that has PrivateIpAddress, PrivateIpAddresses and SecondaryPrivateIpAddressCount. AwsError
    where they contradict each other."""
    count = request.get("SecondaryPrivateIpAddressCount") or 0
    assert isinstance(count, int)
    named = [one["PrivateIpAddress"] for one in addresses if one.get("PrivateIpAddress")]
    primary = [one["PrivateIpAddress"] for one in addresses if one.get("Primary") and one.get("PrivateIpAddress")]
    if len(primary) > 1 or (primary and address and primary[0] != address):
        raise AwsError("InvalidParameterCombination", "Only one primary private IP address can be specified.")
    if count and len(named) > 1:
        raise AwsError(
            "InvalidParameterCombination",
            "Secondary addresses may be said, or how many there are to be, and not both",
        )
    first = address or (primary[0] if primary else None)
    if first is None and len(named) == 1:
        first = named[0]  # AWS takes a single one for the first
    others = [one for one in named if one != first]
    if len(set(others)) != len(others):
        raise AwsError("InvalidParameterValue", "A private address was given twice")
    if count < 0:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({count}) for parameter secondaryPrivateIpAddressCount is invalid. It must not be negative.",
        )
    if count > MOST_AT_ONCE:
        raise AwsError(
            "PrivateIpAddressLimitExceeded",
            f"Number of private addresses will exceed limit: {count + 1}, and at most {MOST_AT_ONCE} are possible",
        )
    return SaidAddresses(first, tuple(others), count)


def free_address(session: Session, subnet: Subnet) -> str:
    """One that nobody has. AwsError InsufficientFreeAddressesInSubnet."""
    network = ipaddress.IPv4Network(subnet.cidr)
    first = int(network[0]) + RESERVED_AT_START
    count = network.num_addresses - RESERVED_AT_START - RESERVED_AT_END
    for _ in range(_GUESSES):
        guess = str(ipaddress.IPv4Address(first + secrets.randbelow(count)))
        if not _in_use(session, subnet, guess):
            return guess
    taken = set(session.scalars(select(NetworkInterface.private_address).where(NetworkInterface.subnet == subnet.id)))
    taken |= set(session.scalars(select(SecondaryAddress.address).where(SecondaryAddress.subnet == subnet.id)))
    for at in range(count):
        if (candidate := str(ipaddress.IPv4Address(first + at))) not in taken:
            return candidate
    raise AwsError(
        "InsufficientFreeAddressesInSubnet",
        f"The specified subnet does not have enough free addresses to satisfy the request: {subnet.id} has none",
    )


def secondary_addresses(session: Session, interface_ids: Iterable[str]) -> dict[str, list[str]]:
    """Those of each interface, in their order."""
    found: dict[str, list[str]] = {interface: [] for interface in interface_ids}
    for interface, address in values_of(session, _SECONDARY, list(found)):
        found[interface].append(address)
    return found


def add_secondary(
    session: Session, interface: NetworkInterface, addresses: Sequence[str] = (), count: int = 0
) -> list[str]:
    """Give the interface these, and `count` more that are free; all that it was given. AwsError as above."""
    subnet = session.get_one(Subnet, interface.subnet)
    position = len(secondary_addresses(session, [interface.id])[interface.id])
    given: list[str] = []
    for wanted in (*addresses, *[None] * count):
        address = free_address(session, subnet) if wanted is None else chosen_address(session, subnet, wanted)
        row = SecondaryAddress(subnet=subnet.id, address=address, interface=interface.id, position=position)
        session.add(row)
        session.flush()
        position += 1
        given.append(address)
    return given


def remove_secondary(session: Session, interface_id: str, addresses: Sequence[str] | None = None) -> None:
    """The interface has them no more; None: none at all."""
    query = delete(SecondaryAddress).where(SecondaryAddress.interface == interface_id)
    if addresses is not None:
        query = query.where(SecondaryAddress.address.in_(addresses))
    session.execute(query)
    session.flush()
