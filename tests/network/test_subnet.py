"""Networks of several subnets: a router with an address in each, and packets between them."""

from __future__ import annotations

import struct

import dns.message
import dns.rcode
import pytest

from celaje.errors import InputError
from celaje.network import arp, ethernet, icmp
from celaje.network.network import NetworkConfig, address_in
from celaje.network.security_group import Rule, SecurityGroup
from celaje.network.statistics import Drop
from celaje.network.subnet import Blocks, Subnet
from tests.network.conversation import ACK, NOTHING, SYN, Machine, World, ipv4_packet, udp_datagram

VPC = Subnet(0xAC1F0000, 16)  # 172.31.0.0/16
ZONE_A = Subnet(0xAC1F0000, 20)
ZONE_B = Subnet(0xAC1F1000, 20)
OTHER_BLOCK = Subnet(0x0A090000, 16)
ROUTER_MAC = b"\x02\x00\xac\x1f\x00\x01"
CONFIG = NetworkConfig(subnet=VPC.first, prefix_length=16, further=(OTHER_BLOCK,), domain="ec2.internal", mtu=9001)


@pytest.fixture
def world() -> World:
    return World(CONFIG)


def machine(world: World, name: str, subnet: Subnet, host: int, **more: object) -> Machine:
    return world.machine(name, subnet=subnet, address=subnet.first + host, **more)  # type: ignore[arg-type]


@pytest.fixture
def a(world: World) -> Machine:
    return machine(world, "a", ZONE_A, 5)


@pytest.fixture
def b(world: World) -> Machine:
    return machine(world, "b", ZONE_B, 7)


def routed(sender: Machine, message: bytes) -> bytes:
    """The same message, sent to the router's MAC."""
    return message[:12] + ROUTER_MAC + message[18:]


def dhcp_discover(guest: Machine) -> bytes:
    message = struct.pack(
        ">BBBBIHHIIII16s64s128s4s", 1, 1, 6, 0, 1, 0, 0, 0, 0, 0, 0, guest.mac, b"", b"", b"\x63\x82\x53\x63"
    ) + bytes((53, 1, 1, 255))
    packet = ipv4_packet(0, 0xFFFFFFFF, 17, udp_datagram(0, 68, 0xFFFFFFFF, 67, message))
    return NOTHING + ethernet.BROADCAST + guest.mac + b"\x08\x00" + packet


def options(message: bytes) -> dict[int, bytes]:
    found, at = {}, 240
    while message[at] != 255:
        found[message[at]] = message[at + 2 : at + 2 + message[at + 1]]
        at += 2 + message[at + 1]
    return found


def test_a_guest_is_told_its_own_subnets_router_mask_and_the_networks_dns(b: Machine) -> None:
    b.says(dhcp_discover(b))
    [offer] = b.hears()
    assert offer.source == ZONE_B.router
    message = offer.transport[8:]
    assert int.from_bytes(message[16:20], "big") == b.address == 0xAC1F1007
    told = options(message)
    assert told[1] == bytes.fromhex("fffff000")
    assert int.from_bytes(told[3], "big") == int.from_bytes(told[54], "big") == ZONE_B.router
    assert int.from_bytes(told[6], "big") == VPC.first + 2
    assert (told[15], told[26]) == (b"ec2.internal", (9001).to_bytes(2, "big"))
    assert int.from_bytes(told[28], "big") == ZONE_B.last


@pytest.mark.parametrize(
    ("target", "is_answered"),
    [
        (ZONE_A.router, True),
        (ZONE_A.first + 2, True),  # DNS, which is on the link of the subnet that it is in
        (0xA9FEA9FE, True),
        (ZONE_A.first + 6, True),  # the neighbour
        (ZONE_B.router, False),
        (ZONE_B.first + 7, False),
        (ZONE_A.first + 77, False),
    ],
)
def test_arp_is_answered_within_the_subnet_only(
    world: World, a: Machine, b: Machine, target: int, is_answered: bool
) -> None:
    machine(world, "neighbour", ZONE_A, 6)
    request = arp._message.pack(1, 0x0800, 6, 4, arp.REQUEST, a.mac, a.address, bytes(6), target)
    a.says(NOTHING + ethernet.BROADCAST + a.mac + b"\x08\x06" + request)
    assert len(a.hears_messages()) == is_answered


def test_another_subnets_guest_hears_a_packet_with_one_hop_less_from_the_routers_mac(a: Machine, b: Machine) -> None:
    a.says(routed(a, a.udp(b, 1000, 2000, b"hello")))
    [seen] = b.hears()  # whose checksums it has verified
    assert (seen.source, seen.ttl, seen.transport[8:]) == (a.address, 63, b"hello")
    assert seen.frame[:12] == b.mac + ROUTER_MAC


