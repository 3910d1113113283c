"""ARP is answered by the network, for everybody."""

from __future__ import annotations

import struct

import pytest

from celaje.network import ethernet
from celaje.network.statistics import Drop
from tests.network.conversation import DNS, METADATA, NOTHING, ROUTER, ROUTER_MAC, Machine, World


def request(
    machine: Machine, target: int, *, sender: int | None = None, mac: bytes | None = None, operation: int = 1
) -> bytes:
    body = struct.pack(
        ">HHBBH6sI6sI",
        1,
        0x0800,
        6,
        4,
        operation,
        mac or machine.mac,
        machine.address if sender is None else sender,
        bytes(6),
        target,
    )
    return NOTHING + ethernet.BROADCAST + machine.mac + b"\x08\x06" + body


def answers(machine: Machine) -> list[tuple[int, bytes]]:
    """(address, MAC) of each reply; each is well-formed and to the machine alone."""
    found = []
    for message in machine.hears_messages():
        to, source, kind = ethernet.header.unpack_from(message, 12)
        *head, operation, mac, address, target_mac, target = struct.unpack_from(">HHBBH6sI6sI", message, 26)
        assert (to, kind, head, operation) == (machine.mac, 0x0806, [1, 0x0800, 6, 4], 2)
        assert (source, target_mac) == (mac, machine.mac)
        assert target in (machine.address, 0)
        found.append((address, mac))
    return found


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    return world.machine("a")


@pytest.mark.parametrize("address", [ROUTER, DNS, METADATA, 0xA9FEA9FD, 0xA9FEA9FA])
def test_the_networks_own_addresses_have_the_routers_mac(a: Machine, address: int) -> None:
    a.says(request(a, address))
    assert answers(a) == [(address, ROUTER_MAC)]


def test_another_guests_address_has_its_mac_and_the_guest_is_not_bothered(world: World, a: Machine) -> None:
    b = world.machine("b")
    a.says(request(a, b.address))
    assert answers(a) == [(b.address, b.mac)]
    assert b.hears_messages() == []


@pytest.mark.parametrize("address", [0x0A4D0099, 0x08080808, 0xA9FE0001, 0, 0xFFFFFFFF])
def test_addresses_of_nobody_have_no_answer(a: Machine, address: int) -> None:
    a.says(request(a, address))
    assert answers(a) == []


def test_a_probe_of_its_own_address_meets_no_conflict(a: Machine) -> None:
    a.says(request(a, a.address, sender=0), request(a, a.address))
    assert answers(a) == []
    assert a.interface.statistics.dropped == {}


def test_a_probe_of_a_neighbours_address_does(world: World, a: Machine) -> None:
    b = world.machine("b")
    a.says(request(a, b.address, sender=0))
    assert answers(a) == [(b.address, b.mac)]


def test_a_sender_that_is_somebody_else_is_spoofed(world: World, a: Machine) -> None:
    b = world.machine("b")
    a.says(
        request(a, ROUTER, sender=b.address),
        request(a, ROUTER, mac=b.mac),
        request(a, b.address, sender=ROUTER, operation=2),
    )
    assert a.interface.statistics.dropped == {Drop.SPOOFED: 3}
    assert answers(a) == []
    assert b.hears_messages() == []


@pytest.mark.parametrize("at", range(8))
def test_what_is_not_ipv4_over_ethernet_is_malformed(a: Machine, at: int) -> None:
    message = bytearray(request(a, ROUTER))
    message[26 + at] ^= 0x40
    a.says(bytes(message))
    assert a.interface.statistics.dropped == {Drop.MALFORMED: 1}


def test_a_short_request_is_truncated(a: Machine) -> None:
    a.says(request(a, ROUTER)[:-1])
    assert a.interface.statistics.dropped == {Drop.TRUNCATED: 1}
