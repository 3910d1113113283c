"""The switch: frames between guests, untouched, after they are checked."""

from __future__ import annotations

import struct

import pytest

from celaje.network.network import NetworkConfig
from celaje.network.statistics import Drop
from tests.network.conversation import (
    ACK,
    FAR,
    NEEDS_TCP,
    NOTHING,
    ROUTER_MAC,
    SYN,
    Machine,
    World,
    connect,
    ipv4_packet,
    tcp_segment,
    udp_datagram,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    return world.machine("a")


@pytest.fixture
def b(world: World, a: Machine) -> Machine:
    return world.machine("b")


def test_a_frame_reaches_the_other_guest_byte_for_byte(a: Machine, b: Machine) -> None:
    frame = a.udp(b, 1000, 2000, b"hello")
    a.says(frame)
    assert b.hears_messages() == [frame]
    assert (a.interface.statistics.sent_frames, b.interface.statistics.received_frames) == (1, 1)
    assert a.interface.statistics.sent_bytes == b.interface.statistics.received_bytes == len(frame) - 12


def test_64_kibibytes_pass_with_their_link_header_untouched(a: Machine, b: Machine) -> None:
    connect(a, b)
    link = struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0)
    frame = a.tcp(b, 40000, 22, ACK, bytes(65000), link)
    a.says(frame)
    assert b.hears_messages() == [frame]


def test_nobody_else_hears_what_two_guests_say(world: World, a: Machine, b: Machine) -> None:
    c = world.machine("c")
    a.says(a.udp(b, 1, 2), a.tcp(b, 1, 2, SYN))
    assert len(b.hears()) == 2
    assert c.hears_messages() == []


def test_a_frame_to_a_neighbour_by_way_of_the_router_gets_the_neighbours_mac(a: Machine, b: Machine) -> None:
    frame = a.frame(None, ipv4_packet(a.address, b.address, 17, udp_datagram(a.address, 1, b.address, 2, b"x")))
    a.says(frame, frame)
    assert b.hears_messages() == [frame[:12] + b.mac + frame[18:]] * 2


def test_a_frame_to_nobody_is_unknown_and_the_router_says_so_of_neighbours(world: World, a: Machine) -> None:
    a.says(a.udp(a.address + 1, 1, 2))
    [error] = a.hears()
    assert error.transport[:2] == bytes((3, 1))
    assert a.dropped(Drop.UNKNOWN_DESTINATION) == 1


def test_a_guest_is_no_way_to_other_networks(a: Machine, b: Machine) -> None:
    packet = ipv4_packet(a.address, FAR, 17, udp_datagram(a.address, 1, FAR, 2, b"x"))
    a.says(a.frame(b, packet))
    assert b.hears_messages() == []
    assert a.dropped(Drop.UNKNOWN_DESTINATION) == 1
    a.says(a.udp(FAR, 1, 2, b"x"))  # a flow that exists does not open that way either
    a.says(a.frame(b, packet))
    assert b.hears_messages() == []
    assert a.dropped(Drop.UNKNOWN_DESTINATION) == 2


def test_a_guest_that_is_gone_is_unknown(world: World, a: Machine, b: Machine) -> None:
    frame = a.udp(b, 1, 2)
    a.says(frame)
    world.network.detach(b.interface)
    assert world.network.flows(a.interface) == 0
    a.says(frame)
    assert a.dropped(Drop.UNKNOWN_DESTINATION) == 1


def test_what_a_guest_does_not_read_is_dropped_and_counted(a: Machine, b: Machine) -> None:
    b.reads = False
    a.says(a.udp(b, 1, 2))
    assert b.dropped(Drop.QUEUE_FULL) == 1
    assert b.interface.statistics.received_frames == 0


def wrong_header_sum(a: Machine, b: Machine) -> bytes:
    frame = bytearray(a.udp(b, 1, 2))
    frame[36] ^= 1
    return bytes(frame)


def options(a: Machine, b: Machine) -> bytes:
    frame = bytearray(a.udp(b, 1, 2, bytes(8)))
    frame[26] = 0x46
    return bytes(frame)


