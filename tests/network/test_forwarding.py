"""Networks with route tables, access lists and gateways: which way packets go, and which ones stay where they are."""

from __future__ import annotations

import random

import dns.message
import dns.rcode
import pytest

from celaje.errors import InputError
from celaje.network import icmp
from celaje.network.checksum import checksum
from celaje.network.forwarding import Plan
from celaje.network.network import NetworkConfig
from celaje.network.statistics import Drop
from celaje.network.subnet import Subnet
from celaje.network.topology import AccessRule, DhcpOptions, NatGateway, Route, SubnetPlan, Topology
from celaje.network.topology_plan import plan_of
from tests.network.conversation import (
    ACK,
    FAR,
    FIN,
    NOTHING,
    RST,
    SYN,
    Machine,
    World,
    ipv4_packet,
    tcp_segment,
    udp_datagram,
)
from tests.network.test_subnet import dhcp_discover, options

PUBLIC, PRIVATE, THIRD = (Subnet(0x0A000000 | number << 8, 24) for number in (1, 2, 3))
ROUTER_MAC = b"\x02\x00\x0a\x00\x00\x01"
CONFIG = NetworkConfig(subnet=0x0A000000, prefix_length=16, mtu=9001)
LOCAL = Route("10.0.0.0/16", "local")
OUT = Route("0.0.0.0/0", "internet")
ALL = (AccessRule("in", True), AccessRule("out", True))
CLIENT = 0x7F000001  # whoever connects from the host


def topology(**changes: object) -> Topology:
    """10.0.1.0/24 with a route outside, 10.0.2.0/24 and 10.0.3.0/24 without; access lists of their own."""
    made: dict[str, object] = {
        "blocks": ("10.0.0.0/16",),
        "subnets": (
            SubnetPlan("10.0.1.0/24", "public", "public"),
            SubnetPlan("10.0.2.0/24", "private", "private"),
            SubnetPlan("10.0.3.0/24", "third", "third"),
        ),
        "route_tables": {"public": (LOCAL, OUT), "private": (LOCAL,), "third": (LOCAL,)},
        "access_lists": {"public": ALL, "private": ALL, "third": ALL},
    }
    return Topology(**{**made, **changes})  # type: ignore[arg-type]


def routed(**tables: tuple[Route, ...]) -> Topology:
    return topology(route_tables={"public": (LOCAL, OUT), "private": (LOCAL,), "third": (LOCAL,), **tables})


def listed(**lists: tuple[AccessRule, ...]) -> Topology:
    return topology(access_lists={"public": ALL, "private": ALL, "third": ALL, **lists})


@pytest.fixture
def world() -> World:
    made = World(CONFIG)
    made.network.set_plan(plan_of(topology()))
    return made


def machine(world: World, name: str, subnet: Subnet, host: int = 5, **more: object) -> Machine:
    return world.machine(name, subnet=subnet, address=subnet.first + host, **more)  # type: ignore[arg-type]


@pytest.fixture
def web(world: World) -> Machine:
    """In the public subnet, with a public address."""
    made = machine(world, "web", PUBLIC)
    world.network.set_public_address(made.interface, "127.64.0.9")
    return made


@pytest.fixture
def data(world: World) -> Machine:
    return machine(world, "data", PRIVATE)


def via(sender: Machine, message: bytes) -> bytes:
    """The same message, sent to the router's MAC."""
    return message[:12] + ROUTER_MAC + message[18:]


def hello(world: World, sender: Machine, receiver: Machine, port: int = 53) -> bool:
    """Whether a datagram comes to the receiver."""
    sender.says(via(sender, sender.udp(receiver, 40_000, port, b"hello")))
    return bool(receiver.hears())


def leaves(world: World, sender: Machine, destination: int = FAR, port: int = 53) -> bool:
    """Whether a datagram goes out of the network."""
    sender.says(via(sender, sender.udp(destination, 40_000, port, b"hello")))
    return bool(world.outside.hears())


