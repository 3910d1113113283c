"""The router: packets out of the network and into it."""

from __future__ import annotations

import struct

import pytest

from celaje.network import icmp, udp
from celaje.network.checksum import pseudo_header_sum
from celaje.network.statistics import Drop
from tests.network.conversation import (
    ACK,
    DNS,
    FAR,
    FIN,
    METADATA,
    NEEDS_TCP,
    NEEDS_UDP,
    ROUTER,
    ROUTER_MAC,
    RST,
    SYN,
    Machine,
    World,
    ipv4_packet,
    tcp_segment,
    udp_datagram,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    return world.machine("a", groups=())  # nothing inward, everything outward


def delivered(machine: Machine, flags: int, data: bytes = b"", port: int = 40000, gso_size: int = 0) -> bool:
    segment = tcp_segment(FAR, 80, machine.address, port, flags, data, partial=True)
    parts = [segment[:20], *([memoryview(segment)[20:]] if data else [])]
    return machine.world.network.deliver(machine.interface, FAR, machine.address, 6, parts, gso_size)


def connected(machine: Machine) -> None:
    machine.says(machine.tcp(FAR, 40000, 80, SYN))
    assert delivered(machine, SYN | ACK)
    machine.says(machine.tcp(FAR, 40000, 80, ACK))
    assert len(machine.world.outside.hears()) == 2
    machine.hears()


def test_a_packet_leaves_with_all_that_is_known_of_it(world: World, a: Machine) -> None:
    datagram = udp_datagram(a.address, 1000, FAR, 53, b"hello")
    packet = ipv4_packet(a.address, FAR, 17, datagram, ttl=5)
    packet = packet[:1] + b"\x2e" + packet[2:10] + struct.pack(">H", 0xFFFF) + packet[12:]
    packet = packet[:10] + header_sum(packet) + packet[12:]
    a.says(a.frame(None, packet + b"padding"))
    [out] = world.outside.hears()
    assert (out.source, out.destination, out.protocol, out.tos, out.ttl) == (a.address, FAR, 17, 0x2E, 4)
    assert (bytes(out.payload), bytes(out.datagram), out.gso_size) == (datagram, packet, 0)
    assert out.quote == packet[:28]


def header_sum(packet: bytes) -> bytes:
    words = struct.unpack(">10H", packet[:20])
    total = sum(words) - words[5]
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (0xFFFF - total).to_bytes(2, "big")


def test_64_kibibytes_leave_at_once(world: World, a: Machine) -> None:
    connected(a)
    data = bytes(range(256)) * 250
    a.says(a.tcp(FAR, 40000, 80, ACK, data, struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0)))
    [out] = world.outside.hears()
    assert (out.gso_size, bytes(out.payload[20:])) == (1448, data)


@pytest.mark.parametrize("protocol", [6, 17, 1])
def test_what_leaves_has_a_right_checksum(world: World, a: Machine, protocol: int) -> None:
    transport = {
        6: tcp_segment(a.address, 1, FAR, 2, SYN, b"data"),
        17: udp_datagram(a.address, 1, FAR, 2, b"data"),
        1: a.ping(FAR, data=b"data")[46:],
    }[protocol]
    a.says(a.ip(FAR, protocol, transport[:-1] + b"x"))
    assert world.outside.hears() == []
    assert a.interface.statistics.dropped == {Drop.CHECKSUM: 1}
    a.says(a.ip(FAR, protocol, transport))
    assert len(world.outside.hears()) == 1


def test_a_checksum_that_is_left_to_be_computed_is_trusted(world: World, a: Machine) -> None:
    a.says(a.tcp(FAR, 1, 2, SYN, b"data", NEEDS_TCP))
    datagram = bytearray(udp_datagram(a.address, 1, FAR, 2, b"data"))
    datagram[6:8] = pseudo_header_sum(a.address, FAR, 17, len(datagram)).to_bytes(2, "big")
    a.says(a.ip(FAR, 17, bytes(datagram), NEEDS_UDP))
    assert len(world.outside.hears()) == 2


def test_but_only_the_packets_own(world: World, a: Machine) -> None:
    a.says(a.ip(FAR, 17, bytes(120), struct.pack("<BBHHHHH", 1, 0, 0, 0, 84, 16, 0)))
    a.says(a.ip(FAR, 17, bytes(120), NEEDS_TCP))
    a.says(a.ip(FAR, 1, a.ping(FAR)[46:], NEEDS_TCP))
    assert world.outside.hears() == []
    assert a.interface.statistics.dropped == {Drop.OFFLOAD: 3}