WRONG = {
    "another MAC address": (lambda a, b: (f := a.udp(b, 1, 2))[:18] + b.mac + f[24:], Drop.SPOOFED),
    "another IP address": (lambda a, b: a.ip(b, 17, bytes(8), source=b.address + 1), Drop.SPOOFED),
    "no IP address": (lambda a, b: a.ip(b, 17, bytes(8), source=0), Drop.SPOOFED),
    "a wrong header checksum": (wrong_header_sum, Drop.HEADER_CHECKSUM),
    "a first fragment": (lambda a, b: a.ip(b, 17, bytes(16), fragment=0x2000), Drop.FRAGMENT),
    "a later fragment": (lambda a, b: a.ip(b, 17, bytes(16), fragment=7), Drop.FRAGMENT),
    "the reserved flag": (lambda a, b: a.ip(b, 17, bytes(16), fragment=0x8000), Drop.FRAGMENT),
    "less than its length": (lambda a, b: a.udp(b, 1, 2, b"hello")[:-1], Drop.TRUNCATED),
    "no transport header": (lambda a, b: a.ip(b, 6, bytes(19)), Drop.TRUNCATED),
    "only a link header": (lambda a, b: NOTHING, Drop.TRUNCATED),
    "nothing": (lambda a, b: b"", Drop.TRUNCATED),
    "options": (options, Drop.IP_OPTIONS),
    "another version": (lambda a, b: (f := a.udp(b, 1, 2))[:26] + b"\x65" + f[27:], Drop.MALFORMED),
    "a VLAN": (lambda a, b: a.frame(b, bytes(60), ethertype=0x8100), Drop.UNSUPPORTED),
    "more than the MTU": (lambda a, b: a.udp(b, 1, 2, bytes(1500)), Drop.OVERSIZED),
    "multicast": (lambda a, b: a.udp(0xE00000FB, 1, 2), Drop.MULTICAST),
    "broadcast": (lambda a, b: a.udp(0xFFFFFFFF, 1, 2), Drop.MULTICAST),
    "the subnet's broadcast": (lambda a, b: a.udp(0x0A4DFFFF, 1, 2), Drop.MULTICAST),
    "itself": (lambda a, b: a.udp(a, 1, 2), Drop.UNKNOWN_DESTINATION),
    "a MAC address of nobody": (lambda a, b: (f := a.udp(b, 1, 2))[:12] + bytes(6) + f[18:], Drop.UNKNOWN_DESTINATION),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_frame_is_dropped_and_counted_by_its_cause(what: str, a: Machine, b: Machine) -> None:
    make, cause = WRONG[what]
    a.says(make(a, b))
    assert a.interface.statistics.dropped == {cause: 1}
    assert b.hears_messages() == []


LINKS = {
    "flags of nobody": struct.pack("<BBHHHHH", 4, 0, 0, 0, 34, 16, 0),
    "a checksum behind the frame": struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 5000, 0),
    "a checksum in the IP header": struct.pack("<BBHHHHH", 1, 0, 0, 0, 14, 10, 0),
    "segments without a checksum": struct.pack("<BBHHHHH", 0, 1, 0, 1448, 34, 16, 0),
    "segments of nothing": struct.pack("<BBHHHHH", 1, 1, 0, 0, 34, 16, 0),
    "segments beyond the MTU": struct.pack("<BBHHHHH", 1, 1, 0, 1461, 34, 16, 0),
    "segments of IPv6": struct.pack("<BBHHHHH", 1, 4, 0, 1000, 34, 16, 0),
    "segments of UDP": struct.pack("<BBHHHHH", 1, 3, 0, 1000, 34, 16, 0),
    "segments with ECN": struct.pack("<BBHHHHH", 1, 0x81, 0, 1000, 34, 16, 0),
}


@pytest.mark.parametrize("what", LINKS)
def test_a_link_header_that_contradicts_its_frame_is_dropped(what: str, a: Machine, b: Machine) -> None:
    a.says(a.tcp(b, 1, 2, SYN, link=LINKS[what]))
    assert a.interface.statistics.dropped == {Drop.OFFLOAD: 1}
    assert b.hears_messages() == []


def test_a_datagram_is_not_cut_into_segments(a: Machine, b: Machine) -> None:
    a.says(a.ip(b, 17, bytes(2000), struct.pack("<BBHHHHH", 1, 1, 0, 1000, 34, 6, 0)))
    assert a.interface.statistics.dropped == {Drop.OFFLOAD: 1}


def test_a_checksum_may_be_that_of_an_inner_packet(a: Machine, b: Machine) -> None:
    """A guest's overlay network (VXLAN): the outer datagram has no checksum, the inner segment's is left to be
    computed."""
    frame = a.ip(b, 17, bytes(120), struct.pack("<BBHHHHH", 1, 0, 0, 0, 84, 16, 0))
    a.says(frame)
    assert b.hears_messages() == [frame]


def test_between_guests_transport_checksums_are_the_receivers_affair(a: Machine, b: Machine) -> None:
    segment = bytearray(tcp_segment(a.address, 1, b.address, 2, SYN, b"x"))
    segment[16] ^= 0xFF
    a.says(a.ip(b, 6, bytes(segment)))
    assert len(b.hears_messages()) == 1


def test_bytes_behind_a_packet_are_only_padding(a: Machine, b: Machine) -> None:
    frame = a.udp(b, 1, 2) + bytes(18)
    a.says(frame)
    assert b.hears_messages() == [frame]


def test_the_router_is_reached_on_its_own_mac_only(a: Machine, b: Machine) -> None:
    a.says(a.frame(b, ipv4_packet(a.address, 0x0A4D0001, 1, bytes(8))))
    assert a.dropped(Drop.UNKNOWN_DESTINATION) == 1
    assert ROUTER_MAC not in (a.mac, b.mac)


def test_jumbo_frames_pass_in_a_network_of_theirs() -> None:
    world = World(NetworkConfig(mtu=9001))
    a, b = world.machine("a"), world.machine("b")
    frame = a.udp(b, 1, 2, bytes(8973))
    a.says(frame)
    assert b.hears_messages() == [frame]
    a.says(a.udp(b, 1, 2, bytes(8974)))
    assert a.dropped(Drop.OVERSIZED) == 1


def test_partial_checksums_pass_between_guests(a: Machine, b: Machine) -> None:
    frame = a.tcp(b, 1, 2, SYN, link=NEEDS_TCP)
    a.says(frame)
    assert b.hears_messages() == [frame]