def connected(world: World, a: Machine, b: Machine, port: int = 80) -> None:
    """A connection from subnet to subnet stands."""
    a.says(via(a, a.tcp(b, 40_000, port, SYN)))
    assert len(b.hears()) == 1
    b.says(via(b, b.tcp(a, port, 40_000, SYN | ACK)))
    assert len(a.hears()) == 1
    a.says(via(a, a.tcp(b, 40_000, port, ACK)))
    assert len(b.hears()) == 1


# Routes.


def test_without_a_plan_there_is_one_route_everywhere(world: World, web: Machine, data: Machine) -> None:
    world.network.set_plan(None)
    assert hello(world, web, data)
    assert leaves(world, data)


def test_a_planned_network_of_which_nothing_is_known_lets_nothing_out_of_a_subnet(
    world: World, web: Machine, data: Machine
) -> None:
    world.network.set_plan(Plan())
    assert not hello(world, web, data)
    assert not leaves(world, web)
    assert web.dropped(Drop.NO_ROUTE) == 2
    neighbour = machine(world, "neighbour", PUBLIC, 6)
    web.says(web.udp(neighbour, 1, 2, b"hello"))
    assert len(neighbour.hears()) == 1


def test_only_who_has_a_route_to_an_internet_gateway_and_a_public_address_gets_out(
    world: World, web: Machine, data: Machine
) -> None:
    plain = machine(world, "plain", PUBLIC, 6)
    assert leaves(world, web)
    assert not leaves(world, plain)
    assert plain.dropped(Drop.NO_PUBLIC_ADDRESS) == 1
    world.network.set_public_address(data.interface, "127.64.0.8")
    assert not leaves(world, data)
    assert data.dropped(Drop.NO_ROUTE) == 1
    assert data.hears() == []  # as in EC2, nobody is told
    world.network.set_plan(plan_of(routed(private=(LOCAL, OUT))))
    assert leaves(world, data)


def test_the_longest_prefix_decides(world: World, web: Machine) -> None:
    world.network.set_plan(plan_of(routed(public=(LOCAL, OUT, Route("8.8.0.0/16", "nowhere")))))
    assert not leaves(world, web, 0x08080808)
    assert leaves(world, web, 0x08090808)
    narrower = Route("8.8.8.8/32", "internet")
    world.network.set_plan(plan_of(routed(public=(Route("8.8.0.0/16", "nowhere"), OUT, narrower, LOCAL))))
    assert leaves(world, web, 0x08080808)
    assert not leaves(world, web, 0x08080809)


def test_routes_hold_for_the_next_packet_of_a_connection_that_stands(
    world: World, web: Machine
) -> None:
    web.says(via(web, web.tcp(FAR, 40_000, 80, SYN)))
    assert world.network.deliver(web.interface, FAR, web.address, 6, [answer(FAR, 80, web, SYN | ACK)])
    web.says(via(web, web.tcp(FAR, 40_000, 80, ACK)))
    assert len(world.outside.hears()) == 2
    world.network.set_plan(plan_of(routed(public=(LOCAL,))))
    web.says(via(web, web.tcp(FAR, 40_000, 80, ACK, b"lost")))
    assert not world.network.deliver(web.interface, FAR, web.address, 6, [answer(FAR, 80, web, ACK)])
    assert world.outside.hears() == []
    assert web.dropped(Drop.NO_ROUTE) == 2
    world.network.set_plan(plan_of(topology()))
    web.says(via(web, web.tcp(FAR, 40_000, 80, ACK, b"again")))
    assert len(world.outside.hears()) == 1


def answer(source: int, port: int, receiver: Machine, flags: int) -> bytes:
    return tcp_segment(source, port, receiver.address, 40_000, flags, b"", partial=True)


