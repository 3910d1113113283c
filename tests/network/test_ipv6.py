"""IPv6 on the link: the router's link-local address answers, and promises nothing."""

from __future__ import annotations

import struct

import pytest

from celaje.network import ipv6
from celaje.network.checksum import checksum, pseudo_header_sum_v6
from celaje.network.statistics import Drop
from tests.network.conversation import NOTHING, ROUTER_MAC, Machine, World

ROUTER = ipv6.link_local(ROUTER_MAC)
SOLICITED = bytes.fromhex("ff0200000000000000000001ff") + ROUTER[13:]


@pytest.fixture
def a() -> Machine:
    return World().machine("a")


def packet(source: bytes, destination: bytes, body: bytes, hop_limit: int = 255, next_header: int = 58) -> bytes:
    pseudo = pseudo_header_sum_v6(int.from_bytes(source, "big"), int.from_bytes(destination, "big"), 58, len(body))
    body = body[:2] + checksum(body, initial=pseudo).to_bytes(2, "big") + body[4:]
    return struct.pack(">IHBB16s16s", 6 << 28, len(body), next_header, hop_limit, source, destination) + body


def says(machine: Machine, what: bytes) -> None:
    machine.says(NOTHING + ipv6.multicast_mac(SOLICITED) + machine.mac + b"\x86\xdd" + what)


def hears(machine: Machine) -> list[tuple[bytes, bytes]]:
    """(destination, ICMPv6 message) of each answer; each is well-formed."""
    found = []
    for message in machine.hears_messages():
        assert message[24:26] == b"\x86\xdd"
        whole = message[26:]
        _, length, next_header, hop_limit, source, destination = struct.unpack_from(">IHBB16s16s", whole)
        assert (next_header, hop_limit, source) == (58, 255, ROUTER)
        body = whole[40 : 40 + length]
        pseudo = pseudo_header_sum_v6(int.from_bytes(source, "big"), int.from_bytes(destination, "big"), 58, length)
        assert checksum(body, initial=pseudo) == 0
        expected = ipv6.multicast_mac(destination) if destination[0] == 0xFF else machine.mac
        assert message[12:18] == expected
        found.append((destination, body))
    return found


def solicitation(target: bytes) -> bytes:
    return bytes((135, 0, 0, 0)) + bytes(4) + target


def test_a_link_local_address_goes_with_a_mac_address() -> None:
    assert ipv6.link_local(bytes.fromhex("525400123456")).hex() == "fe80000000000000505400fffe123456"


def test_the_router_is_found_by_its_neighbours(a: Machine) -> None:
    own = ipv6.link_local(a.mac)
    says(a, packet(own, SOLICITED, solicitation(ROUTER)))
    assert hears(a) == [(own, bytes((136, 0)) + hears_sum(own) + b"\x60\0\0\0" + ROUTER + b"\x02\x01" + ROUTER_MAC)]


def hears_sum(destination: bytes) -> bytes:
    body = bytes((136, 0, 0, 0)) + b"\x60\0\0\0" + ROUTER + b"\x02\x01" + ROUTER_MAC
    numbers = int.from_bytes(ROUTER, "big"), int.from_bytes(destination, "big")
    return checksum(body, initial=pseudo_header_sum_v6(*numbers, 58, len(body))).to_bytes(2, "big")


def test_the_router_defends_its_address(a: Machine) -> None:
    says(a, packet(bytes(16), SOLICITED, solicitation(ROUTER)))
    [(destination, body)] = hears(a)
    assert destination == ipv6.ALL_NODES
    assert body[4:8] == b"\x20\0\0\0"


def test_a_machine_that_looks_whether_its_address_is_free_hears_nothing(a: Machine) -> None:
    own = ipv6.link_local(a.mac)
    says(a, packet(bytes(16), bytes.fromhex("ff0200000000000000000001ff") + own[13:], solicitation(own)))
    assert hears(a) == []


def test_a_router_solicitation_is_answered_by_no_promise(a: Machine) -> None:
    own = ipv6.link_local(a.mac)
    for source, heard_by in ((own, own), (bytes(16), ipv6.ALL_NODES)):
        says(a, packet(source, ipv6.ALL_ROUTERS, bytes((133, 0, 0, 0)) + bytes(4)))
        [(destination, body)] = hears(a)
        assert destination == heard_by
        assert (body[0], body[5], body[6:8]) == (134, 0, b"\0\0")  # no managed addresses, router lifetime 0
        options = body[16:]
        assert (options[0], options[8]) == (1, 5)  # its MAC address, the MTU; no prefix
        assert int.from_bytes(options[12:16], "big") == 1500
        assert len(options) == 16


def test_the_router_answers_echo(a: Machine) -> None:
    own = ipv6.link_local(a.mac)
    for destination in (ROUTER, ipv6.ALL_NODES):
        says(a, packet(own, destination, bytes((128, 0, 0, 0)) + b"\0\x07\0\x01hello", hop_limit=64))
        [(to, body)] = hears(a)
        assert (to, body[0], body[4:]) == (own, 129, b"\0\x07\0\x01hello")


def test_other_packets_go_nowhere(a: Machine) -> None:
    own = ipv6.link_local(a.mac)
    everywhere = bytes.fromhex("20010db8000000000000000000000001")
    says(a, packet(own, everywhere, bytes((128, 0, 0, 0)) + bytes(8)))
    says(a, packet(everywhere, ROUTER, bytes((128, 0, 0, 0)) + bytes(8)))
    says(a, packet(own, SOLICITED, solicitation(ROUTER), hop_limit=254))
    says(a, packet(own, ROUTER, bytes(20), next_header=17))
    assert hears(a) == []
    assert a.interface.statistics.dropped == {Drop.UNSUPPORTED: 4}


def test_malformed_packets_are_dropped(a: Machine) -> None:
    own = ipv6.link_local(a.mac)
    good = packet(own, SOLICITED, solicitation(ROUTER))
    for bad in (good[:-1], good[:39], good[:50] + b"\xff" + good[51:], b"\x40" + good[1:]):
        says(a, bad)
    assert hears(a) == []
    assert a.interface.statistics.dropped == {Drop.MALFORMED: 4}
