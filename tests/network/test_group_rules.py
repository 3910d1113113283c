"""Rules of a network's groups that stand in its file: they hold whoever attaches, and change for all at once."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje import paths
from celaje.errors import InputError
from celaje.network import client, messages, spawn
from celaje.network.fingerprint import fingerprint, groups_fingerprint
from celaje.network.group_file import forget_groups, group_file, keep_groups, read_groups
from celaje.network.messages import NetworkSettings, Rule, SecurityGroup
from tests.network.attached_guest import AttachedGuest, attach_request
from tests.network.guest import Stream
from tests.network.local_network import LocalNetwork, local_network

WEB = SecurityGroup("sg-web", (Rule("in", "tcp", first_port=80, last_port=80), Rule("out", "any")))
CLOSED = SecurityGroup("sg-web", (Rule("out", "any"),))
FROM_WEB = SecurityGroup("sg-data", (Rule("in", "tcp", "group:sg-web", 5432, 5432), Rule("out", "any")))


@pytest.fixture
def network(runtime: object) -> Iterator[LocalNetwork]:
    with local_network() as made:
        yield made


def named(*names: str) -> tuple[SecurityGroup, ...]:
    """Groups as a cloud's interfaces say them: their rules are in the file."""
    return tuple(SecurityGroup(name) for name in names)


def guest(network: LocalNetwork, name: str, number: int, *groups: str) -> AttachedGuest:
    return network.attach(attach_request(name, number, groups=named(*groups)))


def kept(network: LocalNetwork, *groups: SecurityGroup) -> int:
    """Writes the file and tells the network; how many flows were cut."""
    keep_groups("test", groups)
    answer = network.request(messages.ReadGroups())
    assert isinstance(answer, messages.Updated), answer
    return answer.cut


def opened(network: LocalNetwork, a: AttachedGuest, b: AttachedGuest, port: int) -> Stream:
    a.guest.gateway_mac = b.guest.mac  # on one link
    b.guest.gateway_mac = a.guest.mac
    b.guest.listen(port)
    stream = a.guest.connect(b.guest.address, port)
    return stream


def test_a_files_rules_hold_whatever_an_interface_says(network: LocalNetwork) -> None:
    kept(network, CLOSED)
    a = guest(network, "a", 1, "sg-web")
    b = network.attach(attach_request("b", 2, groups=(WEB,)))
    stream = opened(network, a, b, 80)
    network.turns()
    assert not stream.established
    kept(network, WEB)
    network.until(lambda: stream.established)


def test_flows_that_a_changed_group_admits_no_more_are_cut_for_all_members(network: LocalNetwork) -> None:
    kept(network, WEB)
    a, b, c = (guest(network, name, number, "sg-web") for number, name in enumerate(("a", "b", "c"), 1))
    streams = [opened(network, a, b, 80)]
    network.until(lambda: streams[0].established)
    c.guest.gateway_mac = a.guest.mac
    a.guest.gateway_mac = c.guest.mac
    streams.append(c.guest.connect(a.guest.address, 80))
    a.guest.listen(80)
    network.until(lambda: streams[1].established)
    assert kept(network, CLOSED) == 2
    assert kept(network, CLOSED) == 0


def test_a_group_as_a_remote_is_its_members_private_addresses(network: LocalNetwork) -> None:
    kept(network, WEB, FROM_WEB)
    web, data, other = guest(network, "web", 1, "sg-web"), guest(network, "data", 2, "sg-data"), guest(
        network, "other", 3, "sg-other"
    )
    refused = opened(network, other, data, 5432)
    network.turns()
    assert not refused.established
    admitted = opened(network, web, data, 5432)
    network.until(lambda: admitted.established)


def test_a_group_that_left_the_file_admits_nothing(network: LocalNetwork) -> None:
    kept(network, WEB)
    a, b = guest(network, "a", 1, "sg-web"), guest(network, "b", 2, "sg-web")
    stream = opened(network, a, b, 80)
    network.until(lambda: stream.established)
    assert kept(network) == 1