def test_addresses_of_the_network_that_nobody_has_are_told_of(world: World, web: Machine) -> None:
    web.says(via(web, web.udp(PRIVATE.first + 77, 1, 2)))
    [heard] = web.hears()
    assert heard.transport[:2] == bytes((icmp.UNREACHABLE, icmp.HOST_UNREACHABLE))


def test_a_packet_from_subnet_to_subnet_has_a_hop_less_to_live(world: World, web: Machine, data: Machine) -> None:
    web.says(via(web, web.ping(data, ttl=1)))
    assert data.hears() == []
    [heard] = web.hears()
    assert heard.transport[0] == icmp.TIME_EXCEEDED
    connected(world, web, data)
    web.says(via(web, web.tcp(data, 40_000, 80, ACK, b"data")))
    assert [seen.ttl for seen in data.hears()] == [63]


# Instances that route.


def test_packets_for_others_go_to_an_interface_that_takes_them(world: World, web: Machine, data: Machine) -> None:
    box = machine(world, "box", THIRD)
    world.network.set_plan(plan_of(routed(private=(LOCAL, Route("0.0.0.0/0", "address:10.0.3.5")))))
    assert not leaves(world, data)
    assert (box.hears(), data.dropped(Drop.NOT_ITS_OWN)) == ([], 1)
    world.network.set_source_dest_check(box.interface, False)
    assert not leaves(world, data)
    [taken] = box.hears()
    assert (taken.source, taken.destination, taken.ttl) == (data.address, FAR, 63)
    back = ipv4_packet(FAR, data.address, 17, udp_datagram(FAR, 53, data.address, 40_000, b"answer"))
    box.says(NOTHING + ROUTER_MAC + box.mac + b"\x08\x00" + back)
    [heard] = data.hears()
    assert (heard.source, heard.ports) == (FAR, (53, 40_000))
    world.network.detach(box.interface)
    assert not leaves(world, data)
    assert data.dropped(Drop.NO_ROUTE) == 1


def test_who_sends_from_others_addresses_is_not_let_out_of_the_network(world: World) -> None:
    box = machine(world, "box", PUBLIC)
    world.network.set_public_address(box.interface, "127.64.0.9")
    world.network.set_source_dest_check(box.interface, False)
    packet = ipv4_packet(PRIVATE.first + 5, FAR, 17, udp_datagram(PRIVATE.first + 5, 1, FAR, 53, b""))
    box.says(NOTHING + ROUTER_MAC + box.mac + b"\x08\x00" + packet)
    to_dns = ipv4_packet(PRIVATE.first + 5, 0xA9FEA9FD, 17, udp_datagram(PRIVATE.first + 5, 1, 0xA9FEA9FD, 53, b""))
    box.says(NOTHING + ROUTER_MAC + box.mac + b"\x08\x00" + to_dns)
    assert (world.outside.hears(), box.dropped(Drop.SPOOFED)) == ([], 2)


def test_a_route_through_a_box_holds_both_ways_and_ends_with_the_route(
    world: World, web: Machine, data: Machine
) -> None:
    box = machine(world, "box", THIRD, source_dest_check=False)
    through = Route("10.0.2.0/24", "address:10.0.3.5"), Route("10.0.1.0/24", "address:10.0.3.5")
    world.network.set_plan(plan_of(routed(public=(LOCAL, through[0]), private=(LOCAL, through[1]))))

    def passed_on() -> None:
        [seen] = box.hears()
        packet = ipv4_packet(seen.source, seen.destination, seen.protocol, seen.transport)
        box.says(NOTHING + ROUTER_MAC + box.mac + b"\x08\x00" + packet)

    for sender, receiver, message in (
        (web, data, web.tcp(data, 40_000, 80, SYN)),
        (data, web, data.tcp(web, 80, 40_000, SYN | ACK)),
        (web, data, web.tcp(data, 40_000, 80, ACK)),
        (web, data, web.tcp(data, 40_000, 80, ACK, b"data")),
        (data, web, data.tcp(web, 80, 40_000, ACK, b"more")),
    ):
        sender.says(via(sender, message))
        passed_on()
        assert len(receiver.hears()) == 1
    world.network.set_plan(plan_of(topology()))
    web.says(via(web, web.tcp(data, 40_000, 80, ACK, b"direct")))
    assert (len(data.hears()), box.hears()) == (1, [])