def test_packets_of_established_flows_are_routed_too_with_their_large_segments(a: Machine, b: Machine) -> None:
    a.says(routed(a, a.tcp(b, 40000, 22, SYN)))
    b.says(routed(b, b.tcp(a, 22, 40000, SYN | ACK)))
    a.says(routed(a, a.tcp(b, 40000, 22, ACK)))
    assert [one.ttl for one in (*a.hears(), *b.hears())] == [63] * 3
    link = struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0)
    a.says(routed(a, a.tcp(b, 40000, 22, ACK, bytes(60_000), link)))
    [seen] = b.hears()
    assert (seen.ttl, len(seen.transport), seen.link) == (63, 60_020, link)
    assert a.dropped(Drop.UNKNOWN_DESTINATION) == 0


@pytest.mark.parametrize("ttl", range(2, 256, 11))
def test_the_headers_checksum_is_right_for_every_ttl(a: Machine, b: Machine, ttl: int) -> None:
    a.says(routed(a, a.ping(b, ttl=ttl)))
    [seen] = b.hears()
    assert seen.ttl == ttl - 1


def test_a_packet_without_a_hop_left_is_answered_by_the_senders_router(a: Machine, b: Machine) -> None:
    a.says(routed(a, a.ping(b, ttl=1)))
    assert b.hears() == []
    [told] = a.hears()
    assert (told.source, told.transport[0]) == (ZONE_A.router, icmp.TIME_EXCEEDED)
    assert a.dropped(Drop.TTL) == 1


def test_a_mac_of_another_subnet_is_no_way_around_the_router(a: Machine, b: Machine) -> None:
    a.says(a.ping(b))
    assert b.hears() == []
    assert a.dropped(Drop.UNKNOWN_DESTINATION) == 1
    a.says(routed(a, a.ping(b)))
    b.says(routed(b, b.pong(a)))
    a.hears(), b.hears()
    a.says(a.ping(b))  # of an established flow
    assert b.hears() == []


def test_neighbours_hear_each_other_byte_for_byte(world: World, a: Machine) -> None:
    neighbour = machine(world, "neighbour", ZONE_A, 6)
    frame = a.ping(neighbour)
    a.says(frame)
    assert neighbour.hears_messages() == [frame]


def test_rules_hold_between_subnets_as_within_one(world: World, a: Machine) -> None:
    world.network.set_security_groups([SecurityGroup("from-a", (Rule(17, "everything", (53, 53)),))])
    b = machine(world, "b", ZONE_B, 7, groups=("from-a",))
    a.says(routed(a, a.udp(b, 1, 54)))
    assert (b.hears(), a.dropped(Drop.FIREWALL)) == ([], 1)
    a.says(routed(a, a.udp(b, 1, 53)))
    assert len(b.hears()) == 1
    world.network.set_groups(a.interface, ())
    a.says(routed(a, a.udp(b, 1, 53)))
    assert b.hears() == [], "it is in the group no more, and so its flow is cut"


def test_an_address_that_nobody_has_is_unreachable_in_every_block(world: World, a: Machine) -> None:
    for nobody in (ZONE_B.first + 9, VPC.last - 1, OTHER_BLOCK.first + 77):
        a.says(routed(a, a.ping(nobody)))
        [told] = a.hears()
        assert (told.source, told.transport[0], told.transport[1]) == (ZONE_A.router, 3, icmp.HOST_UNREACHABLE)
    assert world.outside.hears() == []


def test_a_subnet_of_another_block_is_routed_as_well(world: World, a: Machine) -> None:
    c = machine(world, "c", Subnet(OTHER_BLOCK.first + 0x100, 24), 4)
    a.says(routed(a, a.ping(c)))
    assert len(c.hears()) == 1


def test_a_subnets_broadcast_goes_nowhere(a: Machine) -> None:
    a.says(routed(a, a.udp(ZONE_A.last, 1, 2)))
    assert a.dropped(Drop.MULTICAST) == 1


@pytest.mark.parametrize("host", [0, 1, 2, 3, ZONE_A.last - ZONE_A.first, 0x1005])
def test_reserved_and_foreign_addresses_are_refused(world: World, host: int) -> None:
    with pytest.raises(InputError, match=r"none of the subnet 172.31.0.0/20 for machines, which are 172.31.0.4 to"):
        machine(world, "x", ZONE_A, host)
    assert world.network.interfaces == ()


@pytest.mark.parametrize(
    ("subnet", "why"),
    [
        (Subnet(0xAC200000, 20), "is in no block of the network, which has 172.31.0.0/16, 10.9.0.0/16"),
        (Subnet(0xAC1F0000, 24), "overlaps 172.31.0.0/20, in which interfaces are attached"),
        (Subnet(0xAC1F0000, 16), "overlaps 172.31.0.0/20"),
        (Subnet(0xAC1F4001, 24), "must begin at its first address"),
        (Subnet(0xAC1F4000, 29), "prefix of 8 to 28 bits"),
    ],
)
def test_a_subnet_that_cannot_be_is_refused(world: World, a: Machine, subnet: Subnet, why: str) -> None:
    with pytest.raises(InputError, match=why):
        machine(world, "x", subnet, 9)


