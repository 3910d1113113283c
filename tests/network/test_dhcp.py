"""DHCP: how a machine learns its address."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.network import dhcp
from celaje.network.network import NetworkConfig
from celaje.network.statistics import Drop
from tests.network.conversation import (
    DNS,
    NOTHING,
    ROUTER,
    ROUTER_MAC,
    Machine,
    World,
    ipv4_packet,
    udp_datagram,
)

EVERYBODY = 0xFFFFFFFF
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)


def option(code: int, data: bytes) -> bytes:
    return bytes((code, len(data))) + data


def address(number: int) -> bytes:
    return number.to_bytes(4, "big")


def says(
    machine: Machine,
    kind: int,
    *options: bytes,
    source: int = 0,
    destination: int = EVERYBODY,
    ciaddr: int = 0,
    flags: int = 0,
    mac: bytes | None = None,
    transaction: int = 0x1234,
) -> None:
    """A client's message, as busybox and dhclient send it: from a raw socket, with a whole checksum."""
    body = struct.pack(
        ">BBBBIHHIIII16s192s4s",
        1,
        1,
        6,
        0,
        transaction,
        0,
        flags,
        ciaddr,
        0,
        0,
        0,
        mac or machine.mac,
        b"",
        b"\x63\x82\x53\x63",
    )
    body += option(53, bytes((kind,))) + b"".join(options) + b"\xff"
    packet = ipv4_packet(source, destination, 17, udp_datagram(source, 68, destination, 67, body))
    mac_to = b"\xff" * 6 if destination == EVERYBODY else ROUTER_MAC
    machine.says(NOTHING + mac_to + machine.mac + b"\x08\x00" + packet)


@dataclass
class Answer:
    kind: int
    yiaddr: int
    destination: int
    mac: bytes
    options: dict[int, bytes]
    message: bytes


def answers(machine: Machine) -> list[Answer]:
    found = []
    for seen in machine.hears():
        assert (seen.source, seen.ports) == (ROUTER, (67, 68))
        message = seen.transport[8:]
        assert len(message) >= 300
        assert (message[0], message[4:8], message[28:34]) == (2, b"\0\0\x12\x34", machine.mac)
        options = dhcp.parse_options(message[240:])
        assert options is not None
        assert options[54] == address(ROUTER)
        yiaddr = int.from_bytes(message[16:20], "big")
        found.append(Answer(options[53][0], yiaddr, seen.destination, seen.frame[:6], options, message))
    return found


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    return world.machine("a", groups=())


def test_a_machine_discovers_its_address_and_takes_it(a: Machine) -> None:
    says(a, DISCOVER, option(55, bytes((1, 3, 6, 12, 15, 28))), option(61, b"\x01" + a.mac))
    [offer] = answers(a)
    assert (offer.kind, offer.yiaddr, offer.destination, offer.mac) == (OFFER, a.address, a.address, a.mac)
    assert offer.options[61] == b"\x01" + a.mac
    says(a, REQUEST, option(50, address(offer.yiaddr)), option(54, offer.options[54]))
    [ack] = answers(a)
    assert (ack.kind, ack.yiaddr) == (ACK, a.address)
    assert ack.options[1] == bytes((255, 255, 0, 0))
    assert ack.options[3] == address(ROUTER)
    assert ack.options[6] == address(DNS)
    assert ack.options[12] == b"a"
    assert ack.options[15] == b"celaje.internal"
    assert ack.options[26] == (1500).to_bytes(2, "big")
    assert ack.options[28] == bytes((10, 77, 255, 255))
    assert ack.options[119] == b"\x06celaje\x08internal\0"
    lease, renewal, rebinding = (int.from_bytes(ack.options[code], "big") for code in (51, 58, 59))
    assert (lease, renewal, rebinding) == (3600, 1800, 3150)


def test_a_client_that_cannot_be_reached_yet_is_answered_by_broadcast(a: Machine) -> None:
    says(a, DISCOVER, flags=0x8000)
    [offer] = answers(a)
    assert (offer.destination, offer.mac) == (EVERYBODY, b"\xff" * 6)
    assert offer.message[10:12] == b"\x80\0"


