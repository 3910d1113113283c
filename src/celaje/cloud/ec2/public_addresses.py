"""Public addresses: which one an interface has, and how the pool's are given and taken back."""

from __future__ import annotations

import ipaddress
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.state.addresses import ElasticAddress, PublicAddress
from celaje.cloud.state.networks import NetworkInterface

_GUESSES = 16


def take_address(session: Session, pool: str, holder: str) -> str:
    """An address of `pool` that nobody has, now the holder's. AwsError InsufficientAddressCapacity if there is
    none."""
    network = ipaddress.IPv4Network(pool)
    first, count = int(network[0]) + 1, network.num_addresses - 2
    for _ in range(_GUESSES):
        address = str(ipaddress.IPv4Address(first + secrets.randbelow(count)))
        if session.get(PublicAddress, address) is None:
            break
    else:
        taken = set(session.scalars(select(PublicAddress.address)))
        every = (str(ipaddress.IPv4Address(first + at)) for at in range(count))
        free = next((candidate for candidate in every if candidate not in taken), None)
        if free is None:
            raise AwsError(
                "InsufficientAddressCapacity", f"Every address of the pool {pool} is in use; release some", 503
            )
        address = free
    session.add(PublicAddress(address=address, holder=holder))
    session.flush()
    return address


def give_back(session: Session, address: str) -> None:
    """Nobody has `address` any more."""
    if (held := session.get(PublicAddress, address)) is not None:
        session.delete(held)
        session.flush()


def elastic_addresses(session: Session, interface_id: str) -> list[ElasticAddress]:
    """Those that are associated with an interface, whichever of its private addresses."""
    return list(session.scalars(select(ElasticAddress).where(ElasticAddress.interface == interface_id)))


def elastic_address(session: Session, interface_id: str, private_address: str = "") -> ElasticAddress | None:
    """The elastic address that is associated with an interface's private address; "" is its first one."""
    found = elastic_addresses(session, interface_id)
    return next((one for one in found if one.private_address == private_address), None)


def assign_public(session: Session, interface: NetworkInterface, pool: str) -> None:
    """At a start: give the interface an address of the pool, and remember that it wants one. Nothing where it has one
    already, its own or an elastic one. AwsError InsufficientAddressCapacity."""
    interface.wants_public = True
    if not interface.public_address and elastic_address(session, interface.id) is None:
        interface.public_address = take_address(session, pool, interface.id)


def release_public(session: Session, interface: NetworkInterface) -> None:
    """At a stop, or where an elastic address takes its place: the interface's own public address is the pool's again.
    An elastic one stays."""
    if interface.public_address:
        give_back(session, interface.public_address)
        interface.public_address = ""


def effective_address(session: Session, interface: NetworkInterface) -> str | None:
    """The public address that the interface is reached at: an elastic one, else its own, else None."""
    elastic = elastic_address(session, interface.id)
    return elastic.address if elastic else interface.public_address or None
