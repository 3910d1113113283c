"""Public addresses of 127/8: which ports are listened on, where, and who is let in."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.network import messages
from celaje.network.host_listeners import listening, nearest_listening, wildcard_ports
from celaje.network.messages import PublicPort, Rule, SecurityGroup
from celaje.network.public_ports import LOOPBACK, WIDE, AdmittedPorts, admitted_ports
from celaje.network.subnet import Blocks, Subnet
from tests.network.attached_guest import AttachedGuest, attach_request
from tests.network.guest import ROUTER, Stream
from tests.network.local_network import LocalNetwork, local_network

# No other run of these tests has its ports there. The last one is of those that a cloud chooses.
ADDRESS, NEIGHBOUR, OTHER = (
    str(ipaddress.IPv4Address(first + os.getpid() % (1 << 20))) for first in (0x7F800000, 0x7F900000, 0x7F600000)
)
SUBNET = Blocks([Subnet(0x0A4D0000, 16)])


def group(*rules: Rule) -> tuple[SecurityGroup, ...]:
    return (SecurityGroup("g", (*rules, Rule("out", "any"))),)


def test_the_ports_of_a_rule_are_listened_on_if_they_are_few() -> None:
    rules = [Rule("in", "tcp", first_port=80, last_port=81), Rule("in", "udp", first_port=53, last_port=53)]
    assert admitted_ports(rules, SUBNET).narrow == {("tcp", 80), ("tcp", 81), ("udp", 53)}


@pytest.mark.parametrize(
    "rule",
    [
        Rule("out", "tcp", first_port=80, last_port=80),
        Rule("in", "icmp"),
        Rule("in", "tcp", "group:web", 80, 80),
        Rule("in", "tcp", "10.77.3.0/24", 80, 80),  # nobody outside is there
        Rule("in", "udp"),  # that many ports cannot be probed
    ],
)
def test_rules_that_are_not_about_ports_from_outside_open_none(rule: Rule) -> None:
    admitted = admitted_ports([rule], SUBNET)
    assert not admitted.narrow
    assert not admitted.wide


def test_a_rule_is_wide_beyond_256_ports() -> None:
    narrow = admitted_ports([Rule("in", "tcp", first_port=1000, last_port=1000 + WIDE - 1)], SUBNET)
    wide = admitted_ports([Rule("in", "tcp", "192.0.2.0/24", 1000, 1000 + WIDE)], SUBNET)
    assert len(narrow.narrow) == WIDE
    assert wide.wide == ((1000, 1256, int(ipaddress.IPv4Address("192.0.2.0"))),)
    assert admitted_ports([Rule("in", "any")], SUBNET).wide == ((0, 65535, 0),)


def test_many_narrow_rules_become_wide_ones() -> None:
    rules = [Rule("in", "tcp", first_port=at, last_port=at + 99) for at in range(10_000, 12_000, 100)]
    admitted = admitted_ports([*rules, Rule("in", "tcp", first_port=22, last_port=22)], SUBNET)
    assert admitted.narrow == {("tcp", 22)}
    assert len(admitted.wide) == len(rules)


def test_at_an_address_of_127_8_only_rules_count_that_are_about_clients_of_127_8() -> None:
    rules = [
        Rule("in", "tcp", first_port=22, last_port=22),
        Rule("in", "tcp", "127.0.0.1/32", 80, 80),
        Rule("in", "tcp", "10.0.0.0/8", 5432, 5432),
        Rule("in", "tcp", "192.0.2.0/24"),
    ]
    assert admitted_ports(rules, SUBNET, LOOPBACK) == AdmittedPorts(frozenset({("tcp", 22), ("tcp", 80)}), ())
    assert ("tcp", 5432) in admitted_ports(rules, SUBNET).narrow


# Listening on the host.


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if ports below 1024 could not be bound."""
    from celaje.network import host_listeners

    def refusing(protocol: messages.Transport, address: str, port: int) -> socket.socket:
        if port < 1024:
            raise PermissionError(13, "Permission denied")
        return listening(protocol, address, port)

    monkeypatch.setattr(host_listeners, "listening", refusing)


def test_a_port_without_the_right_to_it_is_served_at_another(unprivileged: None) -> None:
    held = nearest_listening("tcp", ADDRESS, 25)
    with held.socket:
        assert held.port == 10_025
        assert "takes the right CAP_NET_BIND_SERVICE" in held.reason