def test_ports_on_the_host_follow_the_files_rules(network: LocalNetwork) -> None:
    address = "127.64.3.4"
    network.attach(attach_request("a", 1, groups=named("sg-web"), public_address=address))
    rules = tuple(Rule("in", "tcp", first_port=port, last_port=port) for port in (18_080, 18_081))
    for some in (rules, rules[:1], ()):
        kept(network, SecurityGroup("sg-web", some))
        answer = network.request(messages.ListInterfaces())
        assert isinstance(answer, messages.InterfaceList)
        assert [port.guest_port for port in answer.interfaces[0].ports] == [one.first_port for one in some]


def test_a_network_that_starts_has_the_files_rules(runtime: Path) -> None:
    keep_groups("test", [WEB, FROM_WEB])
    with local_network() as network:
        answer = network.request(messages.Describe())
        assert answer == messages.Described(interfaces={}, groups=groups_fingerprint([FROM_WEB, WEB]), more=False)


def test_what_an_interface_has_is_told_as_a_fingerprint(network: LocalNetwork) -> None:
    request = attach_request("a", 1, groups=named("sg-web"))
    network.attach(request)
    network.attach(attach_request("b", 2))

    def described(interface: str | None = None) -> dict[str, str]:
        answer = network.request(messages.Describe(interface=interface))
        assert isinstance(answer, messages.Described)
        return answer.interfaces

    assert described("a") == {"a": fingerprint(request)}
    assert set(described()) == {"a", "b"}
    assert described("nobody") == {}
    wider = attach_request("a", 1, groups=named("sg-web"), network=NetworkSettings("test", ("10.0.0.0/8",)))
    assert fingerprint(wider) == fingerprint(request)
    bandwidth = messages.Bandwidth(1_000_000, None)
    network.request(messages.Update(interface="a", bandwidth=bandwidth, public_address="127.64.0.9"))
    changed = attach_request("a", 1, groups=named("sg-web"), bandwidth=bandwidth, public_address="127.64.0.9")
    assert described("a") == {"a": fingerprint(changed)} != {"a": fingerprint(request)}


def test_the_file_is_its_owners_and_is_read_as_it_was_written() -> None:
    keep_groups("vpc-1", [WEB, FROM_WEB])
    path = group_file("vpc-1")
    assert path.parent == paths.home() / "networks"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_groups("vpc-1") == (FROM_WEB, WEB)
    written = path.stat()
    keep_groups("vpc-1", [FROM_WEB, WEB])
    assert path.stat().st_ino == written.st_ino, "nothing has changed"
    forget_groups("vpc-1")
    forget_groups("vpc-1")
    assert read_groups("vpc-1") == ()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "has no security groups"),
        (b'{"version": 2, "groups": []}', "has version 2 and must have 1"),
        (b'{"version": 1, "groups": [{"name": "a", "rules": [{"direction": "up", "protocol": "tcp"}]}]}', "Inva"),
        (b'{"version": 1, "groups": [{"name": "a"}, {"name": "a"}]}', "'a' is there twice"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(content: bytes, why: str) -> None:
    path = group_file("vpc-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=why):
        read_groups("vpc-1")


@pytest.mark.parametrize(
    "rule",
    [Rule("in", "tcp", "nowhere"), Rule("in", "tcp", first_port=5, last_port=4), Rule("in", "udp", last_port=65_536)],
)
def test_a_group_that_can_be_none_is_refused_and_what_was_stays(rule: Rule) -> None:
    keep_groups("vpc-1", [WEB])
    with pytest.raises(InputError):
        keep_groups("vpc-1", [SecurityGroup("sg-web", (rule,))])
    assert read_groups("vpc-1") == (WEB,)


def test_a_network_refuses_a_file_that_is_none_and_keeps_its_rules(network: LocalNetwork) -> None:
    kept(network, WEB)
    group_file("test").write_bytes(b"{")
    answer = network.request(messages.ReadGroups())
    assert isinstance(answer, messages.Refused)
    answer = network.request(messages.Describe())
    assert isinstance(answer, messages.Described)
    assert answer.groups == groups_fingerprint([WEB])


@pytest.mark.usefixtures("runtime")
def test_groups_are_set_whether_the_network_runs_or_not() -> None:
    assert client.set_groups("test", [WEB]) == 0
    assert client.fingerprints("test") is None
    spawn.ensure_running(NetworkSettings(name="test"))
    for groups in ([WEB], [WEB, FROM_WEB], []):
        assert client.set_groups("test", groups) == 0
        found = client.fingerprints("test")
        assert found is not None
        assert found.groups == groups_fingerprint(groups)