def test_whatever_address_is_wished_its_own_is_offered(world: World, a: Machine) -> None:
    b = world.machine("b")
    says(a, DISCOVER, option(50, address(b.address)))
    [offer] = answers(a)
    assert (offer.kind, offer.yiaddr) == (OFFER, a.address)


def test_a_lease_is_renewed_at_the_server(a: Machine) -> None:
    says(a, REQUEST, source=a.address, ciaddr=a.address, destination=ROUTER)
    [ack] = answers(a)
    assert (ack.kind, ack.yiaddr, ack.destination, ack.mac) == (ACK, a.address, a.address, a.mac)


def test_a_lease_is_renewed_by_broadcast(a: Machine) -> None:
    says(a, REQUEST, source=a.address, ciaddr=a.address)
    [ack] = answers(a)
    assert (ack.kind, ack.yiaddr) == (ACK, a.address)


def test_a_machine_that_starts_again_asks_for_the_address_it_had(a: Machine) -> None:
    says(a, REQUEST, option(50, address(a.address)))
    [ack] = answers(a)
    assert (ack.kind, ack.yiaddr) == (ACK, a.address)


def test_another_address_is_refused(world: World, a: Machine) -> None:
    b = world.machine("b")
    says(a, REQUEST, option(50, address(b.address)))
    says(a, REQUEST, option(50, address(b.address)), option(54, address(ROUTER)))
    says(a, REQUEST, source=0xC0A80005, ciaddr=0xC0A80005)  # from another network, with its old address still
    says(a, REQUEST)
    for nak in answers(a):
        assert (nak.kind, nak.yiaddr, nak.destination, nak.mac) == (NAK, 0, EVERYBODY, b"\xff" * 6)
        assert set(nak.options) == {53, 54}
    assert b.hears_messages() == []


def test_another_servers_offer_may_be_taken(a: Machine) -> None:
    says(a, REQUEST, option(50, address(a.address)), option(54, address(ROUTER + 5)))
    assert answers(a) == []


def test_a_machine_with_an_address_of_its_own_is_told_the_rest(a: Machine) -> None:
    says(a, INFORM, source=a.address, ciaddr=a.address, destination=ROUTER)
    [ack] = answers(a)
    assert (ack.kind, ack.yiaddr, ack.destination) == (ACK, 0, a.address)
    assert ack.options[6] == address(DNS)
    assert 51 not in ack.options


def test_a_release_and_a_decline_change_nothing(a: Machine) -> None:
    says(a, RELEASE, option(54, address(ROUTER)), source=a.address, ciaddr=a.address, destination=ROUTER)
    says(a, DECLINE, option(50, address(a.address)), option(54, address(ROUTER)))
    assert answers(a) == []
    says(a, DISCOVER)
    assert [offer.yiaddr for offer in answers(a)] == [a.address]


def test_nobody_asks_for_another_machine(world: World, a: Machine) -> None:
    b = world.machine("b")
    says(a, DISCOVER, mac=b.mac)
    assert a.interface.statistics.dropped == {Drop.SPOOFED: 1}
    assert a.hears_messages() == b.hears_messages() == []


def test_an_mtu_that_is_not_the_usual_one_is_told() -> None:
    world = World(NetworkConfig(mtu=9001, domain="lab", lease_seconds=60))
    a = world.machine("a", host_name="front-1")
    says(a, DISCOVER)
    [offer] = answers(a)
    assert offer.options[26] == (9001).to_bytes(2, "big")
    assert (offer.options[12], offer.options[15]) == (b"front-1", b"lab")