def test_the_substitute_is_the_same_every_time_and_the_next_if_that_is_taken(unprivileged: None) -> None:
    ports = []
    for _ in range(2):
        with nearest_listening("tcp", ADDRESS, 25).socket as made:
            ports.append(made.getsockname()[1])
    assert ports == [10_025, 10_025]
    with nearest_listening("tcp", ADDRESS, 25).socket, nearest_listening("tcp", ADDRESS, 25).socket as second:
        assert second.getsockname()[1] == 20_025


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
def test_a_program_that_has_the_port_of_every_address_keeps_it(protocol: messages.Transport, everywhere: str) -> None:
    family = socket.AF_INET6 if ":" in everywhere else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as held:
        held.bind((everywhere, 0))
        if protocol == "tcp":
            held.listen()
        port = held.getsockname()[1]
        assert port in wildcard_ports(protocol)
        served = nearest_listening(protocol, ADDRESS, port)
        with served.socket:
            assert served.port != port
            assert served.reason == f"a program of the host has {protocol} port {port} of every address"
    assert port not in wildcard_ports(protocol)


def test_a_program_that_has_the_port_of_this_address_keeps_it() -> None:
    with socket.create_server((ADDRESS, 0)) as held:
        port = held.getsockname()[1]
        served = nearest_listening("tcp", ADDRESS, port)
        with served.socket:
            assert served.reason == f"another program has tcp port {port} of this address"


def test_wildcard_listeners_are_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1F90 00000000:0000 0A\n"  # 127.0.0.1:8080 listens
        "   1: 00000000:0016 00000000:0000 0A\n"  # 0.0.0.0:22 listens
        "   2: 00000000:0017 00000000:0000 01\n"  # established
    )
    (tmp_path / "tcp6").write_text(
        "  sl  local_address rem_address   st\n"
        "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A\n"
        "   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A\n"
    )
    assert wildcard_ports("tcp", tmp_path) == {22, 80}


# With a guest.


@pytest.fixture
def network(runtime: object) -> Iterator[LocalNetwork]:
    with local_network() as made:
        yield made


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as made:
        return int(made.getsockname()[1])


def listed(network: LocalNetwork) -> tuple[PublicPort, ...]:
    answer = network.request(messages.ListInterfaces())
    assert isinstance(answer, messages.InterfaceList)
    return answer.interfaces[0].ports


def connected(network: LocalNetwork, address: str, port: int) -> socket.socket:
    made = socket.create_connection((address, port))
    made.setblocking(False)
    return made


def read(network: LocalNetwork, connection: socket.socket) -> bytes:
    held: list[bytes] = []

    def came() -> bool:
        try:
            held.append(connection.recv(100))
        except BlockingIOError:
            return False
        return True

    network.until(came)
    return held[0]


def attached(network: LocalNetwork, *rules: Rule, **more: object) -> AttachedGuest:
    return network.attach(attach_request(groups=group(*rules), public_address=ADDRESS, **more))


def test_a_port_of_the_public_address_leads_to_the_guest(network: LocalNetwork) -> None:
    port = free_port()
    machine = attached(network, Rule("in", "tcp", first_port=port, last_port=port))
    assert machine.attached.ports == (PublicPort("tcp", port, ADDRESS, port),)
    accepted: list[Stream] = []
    machine.guest.listen(port, accepted.append)
    with connected(network, ADDRESS, port) as client:
        network.until(lambda: accepted and accepted[0].established)
        assert accepted[0].remote[0] == ROUTER
        accepted[0].write(b"welcome")
        assert read(network, client) == b"welcome"


def test_rules_are_about_the_clients_real_address(network: LocalNetwork) -> None:
    port = free_port()
    machine = attached(network, Rule("in", "tcp", "127.0.0.7/32", port, port))
    accepted: list[Stream] = []
    machine.guest.listen(port, accepted.append)
    for address, admitted in (("127.0.0.7", True), ("127.0.0.8", False)):
        with socket.socket() as client:
            client.bind((address, 0))
            client.connect((ADDRESS, port))
            client.setblocking(False)
            if admitted:
                network.until(lambda: accepted)
            else:
                assert read(network, client) == b""
    assert len(accepted) == 1


def test_a_port_that_rules_no_more_admit_is_not_listened_on(network: LocalNetwork) -> None:
    with socket.create_server((ADDRESS, 0)) as one, socket.create_server((ADDRESS, 0)) as other:
        first, second = one.getsockname()[1], other.getsockname()[1]
    attached(network, Rule("in", "tcp", first_port=first, last_port=first))
    update = messages.Update(interface="web", groups=group(Rule("in", "tcp", first_port=second, last_port=second)))
    answer = network.request(update)
    assert isinstance(answer, messages.Updated)
    assert [one.guest_port for one in answer.ports] == [second]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((ADDRESS, first))
    socket.create_connection((ADDRESS, second)).close()


