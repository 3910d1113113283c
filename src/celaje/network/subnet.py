"""Subnets: blocks of a network's addresses whose interfaces share a link and a router's address, as in EC2's VPCs.

A network has blocks (10.0.0.0/16), and each interface is in a subnet of one of them (10.0.1.0/24). There is one router
with an address in every subnet, the first; the next two addresses and the last are nobody's either. Where nobody says a
subnet, it is the network's first block as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from celaje.errors import InputError
from celaje.network import ipv4

RESERVED = 4  # the first addresses of a subnet that no interface has: its own, the router's, DNS, and one to spare
SHORTEST_PREFIX, LONGEST_PREFIX = 8, 28


@dataclass(frozen=True, slots=True)
class Subnet:
    """`first` is a number, and has no bit set beyond `prefix_length`."""

    first: int
    prefix_length: int

    @property
    def last(self) -> int:
        """Its last address, that of broadcasts."""
        return self.first | (1 << 32 - self.prefix_length) - 1

    @property
    def router(self) -> int:
        return self.first + 1

    def has(self, address: int) -> bool:
        """Whether the address is one of it."""
        return address >> 32 - self.prefix_length == self.first >> 32 - self.prefix_length

    def overlaps(self, other: Subnet) -> bool:
        """Whether they have an address in common."""
        return self.has(other.first) or other.has(self.first)

    def __str__(self) -> str:
        return f"{ipv4.text(self.first)}/{self.prefix_length}"


def check_subnet(subnet: Subnet) -> None:
    """InputError if there can be no such subnet."""
    length = subnet.prefix_length
    if not SHORTEST_PREFIX <= length <= LONGEST_PREFIX or subnet.first & (1 << 32 - length) - 1:
        raise InputError(
            f"the network {subnet} must begin at its first address and have a prefix of {SHORTEST_PREFIX} to "
            f"{LONGEST_PREFIX} bits; write it like 10.77.0.0/16"
        )


class Blocks:
    """The blocks of a network. There may come to be more of them, and fewer only where all are said anew."""

    def __init__(self, blocks: Iterable[Subnet]) -> None:
        self._blocks: tuple[Subnet, ...] = ()
        for one in blocks:
            self.add(one)

    def __iter__(self) -> Iterator[Subnet]:
        return iter(self._blocks)

    def add(self, block: Subnet) -> None:
        """One more, if it is none of them yet. InputError if it overlaps another."""
        check_subnet(block)
        if block in self._blocks:
            return
        for other in self._blocks:
            if block.overlaps(other):
                raise InputError(f"{block} overlaps {other}, which is the network's already; choose another block")
        self._blocks = (*self._blocks, block)

    def replace(self, blocks: Iterable[Subnet]) -> None:
        """These and no others, which have been checked."""
        self._blocks = tuple(blocks)

    def has(self, address: int) -> bool:
        """Whether the address is one of the network's."""
        return any(one.has(address) for one in self._blocks)

    def covers(self, subnet: Subnet) -> bool:
        """Whether all addresses of `subnet` are in one block."""
        return any(one.prefix_length <= subnet.prefix_length and one.has(subnet.first) for one in self._blocks)

    def __str__(self) -> str:
        return ", ".join(map(str, self._blocks))


class Subnets:
    """Those that interfaces are in."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._interfaces: dict[Subnet, int] = {}  # how many are in each
        self._same: dict[Subnet, Subnet] = {}

    def __iter__(self) -> Iterator[Subnet]:
        return iter(tuple(self._same.values()))

    def found(self, wanted: Subnet) -> Subnet:
        """The subnet that equals `wanted`: the same object for all interfaces in it. InputError if there can be no
        such subnet, or not beside those that there are."""
        known = self._same.get(wanted)
        if known is not None:
            return known
        check_subnet(wanted)
        if not self._blocks.covers(wanted):
            raise InputError(
                f"the subnet {wanted} is in no block of the network, which has {self._blocks}; choose one in there"
            )
        for other in self._interfaces:
            if other.overlaps(wanted):
                raise InputError(
                    f"the subnet {wanted} overlaps {other}, in which interfaces are attached; choose another, or "
                    "detach those first"
                )
        return wanted

    def enter(self, subnet: Subnet) -> bool:
        """One more interface is in it; whether it is the first."""
        self._same.setdefault(subnet, subnet)
        self._interfaces[subnet] = self._interfaces.get(subnet, 0) + 1
        return self._interfaces[subnet] == 1

    def leave(self, subnet: Subnet) -> bool:
        """One fewer; whether it was the last."""
        self._interfaces[subnet] -= 1
        if self._interfaces[subnet]:
            return False
        del self._interfaces[subnet], self._same[subnet]
        return True


def check_address(subnet: Subnet, address: int) -> None:
    """InputError if no interface in the subnet can have the address."""
    if not subnet.first + RESERVED <= address < subnet.last:
        raise InputError(
            f"the address {ipv4.text(address)} is none of the subnet {subnet} for machines, which are "
            f"{ipv4.text(subnet.first + RESERVED)} to {ipv4.text(subnet.last - 1)}; choose one of these"
        )
