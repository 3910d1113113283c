"""Whatever bytes come: nothing raises, every frame is passed on, answered or counted, and what is passed on is the
sender's own."""

from __future__ import annotations

import struct

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.network import icmp, ipv6
from celaje.network.forwarding import Plan
from celaje.network.network import NetworkConfig
from celaje.network.subnet import Subnet
from celaje.network.topology import AccessRule, NatGateway, Route, SubnetPlan, Topology
from celaje.network.topology_plan import plan_of
from tests.network.conversation import (
    ACK,
    DNS,
    FAR,
    METADATA,
    NEEDS_TCP,
    NEEDS_UDP,
    NOTHING,
    ROUTER,
    SYN,
    Machine,
    World,
    ipv4_packet,
    udp_datagram,
)
from tests.network.test_arp import request
from tests.network.test_ipv6 import SOLICITED, packet, solicitation

GSO = struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0)


def frames(a: Machine, b: Machine) -> list[bytes]:
    """One of everything that a guest may say."""
    dhcp = struct.pack(
        ">BBBBIHHIIII16s192s4s", 1, 1, 6, 0, 1, 0, 0, 0, 0, 0, 0, a.mac, b"", b"\x63\x82\x53\x63"
    ) + bytes((53, 1, 1, 50, 4, 10, 77, 0, 10, 61, 3, 1, 2, 3, 255))
    own = ipv6.link_local(a.mac)
    solicit = (
        NOTHING + ipv6.multicast_mac(SOLICITED) + a.mac + b"\x86\xdd" + packet(own, SOLICITED, solicitation(SOLICITED))
    )
    router = NOTHING + ipv6.multicast_mac(ipv6.ALL_ROUTERS) + a.mac + b"\x86\xdd"
    quoted = ipv4_packet(b.address, a.address, 17, udp_datagram(b.address, 1, a.address, 2, b""))
    query = dns.message.make_query("b.celaje.internal", "A", use_edns=0).to_wire()
    return [
        a.tcp(b, 40000, 22, SYN),
        a.tcp(b, 40000, 22, ACK, b"data", NEEDS_TCP),
        a.tcp(b, 40000, 22, ACK, bytes(4000), GSO),
        a.tcp(FAR, 40000, 80, SYN),
        a.tcp(FAR, 40000, 80, ACK, bytes(4000), GSO),
        a.tcp(METADATA, 40000, 80, SYN),
        a.udp(b, 1000, 53, b"data"),
        a.udp(FAR, 1000, 53, b"data"),
        a.ip(FAR, 17, bytes(20), NEEDS_UDP),
        a.udp(ROUTER, 1000, 53, b"data"),
        a.udp(DNS, 1000, 53, query),
        a.ping(b),
        a.ping(ROUTER),
        a.ping(FAR, ttl=1),
        a.ip(b, 1, icmp.error(3, 3, quoted)),
        a.ip(FAR, 1, icmp.error(3, 3, quoted)),
        a.ip(b, 132, bytes(30)),
        request(a, b.address),
        NOTHING
        + b"\xff" * 6
        + a.mac
        + b"\x08\x00"
        + ipv4_packet(0, 0xFFFFFFFF, 17, udp_datagram(0, 68, 0xFFFFFFFF, 67, dhcp)),
        solicit,
        router + packet(own, ipv6.ALL_ROUTERS, bytes((133, 0, 0, 0)) + bytes(4)),
        router + packet(own, ipv6.ALL_NODES, bytes((128, 0, 0, 0)) + bytes(12)),
    ]


def mended(message: bytes) -> bytes:
    """With a right IPv4 header checksum, so that a mutation reaches what is behind that check."""
    if len(message) < 46:
        return message
    words = sum(struct.unpack(">10H", message[26:36] + b"\0\0" + message[38:46]))
    sum_ = 0xFFFF - (words % 0xFFFF or 0xFFFF)
    return message[:36] + sum_.to_bytes(2, "big") + message[38:]