def test_the_substitute_of_a_port_is_listed_with_its_reason(network: LocalNetwork) -> None:
    with socket.create_server(("0.0.0.0", 0)) as held:
        port = held.getsockname()[1]
        machine = attached(network, Rule("in", "tcp", first_port=port, last_port=port))
        one = machine.attached.ports[0]
        assert (one.guest_port, one.host_address) == (port, ADDRESS)
        assert one.host_port != port
        assert "of every address" in one.reason
        accepted: list[Stream] = []
        machine.guest.listen(port, accepted.append)
        with connected(network, ADDRESS, one.host_port):
            network.until(lambda: accepted)


def test_an_address_that_is_not_the_hosts_is_refused_by_name(network: LocalNetwork) -> None:
    answer = network.request(
        attach_request(groups=group(Rule("in", "tcp", first_port=80, last_port=80)), public_address="198.51.100.9")
    )
    assert isinstance(answer, messages.Refused)
    assert "198.51.100.9" in answer.reason
    assert network.tables() == {"watched descriptors": 2}


def test_two_machines_have_the_same_port_of_their_own_addresses(network: LocalNetwork) -> None:
    port = free_port()
    rules = group(Rule("in", "tcp", first_port=port, last_port=port))
    first = network.attach(attach_request(groups=rules, public_address=ADDRESS))
    second = network.attach(attach_request("db", 2, groups=rules, public_address=NEIGHBOUR))
    for machine in (first, second):
        accepted: list[Stream] = []
        machine.guest.listen(port, accepted.append)
        with connected(network, machine.attached.public_address or "", port):
            network.until(lambda accepted=accepted: accepted)


# Wide rules.


def test_a_wide_rule_listens_only_where_the_guest_answers(network: LocalNetwork) -> None:
    if 8080 in wildcard_ports("tcp") or 9090 in wildcard_ports("tcp"):
        pytest.skip("a program of this host has port 8080 or 9090")
    machine = attached(network, Rule("in", "tcp", "192.0.2.0/24"), Rule("in", "tcp", "127.0.0.0/8"))
    assert machine.attached.ports == ()
    accepted: list[Stream] = []
    machine.guest.listen(8080, accepted.append)
    network.until(lambda: [one.guest_port for one in listed(network)] == [8080])
    probes = len(accepted)
    network.until(lambda: not machine.guest.streams)  # the probe's connection is reset
    with connected(network, ADDRESS, 8080) as client:
        network.until(lambda: any(one.established for one in accepted[probes:]))  # and no further probe's
        next(one for one in accepted[probes:] if one.established).write(b"hello")
        assert read(network, client) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((ADDRESS, 8081))


