"""The host is not the guest's to attack: each way to it is tried, and none answers. What the owner opened does."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.errors import HostError
from celaje.network import icmp, messages
from celaje.network.destinations import Destinations, Refusal
from celaje.network.routing_table import RouteType, RoutingTable
from celaje.network.subnet import Blocks, Subnet
from tests.network.attached_guest import AttachedGuest, attach_request
from tests.network.guest import ROUTER, Guest
from tests.network.local_network import LocalNetwork, local_network
from tests.network.test_nat_datagrams import pair


def number(text: str) -> int:
    return int(ipaddress.IPv4Address(text))


def own_addresses() -> list[str]:
    """Those that the host's kernel lists for its interfaces."""
    table = Path("/proc/net/fib_trie").read_text().splitlines()
    found = {before.split()[-1] for before, line in itertools.pairwise(table) if "/32 host LOCAL" in line}
    return sorted(found)


@pytest.mark.parametrize(
    ("address", "refusal"),
    [
        ("127.0.0.1", Refusal.LOOPBACK),
        ("127.255.255.254", Refusal.LOOPBACK),
        ("0.0.0.0", Refusal.THIS_NETWORK),
        ("0.1.2.3", Refusal.THIS_NETWORK),
        ("169.254.169.254", Refusal.LINK_LOCAL),
        ("169.254.0.1", Refusal.LINK_LOCAL),
        ("100.100.100.200", Refusal.PROVIDER),
        ("168.63.129.16", Refusal.PROVIDER),
        ("192.0.0.192", Refusal.PROVIDER),
        ("224.0.0.1", Refusal.MULTICAST),
        ("239.255.255.255", Refusal.MULTICAST),
        ("240.0.0.1", Refusal.RESERVED),
        ("255.255.255.255", Refusal.RESERVED),
        ("10.77.0.1", Refusal.INSIDE),
        ("10.77.255.255", Refusal.INSIDE),
        ("10.76.255.255", None),
        ("8.8.8.8", None),
        ("100.100.100.201", None),
    ],
)
def test_each_kind_of_address_has_its_answer(address: str, refusal: Refusal | None) -> None:
    destinations = Destinations(Blocks([Subnet(number("10.77.0.0"), 16)]), lambda _: RouteType.UNICAST)
    assert destinations.refusal(number(address)) is refusal


@pytest.mark.parametrize(
    ("route", "refusal"),
    [
        (RouteType.UNICAST, None),
        (RouteType.UNREACHABLE, None),
        (RouteType.LOCAL, Refusal.HOST),
        (RouteType.ANYCAST, Refusal.HOST),
        (RouteType.BROADCAST, Refusal.RESERVED),
        (RouteType.MULTICAST, Refusal.MULTICAST),
    ],
)
def test_what_the_hosts_routes_say_counts(route: RouteType, refusal: Refusal | None) -> None:
    assert Destinations(Blocks([]), lambda _: route).refusal(number("8.8.8.8")) is refusal


@pytest.mark.parametrize("error", [HostError("the kernel does not say"), OSError(errno.ENOBUFS, "no room")])
def test_where_the_kernel_does_not_answer_nothing_is_reached(error: Exception) -> None:
    def fails(address: int) -> RouteType:
        raise error

    destinations = Destinations(Blocks([Subnet(number("10.77.0.0"), 16)]), fails)
    assert destinations.refusal(number("8.8.8.8")) is Refusal.UNKNOWN


def test_the_routing_table_knows_every_address_of_this_host() -> None:
    routes = RoutingTable()
    addresses = own_addresses()
    assert "127.0.0.1" in addresses
    for address in addresses:
        assert routes.type_of(number(address)) is RouteType.LOCAL
    assert routes.type_of(number("127.9.9.9")) is RouteType.LOCAL
    routes.close()


@pytest.fixture
def attached(runtime: object) -> Iterator[tuple[LocalNetwork, AttachedGuest]]:
    with local_network() as network:
        yield network, network.attach(attach_request())


class Trap:
    """A server on every address of the host, TCP and UDP, at one port. It must hear nothing."""

    def __init__(self) -> None:
        self.tcp, self.udp = pair("0.0.0.0")
        self.port = self.tcp.getsockname()[1]
        self.tcp.setblocking(False)

    def assert_quiet(self) -> None:
        with pytest.raises(BlockingIOError):
            self.tcp.accept()
        with pytest.raises(BlockingIOError):
            self.udp.recv(1)

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()


def tried(network: LocalNetwork, guest: Guest, address: int, port: int) -> None:
    """The guest tries TCP, UDP and echo."""
    guest.icmp.clear()
    stream = guest.connect(address, port)
    guest.datagram(address, port, b"hello")
    guest.ping(address, 7, 1)
    network.turns(10)
    assert not stream.established
    stream.abort()
    assert not guest.datagrams
    assert not any(one.kind == icmp.ECHO_REPLY for one in guest.icmp)