# Access lists.


def test_a_list_holds_at_the_subnets_border_and_not_inside(world: World, web: Machine, data: Machine) -> None:
    world.network.set_plan(plan_of(listed(private=())))
    other = machine(world, "other", PRIVATE, 6)
    data.says(data.udp(other, 1, 2, b"inside"))
    data.says(via(data, data.udp(other, 3, 4, b"by way of the router")))
    assert len(other.hears()) == 2
    assert not hello(world, web, data)
    assert web.dropped(Drop.ACCESS_LIST) == 1
    assert not hello(world, data, web)
    assert data.dropped(Drop.ACCESS_LIST) == 1


def test_the_first_rule_that_matches_decides(world: World, web: Machine, data: Machine) -> None:
    deny = AccessRule("in", False, protocol=17, first_port=53, last_port=53)
    world.network.set_plan(plan_of(listed(private=(deny, *ALL))))
    assert not hello(world, web, data, 53)
    assert hello(world, web, data, 54)
    world.network.set_plan(plan_of(listed(private=(*ALL, deny))))
    assert hello(world, web, data, 53)


def test_lists_know_no_connections_so_answers_need_their_ports(world: World, web: Machine, data: Machine) -> None:
    into = AccessRule("in", True, "10.0.1.0/24", 6, 80, 80)
    back = AccessRule("out", True, "10.0.1.0/24", 6, 32_768, 65_535)
    world.network.set_plan(plan_of(listed(private=(into,))))
    web.says(via(web, web.tcp(data, 40_000, 80, SYN)))
    assert len(data.hears()) == 1
    data.says(via(data, data.tcp(web, 80, 40_000, SYN | ACK)))
    assert (web.hears(), data.dropped(Drop.ACCESS_LIST)) == ([], 1)
    world.network.set_plan(plan_of(listed(private=(into, back))))
    connected(world, web, data)
    assert not hello(world, web, data)


def test_lists_hold_at_once_for_connections_that_stand(world: World, web: Machine, data: Machine) -> None:
    connected(world, web, data)
    world.network.set_plan(plan_of(listed(private=(AccessRule("in", False, "10.0.1.5/32"), *ALL))))
    web.says(via(web, web.tcp(data, 40_000, 80, ACK, b"lost")))
    assert data.hears() == []
    data.says(via(data, data.tcp(web, 80, 40_000, ACK, b"this way is open")))
    assert len(web.hears()) == 1
    world.network.set_plan(plan_of(topology()))
    web.says(via(web, web.tcp(data, 40_000, 80, ACK, b"again")))
    assert len(data.hears()) == 1


def test_lists_tell_kinds_of_icmp_apart(world: World, web: Machine, data: Machine) -> None:
    echo = AccessRule("in", True, protocol=1, icmp_type=icmp.ECHO_REQUEST)
    world.network.set_plan(plan_of(listed(private=(echo, AccessRule("out", True)))))
    web.says(via(web, web.ping(data)))
    assert len(data.hears()) == 1
    data.says(via(data, data.pong(web)))
    assert len(web.hears()) == 1
    data.says(via(data, data.ping(web)))
    web.hears()
    web.says(via(web, web.pong(data)))
    assert (data.hears(), web.dropped(Drop.ACCESS_LIST)) == ([], 1)


def test_what_a_guest_asks_of_the_network_itself_is_beyond_lists_and_routes(world: World, data: Machine) -> None:
    world.network.set_plan(plan_of(topology(route_tables={}, access_lists={})))
    data.says(via(data, data.udp(0xA9FEA9FE, 1, 80)), via(data, data.ping(PRIVATE.router)))
    assert [packet.destination for packet in world.outside.hears()] == [0xA9FEA9FE]
    assert [seen.source for seen in data.hears()] == [PRIVATE.router]
    data.says(dhcp_discover(data))
    assert len(data.hears()) == 1