MUTATION = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, 400), st.integers(0, 255)),
    st.tuples(st.just("header"), st.integers(0, 70), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.integers(0, 400), st.just(0)),
    st.tuples(st.just("grow"), st.integers(0, 400), st.integers(0, 255)),
)


def mutated(message: bytes, mutations: list[tuple[str, int, int]], mend: bool) -> bytes:
    changed = bytearray(message)
    for kind, at, value in mutations:
        if kind == "cut":
            del changed[at:]
        elif kind == "grow":
            changed += bytes((value,)) * at
        elif at < len(changed):
            changed[at] = value
    return mended(bytes(changed)) if mend else bytes(changed)


def check(world: World, a: Machine, b: Machine, message: bytes) -> None:
    sent = a.interface.statistics.sent_frames
    a.says(message)
    assert a.interface.statistics.sent_frames == sent + 1
    for heard in b.hears_messages():
        assert heard[12:18] == b.mac
        assert heard[18:24] == a.mac
        assert heard[38:42] == a.address.to_bytes(4, "big")
        assert heard in (message, message[:12] + b.mac + message[18:])
    for out in world.outside.hears():
        assert out.source == a.address
        assert out.destination >> 16 != a.address >> 16 or out.destination in (ROUTER, DNS)
        assert len(out.datagram) == 20 + len(out.payload) >= 28
        assert out.gso_size <= 1460
    for answer in a.hears_messages():
        assert answer[12:18] in (a.mac, b"\xff" * 6) or answer[12:14] == b"\x33\x33"
    for question, answer_to in world.outside.questions:
        answer_to(question)
    world.outside.questions.clear()
    a.hears_messages()
    assert len(a.interface.flows) <= 8


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 21), st.lists(MUTATION, max_size=4), st.booleans()), min_size=1, max_size=25))
def test_mutated_frames_never_raise(conversation: list[tuple[int, list[tuple[str, int, int]], bool]]) -> None:
    world = World(NetworkConfig(flows=8))
    a, b = world.machine("a"), world.machine("b")
    said = frames(a, b)
    for which, mutations, mend in conversation:
        check(world, a, b, mutated(said[which], mutations, mend))
        b.says(b.tcp(a, 22, 40000, SYN | ACK))  # so that there are flows in every state
        a.hears_messages()
        world.passes(0.5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_random_bytes_never_raise(messages: list[bytes]) -> None:
    world = World(NetworkConfig(flows=8))
    a, b = world.machine("a"), world.machine("b")
    for message in messages:
        check(world, a, b, message)
    assert sum(a.interface.statistics.dropped.values()) == len(messages)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((1, 6, 17, 132)),
            st.sampled_from(("b", FAR, ROUTER, DNS, METADATA)),
            st.binary(max_size=120),
        ),
        max_size=20,
    )
)
def test_random_packets_under_right_headers_never_raise(packets: list[tuple[int, str | int, bytes]]) -> None:
    world = World(NetworkConfig(flows=8))
    a, b = world.machine("a"), world.machine("b")
    for protocol, target, transport in packets:
        check(world, a, b, a.ip(b if isinstance(target, str) else target, protocol, transport))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.binary(max_size=400), st.binary(max_size=300))
def test_random_requests_to_the_networks_services_never_raise(query: bytes, options: bytes, discovery: bytes) -> None:
    world = World()
    a, b = world.machine("a"), world.machine("b")
    header = struct.pack(">BBBBIHHIIII16s192s4s", 1, 1, 6, 0, 1, 0, 0, 0, 0, 0, 0, a.mac, b"", b"\x63\x82\x53\x63")
    own = ipv6.link_local(a.mac)
    check(world, a, b, a.udp(DNS, 1, 53, query))
    check(world, a, b, a.udp(DNS, 1, 53, b"\0\1\1\0\0\1\0\0\0\0\0\0" + query))
    check(world, a, b, a.udp(ROUTER, 68, 67, header + options))
    if len(discovery) >= 8:
        check(world, a, b, NOTHING + b"\x33\x33\0\0\0\1" + a.mac + b"\x86\xdd" + packet(own, ipv6.ALL_NODES, discovery))
    world.network.deliver(a.interface, FAR, a.address, 1, [discovery.ljust(8, b"\0")])
    world.network.unreachable(a.interface, discovery, 1)
    a.hears_messages()


