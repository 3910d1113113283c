"""ICMP: echo of the network's own addresses, errors to guests, errors that guests send."""

from __future__ import annotations

import pytest

from celaje.network import icmp
from celaje.network.checksum import checksum
from celaje.network.statistics import Drop
from tests.network.conversation import (
    DNS,
    FAR,
    METADATA,
    ROUTER,
    Machine,
    World,
    ipv4_packet,
    udp_datagram,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    return world.machine("a")


@pytest.mark.parametrize("address", [ROUTER, DNS, METADATA, 0xA9FEA9FA])
def test_the_networks_own_addresses_answer_echo(a: Machine, address: int) -> None:
    a.says(a.ping(address, 77, b"are you there?"))
    [answer] = a.hears()
    assert (answer.source, answer.protocol) == (address, 1)
    assert answer.transport == icmp.echo(icmp.ECHO_REPLY, 77, 1, b"are you there?")


def test_echo_of_a_packet_as_long_as_the_mtu_is_answered(a: Machine) -> None:
    a.says(a.ping(ROUTER, data=bytes(range(256)) * 5 + bytes(192)))
    [answer] = a.hears()
    assert len(answer.transport) == 1480


def test_echo_with_a_wrong_checksum_is_dropped(a: Machine) -> None:
    a.says(a.ping(ROUTER)[:-1] + b"!")
    assert a.hears() == []
    assert a.interface.statistics.dropped == {Drop.CHECKSUM: 1}


def test_other_guests_are_pinged_and_answer_themselves(world: World, a: Machine) -> None:
    b = world.machine("b")
    ping, pong = a.ping(b), b.pong(a)
    a.says(ping)
    assert b.hears_messages() == [ping]
    b.says(pong)
    assert a.hears_messages() == [pong]


def test_a_ping_outward_has_a_hop_less_to_live(world: World, a: Machine) -> None:
    a.says(a.ping(FAR, ttl=9))
    [packet] = world.outside.hears()
    assert (packet.source, packet.destination, packet.protocol, packet.ttl) == (a.address, FAR, 1, 8)
    assert bytes(packet.payload) == icmp.echo(icmp.ECHO_REQUEST, 7, 1, b"ping")


def test_a_packet_whose_hops_are_used_up_ends_at_the_router(world: World, a: Machine) -> None:
    packet = a.udp(FAR, 1000, 33434, b"trace", ttl=1)
    a.says(packet)
    [error] = a.hears()
    assert (error.source, error.transport[:2]) == (ROUTER, bytes((icmp.TIME_EXCEEDED, 0)))
    assert error.transport[8:] == packet[26:54]
    assert world.outside.hears() == []
    assert a.dropped(Drop.TTL) == 1


def test_a_neighbour_and_the_router_are_reached_with_one_hop(world: World, a: Machine) -> None:
    b = world.machine("b")
    a.says(a.udp(b, 1, 2, ttl=1), a.udp(ROUTER, 1, 2, ttl=1), a.udp(METADATA, 1, 2, ttl=1))
    assert [one.ttl for one in b.hears()] == [1]
    assert [packet.ttl for packet in world.outside.hears()] == [1, 1]


def test_the_outside_can_say_that_a_packet_did_not_arrive(world: World, a: Machine) -> None:
    a.says(a.udp(FAR, 1000, 53, b"?"))
    [packet] = world.outside.hears()
    quote = packet.quote
    world.network.unreachable(a.interface, quote, icmp.PORT_UNREACHABLE, FAR)
    world.network.unreachable(a.interface, quote, icmp.FRAGMENTATION_NEEDED, mtu=1400)
    world.network.time_exceeded(a.interface, quote, FAR + 1)
    port, big, late = a.hears()
    assert (port.source, port.transport[:2], port.transport[8:]) == (FAR, b"\x03\x03", quote)
    assert (big.source, big.transport[:8]) == (ROUTER, b"\x03\x04" + big.transport[2:4] + b"\0\0\x05\x78")
    assert (late.source, late.transport[:2]) == (FAR + 1, b"\x0b\x00")


def test_errors_are_limited_in_rate(world: World, a: Machine) -> None:
    for _ in range(200):
        a.says(a.udp(FAR, 1, 2, ttl=1))
    assert len(a.hears()) == 50
    assert a.dropped(Drop.RATE) == 150
    world.passes(0.1)
    a.says(a.udp(FAR, 1, 2, ttl=1))
    assert len(a.hears()) == 1


def test_there_are_no_errors_about_errors(a: Machine) -> None:
    about = ipv4_packet(FAR, a.address, 17, udp_datagram(FAR, 1, a.address, 2, b""))
    a.says(a.udp(FAR, 2, 1))  # so that the error is about something
    a.says(a.ip(FAR, 1, icmp.error(icmp.UNREACHABLE, 3, about), ttl=1))
    assert a.hears() == []


@pytest.mark.parametrize(
    "quote",
    [
        b"",
        bytes(28),
        ipv4_packet(1, 2, 1, bytes((3, 0, 0, 0, 0, 0, 0, 0))),
        ipv4_packet(1, 0xE0000001, 17, bytes(8)),
        ipv4_packet(1, 0xFFFFFFFF, 17, bytes(8)),
        ipv4_packet(1, 2, 17, bytes(8), fragment=1),
    ],
)
def test_nothing_is_told_about(quote: bytes) -> None:
    assert not icmp.may_be_told(quote)


def test_a_guests_error_about_a_neighbours_packet_reaches_it(world: World, a: Machine) -> None:
    b = world.machine("b", groups=())
    b.says(b.udp(a, 1000, 53))
    [heard] = a.hears()
    a.says(a.ip(b, 1, icmp.error(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, heard.frame[14:42])))
    [error] = b.hears()
    assert error.transport[8:] == heard.frame[14:42]


def test_a_guests_error_about_a_packet_that_never_was_does_not(world: World, a: Machine) -> None:
    b = world.machine("b")
    about = ipv4_packet(b.address, a.address, 17, udp_datagram(b.address, 5, a.address, 6, b""))
    others = ipv4_packet(FAR, a.address, 17, udp_datagram(FAR, 5, a.address, 6, b""))
    for quote in (about, others, about[:20], bytes(28), b""):
        a.says(a.ip(b, 1, icmp.error(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, quote)))
    assert b.hears() == []
    assert a.interface.statistics.dropped == {Drop.FIREWALL: 5}


def test_messages_carry_their_checksums() -> None:
    assert checksum(icmp.error(3, 1, bytes(range(28)), 1400)) == 0
    assert checksum(icmp.echo(8, 1, 2, b"odd")) == 0
