"""Machines of two networks of one host reach each other's public addresses, as through two internet gateways."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje import paths
from celaje.network import client, exchange, icmp
from celaje.network.messages import NetworkSettings, Rule, SecurityGroup, Update
from celaje.network.topology import AccessRule, Route, SubnetPlan, Topology
from tests.network.attached_guest import AttachedGuest, attach_request, until
from tests.network.local_network import local_network

LOCAL, OUT = Route("10.77.0.0/16", "local"), Route("0.0.0.0/0", "internet")
X, Y = "127.64.0.5", "127.64.0.6"

pytestmark = pytest.mark.usefixtures("runtime")


def number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address), "big")


def topology(*routes: Route, admits: bool = True) -> Topology:
    """One subnet with these routes."""
    return Topology(
        blocks=("10.77.0.0/16",),
        subnets=(SubnetPlan("10.77.1.0/24", "all", "all"),),
        route_tables={"all": routes},
        access_lists={"all": (AccessRule("in", admits), AccessRule("out", True))},
        gateways={},
    )


def guest(network: str, public: str | None, rule: str = "0.0.0.0/0") -> AttachedGuest:
    """One in a network of its own, at the same private address as any other, whose rules admit `rule`."""
    client.set_topology(network, topology(LOCAL, OUT))
    groups = (SecurityGroup("some", (Rule("in", "any", rule), Rule("out", "any"))),)
    return AttachedGuest(
        attach_request(
            f"of-{network}",
            network=NetworkSettings(name=network, planned=True),
            subnet="10.77.1.0/24",
            address="10.77.1.9",
            groups=groups,
            public_address=public,
        )
    )


@pytest.fixture
def both() -> Iterator[tuple[AttachedGuest, AttachedGuest]]:
    made = guest("first", X), guest("second", Y)
    yield made
    for one in made:
        one.close()
    for name in ("first", "second"):
        client.stop(name)


def test_what_one_sends_to_the_others_public_address_comes_from_its_own(
    both: tuple[AttachedGuest, AttachedGuest],
) -> None:
    x, y = both
    y.guest.listen(80)
    stream = x.guest.connect(number(Y), 80)
    until(lambda: stream.established, x, y)
    [met] = y.guest.streams.values()
    assert met.remote[0] == number(X)
    stream.write(bytes(300_000))
    met.write(bytes(200_000))
    until(lambda: met.taken == 300_000 and stream.taken == 200_000, x, y)
    x.guest.datagram(number(Y), 7, b"hello")
    x.guest.ping(number(Y), 9, 1)
    until(lambda: y.guest.icmp and y.guest.datagrams, x, y)
    assert (y.guest.icmp[0].source, y.guest.datagrams[0].source) == (number(X), number(X))
    refused = x.guest.connect(number(Y), 81)
    until(lambda: refused.closed, x, y)
    assert refused.reset


def test_rules_lists_and_routes_are_about_the_public_address(both: tuple[AttachedGuest, AttachedGuest]) -> None:
    x, y = both
    y.guest.listen(80)

    def dropped(cause: str) -> int:
        return client.statistics("second").interfaces["of-second"].get(f"dropped, {cause}", 0)

    client.set_topology("second", topology(LOCAL, OUT, admits=False))
    x.guest.ping(number(Y), 1, 1)
    until(lambda: dropped("access list"), x, y)
    client.set_topology("second", topology(LOCAL))
    x.guest.ping(number(Y), 2, 1)
    until(lambda: dropped("no route"), x, y)
    client.set_topology("second", topology(LOCAL, OUT))
    for remote, came in (("10.77.0.0/16", False), (f"{X}/32", True)):
        rules = (Rule("in", "any", remote), Rule("out", "any"))
        client.update("second", Update(interface="of-second", groups=(SecurityGroup("some", rules),)))
        x.guest.ping(number(Y), 3, 1)
        until(lambda: y.guest.icmp if came else dropped("firewall"), x, y)  # noqa: B023  # at once
    client.set_topology("first", topology(LOCAL))
    x.guest.ping(number(Y), 4, 1)
    until(lambda: client.statistics("first").interfaces["of-first"].get("dropped, no route"), x, y)


def test_an_address_that_moves_or_whose_network_has_gone_leads_where_it_is(
    both: tuple[AttachedGuest, AttachedGuest],
) -> None:
    x, y = both
    z = guest("third", None)
    directory = paths.runtime_directory() / "public"
    client.update("third", Update(interface="of-third", public_address=Y))  # before it was taken away from the second
    client.update("second", Update(interface="of-second", public_address=None))
    assert sorted(one.name for one in directory.iterdir()) == [X, Y]

    def asked(whom: AttachedGuest) -> bool:
        x.guest.ping(number(Y), 5, 1)
        return any(one.kind == icmp.ECHO_REQUEST for one in whom.guest.icmp)

    until(lambda: asked(z), x, y, z)
    assert y.guest.icmp == []
    os.kill(client.statistics("third").process, signal.SIGKILL)
    until(lambda: z.gone, x, z)
    z.close()
    assert (directory / Y).is_symlink()

    def told() -> bool:
        x.guest.ping(number(Y), 6, 1)
        return any(one.kind == icmp.UNREACHABLE for one in x.guest.icmp)

    until(told, x)
    client.update("first", Update(interface="of-first", public_address=None))
    assert [one.name for one in directory.iterdir()] == [Y]


def test_an_address_that_is_given_while_another_lets_go_of_it_stays_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with local_network(NetworkSettings(name="test", planned=True)) as network:
        here = network.process._exchange
        assert here is not None
        address, directory = number(Y), here._directory
        here._public(address, True)
        other = exchange.Exchange(network.process.loop, network.process.network, "other", network.nat.counters)
        giving = threading.Thread(target=other._public, args=(address, True))
        readlink = os.readlink

        def looked_at(path: Path) -> str:
            """Whose it was; from then on, if it can, the other network takes it."""
            found = readlink(path)
            giving.start()
            giving.join(0.5)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(os, "readlink", looked_at)
            here._public(address, False)
        giving.join()
        assert os.readlink(directory / Y) == "../net-other.peer"
        other.close()


def test_what_no_network_says_is_counted_and_goes_no_further(both: tuple[AttachedGuest, AttachedGuest]) -> None:
    x, y = both
    path = paths.runtime_directory() / "net-second.peer"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as anybody:
        anybody.connect(str(path))
        for message in (b"\0", b"\0" * 13, b"\0" * 14, bytes(8) + b"\6" + bytes(5) + b"\x45" * 4, bytes(range(200))):
            anybody.send(message)
        nobody = number(X).to_bytes(4, "big") + number("127.64.0.99").to_bytes(4, "big") + b"\x11\0\x40\0\0\0"
        anybody.send(nobody + bytes(20))
    counted = "packets of other networks to nobody"
    until(lambda: client.statistics("second").counters.get(counted), x, y)
    counters = client.statistics("second").counters
    assert counters["malformed packets of other networks"] == 5
    assert counters["callbacks that failed"] == 0
    assert Path(path).is_socket()


def test_a_network_without_descriptors_looks_for_others_again_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    accept = exchange.Exchange._accept

    def counted(self: exchange.Exchange, events: int) -> None:
        nonlocal looks
        looks += 1
        accept(self, events)

    monkeypatch.setattr(exchange.Exchange, "_accept", counted)
    monkeypatch.setattr(exchange, "PAUSE_SECONDS", 3600.0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        local_network(NetworkSettings(name="test", planned=True)) as network,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other,
    ):
        other.connect(str(exchange.peer_path("test")))
        last = os.dup(other.fileno())
        os.close(last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last, before[1]))
        try:
            network.turns(20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert looks == 1
        found = network.process._exchange
        assert found is not None
        found._loop.set(found._pause, 0.0)
        other.send(b"\0")
        network.until(lambda: network.counters().get("malformed packets of other networks"))
