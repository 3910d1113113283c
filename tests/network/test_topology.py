"""Planned networks on real sockets: what their file says holds when they start and whenever it changes, and whose name
connections go out in."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from celaje.errors import InputError
from celaje.network import client, messages
from celaje.network.messages import NetworkSettings, Rule, SecurityGroup, Service
from celaje.network.topology import (
    AccessRule,
    DhcpOptions,
    NatGateway,
    Route,
    SubnetPlan,
    Topology,
    forget_topology,
    keep_topology,
    read_topology,
    topology_file,
)
from tests.network.attached_guest import AttachedGuest, attach_request
from tests.network.local_network import LocalNetwork, local_network

SETTINGS = NetworkSettings(name="test", planned=True)
FAR = 0xCB007105  # 203.0.113.5
LOCAL, OUT = Route("10.77.0.0/16", "local"), Route("0.0.0.0/0", "internet")
ALL = (AccessRule("in", True), AccessRule("out", True))
OPEN = (SecurityGroup("open", (Rule("in", "any"), Rule("out", "any"))),)


def topology(private: str = "nat:first", **changes: object) -> Topology:
    """A subnet with a route outside, and one whose route outside is `private`."""
    made: dict[str, object] = {
        "blocks": ("10.77.0.0/16",),
        "subnets": (SubnetPlan("10.77.1.0/24", "public", "all"), SubnetPlan("10.77.2.0/24", "private", "all")),
        "route_tables": {"public": (LOCAL, OUT), "private": (LOCAL, Route("0.0.0.0/0", private))},
        "access_lists": {"all": ALL},
        "gateways": {
            "first": NatGateway("10.77.1.0/24", "10.77.1.201", "127.64.0.201"),
            "second": NatGateway("10.77.1.0/24", "10.77.1.202", "127.64.0.202"),
        },
    }
    return Topology(**{**made, **changes})  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """What is outside: on the host's loopback, and in the networks at FAR."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def network(runtime: object) -> Iterator[LocalNetwork]:
    keep_topology("test", topology())
    with local_network(SETTINGS) as made:
        yield made


def guest(network: LocalNetwork, server: socket.socket, host: str, public: str | None = None) -> AttachedGuest:
    """One at 10.77.`host`."""
    service = Service("203.0.113.5", 80, "127.0.0.1", server.getsockname()[1])
    return network.attach(
        attach_request(
            f"at-{host.replace('.', '-')}",
            int(host.partition(".")[2]),
            network=SETTINGS,
            subnet=f"10.77.{host.partition('.')[0]}.0/24",
            address=f"10.77.{host}",
            groups=OPEN,
            services=(service,),
            public_address=public,
        )
    )


def accepted(network: LocalNetwork, server: socket.socket) -> str:
    """Whom the server outside sees."""
    held: list[str] = []

    def came() -> bool:
        with contextlib.suppress(BlockingIOError):
            stream, peer = server.accept()
            stream.close()
            held.append(peer[0])
        return bool(held)

    network.until(came)
    return held[0]


def changed(network: LocalNetwork, wanted: Topology) -> None:
    keep_topology("test", wanted)
    answer = network.request(messages.ReadTopology())
    assert isinstance(answer, messages.Updated), answer


def test_connections_go_out_in_the_name_of_a_public_address_or_of_a_gateways(
    network: LocalNetwork, server: socket.socket
) -> None:
    web, data = guest(network, server, "1.5", "127.64.0.5"), guest(network, server, "2.6")
    for one, name in ((web, "127.64.0.5"), (data, "127.64.0.201")):
        stream = one.guest.connect(FAR, 80)
        assert accepted(network, server) == name
        network.until(lambda stream=stream: stream.established)


def test_a_connection_through_a_gateway_that_a_route_leaves_is_cut(
    network: LocalNetwork, server: socket.socket
) -> None:
    data = guest(network, server, "2.6")
    stream = data.guest.connect(FAR, 80)
    assert accepted(network, server) == "127.64.0.201"
    changed(network, topology("nat:second"))
    assert network.tables().get("TCP connections", 0) == 0
    data.guest.connect(FAR, 80)
    assert accepted(network, server) == "127.64.0.202"
    stream.abort()