_ADDRESSES = ("10.77.1.5", "10.77.2.5", "10.77.3.5", "10.77.9.9")
_TARGETS = st.sampled_from(["local", "internet", "nowhere", "nat:n", "nat:none"]) | st.sampled_from(_ADDRESSES).map(
    lambda address: f"address:{address}"
)
_ROUTES = st.lists(
    st.tuples(st.sampled_from(["0.0.0.0/0", "10.77.0.0/16", "10.77.2.0/24", "93.184.0.0/16"]), _TARGETS), max_size=4
).map(lambda found: tuple(Route(*one) for one in dict(found).items()))
_RULES = st.lists(
    st.builds(
        AccessRule,
        st.sampled_from(["in", "out"]),
        st.booleans(),
        st.sampled_from(["0.0.0.0/0", "10.77.1.0/24"]),
        st.sampled_from([None, 1, 6, 17]),
    ),
    max_size=4,
).map(tuple)
_PLANS = st.builds(
    lambda tables, lists, public: plan_of(
        Topology(
            blocks=("10.77.0.0/16",),
            subnets=tuple(SubnetPlan(f"10.77.{number}.0/24", f"t{number}", f"l{number}") for number in (1, 2, 3)),
            route_tables={f"t{number + 1}": routes for number, routes in enumerate(tables)},
            access_lists={f"l{number + 1}": rules for number, rules in enumerate(lists)},
            gateways={"n": NatGateway("10.77.3.0/24", "10.77.3.9", public)},
        )
    ),
    st.tuples(_ROUTES, _ROUTES, _ROUTES),
    st.tuples(_RULES, _RULES, _RULES),
    st.sampled_from([None, "127.64.0.1"]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            _PLANS | st.none(),
            st.integers(0, 21),
            st.lists(MUTATION, max_size=2),
            st.booleans(),
            st.sampled_from([None, "127.64.0.5"]),
        ),
        min_size=1,
        max_size=15,
    ),
    st.booleans(),
)
def test_in_a_planned_network_nothing_raises_and_only_what_is_from_its_own_address_goes_out(
    conversation: list[tuple[Plan | None, int, list[tuple[str, int, int]], bool, str | None]], checked: bool
) -> None:
    world = World(NetworkConfig(flows=8))
    a, b, c = (
        world.machine(name, subnet=Subnet(0x0A4D0000 | number << 8, 24), address=0x0A4D0005 | number << 8)
        for name, number in (("a", 1), ("b", 2), ("c", 3))
    )
    for one in (a, b, c):
        world.network.set_source_dest_check(one.interface, checked)
    router = world.network._router.mac
    said = [frame[:12] + router + frame[18:] for frame in frames(a, b)]
    for plan, which, mutations, mend, public in conversation:
        if plan is not None:
            world.network.set_plan(plan)
        world.network.set_public_address(a.interface, public)
        a.says(mutated(said[which], mutations, mend))
        b.says(b.tcp(a, 22, 40000, SYN | ACK)[:12] + router + b.tcp(a, 22, 40000, SYN | ACK)[18:])
        for out in world.outside.hears():
            assert out.source in (a.address, b.address)
        world.network.deliver(a.interface, FAR, a.address, 17, [struct.pack(">HHHH", 53, 1000, 8, 0)])
        for one in (a, b, c):
            for heard in one.hears_messages():
                assert heard[12:18] in (one.mac, b"\xff" * 6) or heard[12:14] == b"\x33\x33"
        world.passes(0.5)
    for one in (a, b, c):
        assert len(one.interface.flows) <= 8