def probed() -> list[str]:
    """Every way to this host that its addresses are, and those that are no unicast address at all."""
    fixed = [
        "127.0.0.1",
        "127.1.2.3",
        "127.255.255.254",
        "0.0.0.0",
        "0.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
    ]
    return [*fixed, *(one for one in own_addresses() if one not in fixed)]


@pytest.mark.parametrize("address", probed())
def test_no_server_of_the_hosts_is_reached_by_any_of_its_addresses(
    attached: tuple[LocalNetwork, AttachedGuest], address: str
) -> None:
    network, machine = attached
    trap = Trap()
    tried(network, machine.guest, number(address), trap.port)
    trap.assert_quiet()
    trap.close()
    assert "TCP connections" not in network.tables()
    assert "UDP flows" not in network.tables()


def test_a_real_metadata_service_is_not_reached(attached: tuple[LocalNetwork, AttachedGuest]) -> None:
    """169.254.169.254 is the network's own; where it has nothing to tell, nobody answers, least of all the host's."""
    network, machine = attached
    stream = machine.guest.connect(number("169.254.169.254"), 80)
    network.until(lambda: stream.closed or machine.guest.icmp)
    assert not stream.established


def test_the_router_has_no_port_but_those_that_were_opened(attached: tuple[LocalNetwork, AttachedGuest]) -> None:
    network, machine = attached
    trap = Trap()
    for address in (ROUTER, ROUTER + 1):
        stream = machine.guest.connect(address, trap.port)
        network.until(lambda stream=stream: stream.closed)
        assert not stream.established
    machine.guest.datagram(ROUTER, trap.port, b"hello")
    network.until(lambda: machine.guest.icmp)
    assert (machine.guest.icmp[0].kind, machine.guest.icmp[0].code) == (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)
    trap.assert_quiet()
    trap.close()


def test_a_refusal_is_told_to_the_guest_and_counted(attached: tuple[LocalNetwork, AttachedGuest]) -> None:
    network, machine = attached
    machine.guest.datagram(number("127.0.0.1"), 53, b"hello")
    network.until(lambda: machine.guest.icmp)
    told = machine.guest.icmp[0]
    assert (told.source, told.kind, told.code) == (ROUTER, icmp.UNREACHABLE, icmp.ADMINISTRATIVELY_PROHIBITED)
    assert network.counters()["packets refused: the host's loopback"] == 1


def test_celajes_own_sockets_are_not_reached(attached: tuple[LocalNetwork, AttachedGuest]) -> None:
    """Forwards and public ports are the host's, and lead to other machines only for those who may use the host."""
    network, machine = attached
    forward = messages.Forward("tcp", "127.0.0.1", 0, 22)
    other = network.attach(attach_request("db", 2, forwards=(forward,), public_address="127.44.0.9"))
    accepted: list[object] = []
    other.guest.listen(22, accepted.append)
    for port in {one.host_port for one in other.attached.ports}:
        for address in ("127.0.0.1", "127.44.0.9"):
            tried(network, machine.guest, number(address), port)
    assert not accepted


def test_a_single_opened_port_is_reached_and_its_neighbours_are_not(runtime: object) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with local_network() as network:
        port = server.getsockname()[1]
        machine = network.attach(attach_request(host_ports=(messages.HostPort("tcp", port, 8080),)))
        stream = machine.guest.connect(ROUTER, 8080)
        network.until(lambda: stream.established)
        for other in (8079, 8081, port):
            refused = machine.guest.connect(ROUTER, other)
            network.until(lambda refused=refused: refused.closed)
            assert not refused.established
    server.close()


def test_a_service_has_its_one_address_inside_the_network(runtime: object) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with local_network() as network:
        service = messages.Service("169.254.169.250", 4566, "127.0.0.1", server.getsockname()[1])
        machine = network.attach(attach_request(services=(service,)))
        stream = machine.guest.connect(number("169.254.169.250"), 4566)
        network.until(lambda: stream.established)
        refused = machine.guest.connect(number("169.254.169.250"), 4567)
        network.until(lambda: refused.closed or machine.guest.icmp)
        assert not refused.established
    server.close()


def test_a_change_of_rules_does_not_cut_what_is_beyond_rules(runtime: object) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    only_web = messages.SecurityGroup("g", (messages.Rule("out", "tcp", first_port=80, last_port=80),))
    with local_network() as network:
        service = messages.Service("169.254.169.250", 4566, "127.0.0.1", server.getsockname()[1])
        machine = network.attach(attach_request(groups=(only_web,), services=(service,)))
        stream = machine.guest.connect(number("169.254.169.250"), 4566)
        network.until(lambda: stream.established)
        network.request(messages.Update(interface="web", groups=(only_web,)))
        accepted, _ = server.accept()
        stream.write(b"still here")
        accepted.setblocking(False)
        got = bytearray()

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.extend(accepted.recv(100))
            return len(got) >= len(b"still here")

        network.until(came)
        assert got == b"still here"
        accepted.close()
    server.close()