def test_lists_are_asked_about_what_leaves_the_network_and_comes_back(world: World, web: Machine) -> None:
    out = AccessRule("out", True, "8.8.8.8/32", 17, 53, 53)
    back = AccessRule("in", True, "8.8.8.8/32", 17, 40_000, 40_000)
    world.network.set_plan(plan_of(listed(public=(out,))))
    assert leaves(world, web)
    assert not leaves(world, web, port=54)
    datagram = udp_datagram(FAR, 53, web.address, 40_000, b"answer")
    assert not world.network.deliver(web.interface, FAR, web.address, 17, [datagram])
    world.network.set_plan(plan_of(listed(public=(out, back))))
    assert world.network.deliver(web.interface, FAR, web.address, 17, [datagram])


# From outside.


def test_clients_come_in_by_an_internet_gateway_only(world: World, web: Machine, data: Machine) -> None:
    world.network.set_public_address(data.interface, "127.64.0.8")

    def comes(to: Machine, beside_routes: bool = False) -> bool:
        router = to.interface.subnet.router
        return world.network.admit(to.interface, 6, CLIENT, router, 50_000, 22, beside_routes)

    assert comes(web)
    assert not comes(data)
    assert data.dropped(Drop.NO_ROUTE) == 1
    assert comes(data, beside_routes=True)
    world.network.set_plan(plan_of(listed(public=(AccessRule("in", True, "127.0.0.0/8", 6, 22, 22),))))
    assert not comes(web)  # it would hear nothing
    assert web.dropped(Drop.ACCESS_LIST) == 1
    back = AccessRule("out", True, "127.0.0.0/8", 6, 1024, 65_535)
    world.network.set_plan(plan_of(listed(public=(AccessRule("in", True, "127.0.0.0/8", 6, 22, 22), back))))
    assert comes(web)
    world.network.set_public_address(web.interface, None)
    assert not comes(web)


def test_lists_see_the_real_client_where_the_guest_sees_the_router(world: World, web: Machine) -> None:
    router = web.interface.subnet.router
    assert world.network.admit(web.interface, 17, CLIENT, router, 50_000, 53)
    datagram = udp_datagram(router, 50_000, web.address, 53, b"question")
    assert world.network.deliver(web.interface, router, web.address, 17, [datagram])
    web.says(via(web, web.udp(router, 53, 50_000, b"answer")))
    web.says(via(web, web.udp(router, 53, 50_000, b"answer")))
    assert len(world.outside.hears()) == 2
    world.network.set_plan(plan_of(listed(public=(AccessRule("in", False, "127.0.0.1/32"), *ALL))))
    assert not world.network.deliver(web.interface, router, web.address, 17, [datagram])
    world.network.set_plan(plan_of(listed(public=(AccessRule("out", False, "127.0.0.1/32"), *ALL))))
    web.says(via(web, web.udp(router, 53, 50_000, b"answer")))
    assert (world.outside.hears(), web.dropped(Drop.ACCESS_LIST)) == ([], 2)


def test_lists_hold_for_a_clients_connection_from_its_first_segment_to_its_last(world: World, web: Machine) -> None:
    router = web.interface.subnet.router
    assert world.network.admit(web.interface, 6, CLIENT, router, 40_000, 80)
    syn = tcp_segment(router, 40_000, web.address, 80, SYN, b"", partial=True)
    assert world.network.deliver(web.interface, router, web.address, 6, [syn])
    web.hears_messages()
    world.network.set_plan(plan_of(listed(public=(AccessRule("out", False, "127.0.0.1/32"), *ALL))))
    for flags in (SYN | ACK, FIN | ACK, RST):
        web.says(via(web, web.tcp(router, 80, 40_000, flags)))
    assert (world.outside.hears(), web.dropped(Drop.ACCESS_LIST)) == ([], 3)
    world.network.set_plan(plan_of(topology()))
    web.says(via(web, web.tcp(router, 80, 40_000, SYN | ACK)))
    assert len(world.outside.hears()) == 1


