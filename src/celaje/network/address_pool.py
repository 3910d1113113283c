"""Which address belongs to which interface: one each, the same again for the same name and MAC address."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from celaje.errors import InputError
from celaje.network import ipv4


@dataclass(frozen=True, slots=True)
class Assignment:
    """The address that belongs to an interface's name and MAC address, whether it is attached or not."""

    name: str
    mac: bytes
    address: int


class AddressPool:
    """The addresses of a subnet from its `first`-th on, except the last (its broadcast address)."""

    def __init__(self, subnet: int, prefix_length: int, first: int, assignments: Iterable[Assignment] = ()) -> None:
        self._first = subnet + first
        self._lowest = subnet + 3  # after the router and the DNS server; may be asked for, is never chosen
        self._last = subnet + (1 << 32 - prefix_length) - 2
        self._next = self._first
        self._addresses: dict[tuple[str, bytes], int] = {}  # the least recently attached first
        self._owners: dict[int, tuple[str, bytes]] = {}
        for one in assignments:
            owner = (one.name, one.mac)
            if self._lowest <= one.address <= self._last and one.address not in self._owners:
                self._own(owner, one.address)

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        return tuple(Assignment(name, mac, address) for (name, mac), address in self._addresses.items())

    def assign(self, name: str, mac: bytes, wish: int | None, attached: Collection[int]) -> int:
        """The interface's address: its wish, or the one it had, or a free one, or that of the interface that was
        attached longest ago and is not now. `attached`: addresses in use. InputError if its wish is somebody else's
        or none of the subnet's, or all are in use."""
        owner = (name, mac)
        if wish is not None:
            self._check(wish, owner, attached)
            self._own(owner, wish)
            return wish
        address = self._addresses.get(owner)
        if address is None or address in attached:
            address = self._free(attached)
        self._own(owner, address)
        return address

    def _check(self, wish: int, owner: tuple[str, bytes], attached: Collection[int]) -> None:
        if not self._lowest <= wish <= self._last:
            raise InputError(
                f"the address {ipv4.text(wish)} is none of the network's for machines, which are "
                f"{ipv4.text(self._lowest)} to {ipv4.text(self._last)}; choose one of these, or leave the choice to "
                "the network"
            )
        if wish in attached:
            raise InputError(
                f"the address {ipv4.text(wish)} is {self._owners[wish][0]}'s, which is attached; choose another one, "
                "or leave the choice to the network"
            )

    def _free(self, attached: Collection[int]) -> int:
        for start, end in ((self._next, self._last + 1), (self._first, self._next)):
            for address in range(start, end):
                if address not in self._owners and address not in attached:
                    self._next = address + 1
                    return address
        for address in self._addresses.values():
            if address >= self._first and address not in attached:
                return address
        raise InputError(
            f"all addresses of the network, {ipv4.text(self._first)} to {ipv4.text(self._last)}, are in use; "
            "detach a machine, or give the network a larger subnet"
        )

    def _own(self, owner: tuple[str, bytes], address: int) -> None:
        former_owner = self._owners.get(address)
        if former_owner is not None and former_owner != owner:
            del self._addresses[former_owner]
        former = self._addresses.pop(owner, None)
        if former is not None and former != address:
            del self._owners[former]
        self._addresses[owner] = address
        self._owners[address] = owner