def test_a_datagram_need_not_have_a_checksum(world: World, a: Machine) -> None:
    a.says(a.ip(FAR, 17, udp_datagram(a.address, 1, FAR, 2, b"data")[:6] + b"\0\0data"))
    assert len(world.outside.hears()) == 1


def test_what_comes_in_is_a_whole_frame_and_its_data_is_not_joined(world: World, a: Machine) -> None:
    connected(a)
    heard: list[list[bytes | bytearray | memoryview]] = []
    a.interface.transmit = lambda parts: heard.append(parts) is None
    data = memoryview(bytes(64000))
    header = tcp_segment(FAR, 80, a.address, 40000, ACK, b"", partial=True)
    assert world.network.deliver(a.interface, FAR, a.address, 6, [header, data, data[:100]], 1448, ttl=60, tos=2)
    [[head, first, second, third]] = heard
    assert first is header
    assert second is data
    assert len(third) == 100
    assert head[:12] == struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 1)
    assert head[12:26] == a.mac + ROUTER_MAC + b"\x08\x00"
    assert (head[26], head[27], head[34], head[35]) == (0x45, 2, 60, 6)
    assert int.from_bytes(head[28:30], "big") == 64140


def test_data_of_one_segment_is_not_to_be_cut(world: World, a: Machine) -> None:
    connected(a)
    assert delivered(a, ACK, bytes(1448), gso_size=1448)
    assert delivered(a, ACK, bytes(1449), gso_size=1448)
    one, two = a.hears()
    assert (one.link[:2], two.link[:2]) == (b"\x01\x00", b"\x01\x01")


def test_a_packet_beyond_the_mtu_must_be_cut(world: World, a: Machine) -> None:
    connected(a)
    assert delivered(a, ACK, bytes(1460))
    assert not delivered(a, ACK, bytes(1461))
    assert not delivered(a, ACK, bytes(65496), gso_size=1448)
    assert not world.network.deliver(a.interface, FAR, a.address, 17, [bytes(8), bytes(65508)])
    assert a.interface.statistics.dropped == {Drop.OVERSIZED: 3}


@pytest.mark.parametrize("size", [1473, 2952, 2953, 40000, 65507])
def test_a_datagram_beyond_the_mtu_comes_in_fragments(world: World, a: Machine, size: int) -> None:
    a.says(a.udp(FAR, 1000, 53, b"?"))
    data = bytes(range(251)) * 261
    for _ in range(2):
        header = udp.header(FAR, 53, a.address, 1000, size)
        assert world.network.deliver(a.interface, FAR, a.address, 17, [header, data[:size]])
        heard = [(one.frame[18:22], one.transport) for one in a.hears()]
        assert len({fields[:2] for fields, _ in heard}) == 1  # one identification
        offsets = [int.from_bytes(fields[2:], "big") for fields, _ in heard]
        assert [offset >> 13 for offset in offsets] == [1] * (len(heard) - 1) + [0]
        assert [(offset & 0x1FFF) * 8 for offset in offsets] == [1480 * number for number in range(len(heard))]
        assert b"".join(piece for _, piece in heard) == udp_datagram(FAR, 53, a.address, 1000, data[:size])


def test_a_long_pong_comes_in_fragments(world: World, a: Machine) -> None:
    world.network.set_groups(a.interface, ("everything",))
    long = icmp.echo(icmp.ECHO_REQUEST, 1, 1, bytes(3000))
    assert world.network.deliver(a.interface, FAR, a.address, 1, [long])
    assert b"".join(message[46:] for message in a.hears_messages()) == long


def test_datagrams_come_back_to_where_one_went_out(world: World, a: Machine) -> None:
    def answer(port: int) -> bool:
        header = udp.header(FAR, 53, a.address, port, 2)
        return world.network.deliver(a.interface, FAR, a.address, 17, [header, b"ok"])

    assert not answer(1000)
    a.says(a.udp(FAR, 1000, 53, b"?"))
    assert answer(1000)
    assert not answer(1001)
    assert [one.ports for one in a.hears()] == [(53, 1000)]
    assert a.dropped(Drop.FIREWALL) == 2