def test_a_subnet_is_there_as_long_as_somebody_is_in_it(world: World, a: Machine) -> None:
    neighbour = machine(world, "neighbour", ZONE_A, 6)
    world.network.detach(neighbour.interface)
    a.says(routed(a, a.ping(ZONE_A.router)))
    assert len(a.hears()) == 1
    world.network.detach(a.interface)
    smaller = machine(world, "smaller", Subnet(0xAC1F0000, 24), 5)
    smaller.says(routed(smaller, smaller.ping(ZONE_A.router)))
    assert len(smaller.hears()) == 1


def test_an_address_that_somebody_has_is_refused(world: World, a: Machine) -> None:
    with pytest.raises(InputError, match="the address 172.31.0.5 belongs to 'a', which is attached"):
        machine(world, "x", ZONE_A, 5)
    with pytest.raises(InputError, match="has no address; say one, or no subnet"):
        world.machine("x", subnet=ZONE_A)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("ip-172-31-16-7.ec2.internal", "172.31.16.7"),
        ("IP-172-31-16-7", "172.31.16.7"),
        ("i-0b.ec2.internal", "172.31.16.7"),
        ("ip-172-31-16-8.ec2.internal", None),
        ("ip-172-31-16-700.ec2.internal", None),
    ],
)
def test_names_of_ec2s_form_stand_for_addresses(world: World, a: Machine, name: str, answer: str | None) -> None:
    machine(world, "i-0b", ZONE_B, 7, host_name="web")
    query = dns.message.make_query(name, "A")
    a.says(routed(a, a.udp(VPC.first + 2, 5353, 53, query.to_wire())))
    [seen] = a.hears()
    found = dns.message.from_wire(seen.transport[8:])
    assert [item.to_text() for one in found.answer for item in one] == ([] if answer is None else [answer])
    assert (found.rcode() == dns.rcode.NXDOMAIN) == (answer is None)


def asked(world: World, guest: Machine, name: str) -> list[str] | None:
    """What DNS answers; None where it asks others."""
    guest.says(routed(guest, guest.udp(VPC.first + 2, 5353, 53, dns.message.make_query(name, "A").to_wire())))
    heard = guest.hears()
    if not heard:
        return None
    return [item.to_text() for one in dns.message.from_wire(heard[0].transport[8:]).answer for item in one]


def test_a_public_name_stands_for_the_private_address_in_here(world: World, a: Machine, b: Machine) -> None:
    name = "ec2-127-64-0-5.compute-1.amazonaws.com"
    assert asked(world, a, name) is None
    world.network.set_public_name(b.interface, name)
    assert asked(world, a, name.upper()) == ["172.31.16.7"]
    world.network.set_public_name(b.interface, "other.example")
    assert (asked(world, a, name), asked(world, a, "other.example")) == (None, ["172.31.16.7"])
    world.network.set_public_name(a.interface, "other.example")  # it has moved, and b is told later
    world.network.set_public_name(b.interface, None)
    assert asked(world, a, "other.example") == ["172.31.0.5"]
    world.network.detach(a.interface)
    assert asked(world, b, "other.example") is None
    with pytest.raises(InputError, match="the domain 'a..b' must be names"):
        world.network.set_public_name(b.interface, "a..b")


def test_addresses_of_every_block_stand_for_names(world: World, a: Machine) -> None:
    machine(world, "i-0b", Subnet(OTHER_BLOCK.first, 24), 7, host_name="ip-10-9-0-7")
    query = dns.message.make_query("7.0.9.10.in-addr.arpa", "PTR")
    a.says(routed(a, a.udp(0xA9FEA9FD, 5353, 53, query.to_wire())))
    [seen] = a.hears()
    [answer] = dns.message.from_wire(seen.transport[8:]).answer
    assert [item.to_text() for item in answer] == ["ip-10-9-0-7.ec2.internal."]


def test_an_address_in_a_name_is_one_or_none() -> None:
    assert address_in("ip-10-0-0-5") == 0x0A000005
    assert [address_in(name) for name in ("ip-10-0-0", "ip-10-0-0-256", "xip-1-2-3-4", "ip-1-2-3-4-5")] == [None] * 4


def test_blocks_neither_overlap_nor_vanish() -> None:
    blocks = Blocks([VPC])
    blocks.add(VPC)
    blocks.add(OTHER_BLOCK)
    with pytest.raises(InputError, match="172.31.128.0/17 overlaps 172.31.0.0/16, which is the network's already"):
        blocks.add(Subnet(0xAC1F8000, 17))
    assert str(blocks) == "172.31.0.0/16, 10.9.0.0/16"
    assert (blocks.covers(ZONE_A), blocks.covers(Subnet(0xAC1E0000, 15)), blocks.has(0x0A090001)) == (True, False, True)
