"""A card with several private addresses, and one whose guest routes."""

from __future__ import annotations

import pytest

from celaje.errors import InputError
from celaje.network import arp
from celaje.network.statistics import Drop
from tests.network.conversation import FAR, METADATA, Machine, World

SECOND = 0x0A4D0063


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    machine = world.machine("a")
    world.network.add_address(machine.interface, SECOND)
    return machine


@pytest.fixture
def b(world: World, a: Machine) -> Machine:
    return world.machine("b")


def ping(a: Machine, target: Machine | int, source: int) -> bytes:
    transport = a.ping(target)[12 + 14 + 20 :]
    return a.ip(target, 1, transport, source=source)


def test_a_guest_sends_from_each_of_its_addresses_and_is_answered_there(a: Machine, b: Machine) -> None:
    a.says(ping(a, b, SECOND))
    (seen,) = b.hears()
    assert (seen.source, seen.destination) == (SECOND, b.address)
    b.says(b.frame(a, b.ip(SECOND, 1, b.pong(a)[12 + 14 + 20 :])[12 + 14 :]))
    (seen,) = a.hears()
    assert (seen.source, seen.destination) == (b.address, SECOND)
    assert a.dropped(Drop.SPOOFED) == 0


def test_others_find_a_further_address_by_arp_and_in_groups_that_rules_mention(a: Machine, b: Machine) -> None:
    request = b"\x00\x01\x08\x00\x06\x04\x00\x01" + b.mac + b.address.to_bytes(4, "big") + bytes(6)
    b.says(b.frame(None, request + SECOND.to_bytes(4, "big"), ethertype=0x0806))
    (message,) = b.hears_messages()
    answer = arp.parse(memoryview(message)[26:])
    assert answer is not None
    assert (answer.sender_mac, answer.sender) == (a.mac, SECOND)


def test_the_networks_services_answer_a_further_address(world: World, a: Machine) -> None:
    a.says(ping(a, METADATA, SECOND))
    (seen,) = a.hears()
    assert (seen.source, seen.destination) == (METADATA, SECOND)


def test_what_leaves_by_a_further_address_says_so(world: World, a: Machine) -> None:
    a.says(ping(a, FAR, SECOND))
    (packet,) = world.outside.hears()
    assert packet.source == SECOND


def test_an_address_that_was_taken_away_is_spoofed_and_free_again(world: World, a: Machine, b: Machine) -> None:
    with pytest.raises(InputError, match="belongs to 'a'"):
        world.network.add_address(b.interface, SECOND)
    world.network.remove_address(a.interface, a.interface.others[SECOND])
    a.says(ping(a, b, SECOND))
    assert b.hears() == []
    assert a.dropped(Drop.SPOOFED) == 1
    world.network.add_address(b.interface, SECOND)


def test_addresses_go_with_their_interface(world: World, a: Machine) -> None:
    world.network.detach(a.interface)
    assert world.network.add_address(world.machine("c").interface, SECOND).address == SECOND


def test_an_address_of_nobody_is_spoofed_unless_the_check_is_off(world: World, a: Machine, b: Machine) -> None:
    elsewhere = 0xC0A80005
    a.says(ping(a, b, elsewhere))
    assert b.hears() == []
    world.network.set_source_dest_check(a.interface, False)
    a.says(ping(a, b, elsewhere))
    (seen,) = b.hears()
    assert seen.source == elsewhere


def test_without_the_check_foreign_addresses_still_reach_neither_services_nor_other_networks(
    world: World, a: Machine
) -> None:
    world.network.set_source_dest_check(a.interface, False)
    for target in (METADATA, FAR):
        a.says(ping(a, target, 0xC0A80005))
    assert a.dropped(Drop.SPOOFED) == 2
    assert (world.outside.hears(), a.hears()) == ([], [])