def test_a_port_that_the_guest_closes_is_no_more_listened_on(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    if 9090 in wildcard_ports("tcp"):
        pytest.skip("a program of this host has port 9090")
    monkeypatch.setattr("celaje.network.port_probe.COMMON_SECONDS", 0.05)
    machine = attached(network, Rule("in", "tcp"))
    machine.guest.listen(9090)
    network.until(lambda: [one.guest_port for one in listed(network)] == [9090])
    del machine.guest.listening[9090]
    network.until(lambda: not listed(network))


def test_probing_leaves_no_flows_behind(network: LocalNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celaje.network.port_probe.BATCH_SECONDS", 0.0)
    machine = attached(network, Rule("in", "tcp", first_port=20_000, last_port=21_000))
    machine.guest.listen(20_500)
    network.until(lambda: listed(network))
    monkeypatch.setattr("celaje.network.port_probe.BATCH_SECONDS", 100.0)
    monkeypatch.setattr("celaje.network.port_probe.LATER_SECONDS", 100.0)

    def tracked() -> int:
        statistics = network.request(messages.Measure())
        assert isinstance(statistics, messages.Statistics)
        return statistics.interfaces["web"]["tracked flows"]

    network.until(lambda: tracked() <= 1)
    network.request(messages.Update(interface="web", groups=group()))
    network.until(lambda: "TCP connections" not in network.tables())
    assert not listed(network)


# Another address while it runs.


def update(network: LocalNetwork, **more: object) -> messages.Updated:
    answer = network.request(messages.Update(interface="web", **more))  # type: ignore[arg-type]
    assert isinstance(answer, messages.Updated), answer
    return answer


def test_a_public_address_is_replaced_while_the_machine_runs_and_the_former_ones_clients_are_cut(
    network: LocalNetwork,
) -> None:
    port = free_port()
    machine = attached(network, Rule("in", "tcp", first_port=port, last_port=port))
    accepted: list[Stream] = []
    machine.guest.listen(port, accepted.append)
    with connected(network, ADDRESS, port) as client:
        network.until(lambda: accepted and accepted[0].established)
        answer = update(network, public_address=OTHER)
        assert (answer.cut, answer.ports) == (1, (PublicPort("tcp", port, OTHER, port),))
        with pytest.raises(ConnectionResetError):
            read(network, client)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((ADDRESS, port))
    with connected(network, OTHER, port) as client:
        network.until(lambda: len(accepted) == 2 and accepted[1].established)
        accepted[1].write(b"moved")
        assert read(network, client) == b"moved"
    assert update(network, public_address=OTHER).cut == 0
    assert [one.host_address for one in listed(network)] == [OTHER]


def test_a_public_address_is_taken_away_and_given_again(network: LocalNetwork) -> None:
    port = free_port()
    machine = attached(network, Rule("in", "tcp", first_port=port, last_port=port))
    assert update(network, public_address=None).ports == ()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((ADDRESS, port))
    assert update(network, groups=group(Rule("in", "tcp", first_port=port, last_port=port + 1))).ports == ()
    machine.guest.listen(port + 1)
    assert [one.guest_port for one in update(network, public_address=OTHER).ports] == [port, port + 1]
    connected(network, OTHER, port).close()


def test_an_address_that_another_machine_lets_go_of_later_is_the_machines_with_its_own_port(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celaje.network.public_ports.FIRST_AGAIN_SECONDS", 0.01)
    port = free_port()
    rule = Rule("in", "tcp", first_port=port, last_port=port)
    attached(network, rule)
    machine = network.attach(attach_request("other", 2, groups=group(rule), public_address=ADDRESS))
    [there] = machine.attached.ports
    assert (there.host_address, there.reason) == (ADDRESS, f"another program has tcp port {port} of this address")
    accepted: list[Stream] = []
    machine.guest.listen(port, accepted.append)
    with connected(network, ADDRESS, there.host_port) as client:
        network.until(lambda: accepted and accepted[0].established)
        update(network, public_address=OTHER)
        network.until(lambda: socket_of(network, "other") == (ADDRESS, port))
        accepted[0].write(b"connected still")
        assert read(network, client) == b"connected still"
    connected(network, ADDRESS, port).close()
    network.until(lambda: len(accepted) == 2)


def socket_of(network: LocalNetwork, name: str) -> tuple[str, int]:
    answer = network.request(messages.ListInterfaces())
    assert isinstance(answer, messages.InterfaceList)
    [port] = next(one.ports for one in answer.interfaces if one.interface == name)
    return port.host_address, port.host_port


def test_clients_of_a_forward_stay_when_the_public_address_goes(network: LocalNetwork) -> None:
    port = free_port()
    forward = messages.Forward("tcp", "127.0.0.1", 0, port)
    machine = attached(network, Rule("in", "tcp", first_port=port, last_port=port), forwards=(forward,))
    [there] = [one for one in machine.attached.ports if one.forward]
    accepted: list[Stream] = []
    machine.guest.listen(port, accepted.append)
    with connected(network, "127.0.0.1", there.host_port) as client:
        network.until(lambda: accepted and accepted[0].established)
        assert update(network, public_address=None).cut == 0
        accepted[0].write(b"still here")
        assert read(network, client) == b"still here"


def test_ports_that_the_guest_opened_under_a_wide_rule_move_with_the_address(network: LocalNetwork) -> None:
    if 8080 in wildcard_ports("tcp"):
        pytest.skip("a program of this host has port 8080")
    machine = attached(network, Rule("in", "tcp", "127.0.0.0/8"))
    machine.guest.listen(8080)
    network.until(lambda: listed(network))
    update(network, public_address=None)
    assert listed(network) == ()
    assert update(network, public_address=OTHER).ports == (PublicPort("tcp", 8080, OTHER, 8080),)


def test_a_port_that_cannot_be_had_at_an_address_of_the_clouds_choice_is_served_at_another(
    network: LocalNetwork, unprivileged: None
) -> None:
    attached(network, Rule("in", "tcp", first_port=25, last_port=25))
    [port] = update(network, public_address=OTHER).ports
    assert (port.guest_port, port.host_address, port.host_port) == (25, OTHER, 10_025)
    assert "CAP_NET_BIND_SERVICE" in port.reason