def test_without_a_way_out_a_connection_waits_and_goes_on_when_there_is_one_again(
    network: LocalNetwork, server: socket.socket
) -> None:
    data = guest(network, server, "2.6")
    stream = data.guest.connect(FAR, 80)
    held: list[socket.socket] = []

    def came() -> bool:
        with contextlib.suppress(BlockingIOError):
            held.append(server.accept()[0])
        return bool(held)

    network.until(came)
    network.until(lambda: stream.established)
    changed(network, topology("nowhere"))
    stream.write(b"late")
    network.turns()
    held[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        held[0].recv(10)
    changed(network, topology())
    got: list[bytes] = []

    def heard() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.append(held[0].recv(10))
        return bool(got)

    network.until(heard)
    assert got == [b"late"]
    held[0].close()


def test_clients_reach_a_public_address_only_through_a_route_to_an_internet_gateway(
    network: LocalNetwork, server: socket.socket
) -> None:
    groups = (SecurityGroup("web", (Rule("in", "tcp", first_port=18_090, last_port=18_090), Rule("out", "any"))),)
    made = network.attach(
        attach_request(
            "web",
            1,
            network=SETTINGS,
            subnet="10.77.1.0/24",
            address="10.77.1.5",
            groups=groups,
            public_address="127.64.0.5",
        )
    )
    made.guest.listen(18_090)
    [port] = made.attached.ports
    tables = {"public": (LOCAL,), "private": (LOCAL,)}
    for plan, is_reached in ((topology(), True), (topology(route_tables=tables), False), (topology(), True)):
        changed(network, plan)
        with socket.create_connection((port.host_address, port.host_port)) as connection:
            connection.setblocking(False)
            ended: list[bool] = []

            def is_decided(connection: socket.socket = connection, ended: list[bool] = ended) -> bool:
                with contextlib.suppress(BlockingIOError):
                    ended.append(connection.recv(1) == b"")
                streams = made.guest.streams.values()
                return bool(ended) or any(stream.established for stream in streams)

            network.until(is_decided)
            assert bool(ended) is not is_reached
            for stream in tuple(made.guest.streams.values()):
                stream.abort()
            network.turns()


def test_machines_reach_each_others_public_addresses_as_an_internet_gateway_lets_them(
    network: LocalNetwork, server: socket.socket
) -> None:
    a, b = guest(network, server, "1.5", "127.64.0.5"), guest(network, server, "1.6", "127.64.0.6")
    data = guest(network, server, "2.7", "127.64.0.7")
    b.guest.listen(80)
    data.guest.listen(80)
    stream = a.guest.connect(0x7F400006, 80)
    network.until(lambda: stream.established)
    [met] = b.guest.streams.values()
    assert met.remote[0] == 0x7F400005
    stream.write(bytes(300_000))
    network.until(lambda: met.taken == 300_000)
    a.guest.datagram(0x7F400006, 7, b"hello")
    a.guest.ping(0x7F400006, 9, 1)
    network.until(lambda: b.guest.icmp and b.guest.datagrams)
    assert (b.guest.icmp[0].source, b.guest.datagrams[0].source) == (0x7F400005, 0x7F400005)
    closed = a.guest.connect(0x7F400007, 80)  # no way back: data has no route to an internet gateway
    network.turns()
    assert not closed.established
    tables = {"public": (LOCAL, OUT), "private": (LOCAL, OUT)}
    changed(network, topology(route_tables=tables))
    network.until(lambda: closed.established)
    b.close()
    b.gone = True
    again = a.guest.connect(0x7F400006, 81)
    network.turns()
    assert not again.established


def test_a_process_finds_its_topology_again_after_it_was_killed(runtime: object, server: socket.socket) -> None:
    wanted = topology(dhcp=DhcpOptions("corp.example"), dns=False)
    request = attach_request(
        network=SETTINGS, subnet="10.77.2.0/24", address="10.77.2.6", groups=OPEN,
        services=(Service("203.0.113.5", 80, "127.0.0.1", server.getsockname()[1]),),
    )  # fmt: skip
    client.set_topology("test", wanted)
    for _ in range(2):
        machine = AttachedGuest(request)
        stream = machine.guest.connect(FAR, 80)
        machine.until(lambda stream=stream: stream.established)
        os.kill(client.statistics("test").process, signal.SIGKILL)
        machine.until(lambda machine=machine: machine.gone)
        machine.close()
    machine = AttachedGuest(request)
    client.set_topology("test", topology("nowhere"))
    machine.guest.connect(FAR, 80)
    machine.until(lambda: client.statistics("test").interfaces["web"].get("dropped, no route"))
    assert not client.stop_unused("test")
    machine.close()
    machine.gone = True
    while not client.stop_unused("test"):
        pass


def test_a_topology_that_can_be_none_changes_nothing(network: LocalNetwork) -> None:
    wrong = topology(route_tables={"public": (Route("0.0.0.0/0", "away"),)})
    with pytest.raises(InputError, match="is no target of a route"):
        client.set_topology("test", wrong)
    assert read_topology("test") == topology()
    keep_topology("test", wrong)
    answer = network.request(messages.ReadTopology())
    assert isinstance(answer, messages.Refused)
    plan = network.process.network._switch.forwarding.plan
    assert plan is not None
    assert len(plan.borders) == 2


def test_what_is_no_file_of_a_topology_is_named(runtime: object) -> None:
    assert read_topology("test") is None
    keep_topology("test", topology())
    for text in (b"{}", b'{"version": 9}', b'{"version": 1, "topology": {"blocks": 5}}', b"\xff"):
        topology_file("test").write_bytes(text)
        with pytest.raises(InputError):
            read_topology("test")
    forget_topology("test")
    assert read_topology("test") is None