def test_whom_the_owner_connects_is_beyond_routes_and_lists_to_the_end(world: World, data: Machine) -> None:
    router = data.interface.subnet.router
    assert world.network.admit(data.interface, 17, CLIENT, router, 50_000, 53, beside_routes=True)
    datagram = udp_datagram(router, 50_000, data.address, 53, b"question")
    for plan in (topology(), topology(access_lists={})):
        world.network.set_plan(plan_of(plan))
        assert world.network.deliver(data.interface, router, data.address, 17, [datagram])
        data.says(via(data, data.udp(router, 53, 50_000, b"answer")))
        assert len(world.outside.hears()) == 1


# NAT gateways.

THROUGH = Route("0.0.0.0/0", "nat:nat-1")


def with_gateway(public: str | None = "127.64.0.7", **changes: object) -> Topology:
    return topology(
        **{
            "route_tables": {"public": (LOCAL, OUT), "private": (LOCAL, THROUGH), "third": (LOCAL,)},
            "gateways": {"nat-1": NatGateway("10.0.1.0/24", "10.0.1.200", public)},
            **changes,
        }
    )


def test_a_nat_gateway_lets_out_who_has_no_public_address_in_its_own_name(world: World, data: Machine) -> None:
    world.network.set_plan(plan_of(with_gateway()))
    assert leaves(world, data)
    assert world.network.leaves_as(data.interface, FAR) == "127.64.0.7"
    datagram = udp_datagram(FAR, 53, data.address, 40_000, b"answer")
    assert world.network.deliver(data.interface, FAR, data.address, 17, [datagram])
    assert not world.network.admit(data.interface, 6, CLIENT, data.interface.subnet.router, 50_000, 22)


def test_a_nat_gateway_without_a_way_out_of_its_own_lets_nobody_out(world: World, data: Machine) -> None:
    private = {"public": (LOCAL,), "private": (LOCAL, THROUGH), "third": (LOCAL,)}
    for plan in (with_gateway(None), with_gateway(route_tables=private), with_gateway(gateways={})):
        world.network.set_plan(plan_of(plan))
        assert not leaves(world, data)
    assert data.dropped(Drop.NO_ROUTE) == 3


def test_a_nat_gateways_subnet_has_borders_too(world: World, data: Machine) -> None:
    ways = {
        "to the gateway": AccessRule("in", False, "10.0.2.0/24", 17),
        "out of it": AccessRule("out", False, "8.8.8.8/32", 17),
    }
    for rule in ways.values():
        world.network.set_plan(plan_of(with_gateway(access_lists={"public": (rule, *ALL), "private": ALL})))
        assert not leaves(world, data)
    world.network.set_plan(plan_of(with_gateway()))
    assert leaves(world, data)
    datagram = udp_datagram(FAR, 53, data.address, 40_000, b"answer")
    for rule in (AccessRule("in", False, "8.8.8.8/32", 17), AccessRule("out", False, "10.0.2.0/24", 17)):
        world.network.set_plan(plan_of(with_gateway(access_lists={"public": (rule, *ALL), "private": ALL})))
        assert not world.network.deliver(data.interface, FAR, data.address, 17, [datagram])


def test_whose_name_packets_go_out_in(world: World, web: Machine, data: Machine) -> None:
    assert world.network.leaves_as(web.interface, FAR) == "127.64.0.9"
    assert world.network.leaves_as(web.interface, 0xA9FEA9FE) is None
    assert world.network.leaves_as(data.interface, FAR) is None
    world.network.set_plan(None)
    assert world.network.leaves_as(web.interface, FAR) is None