def test_pongs_come_back_to_pings(world: World, a: Machine) -> None:
    pong = a.pong(FAR, identifier=7)[46:]
    assert not world.network.deliver(a.interface, FAR, a.address, 1, [pong])
    a.says(a.ping(FAR, identifier=7))
    assert world.network.deliver(a.interface, FAR, a.address, 1, [pong])
    assert not world.network.deliver(a.interface, FAR, a.address, 1, [a.pong(FAR, identifier=8)[46:]])


def test_errors_about_a_flow_come_in(world: World, a: Machine) -> None:
    a.says(a.udp(FAR, 1000, 53, b"?"))
    [packet] = world.outside.hears()
    error = b"\x03\x03\0\0\0\0\0\0" + packet.quote
    assert world.network.deliver(a.interface, FAR + 9, a.address, 1, [error])
    other = b"\x03\x03\0\0\0\0\0\0" + ipv4_packet(a.address, FAR, 17, udp_datagram(a.address, 1, FAR, 2, b""))
    assert not world.network.deliver(a.interface, FAR + 9, a.address, 1, [other])


def test_nothing_is_delivered_to_an_address_that_is_not_the_guests(world: World, a: Machine) -> None:
    assert not world.network.deliver(a.interface, FAR, a.address + 1, 17, [bytes(8)])
    assert a.interface.statistics.dropped == {Drop.UNKNOWN_DESTINATION: 1}


def test_services_are_beyond_rules_both_ways(world: World) -> None:
    world.network.set_security_groups([])
    a = world.machine("a", groups=("unset",))  # nothing outward either
    for address in (METADATA, 0xA9FEA9FA, DNS):
        a.says(a.tcp(address, 40000, 80, SYN))
        [out] = world.outside.hears()
        assert out.destination == address
        segment = tcp_segment(address, 80, a.address, 40000, SYN | ACK, b"", partial=True)
        assert world.network.deliver(a.interface, address, a.address, 6, [segment])
    assert len(a.hears()) == 3
    assert world.network.flows(a.interface) == 0
    a.says(a.tcp(ROUTER, 40000, 80, SYN))
    assert world.outside.hears() == []
    assert a.interface.statistics.dropped == {Drop.FIREWALL: 1}


def test_the_routers_own_ports_are_the_outsides(world: World, a: Machine) -> None:
    a.says(a.tcp(ROUTER, 40000, 8080, SYN), a.udp(ROUTER, 1, 53, b"?"))
    assert [(one.destination, one.ttl) for one in world.outside.hears()] == [(ROUTER, 64)] * 2
    segment = tcp_segment(ROUTER, 8080, a.address, 40000, SYN | ACK, b"", partial=True)
    assert world.network.deliver(a.interface, ROUTER, a.address, 6, [segment])


def test_connections_that_are_over_are_forgotten(world: World, a: Machine) -> None:
    connected(a)
    assert world.network.flows(a.interface) == 1
    world.network.forget(a.interface, 6, FAR, 80, 40001)
    assert world.network.flows(a.interface) == 1
    world.network.forget(a.interface, 6, FAR, 80, 40000)
    assert world.network.flows(a.interface) == 0
    a.says(a.udp(FAR, 1, 2), a.ping(FAR, identifier=3))
    world.network.forget(a.interface, 17, FAR, 2, 1)
    world.network.forget(a.interface, 1, FAR, 3, 3)
    assert world.network.flows(a.interface) == 0


def test_a_connection_between_guests_is_not_the_outsides_to_forget(world: World, a: Machine) -> None:
    b = world.machine("b")
    a.says(a.tcp(b, 1, 2, SYN))
    world.network.forget(a.interface, 6, b.address, 2, 1)
    assert world.network.flows(a.interface) == 1


def test_a_connection_closes_and_its_flow_goes(world: World, a: Machine) -> None:
    connected(a)
    a.says(a.tcp(FAR, 40000, 80, FIN | ACK))
    assert delivered(a, FIN | ACK)
    a.says(a.tcp(FAR, 40000, 80, ACK))
    world.passes(11)
    assert world.network.flows(a.interface) == 0


def test_after_a_reset_as_well(world: World, a: Machine) -> None:
    connected(a)
    assert delivered(a, RST)
    world.passes(11)
    assert world.network.flows(a.interface) == 0