def test_a_wrong_checksum_is_dropped_and_a_missing_one_is_not(a: Machine) -> None:
    body = struct.pack(">BBBBIHHIIII16s192s4s", 1, 1, 6, 0, 0x1234, 0, 0, 0, 0, 0, 0, a.mac, b"", b"\x63\x82\x53\x63")
    datagram = bytearray(udp_datagram(0, 68, EVERYBODY, 67, body + option(53, b"\x01") + b"\xff"))

    def send() -> None:
        a.says(NOTHING + b"\xff" * 6 + a.mac + b"\x08\x00" + ipv4_packet(0, EVERYBODY, 17, bytes(datagram)))

    datagram[6] ^= 0xFF
    send()
    assert a.interface.statistics.dropped == {Drop.CHECKSUM: 1}
    datagram[6:8] = b"\0\0"
    send()
    assert [offer.kind for offer in answers(a)] == [OFFER]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(239),
        bytes(300),
        struct.pack(">BBBBI232s4s", 1, 1, 6, 0, 1, b"", b"\x63\x82\x53\x63") + b"\x35\x05\x01",
        struct.pack(">BBBBI228s4s", 1, 1, 6, 0, 1, b"", b"\x63\x82\x53\x63") + b"\x35\x02\x01\x01\xff",
        struct.pack(">BBBBI228s4s", 1, 1, 6, 0, 1, b"", b"\x63\x82\x53\x63") + b"\x35\x01\x01\x32\x03\x01\x01\x01\xff",
        struct.pack(">BBBBI228s4s", 2, 1, 6, 0, 1, b"", b"\x63\x82\x53\x63") + b"\x35\x01\x01\xff",
        struct.pack(">BBBBI228s4s", 1, 1, 6, 0, 1, b"", b"\x63\x82\x53\x64") + b"\x35\x01\x01\xff",
        struct.pack(">BBBBI228s4s", 1, 1, 6, 0, 1, b"", b"\x63\x82\x53\x63") + b"\xff",
    ],
)
def test_a_malformed_message_is_dropped(a: Machine, body: bytes) -> None:
    packet = ipv4_packet(0, EVERYBODY, 17, udp_datagram(0, 68, EVERYBODY, 67, body))
    a.says(NOTHING + b"\xff" * 6 + a.mac + b"\x08\x00" + packet)
    assert a.interface.statistics.dropped == {Drop.MALFORMED: 1}


def test_options_in_pieces_are_one() -> None:
    assert dhcp.parse_options(b"\x0c\x02ab\0\x0c\x01c\xff\x01") == {12: b"abc"}
    assert dhcp.parse_options(b"\x0c") is None
    assert dhcp.parse_options(b"\x0c\x02a") is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_two_machines_ever_have_one_address(data: st.DataObject) -> None:
    """Machines come, go and wish for each other's addresses in a subnet that is too small for all of them."""
    world = World(NetworkConfig(subnet=0x0A000000, prefix_length=28, first_lease=4, domain="x"))
    there: dict[str, Machine] = {}
    for step in range(data.draw(st.integers(1, 40))):
        name = data.draw(st.sampled_from("abcdefghijklmnop"))
        if name in there and data.draw(st.booleans()):
            world.network.detach(there.pop(name).interface)
        elif name not in there and len(there) < 11:
            world._count = ord(name)
            there[name] = world.machine(name)
        for machine in there.values():
            wish = address(0x0A000000 + data.draw(st.integers(0, 15)))
            body = struct.pack(
                ">BBBBIHHIIII16s192s4s", 1, 1, 6, 0, step, 0, 0, 0, 0, 0, 0, machine.mac, b"", b"\x63\x82\x53\x63"
            )
            kind = data.draw(st.sampled_from((DISCOVER, REQUEST)))
            body += option(53, bytes((kind,))) + option(50, wish) + b"\xff"
            packet = ipv4_packet(0, EVERYBODY, 17, udp_datagram(0, 68, EVERYBODY, 67, body))
            machine.says(NOTHING + b"\xff" * 6 + machine.mac + b"\x08\x00" + packet)
        granted = {}
        for other, machine in there.items():
            for seen in machine.hears():
                given_address = int.from_bytes(seen.transport[24:28], "big")
                if given_address:
                    assert given_address == machine.address
                    granted[other] = given_address
        assert len(set(granted.values())) == len(granted)
        assert len({machine.address for machine in there.values()}) == len(there)