# DHCP and DNS.


def test_dhcp_tells_what_the_owner_wants_told(world: World, data: Machine) -> None:
    told = DhcpOptions("corp.example lab.example", ("10.0.2.9", "10.0.2.10"), ("10.0.2.11",), ("10.0.2.12",), 2)
    world.network.set_plan(plan_of(topology(dhcp=told)))
    data.says(dhcp_discover(data))
    found = options(data.hears()[0].transport[8:])
    assert found[15] == b"corp.example"
    assert found[119] == b"\4corp\7example\0\3lab\7example\0"
    assert found[6] == bytes((10, 0, 2, 9, 10, 0, 2, 10))
    assert (found[42], found[44], found[46]) == (bytes((10, 0, 2, 11)), bytes((10, 0, 2, 12)), b"\2")
    world.network.set_plan(plan_of(topology(dhcp=DhcpOptions(domain=""))))
    data.says(dhcp_discover(data))
    found = options(data.hears()[0].transport[8:])
    assert found[6] == bytes((10, 0, 0, 2))
    assert found.keys().isdisjoint((15, 42, 44, 46, 119))


def test_a_network_whose_name_server_is_off_refuses_questions(world: World, data: Machine) -> None:
    world.network.set_plan(plan_of(topology(dns=False)))
    query = dns.message.make_query("data.celaje.internal", "A")
    data.says(via(data, data.udp(0xA9FEA9FD, 5353, 53, query.to_wire())))
    [seen] = data.hears()
    assert dns.message.from_wire(seen.transport[8:]).rcode() == dns.rcode.REFUSED
    assert world.outside.questions == []


# What can be no plan.


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"blocks": ("10.0.0.0/16", "10.0.1.0/24")}, "overlaps"),
        ({"subnets": (SubnetPlan("10.0.1.5/24", "", ""),)}, "begins at its first address"),
        ({"route_tables": {"x": (Route("10.0.0.0/16", "vgw-1"),)}}, "is no target of a route"),
        ({"route_tables": {"x": (Route("many", "local"),)}}, "is no IPv4 network"),
        ({"access_lists": {"x": (AccessRule("in", True, protocol=6, first_port=9, last_port=8),)}}, "in order"),
        ({"dhcp": DhcpOptions("a..b")}, "the domain 'a..b' must be names"),
        ({"dhcp": DhcpOptions(name_servers=("here",))}, "here"),
    ],
)
def test_what_can_be_no_plan_is_refused_by_name(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_of(topology(**changes))


# Whatever guests send.


def test_frames_of_any_bytes_are_taken_or_dropped(world: World, web: Machine, data: Machine) -> None:
    chance = random.Random(20261126)
    box = machine(world, "box", THIRD, source_dest_check=False)
    world.network.set_plan(plan_of(with_gateway()))
    said = [
        via(web, web.tcp(data, 40_000, 80, SYN)),
        via(web, web.udp(FAR, 1, 53, b"data")),
        via(web, web.ping(data)),
        via(web, web.ip(FAR, 47, bytes(8))),
        via(web, web.ip(data.address, 1, icmp.error(icmp.UNREACHABLE, 1, bytes(28), 0))),
    ]
    for _ in range(5_000):
        message = bytearray(chance.choice(said))
        for _ in range(chance.randrange(4)):
            message[chance.randrange(len(message))] = chance.randrange(256)
        header = message[26:46]
        header[10:12] = b"\0\0"
        message[26:46] = header[:10] + checksum(bytes(header)).to_bytes(2, "big") + header[12:]
        sender = chance.choice((web, data, box))
        message[18:24] = sender.mac
        if chance.random() < 0.5:
            message[38:42] = sender.address.to_bytes(4, "big")
        sender.says(bytes(message[: chance.randrange(20, len(message) + 1)]))
    assert sum(web.interface.statistics.dropped.values()) > 0
    data.hears_messages()
    assert hello(world, web, data, 9)
